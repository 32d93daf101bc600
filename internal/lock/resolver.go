package lock

import (
	"context"
	"errors"
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
	router Router
	clock  Clock
	log    *slog.Logger
	known  statuses
	sweeps sweeps
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
	caller := who.TS
	if caller == math.MaxUint64 {
		// A read of the newest data waits for live locks: ignoring one, it could see
		// one key of a transaction that commits meanwhile and not another.
		caller = 0
	}
	var v Verdict
	err := r.resolve(ctx, call, locks, caller, !who.Settle, func(t *txn) {
		switch s := t.status; {
		case s.State == RolledBack, s.State == Alive && s.Pushed, s.State == Committed && s.CommitTS > who.TS:
			v.Ignore = append(v.Ignore, t.start)
		case s.State == Committed:
			v.Through = append(v.Through, t.start)
		case s.State == Alive:
			v.alive(&t.locks[0], left(t.start, s.TTL, t.now))
		}
	})
	return v, err
}

// ForWrite resolves locks met by a write: when it returns, those that could go are
// gone.
func (r *Resolver) ForWrite(ctx context.Context, call *router.Call, locks []Lock) (Verdict, error) {
	var v Verdict
	err := r.resolve(ctx, call, locks, 0, false, func(t *txn) {
		if t.status.State == Alive {
			v.alive(&t.locks[0], left(t.start, t.status.TTL, t.now))
		}
	})
	return v, err
}

// txn is a transaction whose locks were met, with those of one primary key.
type txn struct {
	start   uint64
	primary []byte
	locks   []Lock
	ttl     uint64 // the largest of the locks'; 0: resolve them alive or not
	settle  bool   // locks holds one that is not pessimistic

	now    uint64 // by which it was judged
	status Status
	all    [][]byte // every key of the transaction, if they are known
}

// byTxn groups locks, in the order in which they came.
func byTxn(locks []Lock) []*txn {
	type id struct {
		start   uint64
		primary string
	}
	index := make(map[id]*txn, 1)
	var txns []*txn
	for _, l := range locks {
		t := index[id{l.StartTS, string(l.Primary)}]
		if t == nil {
			t = &txn{start: l.StartTS, primary: l.Primary}
			index[id{l.StartTS, string(l.Primary)}] = t
			txns = append(txns, t)
		}
		t.locks = append(t.locks, l)
		t.ttl = max(t.ttl, l.TTL)
		t.settle = t.settle || !l.Pessimistic
	}
	return txns
}

// resolve asks once for every transaction, tells judge of each, one at a time and in
// order, and removes the locks of those that are over: behind the caller's back if it
// can be so.
func (r *Resolver) resolve(ctx context.Context, call *router.Call, locks []Lock, caller uint64, behind bool, judge func(*txn)) error {
	txns := byTxn(locks)
	err := task.Each(ctx, parallel, len(txns), func(ctx context.Context, i int) error {
		t, part := txns[i], call.Part()
		if err := r.find(ctx, part, t, caller); err != nil {
			return err
		}
		if t.status.State == Alive {
			return nil
		}
		return r.remove(ctx, part, t, behind)
	})
	if err != nil {
		return err
	}
	for _, t := range txns {
		judge(t)
	}
	return nil
}

// find fills in t's status.
func (r *Resolver) find(ctx context.Context, call *router.Call, t *txn, caller uint64) error {
	if s, ok := r.known.get(t.start); ok {
		t.status = s
		return nil
	}
	err := r.ask(ctx, call, t, query{caller: caller})
	if err != nil || t.status.async == nil || t.status.State != Alive || left(t.start, t.status.TTL, t.now) > 0 {
		return err
	}
	err = r.recover(ctx, call, t)
	if errors.Is(err, errNotAsync) {
		// One of its locks says that the transaction fell back to two phases.
		return r.ask(ctx, call, t, query{caller: caller, forceSync: true})
	}
	return err
}

// query is how a transaction's status is asked for.
type query struct {
	caller    uint64
	forceSync bool
}

// ask queries the primary key until there is an answer. A transaction of which the
// primary key knows nothing is either still writing its locks, and left alone as long
// as the lock met lives, or it is rolled back there, so that its primary lock can never
// come.
func (r *Resolver) ask(ctx context.Context, call *router.Call, t *txn, q query) error {
	rollback := false
	for {
		now, err := r.clock.RecentTimestamp(ctx, clockAge)
		if err != nil {
			return err
		}
		t.now = now
		s, err := r.check(ctx, call, t, q, rollback)
		switch {
		case err == nil:
			t.status = s
			r.known.put(t.start, s)
			return nil
		case errors.Is(err, errMismatch) && !t.settle:
			// An orphan: the transaction chose another primary key since.
			t.status = Status{State: Gone}
			return nil
		case !errors.Is(err, errNotFound):
			return err
		case t.ttl == 0 || left(t.start, t.ttl, now) == 0:
			if rollback {
				return err
			}
			rollback = true
			continue
		case !t.settle:
			t.status = Status{State: Alive, TTL: t.ttl}
			return nil
		}
		if err := r.router.Wait(ctx, call, backoff.TxnNotFound); err != nil {
			return err
		}
	}
}
