package store

import (
	"context"
	"fmt"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/mpp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/copr"
)

// flash tells whether the store is one of TiFlash, which is one that is labelled so.
// TiKV has none of these calls (src/server/service/kv.rs, batch_coprocessor: its handlers
// panic; this store says Unimplemented).
func (s *Store) flash() bool {
	for _, l := range s.Topology.Labels(s.ID) {
		if l.Key == "engine" && l.Value == "tiflash" {
			return true
		}
	}
	return false
}

// streamTable lists the calls that are answered by streams.
func (s *Store) streamTable() []*streamed {
	return []*streamed{s.coprocessorStream(), s.batchCoprocessor(), s.establish()}
}

// addMPP lists the calls about tasks of TiFlash.
func (s *Store) addMPP(cs commands) {
	add(cs, command{method: "DispatchMPPTask", kind: local, flash: true}, nothing, unreachable[mpp.DispatchTaskRequest, mpp.DispatchTaskResponse], nil)
	cs.of(&mpp.DispatchTaskRequest{}).run = func(ctx context.Context, _ keys.Range, req any) any {
		return s.dispatchMPP(ctx, req.(*mpp.DispatchTaskRequest))
	}
	add(cs, command{method: "CancelMPPTask", kind: local, flash: true}, nothing, unreachable[mpp.CancelTaskRequest, mpp.CancelTaskResponse], nil)
	cs.of(&mpp.CancelTaskRequest{}).run = func(_ context.Context, _ keys.Range, req any) any {
		q := req.(*mpp.CancelTaskRequest)
		if err := copr.Check(codes.Internal, "cancel mpp task", q.Meta); err != nil {
			return failed{err}
		}
		s.mpp.Load().Cancel(q)
		return new(mpp.CancelTaskResponse)
	}
	add(cs, command{method: "IsAlive", kind: local, flash: true}, nothing,
		func(context.Context, keys.Range, *mpp.IsAliveRequest) *mpp.IsAliveResponse { return copr.Alive() }, nil)
}

// dispatchMPP answers DispatchMPPTask: the task's pairs are read before, it runs behind the
// answer's back (Flash/Mpp/MPPHandler.cpp, execute).
func (s *Store) dispatchMPP(ctx context.Context, q *mpp.DispatchTaskRequest) any {
	if err := copr.Check(codes.Canceled, "handling mpp dispatch request", q.Meta); err != nil {
		return failed{err}
	}
	resp := new(mpp.DispatchTaskResponse)
	refuse := func(err error) any {
		resp.Error = &mpp.Error{Msg: err.Error()}
		return resp
	}
	handler := s.Coprocessors[copr.DAG]
	tasks := s.server.Tasks()
	if handler == nil || tasks == nil {
		return refuse(copr.Words(fmt.Sprintf("Coprocessor request type %d is not implemented", copr.DAG)))
	}
	regions := flashRegions(q.Regions, q.TableRegions)
	local, retry := s.divide(regions)
	resp.RetryRegions = retry
	err := s.mpp.Load().Dispatch(tasks.Context(), q,
		func(run func()) bool { return tasks.Go("mpp task", func(context.Context) { run() }) },
		func(ctx context.Context) ([]byte, error) {
			pairs, err := s.flashPairs(ctx, regions, local, q.Meta.GetStartTs())
			if err != nil {
				return nil, err
			}
			return handler(ctx, q.EncodedPlan, pairs)
		})
	if err != nil {
		return refuse(err)
	}
	return resp
}

// establish is EstablishMPPConnection.
func (s *Store) establish() *streamed {
	cs := make(commands)
	add(cs, command{method: "EstablishMPPConnection", kind: local, flash: true}, nothing, unreachable[mpp.EstablishMPPConnectionRequest, mpp.MPPDataPacket], nil)
	return &streamed{cs.of(&mpp.EstablishMPPConnectionRequest{}), func(ctx context.Context, req any) messages {
		return func(yield func(any, error) bool) {
			for p, err := range s.mpp.Load().Establish(ctx, req.(*mpp.EstablishMPPConnectionRequest)) {
				if !yield(p, err) {
					return
				}
			}
		}
	}}
}

// batchCoprocessor is BatchCoprocessor: one answer for many regions (Flash/
// BatchCoprocessorHandler.cpp; Flash/Coprocessor/DAGDriver.cpp). An error is said twice, in
// a message and in the call's status.
func (s *Store) batchCoprocessor() *streamed {
	cs := make(commands)
	add(cs, command{method: "BatchCoprocessor", kind: local, flash: true}, nothing, unreachable[coprocessor.BatchRequest, coprocessor.BatchResponse], nil)
	return &streamed{cs.of(&coprocessor.BatchRequest{}), func(ctx context.Context, req any) messages {
		q := req.(*coprocessor.BatchRequest)
		return func(yield func(any, error) bool) {
			if err := s.batchAnswer(ctx, q, func(p *coprocessor.BatchResponse) bool { return yield(p, nil) }); err != nil {
				if yield(&coprocessor.BatchResponse{OtherError: err.Error()}, nil) {
					yield(nil, status.Error(codes.Internal, err.Error()))
				}
			}
		}
	}}
}

func (s *Store) batchAnswer(ctx context.Context, q *coprocessor.BatchRequest, yield func(*coprocessor.BatchResponse) bool) error {
	handler := s.Coprocessors[q.Tp]
	if q.Tp != copr.DAG || handler == nil {
		return copr.Words(fmt.Sprintf("Coprocessor request type %d is not implemented", q.Tp))
	}
	regions := flashRegions(q.Regions, q.TableRegions)
	local, retry := s.divide(regions)
	if len(retry) > 0 && !yield(&coprocessor.BatchResponse{RetryRegions: retry}) {
		return nil
	}
	pairs, err := s.flashPairs(ctx, regions, local, copr.StartTS(&coprocessor.Request{Tp: q.Tp, StartTs: q.StartTs, Data: q.Data}))
	if err != nil {
		return err
	}
	data, err := handler(ctx, q.Data, pairs)
	if err != nil {
		return err
	}
	yield(&coprocessor.BatchResponse{Data: data})
	return nil
}

// flashRegions are a request's, those of partitions after the others.
func flashRegions(plain []*coprocessor.RegionInfo, tables []*coprocessor.TableRegions) []*coprocessor.RegionInfo {
	all := append([]*coprocessor.RegionInfo{}, plain...)
	for _, t := range tables {
		all = append(all, t.GetRegions()...)
	}
	return all
}

// divide tells which of the regions the store has as they are asked for. The others it
// reads from elsewhere, and names them to its caller, as they were asked for.
func (s *Store) divide(regions []*coprocessor.RegionInfo) (local []bool, retry []*metapb.Region) {
	local = make([]bool, len(regions))
	for i, r := range regions {
		now := s.Topology.ByID(r.GetRegionId())
		if local[i] = now != nil && now.Peer(s.ID) != nil && now.Meta.RegionEpoch.GetVersion() == r.GetRegionEpoch().GetVersion(); !local[i] {
			retry = append(retry, &metapb.Region{Id: r.GetRegionId(), RegionEpoch: r.GetRegionEpoch()})
		}
	}
	return local, retry
}

// flashPairs reads the pairs of all regions, in their order.
func (s *Store) flashPairs(ctx context.Context, regions []*coprocessor.RegionInfo, local []bool, ts uint64) ([][2][]byte, error) {
	var all [][2][]byte
	for i, r := range regions {
		q := &coprocessor.Request{Tp: copr.DAG, StartTs: ts, Ranges: r.GetRanges(), Context: &kvrpcpb.Context{
			RegionId: r.GetRegionId(), RegionEpoch: r.GetRegionEpoch(), ReplicaRead: true,
		}}
		pairs, err := s.flashRegion(ctx, q, local[i])
		if err != nil {
			return nil, err
		}
		all = append(all, pairs...)
	}
	return all, nil
}

// How long TiFlash waits for a lock, and how long between two looks (its client's
// backoffer: 20 s in all). It would also settle those that expired, which is left to
// others here.
const (
	flashLockWait = 20 * time.Second
	flashLockLook = 100 * time.Millisecond
)

// flashRegion reads a region's pairs. A lock is waited for.
func (s *Store) flashRegion(ctx context.Context, q *coprocessor.Request, local bool) ([][2][]byte, error) {
	for waited := time.Duration(0); ; waited += flashLockLook {
		t, err := s.flashRead(ctx, q, local)
		if err != nil {
			return nil, err
		}
		pairs, locked, err := t.Pairs()
		if locked == nil || err != nil {
			return pairs, err
		}
		if waited >= flashLockWait {
			return nil, copr.Words(fmt.Sprintf("Key is locked (will clean up) %v", locked))
		}
		timer := time.NewTimer(flashLockLook)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// flashRead reads a local region like any replica, once the leader was asked; a region
// that is not here, or not any more, from all of the data.
func (s *Store) flashRead(ctx context.Context, q *coprocessor.Request, local bool) (*copr.Task, error) {
	if local {
		if r := s.Topology.ByID(q.Context.RegionId); r != nil {
			q.Context.Peer = r.Peer(s.ID)
		}
		if t, ok := s.once(ctx, s.commands.of(q), q).(*copr.Task); ok {
			return t, nil
		}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return s.Coprocessors.Read(ctx, copr.Region{Data: s.Txn, Now: s.Now}, q, false), nil
}
