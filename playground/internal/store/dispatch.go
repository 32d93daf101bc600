package store

import (
	"context"
	"errors"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/fault"
)

// foreign is the error of a request for another cluster, which is none of a region: it
// fails the call, or the whole stream. A request that names no cluster passes.
func (s *Store) foreign(req any) error {
	q, ok := req.(request)
	if _, split := req.(*kvrpcpb.SplitRegionRequest); split || !ok {
		return nil // TiKV does not check SplitRegion's
	}
	if id := q.GetContext().GetClusterId(); id != 0 && id != s.ClusterID {
		return status.Errorf(codes.InvalidArgument, "cluster of request=%d does not match TiKV cluster id=%d", id, s.ClusterID)
	}
	return nil
}

// answer runs a command under the faults. An error means that its caller gets none:
// fault.ErrDropped, fault.ErrDisconnect, or the end of the store, which is ctx's. A
// command that goes on beyond that end is not answered: it may have been broken off.
func (s *Store) answer(ctx context.Context, c *command, req any) (any, error) {
	answer, err := s.attempt(ctx, c, req)
	if err == nil && ctx.Err() != nil {
		return nil, errClosing
	}
	return answer, err
}

func (s *Store) attempt(ctx context.Context, c *command, req any) (any, error) {
	s.Counter.Call(c.name())
	if !s.Faults.Active() {
		return s.handle(ctx, c, req), nil
	}
	call := s.call(c, req)
	refuse := func(kind uint8) any { return c.refuse(s.invented(kind, req)) }
	if c.kind == local {
		refuse = nil
	}
	return s.Faults.Do(ctx, call, refuse, func() any { return s.handle(ctx, c, req) })
}

// handle checks a command against its region and runs it there.
func (s *Store) handle(ctx context.Context, c *command, req any) any {
	q, ok := req.(request)
	if !ok || c.kind == local {
		return c.run(ctx, keys.Range{}, req)
	}
	r, e := s.enter(c, q.GetContext())
	if e != nil {
		return c.refuse(e)
	}
	defer r.Leave()
	if e := s.checkKeys(c, q, r); e != nil {
		return c.refuse(e)
	}
	if e := s.checkTimestamps(req); e != nil {
		return c.refuse(e)
	}
	if e := s.checkMaxTS(req, r); e != nil {
		return c.refuse(e)
	}
	answer := c.run(ctx, r.Range(), req)
	s.count(answer)
	return answer
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
	if err := s.foreign(req); err != nil {
		return nil, err
	}
	tasks := s.server.Tasks()
	if tasks == nil {
		return nil, status.Error(codes.Unavailable, errClosing.Error())
	}
	life := tasks.Context()
	answer, err := s.answer(life, c, req)
	switch {
	case err == nil:
		return answer, nil
	case errors.Is(err, fault.ErrDisconnect):
		s.server.Disconnect(ctx)
	case errors.Is(err, fault.ErrDropped):
		select {
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		case <-life.Done():
		}
	}
	return nil, status.Error(codes.Unavailable, err.Error())
}

// invented is the region error that a fault answers with.
func (s *Store) invented(kind uint8, req any) *errorpb.Error {
	var id uint64
	if q, ok := req.(request); ok {
		id = q.GetContext().GetRegionId()
	}
	return fault.RegionError(kind, id, s.ID)
}
