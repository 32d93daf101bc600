package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"

	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/transport"
)

// ErrNoContext is a request that the router cannot address: it has no context to fill.
var ErrNoContext = errors.New("router: request without a context")

// ErrOutOfReach ends a call that fails fast: the leader that it needs cannot be reached.
var ErrOutOfReach = errors.New("router: the region's leader is out of reach")

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

// sending is one Send: the region as it is known by now, what is wished of it, and where
// the choice of a peer stands.
type sending struct {
	selector
	region *region.Region
	wish   wish
}

// SendInto sends a request, whose context it fills, to a peer of the region, and again to
// whichever is right after failures, as the call's rules and budget allow. With
// ErrRegionChanged the caller locates again. resp is empty.
func (r *Router) SendInto(ctx context.Context, call *Call, reg *region.Region, req transport.Request, resp Answer) error {
	if req.GetContext() == nil {
		return ErrNoContext
	}
	began := call.begin()
	s := sending{selector: first(reg.LeaderIndex()), region: reg}
	if call.Route != nil {
		if err := r.choose(ctx, call, &s, req); err != nil {
			return err
		}
		began = time.Now()
	}
	t := try{began: began}
	return r.pursue(ctx, call, &s, &t, false, req, resp)
}

// pursue makes attempts until there is an answer or the call ends; t is the last one,
// which may have failed already, or is to begin now.
func (r *Router) pursue(ctx context.Context, call *Call, s *sending, t *try, met bool, req transport.Request, resp Answer) error {
	for ; ; met = true {
		if met {
			err := r.judge(ctx, call, s, t)
			resp.Reset() // also for the caller that locates again
			if err != nil {
				return err
			}
			t.began = time.Now()
		}
		if err := r.open(ctx, call, s.region.ID); err != nil {
			return err
		}
		s.asked()
		if r.attempt(ctx, call, s, req, resp, t); t.rule == nil {
			call.retold, call.hinted = 0, 0
			r.settle(s)
			return nil
		}
	}
}

// attempt is a try that begins when t does, and where that is wished another beside it.
func (r *Router) attempt(ctx context.Context, call *Call, s *sending, req transport.Request, resp Answer, t *try) {
	if s.wish.read && call.Route.HedgeAfter > 0 && r.cfg.Tasks != nil && call.Exchange == nil {
		*t = r.hedged(ctx, call, s, t.began, req, resp)
		return
	}
	r.try(ctx, call, s, t.began, req, resp, t)
}

// settle makes the caches know what a success tells.
func (r *Router) settle(s *sending) {
	switch {
	case s.ask != plain:
	case s.via >= 0:
		r.detours.learn(s.peer().GetStoreId(), s.region.Peer(s.via).GetStoreId())
		r.cfg.Regions.Doubt(s.region) // the stores may elect another, whom this client reaches
	case s.at != s.region.LeaderIndex():
		r.cfg.Regions.UpdateLeader(s.region, s.peer().GetId())
	}
}

// judge notes a failed attempt and does what its rule says. It returns nil when
// another attempt is to be made, with s on the right peer.
func (r *Router) judge(ctx context.Context, call *Call, s *sending, t *try) error {
	if veto, ok := t.err.(*Vetoed); ok {
		return call.veto(ctx, veto, s.region.ID)
	}
	r.note(ctx, call, s, t)
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
	e := r.learn(s, t)
	var buf [maxPeers]peer
	peers := r.peers(ctx, call, s, &buf)
	was := s.wish
	v := s.after(&s.wish, peers, e, rand.Uint32())
	call.learn(was, s.wish)
	return r.carryOut(ctx, call, s, t, v)
}

// note records a failed attempt.
func (r *Router) note(ctx context.Context, call *Call, s *sending, t *try) {
	at := Attempt{
		StoreID: s.peer().GetStoreId(), Addr: t.addr, Asked: s.asks(), Via: t.via, Reason: t.rule.reason, Elapsed: time.Since(t.began), Err: t.err,
	}
	call.Note(at)
	r.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "attempt failed", slog.String("op", call.Op), slog.Uint64("region", s.region.ID),
		slog.Uint64("store", at.StoreID), slog.String("addr", at.Addr), slog.String("asked", at.Asked.String()),
		slog.String("reason", at.Reason.String()), slog.Any("error", t.err))
}

// pick finds the first peer to ask where it is not simply the leader.
func (r *Router) pick(ctx context.Context, call *Call, s *sending, req transport.Request) verdict {
	s.wish = wishOf(call, req)
	was := s.wish
	var buf [maxPeers]peer
	v := s.begin(&s.wish, r.peers(ctx, call, s, &buf), rand.Uint32())
	if v.next == send {
		call.learn(was, s.wish)
	}
	return v
}

// choose is pick, and what follows where nobody can be asked.
func (r *Router) choose(ctx context.Context, call *Call, s *sending, req transport.Request) error {
	v := r.pick(ctx, call, s, req)
	if v.next == send {
		return nil
	}
	call.learn(wishOf(call, req), s.wish)
	s.at = s.region.LeaderIndex()
	t := try{began: time.Now(), rule: madeUp(StoreDown), err: ErrOutOfReach}
	r.note(ctx, call, s, &t)
	v.wait = t.rule.wait
	return r.carryOut(ctx, call, s, &t, v)
}

// carryOut does what follows: nil means another attempt.
func (r *Router) carryOut(ctx context.Context, call *Call, s *sending, t *try, v verdict) error {
	switch v.next {
	case end:
		return call.refused(t)
	case stray:
		if call.Route != nil && call.Route.FailFast {
			return call.end(ctx, ErrOutOfReach, s.region.ID)
		}
		r.cfg.Regions.Reload(s.region) // there may be another; without PD, this one is all there is
	case leave:
		r.cfg.Regions.Invalidate(s.region, t.rule.reason.why())
	case retry:
		// What a store tells is gone by at once, but not for ever.
		if call.retold = max(call.retold, call.retold+1); call.retold > 1 {
			v.wait = t.rule.wait
		}
	}
	if v.wait.Name != "" {
		if err := r.wait(ctx, call, v.wait, call.serverWait(t), s.region.ID); err != nil {
			return err
		}
	}
	if v.next == send {
		return nil
	}
	return ErrRegionChanged
}

// serverWait is how long a busy store asks to be left alone, or 0: what it says at first,
// and twice as long each time that it turns out not to be enough.
func (c *Call) serverWait(t *try) time.Duration {
	busy := t.region.GetServerIsBusy()
	ms := min(max(busy.GetBackoffMs(), uint64(busy.GetEstimatedWaitMs())), uint64(time.Hour/time.Millisecond))
	if ms == 0 {
		return 0
	}
	c.hinted = min(c.hinted+1, 10)
	return time.Duration(ms) * time.Millisecond << (c.hinted - 1)
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
