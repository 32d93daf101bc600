package pdserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/topology"
)

// heartbeats is what processes that are not the cluster's report of regions, and the
// streams on which they do. The topology stays as it is: what agrees with it is kept, what
// does not is stale.
type heartbeats struct {
	mu      sync.Mutex
	streams map[uint64]chan *pdpb.RegionHeartbeatResponse // what goes to a store, on its last stream
	regions map[uint64]regionReport
}

// regionReport is of a region as it was then: of no other state of it.
type regionReport struct {
	of      *topology.Region
	stat    *pdpb.RegionStat
	down    []*pdpb.PeerStats
	pending []*metapb.Peer
}

// Rules of the streams (PD: pkg/schedule/hbstream/heartbeat_streams.go; server/config,
// heartbeat-stream-bind-interval).
const (
	heartbeatQueue = 1024
	heartbeatAlive = time.Minute
	heartbeatBind  = time.Minute
)

// reported is what was reported of a region as it is, nothing if nobody did.
func (h *heartbeats) reported(r *topology.Region) regionReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	if report := h.regions[r.ID()]; report.of == r {
		return report
	}
	return regionReport{}
}

// keep keeps a report, and tells whether another one was known of the same state.
func (h *heartbeats) keep(report regionReport) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.regions[report.of.ID()]
	if h.regions == nil {
		h.regions = make(map[uint64]regionReport)
	}
	h.regions[report.of.ID()] = report
	return last.of != report.of || last.stat.BytesWritten != report.stat.BytesWritten || last.stat.BytesRead != report.stat.BytesRead ||
		len(last.down) != len(report.down) || len(last.pending) != len(report.pending)
}

// forget forgets what was reported of a region.
func (h *heartbeats) forget(region uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.regions, region)
}

func (h *heartbeats) bind(store uint64, out chan *pdpb.RegionHeartbeatResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams == nil {
		h.streams = make(map[uint64]chan *pdpb.RegionHeartbeatResponse)
	}
	h.streams[store] = out
}

// unbind forgets a stream that ended.
func (h *heartbeats) unbind(out chan *pdpb.RegionHeartbeatResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for store, o := range h.streams {
		if o == out {
			delete(h.streams, store)
		}
	}
}

// bound lists the stores that a stream is bound to.
func (h *heartbeats) bound(out chan *pdpb.RegionHeartbeatResponse) (all []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for store, o := range h.streams {
		if o == out {
			all = append(all, store)
		}
	}
	return all
}

// send sends to a store, if it has a stream; one that does not read loses what is too much.
func (h *heartbeats) send(store uint64, resp *pdpb.RegionHeartbeatResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case h.streams[store] <- resp: // nil: none
	default:
	}
}

// RegionHeartbeat takes what the leaders of regions report. Only errors are answered, and
// commands, of which there are none: what an operator does to a region is done before
// anyone can report it.
func (m *Member) RegionHeartbeat(stream pdpb.PD_RegionHeartbeatServer) error {
	tasks := m.server.Tasks()
	if tasks == nil {
		return errStopping()
	}
	ctx, life := stream.Context(), m.life(stream.Context())
	s := &heartbeatStream{m: m, stream: stream, out: make(chan *pdpb.RegionHeartbeatResponse, heartbeatQueue)}
	defer m.pd.heartbeats.unbind(s.out)
	requests := make(chan heartbeatRequest)
	if !tasks.Go("region heartbeats", func(context.Context) { s.receive(requests) }) {
		return errStopping()
	}
	alive := time.NewTicker(heartbeatAlive)
	defer alive.Stop()
	for {
		var err error
		select {
		case q := <-requests:
			if q.err != nil {
				return ended(q.err)
			}
			err = m.message(ctx, "RegionHeartbeat", q.req, func() error { return s.handle(q.req) })
		case resp := <-s.out:
			err = stream.Send(resp)
		case <-alive.C:
			err = s.keepAlive()
		case <-ctx.Done(): // the caller may hear of the end before its own deadline
			return status.FromContextError(ctx.Err()).Err()
		case <-life.Done():
			return errStopping()
		}
		switch {
		case errors.Is(err, errNotBootstrapped):
			return nil
		case err != nil:
			return err
		}
	}
}

// errNotBootstrapped ends a stream of reports at a member that does not lead: as far as it
// knows the cluster does not run.
var errNotBootstrapped = errors.New("cluster is not bootstrapped")

func (m *Member) notBootstrapped() *pdpb.ResponseHeader {
	return m.pd.refusal(pdpb.ErrorType_NOT_BOOTSTRAPPED, errNotBootstrapped.Error())
}

func errStopping() error { return status.Error(codes.Unavailable, "server not started") }

// heartbeatStream is one stream of them.
type heartbeatStream struct {
	m      *Member
	stream pdpb.PD_RegionHeartbeatServer
	out    chan *pdpb.RegionHeartbeatResponse
	to     *Member   // who handles them, nil before the first
	bound  time.Time // when it was bound to a store last
}

type heartbeatRequest struct {
	req *pdpb.RegionHeartbeatRequest
	err error
}

func (s *heartbeatStream) receive(to chan<- heartbeatRequest) {
	for {
		req, err := s.stream.Recv()
		select {
		case to <- heartbeatRequest{req, err}:
		case <-s.stream.Context().Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// keepAlive tells a store that has not been removed that PD is there.
func (s *heartbeatStream) keepAlive() error {
	if s.to == nil || !s.to.leads() {
		return nil
	}
	for _, id := range s.m.pd.heartbeats.bound(s.out) {
		if known := s.m.pd.store(id); known == nil || removed(known) {
			continue
		}
		if err := s.stream.Send(&pdpb.RegionHeartbeatResponse{Header: s.m.pd.header()}); err != nil {
			return err
		}
	}
	return nil
}

// handle handles a heartbeat, or lets the member do it that the stream is forwarded to, and
// sends what there is to answer at once.
func (s *heartbeatStream) handle(req *pdpb.RegionHeartbeatRequest) error {
	var err error
	if s.to == nil {
		if s.to, err = s.m.target(s.stream.Context()); err != nil {
			return err
		}
	}
	if s.to == s.m {
		err = s.take(req)
	} else {
		_, err = s.m.at(s.stream.Context(), s.to, func(context.Context) (any, error) { return nil, s.take(req) })
	}
	if errors.Is(err, errNotBootstrapped) {
		return cmp.Or(s.stream.Send(&pdpb.RegionHeartbeatResponse{Header: s.m.notBootstrapped()}), err)
	}
	for err == nil {
		select {
		case resp := <-s.out:
			err = s.stream.Send(resp)
		default:
			return nil
		}
	}
	return err
}

// take is PD's handling of a heartbeat (PD: server/grpc_service.go, RegionHeartbeat).
func (s *heartbeatStream) take(req *pdpb.RegionHeartbeatRequest) error {
	pd, from := s.m.pd, req.GetLeader().GetStoreId()
	if !s.to.leads() {
		return errNotBootstrapped
	}
	if err := s.to.checkCluster(req.GetHeader()); err != nil {
		return err
	}
	store := pd.store(from)
	switch {
	case store == nil:
		return status.Errorf(codes.Unknown, "invalid store ID %d, not found", from)
	case removed(store):
		return nil
	}
	if now := pd.Now(); s.bound.IsZero() || now.Sub(s.bound) > heartbeatBind {
		pd.heartbeats.bind(from, s.out)
		s.bound = now
	}
	if text := pd.takeHeartbeat(req); text != "" {
		pd.heartbeats.send(from, &pdpb.RegionHeartbeatResponse{
			Header: pd.refusal(pdpb.ErrorType_UNKNOWN, text), TargetPeer: req.GetLeader(),
		})
	}
	return nil
}

// takeHeartbeat keeps a report that agrees with the topology, which ends the region's
// operator: it is done. Else it returns the text of the error.
func (pd *PD) takeHeartbeat(req *pdpb.RegionHeartbeatRequest) string {
	region := req.GetRegion()
	switch {
	case region.GetId() == 0:
		return fmt.Sprintf("invalid request region, %v", req)
	case len(region.Peers) == 0:
		return fmt.Sprintf("invalid region, zero region peer count: %v", hexed(region))
	}
	known, origin := pd.contradicted(req)
	if origin != nil {
		return fmt.Sprintf("region is stale: region %v origin %v", region, origin)
	}
	report := regionReport{of: known, down: req.GetDownPeers(), pending: req.GetPendingPeers()}
	report.stat = &pdpb.RegionStat{
		BytesWritten: req.GetBytesWritten(), BytesRead: req.GetBytesRead(), KeysWritten: req.GetKeysWritten(), KeysRead: req.GetKeysRead(),
	}
	news := pd.heartbeats.keep(report)
	if b := req.GetBucketMeta(); b != nil {
		news = pd.Topology.TellBuckets(&metapb.Buckets{RegionId: region.Id, Version: b.Version, Keys: b.Keys}) || news
	}
	if news {
		pd.history.record(known)
	}
	pd.operators.finish(region.Id)
	return ""
}

// contradicted returns the region that a heartbeat tells of; and what it contradicts, nil
// for nothing. To PD only what is older is (PD: pkg/core/region.go, check); here nothing
// can be newer than what is.
func (pd *PD) contradicted(req *pdpb.RegionHeartbeatRequest) (*topology.Region, *metapb.Region) {
	region := req.GetRegion()
	known := pd.Topology.ByID(region.Id)
	if known == nil {
		return nil, pd.Topology.ByKey(region.StartKey).Meta
	}
	if !same(region, known.Meta) || !samePeer(req.GetLeader(), known.Leader) || req.Term > 0 && req.Term < known.Term {
		return known, known.Meta
	}
	return known, nil
}

func same(a, b *metapb.Region) bool {
	x, y := a.GetRegionEpoch(), b.GetRegionEpoch()
	return x.GetVersion() == y.GetVersion() && x.GetConfVer() == y.GetConfVer() &&
		bytes.Equal(a.StartKey, b.StartKey) && bytes.Equal(a.EndKey, b.EndKey) && len(a.Peers) == len(b.Peers) &&
		!slices.ContainsFunc(a.Peers, func(p *metapb.Peer) bool {
			return !slices.ContainsFunc(b.Peers, func(o *metapb.Peer) bool { return samePeer(p, o) })
		})
}

func samePeer(a, b *metapb.Peer) bool {
	return a.GetId() == b.GetId() && a.GetStoreId() == b.GetStoreId() && a.GetRole() == b.GetRole()
}
