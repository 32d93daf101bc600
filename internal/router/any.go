package router

// What only some programs use is functions, not methods of Router: the linker keeps the
// methods of a type that is reached by an interface, and leaves these out.

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/transport"
)

// SendStore sends a request to one store, whatever regions there are, and again after
// failures of the connection, as the call's rules and budget allow. A region error in the
// answer is the caller's. resp is empty.
func SendStore(ctx context.Context, r *Router, call *Call, storeID uint64, req transport.Message, resp Answer) error {
	call.begin()
	for {
		if err := r.open(ctx, call, 0); err != nil {
			return err
		}
		t := try{began: time.Now(), storeID: storeID}
		if to, ok := r.storeAddress(ctx, call, req, &t); ok {
			r.exchange(ctx, call, to, req, resp, &t)
		}
		if t.rule == nil || t.region != nil {
			return nil
		}
		if err := r.judgeStoreCall(ctx, call, &t); err != nil {
			return err
		}
		resp.Reset()
	}
}

// storeAddress is address for a call to a store.
func (r *Router) storeAddress(ctx context.Context, call *Call, req transport.Message, t *try) (to transport.Target, ok bool) {
	store, err := r.store(ctx, call, t.storeID)
	if err != nil {
		t.rule, t.err = storeFailure(err), err
		return to, false
	}
	t.store, t.addr, to.Addr = store, store.Addr, store.Addr
	call.addr, call.region = store.Addr, 0
	told, left := until(ctx, t.began, r.timeout(call))
	to.Timeout = told
	if c := contextOf(req); c != nil {
		r.fillCommon(c, call, left)
		c.Peer = nil
	}
	return to, true
}

// judgeStoreCall is judge for a call to a store: nobody else can be asked.
func (r *Router) judgeStoreCall(ctx context.Context, call *Call, t *try) error {
	var veto *Vetoed
	if errors.As(t.err, &veto) {
		return call.veto(ctx, veto, 0)
	}
	call.Note(Attempt{StoreID: t.storeID, Addr: t.addr, Reason: t.rule.reason, Elapsed: time.Since(t.began), Err: t.err})
	r.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "attempt failed", slog.String("op", call.Op),
		slog.Uint64("store", t.storeID), slog.String("addr", t.addr), slog.String("reason", t.rule.reason.String()), slog.Any("error", t.err))
	if t.mayRun && call.decides() {
		call.lose(t.err)
	}
	switch {
	case ctx.Err() != nil:
		return call.end(ctx, context.Cause(ctx), 0)
	case isClosed(t.err):
		return call.end(ctx, ErrClosed, 0)
	case t.mayRun && !call.Resend:
		return call.Undetermined()
	case t.rule.do == fail, t.rule.reason == NoStore: // PD has just said so
		return call.refused(t)
	}
	if t.rule.learn&moved != 0 && t.store != nil {
		r.cfg.Regions.RefreshStore(t.store)
	}
	if call.Route != nil && call.Route.FailFast && (t.rule.learn&unreached != 0 || t.rule.reason == StoreDown) {
		return call.end(ctx, ErrOutOfReach, 0)
	}
	return r.wait(ctx, call, t.rule.wait, 0, 0)
}

// Store returns a store, for what a call has to know of it first.
func Store(ctx context.Context, r *Router, call *Call, id uint64) (*region.Store, error) {
	call.begin()
	for {
		if err := r.open(ctx, call, 0); err != nil {
			return nil, err
		}
		t := try{began: time.Now(), storeID: id}
		store, err := r.store(ctx, call, id)
		if err == nil {
			return store, nil
		}
		t.rule, t.err = storeFailure(err), err
		if err := r.judgeStoreCall(ctx, call, &t); err != nil {
			return nil, err
		}
	}
}

// LocateAt returns the region that holds a region key.
func LocateAt(ctx context.Context, r *Router, call *Call, key []byte) (*region.Region, error) {
	if found := r.cfg.Regions.Lookup(key); found != nil {
		return found, nil
	}
	return r.load(ctx, call, key, r.cfg.Regions.Locate)
}

// Refresh forgets what is known of a region.
func Refresh(r *Router, reg *region.Region) { r.cfg.Regions.Invalidate(reg, region.WrongEpoch) }

// Warm loads the first regions of a wire range in one round trip, if the very first is not
// known. What fails is not told: who locates will find out.
func Warm(ctx context.Context, r *Router, call *Call, wire keys.Range) {
	at := call.Codec.RegionRange(wire)
	if r.cfg.Regions.Lookup(at.Start) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	_, _ = r.cfg.Regions.Scan(ctx, at, scanLimit)
}

// Unanswered returns the error of a call that ends because of cause, after all attempts
// that it made.
func Unanswered(ctx context.Context, c *Call, cause error, regionID uint64) error {
	c.begin()
	return c.end(ctx, cause, regionID)
}

// Broken returns the error of a call whose answer, a stream, broke off at err: where it
// had begun it is not begun again.
func Broken(ctx context.Context, c *Call, err error) error {
	rule, _ := failureOf(err)
	c.Note(Attempt{Addr: c.addr, Reason: rule.reason, Err: err})
	switch {
	case ctx.Err() != nil:
		return c.end(ctx, context.Cause(ctx), c.region)
	case isClosed(err):
		return c.end(ctx, ErrClosed, c.region)
	case rule.do == fail:
		return c.refused(&try{rule: rule, err: err})
	}
	return c.end(ctx, err, c.region)
}

// BrokenAt is Broken where the answer went on with a region error.
func BrokenAt(ctx context.Context, c *Call, e *errorpb.Error) error {
	err := &RegionError{Reason: ruleOf(e).reason, Message: e.GetMessage()}
	c.Note(Attempt{Addr: c.addr, Reason: err.Reason, Err: err})
	return c.end(ctx, err, c.region)
}

// RegionOf is the region of the last attempt.
func RegionOf(c *Call) uint64 { return c.region }

// Met reports whether one of the call's last attempts ended for the reason.
func Met(c *Call, reason Reason) bool {
	return slices.ContainsFunc(c.attempts.last, func(a Attempt) bool { return a.Reason == reason })
}
