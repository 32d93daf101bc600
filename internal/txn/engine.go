// Package txn reads and writes transactional data: snapshots, and transactions that
// commit in two phases (Percolator), asynchronously, or in one phase.
package txn

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/wire"
)

// PD is what the engine needs of a *pd.Client.
type PD interface {
	Timestamp(ctx context.Context) (uint64, error)
	RecentTimestamp(ctx context.Context, maxAge time.Duration) (uint64, error)
	GCState(ctx context.Context, keyspaceID uint32) (txnSafePoint, gcSafePoint uint64, err error)
	SplitAndScatterRegions(ctx context.Context, keys [][]byte, group string, retries int) (ids []uint64, split, scattered int, err error)
}

// Router is what the engine needs of a *router.Router.
type Router interface {
	lock.Router
	DoInto(ctx context.Context, call *router.Call, key []byte, req transport.Request, resp router.Answer) error
	SendInto(ctx context.Context, call *router.Call, to *region.Region, req transport.Request, resp router.Answer) error
	SendAll(ctx context.Context, parcels []router.Parcel, told func(i int))
	Only(call *router.Call, keys [][]byte) *region.Region
	Runs(ctx context.Context, call *router.Call, keys [][]byte, runs []router.Run) ([]router.Run, error)
	Reload(reg *region.Region)
	LocateEnd(ctx context.Context, call *router.Call, key []byte) (*region.Region, error)
	Closing() context.Context
	AttemptTime(call *router.Call) time.Duration
}

// Config is what an Engine works with.
type Config struct {
	PD     PD
	Router Router
	Codec  codec.Codec
	Tasks  *task.Group // what ends with the client
	Owed   *task.Group // what finished transactions owe: closing the client waits for it
	Logger *slog.Logger

	Latches Latches // nil: none
}

// Engine is the transactions of one client. It is safe for concurrent use.
type Engine struct {
	pd     PD
	router Router
	codec  codec.Codec
	tasks  *task.Group
	owed   *task.Group
	log    *slog.Logger
	locks  *lock.Resolver
	safe   safePoint
	issued atomic.Uint64 // a timestamp that PD has issued
	gets   sync.Pool     // *get
	manys  sync.Pool     // *many
	pairs  wire.PairPool // of answers

	rooms     sync.Pool // *room
	prewrites sync.Pool // *prewriting
	errands   sync.Pool // *errand
	mores     sync.Pool // *more
	lockings  sync.Pool // *lockRequest

	commits inflight
	latches Latches
}

// New returns an engine.
func New(cfg Config) *Engine {
	e := &Engine{pd: cfg.PD, router: cfg.Router, codec: cfg.Codec, tasks: cfg.Tasks, owed: cfg.Owed, log: cfg.Logger, latches: cfg.Latches}
	e.locks = lock.New(lock.Config{Router: cfg.Router, Clock: cfg.PD, Tasks: cfg.Tasks, Logger: cfg.Logger})
	return e
}

// CallOptions are what a view says about all its calls.
type CallOptions struct {
	Priority      kvrpcpb.CommandPri
	RequestSource string
	RetryFor      time.Duration // the budget where ctx has no deadline; 0: the default
	Route         *router.Route // of reads
	Extra         *router.Extra
	Tally         *router.Tally // nil: nothing is counted
}

// spent counts the time since began.
func (o *CallOptions) spent(f router.Figure, began time.Time) {
	d := int64(time.Since(began))
	o.Tally.Add(f, d)
	o.Extra.Count(f, router.ReasonNone, d)
}

// budget is the default of CallOptions.RetryFor; owedFor is that of what is done when
// nobody waits (client-go's, facts section 11).
const (
	budget  = 20 * time.Second
	owedFor = 41 * time.Second
)

func (o *CallOptions) retryFor() time.Duration {
	if o.RetryFor == 0 {
		return budget
	}
	return o.RetryFor
}

// call returns a call that may be sent again, whatever becomes of its answers.
func (e *Engine) call(ctx context.Context, op string, o CallOptions) *router.Call {
	call := e.callWith(op, o, backoff.For(ctx, o.retryFor()))
	return &call
}

func (e *Engine) callWith(op string, o CallOptions, retry *backoff.Retry) router.Call {
	return router.Call{
		Op: op, Codec: e.codec, Resend: true, Priority: o.Priority, RequestSource: o.RequestSource,
		RetryFor: o.retryFor(), Retry: retry, Route: o.Route, Extra: o.Extra, Tally: o.Tally,
	}
}

// send sends req to a region and returns the answer, or ErrRegionChanged.
func send[R transport.Response](ctx context.Context, e *Engine, call *router.Call, to *region.Region, req transport.Request) (R, error) {
	var none R
	resp, err := e.router.Send(ctx, call, to, req)
	if err != nil {
		return none, err
	}
	answer, ok := resp.(R)
	if !ok {
		return none, call.Refuse("the answer is to another request")
	}
	return answer, nil
}

// sendKey sends req, which concerns one key, to where the key is.
func sendKey[R transport.Response](ctx context.Context, e *Engine, call *router.Call, key []byte, req transport.Request) (R, error) {
	for {
		at, err := e.router.Locate(ctx, call, key)
		if err != nil {
			var none R
			return none, err
		}
		resp, err := send[R](ctx, e, call, at, req)
		if errors.Is(err, router.ErrRegionChanged) {
			continue
		}
		return resp, err
	}
}

// await waits for a lock to go, at most as long as it lives. by is as of when the call
// reads, or the start of its transaction.
func (e *Engine) await(ctx context.Context, call *router.Call, kind backoff.Kind, by uint64, l lock.Lock, limit time.Duration) error {
	call.Note(router.Attempt{Reason: router.Lock, Err: &Locked{Lock: l, Left: limit}})
	return e.locks.Await(ctx, call, kind, by, l, limit)
}

// Waiting lists the calls that wait for locks, the longest wait first.
func (e *Engine) Waiting() []lock.Waiting { return e.locks.Waiting() }
