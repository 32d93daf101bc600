package store

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pingcap/kvproto/pkg/errorpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/serve"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/topology"
	"github.com/tikv-go/tikv/playground/internal/tso"
)

// foreign is the error of a request for another cluster, which is none of a region: it
// fails the call, or the whole stream. A request that names no cluster passes.
func (s *Store) foreign(req any) error {
	q, ok := req.(request)
	switch req.(type) {
	case *kvrpcpb.SplitRegionRequest, *kvrpcpb.GetLockWaitInfoRequest, *kvrpcpb.UnsafeDestroyRangeRequest:
		return nil // TiKV does not check theirs
	}
	if !ok {
		return nil
	}
	if id := q.GetContext().GetClusterId(); id != 0 && id != s.ClusterID {
		return status.Errorf(codes.InvalidArgument, "cluster of request=%d does not match TiKV cluster id=%d", id, s.ClusterID)
	}
	return nil
}

// answer runs a command under the faults. An error means that its caller gets none:
// fault.ErrDropped, fault.ErrDisconnect, the end of the store, which is ctx's, or a status. A
// command that goes on beyond that end is not answered: it may have been broken off.
func (s *Store) answer(ctx context.Context, c *command, req any) (any, error) {
	answer, err := s.attempt(ctx, c, req)
	if err == nil && ctx.Err() != nil {
		return nil, errClosing
	}
	if err == nil {
		err = failure(answer)
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (s *Store) attempt(ctx context.Context, c *command, req any) (any, error) {
	s.Counter.Call(c.name())
	if !s.Faults.Active() {
		return s.handle(ctx, c, req), nil
	}
	call := s.call(c, req)
	refuse := func(region, key uint8) any { return s.invented(c, region, key, req) }
	if c.kind == local {
		refuse = nil
	}
	return s.Faults.Do(ctx, call, refuse, func() any { return s.handle(ctx, c, req) })
}

// handle runs a command.
func (s *Store) handle(ctx context.Context, c *command, req any) any {
	if c.around != nil {
		return c.around(ctx, req)
	}
	return s.once(ctx, c, req)
}

// once checks a command against its region and runs it there.
func (s *Store) once(ctx context.Context, c *command, req any) any {
	if c.timing&spends == 0 {
		return s.checked(ctx, c, req)
	}
	began := s.Now()
	answer := s.checked(ctx, c, req)
	spent(answer, s.Now().Sub(began))
	return answer
}

func (s *Store) checked(ctx context.Context, c *command, req any) any {
	q, ok := req.(request)
	if !ok || c.kind == local {
		return c.run(ctx, keys.Range{}, req)
	}
	if e := s.checkBusy(c, q); e != nil {
		return c.refuse(e)
	}
	if !s.slowDisk(ctx, c) {
		return c.answer() // which nobody hears
	}
	if ms := q.GetContext().GetMaxExecutionDurationMs(); ms > 0 && limited(c, req) {
		return s.inTime(ctx, c, q, time.Duration(min(ms, maxLimit))*time.Millisecond)
	}
	return s.within(ctx, c, q, 0)
}

// within is handle for a command of a region; a replica read sees no less than the state
// least of the data.
func (s *Store) within(ctx context.Context, c *command, q request, least uint64) any {
	r, e := s.enter(c, q.GetContext())
	if e != nil {
		return c.refuse(e)
	}
	answer, wait := s.inRegion(ctx, c, q, r, least)
	if wait != nil {
		return wait(storage.Without(ctx)) // TiKV's limits do not count while a lock is waited for
	}
	return answer
}

// inRegion runs a command in its region, which it leaves. What may wait for others is
// returned, for outside.
func (s *Store) inRegion(ctx context.Context, c *command, req request, r *topology.Region, least uint64) (answer any, wait func(context.Context) any) {
	var leader uint64 // the store that is to lead from now on
	var wrote bool
	if c.kind == write || c.kind == blind {
		r.Writes()
	}
	defer func() {
		if c.kind == write || c.kind == blind {
			r.Wrote()
		}
		r.Leave()
		if wrote && s.Wrote != nil {
			s.Wrote(r.ID(), req.Size())
		}
		if leader != 0 {
			_ = s.Topology.TransferLeader(r.ID(), leader) // tried, as TiKV does
		}
	}()
	if e := s.checkFlashback(c, req, r); e != nil {
		return c.refuse(e), nil
	}
	if e := s.checkMerging(c, req.GetContext(), r); e != nil {
		return c.refuse(e), nil
	}
	if e := s.checkKeys(c, req, r); e != nil {
		return c.refuse(e), nil
	}
	if e := s.checkTimestamps(req); e != nil {
		return c.refuse(e), nil
	}
	var e *errorpb.Error
	if e, leader = s.checkDisk(c, req, r); e != nil {
		return c.refuse(e), nil
	}
	if c.begin != nil {
		return c.begin(ctx, r, req)
	}
	if e := s.checkMaxTS(req, r); e != nil {
		return c.refuse(e), nil
	}
	if e := s.checkBuckets(req, r); e != nil {
		return c.refuse(e), nil
	}
	at, e := s.replica(c, req, r)
	if e != nil {
		return c.refuse(e), nil
	}
	if at.view != nil {
		return s.behind(ctx, c, req, r, at, least)
	}
	answer = c.run(ctx, r.Range(), req)
	wrote = c.kind == write || c.kind == blind
	s.count(answer)
	return answer, nil
}

// behind runs a read on a replica that may not have everything. If it has to have more, or
// no less than the state least, that is waited for.
func (s *Store) behind(ctx context.Context, c *command, req request, r *topology.Region, at reading, least uint64) (answer any, wait func(context.Context) any) {
	defer at.view.Close()
	lacks := uint64(0)
	if at.ask && least != 0 {
		at.ask = false // the leader was asked
		if at.view.Seq < least {
			lacks = least
		}
	}
	if lacks == 0 {
		if answer, lacks = s.see(ctx, c, req, r, at); lacks == 0 {
			return answer, nil
		}
	}
	return nil, func(context.Context) any {
		if !s.caughtUp(ctx, r.ID(), lacks) {
			storage.Miss(ctx)
			return c.answer() // which nobody hears
		}
		return s.within(ctx, c, req, lacks)
	}
}

// name is the command's, also for the one that is in batches only.
func (c *command) name() string {
	if c.method != "" {
		return c.method
	}
	return "Empty"
}

// errClosing refuses what comes while the store stops.
var errClosing = errors.New("TiKV is Closing")

// unary answers a call of its own.
func (s *Store) unary(ctx context.Context, c *command, req any) (any, error) {
	if c.flash && !s.flash() {
		return nil, status.Errorf(codes.Unimplemented, "unknown method %s for service tikvpb.Tikv", c.method)
	}
	if err := s.foreign(req); err != nil {
		return nil, err
	}
	tasks := s.server.Tasks()
	if tasks == nil {
		return nil, status.Error(codes.Unavailable, errClosing.Error())
	}
	if addr := s.forwardedTo(ctx); addr != "" && !c.stays() {
		c = s.passed(c, addr)
	}
	life := tasks.Context()
	began := s.begin(c, alone)
	answer, err := s.answer(life, c, req)
	switch {
	case err == nil:
		s.end(answer, alone, began)
		return encoded(answer)
	case errors.Is(err, fault.ErrDisconnect):
		s.server.Disconnect(ctx)
	case errors.Is(err, fault.ErrDropped):
		select {
		case <-ctx.Done():
			return nil, serve.Late(ctx, ctx.Err())
		case <-life.Done():
		}
	}
	if _, ok := status.FromError(err); ok {
		return nil, err
	}
	return nil, status.Error(codes.Unavailable, err.Error())
}

// invented is the answer of a command that is the region error or the key error of a
// fault; nil when its answers have no place for it.
func (s *Store) invented(c *command, region, key uint8, req any) any {
	if region != 0 {
		var id uint64
		if q, ok := req.(request); ok {
			id = q.GetContext().GetRegionId()
		}
		return c.refuse(fault.RegionError(region, id, s.ID))
	}
	answer := c.answer()
	if !fault.SetKeyError(answer, fault.KeyError(key, s.subject(c, req))) {
		return nil
	}
	return answer
}

// subject is what a key error about a request speaks of.
func (s *Store) subject(c *command, req any) fault.Subject {
	of := fault.Subject{StartTS: startTS(req), Now: tso.Compose(s.Now().UnixMilli(), 0)}
	in := c.inside(req)
	if all := slices.Concat(in.keys, in.seeks, in.named); len(all) > 0 {
		of.Key = bytes.Clone(all[0])
	}
	if q, ok := req.(*kvrpcpb.CommitRequest); ok {
		of.CommitTS = q.CommitVersion
	}
	_, of.Pessimistic = req.(*kvrpcpb.PessimisticLockRequest)
	return of
}

// failed is an answer that is the call's status, or fault.ErrDropped of a store that it was
// passed on to.
type failed struct{ error }

// failure is what an answer has failed by, which no fault mangles, or nil.
func failure(answer any) error {
	if m, ok := answer.(fault.Mangled); ok {
		answer = m.Answer
	}
	if f, ok := answer.(failed); ok {
		return f.error
	}
	return nil
}

// encoded is an answer as it is sent: one that a fault mangles is bytes.
func encoded(answer any) (any, error) {
	if err := failure(answer); err != nil {
		return nil, err
	}
	m, ok := answer.(fault.Mangled)
	if !ok {
		return answer, nil
	}
	data, err := m.Answer.(interface{ Marshal() ([]byte, error) }).Marshal()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	raw := serve.Raw(m.Change(data))
	return &raw, nil
}
