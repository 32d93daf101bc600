package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/transport"
)

// ErrNoContext is a request that the router cannot address: it has no context to fill.
var ErrNoContext = errors.New("router: request without a context")

// Answer is what an answer is decoded into: a response of kvproto, or a decoder of the
// caller's that tells the region error, if it can have one, like those.
type Answer interface {
	transport.Decoder
	Reset() // called before every attempt but the first
}

type regional interface{ GetRegionError() *errorpb.Error }

// Send is SendInto with a response of kvproto's.
func (r *Router) Send(ctx context.Context, call *Call, reg *region.Region, req transport.Request) (transport.Response, error) {
	resp := r.cfg.Transport.NewResponse(req)
	if resp == nil {
		return nil, &Refused{Op: call.Op, Message: fmt.Sprintf("%T is no command", req)}
	}
	if err := r.SendInto(ctx, call, reg, req, resp); err != nil {
		return nil, err
	}
	return resp, nil
}

// SendInto sends a request, whose context it fills, to the region's leader, and again to
// whichever replica is right after failures, as the call's rules and budget allow. With
// ErrRegionChanged the caller locates again. resp is empty.
func (r *Router) SendInto(ctx context.Context, call *Call, reg *region.Region, req transport.Request, resp Answer) error {
	if req.GetContext() == nil {
		return ErrNoContext
	}
	call.begin()
	s := choose(reg)
	for {
		if err := r.open(ctx, call, reg.ID); err != nil {
			return err
		}
		t := r.try(ctx, call, &s, req, resp)
		if t.rule.reason == ReasonNone {
			if s.at != s.region.LeaderIndex() {
				r.cfg.Regions.UpdateLeader(s.region, s.peer().GetId())
			}
			return nil
		}
		if err := r.judge(ctx, call, &s, &t); err != nil {
			resp.Reset() // for the caller that locates again
			return err
		}
		resp.Reset()
	}
}

// try is one attempt, and what came of it.
type try struct {
	rule   rule // of a failure; if its reason is ReasonNone, there is an answer
	mayRun bool
	err    error
	region *errorpb.Error // the answer, if it is a region error
	store  *region.Store
	began  time.Time
}

func (r *Router) try(ctx context.Context, call *Call, s *replicas, req transport.Request, resp Answer) (t try) {
	t.began = time.Now()
	store, err := r.cfg.Regions.Store(ctx, s.peer().GetStoreId())
	if err != nil {
		t.rule, t.err = storeFailure(err), err
		return t
	}
	t.store = store
	call.addr, call.region = store.Addr, s.region.ID
	timeout := r.timeout(call)
	to := transport.Target{Addr: store.Addr, Timeout: timeout}
	if deadline, ok := ctx.Deadline(); ok {
		if left := deadline.Sub(t.began); left <= timeout {
			to.Timeout, timeout = 0, left
		}
	}
	r.fill(req.GetContext(), call, s, timeout)
	if t.err = r.cfg.Transport.Call(ctx, to, req, resp); t.err != nil {
		t.rule, t.mayRun = failureOf(t.err)
		if t.mayRun {
			call.sends++
		}
		return t
	}
	call.sends++
	if answer, ok := resp.(regional); ok {
		if t.region = answer.GetRegionError(); t.region != nil {
			t.rule = *ruleOf(t.region)
			t.mayRun = t.rule.fate == open
			t.err = &RegionError{Reason: t.rule.reason, Message: t.region.GetMessage()}
		}
	}
	return t
}

// timeout is the time of one attempt.
func (r *Router) timeout(call *Call) time.Duration {
	switch {
	case r.cfg.RPCTimeout > 0: // the user's word
		return r.cfg.RPCTimeout
	case call.Timeout > 0:
		return call.Timeout
	case call.decides():
		return writeTimeout
	}
	return readTimeout
}

// fill addresses a request. TiKV drops it when its time has passed before it was
// proposed.
func (r *Router) fill(c *kvrpcpb.Context, call *Call, s *replicas, timeout time.Duration) {
	c.RegionId = s.region.ID
	c.RegionEpoch = &s.region.Epoch
	c.Peer = s.peer()
	c.ClusterId = r.cfg.ClusterID
	c.Priority = call.Priority
	c.RequestSource = call.RequestSource
	c.IsRetryRequest = call.sends > 0
	c.MaxExecutionDurationMs = uint64(max(1, timeout.Milliseconds()))
	call.Codec.Fill(c)
}

// judge notes a failed attempt and does what its rule says. It returns nil when
// another attempt is to be made, with s on the right peer.
func (r *Router) judge(ctx context.Context, call *Call, s *replicas, t *try) error {
	at := Attempt{StoreID: s.peer().GetStoreId(), Reason: t.rule.reason, Elapsed: time.Since(t.began), Err: t.err}
	if t.store != nil {
		at.Addr = t.store.Addr
	}
	call.Note(at)
	r.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "attempt failed", slog.String("op", call.Op), slog.Uint64("region", s.region.ID),
		slog.Uint64("store", at.StoreID), slog.String("addr", at.Addr), slog.String("reason", at.Reason.String()), slog.Any("error", t.err))
	if t.mayRun && call.decides() {
		call.lose(t.err)
	}
	switch {
	case ctx.Err() != nil:
		return call.end(ctx, context.Cause(ctx), s.region.ID)
	case isClosed(t.err):
		return call.end(ctx, ErrClosed, s.region.ID)
	case t.mayRun && !call.Resend:
		return call.Undetermined()
	}
	return r.act(ctx, call, s, t)
}

func (r *Router) act(ctx context.Context, call *Call, s *replicas, t *try) error {
	switch t.rule.do {
	case again, aside:
		return r.wait(ctx, call, t.rule.wait, t.serverWait(), s.region.ID)
	case other, plainly:
		if t.store != nil && (t.rule.reason == Dial || t.rule.reason == ConnLost) {
			r.cfg.Regions.RefreshStore(t.store)
		}
		if s.fail() {
			return nil
		}
		return r.giveUp(ctx, call, s, t)
	case follow:
		return r.follow(ctx, call, s, t)
	case relocate:
		if t.rule.reason == StoreNotMatch {
			r.cfg.Regions.RefreshStore(t.store)
		}
		return r.giveUp(ctx, call, s, t)
	case replace:
		current := t.region.GetEpochNotMatch().GetCurrentRegions()
		if len(current) == 0 {
			return r.giveUp(ctx, call, s, t)
		}
		if r.cfg.Regions.ReplaceEpoch(s.region, current, s.peer().GetStoreId()) {
			return r.wait(ctx, call, t.rule.wait, 0, s.region.ID)
		}
		return ErrRegionChanged
	}
	return call.refused(t)
}

// giveUp forgets the region after the wait.
func (r *Router) giveUp(ctx context.Context, call *Call, s *replicas, t *try) error {
	r.cfg.Regions.Invalidate(s.region)
	if err := r.wait(ctx, call, t.rule.wait, 0, s.region.ID); err != nil {
		return err
	}
	return ErrRegionChanged
}

// follow goes to the leader that a NotLeader names; without one, to the next peer
// after a wait, since an election is under way.
func (r *Router) follow(ctx context.Context, call *Call, s *replicas, t *try) error {
	leader := t.region.GetNotLeader().GetLeader()
	if leader.GetId() == 0 {
		if !s.fail() {
			return r.giveUp(ctx, call, s, t)
		}
		return r.wait(ctx, call, t.rule.wait, 0, s.region.ID)
	}
	now := r.cfg.Regions.UpdateLeader(s.region, leader.GetId())
	if now == nil {
		return r.giveUp(ctx, call, s, t)
	}
	if s.hint(now) {
		return nil
	}
	return r.wait(ctx, call, t.rule.wait, 0, s.region.ID)
}

// serverWait is how long a busy store asks to be left alone, or 0.
func (t *try) serverWait() time.Duration {
	busy := t.region.GetServerIsBusy()
	return time.Duration(max(busy.GetBackoffMs(), uint64(busy.GetEstimatedWaitMs()))) * time.Millisecond
}

// refused is the error of an attempt that is final.
func (c *Call) refused(t *try) error {
	e := &Refused{Op: c.Op, Addr: c.addr, RegionID: c.region, Reason: t.rule.reason, Message: t.err.Error()}
	if t.region != nil {
		e.Message = t.region.GetMessage()
		e.Class = Classify(e.Message)
	}
	if t.rule.reason == EntryTooLarge {
		e.Class = ClassTooLarge
	}
	if c.Lost() {
		return c.Undetermined(e)
	}
	return e
}

// lose notes that an answer to a deciding write was lost.
func (c *Call) lose(err error) {
	if len(c.lost) < keptAttempts {
		c.lost = append(c.lost, err)
	}
}
