package router

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
)

// Transport is what the router sends through: a *transport.Pool.
type Transport interface {
	Call(ctx context.Context, to transport.Target, req transport.Message, resp transport.Decoder) error
	NewResponse(req transport.Message) transport.Response
}

// Config is what a Router is made with.
type Config struct {
	ClusterID uint64
	Regions   *region.Cache
	Transport Transport
	Tasks     *task.Group  // of second attempts; nil: there are none
	Logger    *slog.Logger // nil: silent

	RPCTimeout time.Duration // of one attempt; 0: the call's, or 30 s for reads, 20 s for what changes data
	RetryFor   time.Duration // a call's budget where ctx has no deadline; 0: 20 s
}

// Defaults of a Config (TiKV ends a write that was not proposed after 20 s at most).
const (
	readTimeout  = 30 * time.Second
	writeTimeout = 20 * time.Second
	retryBudget  = 20 * time.Second
)

// Router is safe for concurrent use.
type Router struct {
	cfg     Config
	closing context.Context // ended by Shut
	shut    context.CancelCauseFunc
	detours detours
	misled  misled
}

// New returns a router. ctx is the client's lifetime: when it ends, calls do.
func New(ctx context.Context, cfg Config) *Router {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.RetryFor == 0 {
		cfg.RetryFor = retryBudget
	}
	r := &Router{cfg: cfg}
	r.closing, r.shut = context.WithCancelCause(ctx)
	return r
}

// Shut makes calls that are not Owed end with ErrClosed instead of trying again.
func (r *Router) Shut() { r.shut(ErrClosed) }

// Closing ends with Shut.
func (r *Router) Closing() context.Context { return r.closing }

// Wait sleeps for the call's next delay of the kind. Its error is the call's: ctx has
// ended, the budget is used up, or the client closes.
func (r *Router) Wait(ctx context.Context, call *Call, kind backoff.Kind) error {
	return r.wait(ctx, call, kind, 0, 0)
}

func (r *Router) wait(ctx context.Context, call *Call, kind backoff.Kind, limit time.Duration, regionID uint64) error {
	call.begin()
	budget := r.budget(call)
	if _, bounded := ctx.Deadline(); !bounded {
		// The budget is of time: attempts that wait for an answer use it up as well.
		left := budget - time.Since(call.begun)
		if left <= 0 {
			return call.end(ctx, backoff.ErrExhausted, regionID)
		}
		if limit == 0 || left < limit {
			limit = left
		}
	}
	waiting := ctx
	if !call.Owed {
		merged, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(r.closing, func() { cancel(ErrClosed) })()
		waiting = merged
	}
	pace := call.pace(ctx, budget)
	slept := pace.Slept()
	began := time.Now()
	err := pace.WaitTelling(waiting, kind, limit, call.pausing(ctx))
	call.waited(time.Since(began))
	call.attempts.delayed(pace.Slept() - slept)
	if err != nil {
		return call.end(ctx, err, regionID)
	}
	return nil
}

// budget is the time for a call where ctx has no deadline.
func (r *Router) budget(call *Call) time.Duration {
	if call.RetryFor > 0 {
		return call.RetryFor
	}
	return r.cfg.RetryFor
}

// bounded is ctx for a wait for PD, which ends with the budget. Where that is over because
// stores did not answer, there is time for a word of PD's.
func (r *Router) bounded(ctx context.Context, call *Call) (context.Context, context.CancelFunc) {
	now := call.begin()
	if _, bounded := ctx.Deadline(); bounded {
		return ctx, func() {}
	}
	end := call.begun.Add(r.budget(call))
	if word := now.Add(lookTime); end.Before(word) && call.attempts.newest().Reason != PD {
		end = word
	}
	return context.WithDeadlineCause(ctx, end, backoff.ErrExhausted)
}

// store returns a store, from PD if it is not known.
func (r *Router) store(ctx context.Context, call *Call, id uint64) (*region.Store, error) {
	if known := r.cfg.Regions.KnownStore(id); known != nil {
		return known, nil
	}
	ctx, cancel := r.bounded(ctx, call)
	defer cancel()
	return r.cfg.Regions.Store(ctx, id)
}

// open refuses a call that ctx or the client's end has overtaken, or that without a
// deadline has waited for answers for longer than its budget and one attempt.
func (r *Router) open(ctx context.Context, call *Call, regionID uint64) error {
	if ctx.Err() != nil {
		return call.end(ctx, context.Cause(ctx), regionID)
	}
	if !call.Owed && r.closing.Err() != nil {
		return call.end(ctx, ErrClosed, regionID)
	}
	if call.attempts.total > 0 && time.Since(call.begun) >= r.budget(call)+r.timeout(call) {
		if _, bounded := ctx.Deadline(); !bounded {
			return call.end(ctx, backoff.ErrExhausted, regionID)
		}
	}
	return nil
}

// Locate returns the region that holds the wire key.
func (r *Router) Locate(ctx context.Context, call *Call, wireKey []byte) (*region.Region, error) {
	if found := r.lookup(call.Codec, wireKey); found != nil {
		return found, nil
	}
	return r.load(ctx, call, call.Codec.RegionKey(wireKey), r.cfg.Regions.Locate)
}

// Reload makes a region be loaded again before its next use.
func (r *Router) Reload(reg *region.Region) { r.cfg.Regions.Reload(reg) }

// LocateEnd returns the region that holds the keys just before the wire key, where a
// scan backwards from there begins. An empty key is the end of all keys.
func (r *Router) LocateEnd(ctx context.Context, call *Call, wireKey []byte) (*region.Region, error) {
	var key []byte
	if len(wireKey) > 0 {
		key = call.Codec.RegionKey(wireKey)
	}
	return r.load(ctx, call, key, r.cfg.Regions.LocateEnd)
}

// load asks PD, again and again as the call's budget allows.
func (r *Router) load(ctx context.Context, call *Call, key []byte, locate func(context.Context, []byte) (*region.Region, error)) (*region.Region, error) {
	call.begin()
	for stale := false; ; {
		if err := r.open(ctx, call, 0); err != nil {
			return nil, err
		}
		began := time.Now()
		bounded, cancel := r.bounded(ctx, call)
		found, err := locate(bounded, key)
		cancel()
		took := time.Since(began)
		call.Count(LookupTime, PD, int64(took))
		kind := backoff.PD
		switch {
		case err == nil:
			return found, nil
		case errors.Is(err, region.ErrStale):
			if stale { // the store will tell
				return found, nil
			}
			stale, kind = true, backoff.RegionMiss
		case ctx.Err() != nil:
			call.Note(Attempt{Reason: PD, Elapsed: took, Err: err})
			return nil, call.end(ctx, context.Cause(ctx), 0)
		case isClosed(err):
			return nil, call.end(ctx, ErrClosed, 0)
		case errors.Is(err, pd.ErrWrongCluster):
			return nil, &Refused{Op: call.Op, Addr: "PD", Message: err.Error()}
		}
		call.Note(Attempt{Reason: PD, Elapsed: took, Err: err})
		if err := r.wait(ctx, call, kind, 0, 0); err != nil {
			return nil, err
		}
	}
}

// Do locates a wire key's region and sends, until there is an answer or the call ends.
func Do[Resp transport.Response](ctx context.Context, r *Router, call *Call, wireKey []byte, req transport.Request) (Resp, error) {
	var none Resp
	resp, ok := r.cfg.Transport.NewResponse(req).(Resp)
	if !ok {
		return none, &Refused{Op: call.Op, Message: "the answer is to another request"}
	}
	if err := r.DoInto(ctx, call, wireKey, req, resp); err != nil {
		return none, err
	}
	return resp, nil
}

// DoInto is Do for a caller that brings what the answer is decoded into.
func (r *Router) DoInto(ctx context.Context, call *Call, wireKey []byte, req transport.Request, resp Answer) error {
	call.Key = wireKey
	for {
		reg, err := r.Locate(ctx, call, wireKey)
		if err != nil {
			return err
		}
		if err = r.SendInto(ctx, call, reg, req, resp); err != ErrRegionChanged {
			return err
		}
	}
}
