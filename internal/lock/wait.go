package lock

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/router"
)

// Waiting is a call that waits for a lock.
type Waiting struct {
	Op    string
	By    uint64 // as of when it reads (math.MaxUint64: the newest), or its transaction's start
	Lock  Lock
	Since time.Time // when the call began
}

// waits are the calls of a client that wait for locks.
type waits struct {
	mu  sync.Mutex
	all map[*Waiting]struct{}
}

// begin notes a wait; the function returned ends it.
func (w *waits) begin(at *Waiting) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = make(map[*Waiting]struct{})
	}
	w.all[at] = struct{}{}
	return func() {
		w.mu.Lock()
		delete(w.all, at)
		w.mu.Unlock()
	}
}

// Waiting lists the calls that wait for locks, the longest wait first.
func (r *Resolver) Waiting() []Waiting {
	r.waits.mu.Lock()
	all := make([]Waiting, 0, len(r.waits.all))
	for w := range r.waits.all {
		all = append(all, *w)
	}
	r.waits.mu.Unlock()
	slices.SortFunc(all, func(a, b Waiting) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.By, b.By)) })
	return all
}

// Waits notes that a call waits for a lock that who met, until end is called.
func (r *Resolver) Waits(call *router.Call, who uint64, l Lock) (end func()) {
	return r.waits.begin(&Waiting{Op: call.Op, By: who, Lock: l, Since: call.Began()})
}

// Await waits for the next delay of the call for a lock that who met, at most for limit
// if that is not 0.
func (r *Resolver) Await(ctx context.Context, call *router.Call, kind backoff.Kind, who uint64, l Lock, limit time.Duration) error {
	defer r.Waits(call, who, l)()
	if call.Retry != nil {
		d := call.Retry.Next(kind)
		if limit > 0 {
			d = min(d, limit)
		}
		kind = backoff.Kind{Name: kind.Name, Base: d, Cap: d}
	}
	return r.router.Wait(ctx, call, kind)
}
