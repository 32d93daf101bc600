package lock

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
)

// Router is what the resolver needs of a *router.Router.
type Router interface {
	Locate(ctx context.Context, call *router.Call, key []byte) (*region.Region, error)
	Group(ctx context.Context, call *router.Call, keys [][]byte) ([]router.Group, error)
	Send(ctx context.Context, call *router.Call, to *region.Region, req transport.Request) (transport.Response, error)
	Wait(ctx context.Context, call *router.Call, kind backoff.Kind) error
}

// Clock is where the cluster's time comes from: a timestamp issued at most maxAge ago.
type Clock interface {
	RecentTimestamp(ctx context.Context, maxAge time.Duration) (uint64, error)
}

// Config is what a Resolver works with.
type Config struct {
	Router Router
	Clock  Clock
	Tasks  *task.Group // runs the removal of locks that readers need not wait for
	Logger *slog.Logger
}

// Resolver resolves the locks that one client's calls meet. It is safe for concurrent
// use.
type Resolver struct {
	router   Router
	clock    Clock
	log      *slog.Logger
	known    statuses
	asking   flights[question, judgement]
	searches flights[searchID, struct{}]
	sweeps   sweeps
	waits    waits
}

// New returns a resolver.
func New(cfg Config) *Resolver {
	return &Resolver{router: cfg.Router, clock: cfg.Clock, log: cfg.Logger, sweeps: sweeps{tasks: cfg.Tasks}}
}

// Reader is who reads and met locks.
type Reader struct {
	TS     uint64 // as of when; math.MaxUint64: the newest
	Settle bool   // the locks must be gone, not only known, before the read goes on
}

// Verdict is what a call may do about the locks it met.
type Verdict struct {
	Ignore  []uint64 // start timestamps whose locks a reader may ignore
	Through []uint64 // start timestamps that are committed where the reader sees it
	Live    *Lock    // a lock to wait for, nil if there is none
	Wait    time.Duration
}

// alive notes a lock that is to be waited for.
func (v *Verdict) alive(l *Lock, wait time.Duration) {
	if v.Live == nil || wait < v.Wait {
		v.Live, v.Wait = l, wait
	}
}

// clockAge is how old the timestamp may be by which locks expire: a lock is taken for
// alive that much longer, never for dead too soon.
const clockAge = 100 * time.Millisecond

// parallel is how many transactions of one call are asked for at a time.
const parallel = 8

// ForRead resolves locks met by a read. Those that it need not wait for are removed
// behind its back.
func (r *Resolver) ForRead(ctx context.Context, call *router.Call, who Reader, locks []Lock) (Verdict, error) {
	txns := byTxn(locks)
	a := asker{caller: who.TS, behind: !who.Settle, reads: who.TS}
	if who.TS == math.MaxUint64 {
		// A read of the newest data waits for live locks: ignoring one, it could see
		// one key of a transaction that commits meanwhile and not another.
		a.caller = 0
	}
	if err := r.resolve(ctx, call, txns, a); err != nil {
		return Verdict{}, err
	}
	var v Verdict
	for i := range txns {
		t := &txns[i]
		switch s := t.status; {
		case s.State == RolledBack, s.State == Alive && s.Pushed, s.State == Committed && s.CommitTS > who.TS:
			v.Ignore = append(v.Ignore, t.start)
		case s.State == Committed:
			v.Through = append(v.Through, t.start)
		case s.State == Alive:
			v.alive(&t.locks[0], t.left())
		}
	}
	return v, nil
}

// ForWrite resolves locks met by a write of the transaction own: when it returns, those
// that could go are gone. Locks of own's are left alone, whatever becomes of them.
func (r *Resolver) ForWrite(ctx context.Context, call *router.Call, own uint64, locks []Lock) (Verdict, error) {
	txns := byTxn(locks)
	if err := r.resolve(ctx, call, txns, asker{own: own}); err != nil {
		return Verdict{}, err
	}
	var v Verdict
	for i := range txns {
		if t := &txns[i]; t.status.State == Alive {
			v.alive(&t.locks[0], t.left())
		}
	}
	return v, nil
}

// Committed tells of a transaction of the client's own that has committed, and whose locks
// may be met before they are gone: nobody has to ask, or to wait for their life's end,
// which alone makes others decide an asynchronous commit.
func (r *Resolver) Committed(start, commitTS uint64) {
	r.known.put(start, Status{State: Committed, CommitTS: commitTS})
}

// asker is for whom transactions are asked for.
type asker struct {
	caller uint64 // the timestamp above which a live one is to commit; 0: where it likes
	reads  uint64 // the timestamp of a read; 0: it is a write
	own    uint64 // the transaction that writes
	behind bool   // locks may be removed behind the caller's back
}

// plain reports whether a transaction's status follows from its start, and sets it. What
// began at a read's timestamp or after it commits above; the read's own transaction, if
// it has one, is among those. A shared lock without holders is on its way out.
func (a *asker) plain(t *txn) bool {
	switch {
	case t.start == 0, t.start == a.own:
		t.status = Status{State: Alive}
	case a.reads > 0 && t.start >= a.reads:
		t.status = Status{State: Alive, Pushed: true}
	default:
		return false
	}
	return true
}

// resolve asks once for every transaction, and removes the locks of those that are over.
func (r *Resolver) resolve(ctx context.Context, call *router.Call, txns []txn, a asker) (err error) {
	began := time.Now()
	if len(txns) == 1 {
		err = r.resolveOne(ctx, call, &txns[0], a)
	} else {
		err = task.Each(ctx, parallel, len(txns), func(ctx context.Context, i int) error {
			return r.resolveOne(ctx, call, &txns[i], a)
		})
	}
	for i := range txns {
		call.Count(router.LocksMet, router.Lock, int64(len(txns[i].locks)))
	}
	call.Count(router.ResolveTime, router.Lock, int64(time.Since(began)))
	return err
}

func (r *Resolver) resolveOne(ctx context.Context, call *router.Call, t *txn, a asker) error {
	if a.plain(t) {
		return nil
	}
	if s, ok := r.known.get(t.start); ok {
		t.status = s
	} else if err := r.judge(ctx, own(call), t, a.caller); err != nil || t.status.State == Alive {
		return ruled(call, err)
	}
	return r.remove(ctx, call, t, a.behind)
}

// own is the part of a call that is the resolver's: whatever the call sends, and however
// it is sent, these requests may be sent again, and decide nothing for it.
func own(call *router.Call) *router.Call {
	part := call.Part()
	part.Decides, part.Resend, part.Exchange, part.Method = false, true, nil, ""
	return part
}
