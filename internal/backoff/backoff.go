// Package backoff paces the retries of one call: a delay per kind of failure that
// grows on its own, and one budget of time for all of them together.
package backoff

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"time"
)

// Kind is a kind of failure: its first and its longest delay. With Jitter a delay is
// drawn from [d/2, d], so that callers that failed together do not return together.
type Kind struct {
	Name      string
	Base, Cap time.Duration
	Jitter    bool
}

// The kinds, with the base and cap that the field has settled on (client-go
// config/retry/config.go); see facts section 11.
var (
	RPC            = Kind{"rpc", 100 * time.Millisecond, 2 * time.Second, true}
	Lock           = Kind{"lock", 100 * time.Millisecond, 3 * time.Second, true}
	LockRead       = Kind{"lock-read", 10 * time.Millisecond, 3 * time.Second, true}
	PD             = Kind{"pd", 100 * time.Millisecond, 3 * time.Second, true}
	RegionMiss     = Kind{"region-miss", 2 * time.Millisecond, 500 * time.Millisecond, false}
	Scheduling     = Kind{"scheduling", 2 * time.Millisecond, 500 * time.Millisecond, false}
	ServerBusy     = Kind{"server-busy", 500 * time.Millisecond, 10 * time.Second, true}
	DiskFull       = Kind{"disk-full", 500 * time.Millisecond, 5 * time.Second, false}
	Recovery       = Kind{"recovery", 100 * time.Millisecond, 10 * time.Second, true}
	TxnNotFound    = Kind{"txn-not-found", 2 * time.Millisecond, 500 * time.Millisecond, false}
	StaleCommand   = Kind{"stale-command", 2 * time.Millisecond, time.Second, false}
	MaxTS          = Kind{"max-ts", 2 * time.Millisecond, 500 * time.Millisecond, false}
	NotInitialized = Kind{"not-initialized", 2 * time.Millisecond, time.Second, false}
	Witness        = Kind{"witness", time.Second, 10 * time.Second, true}
	CommitLag      = Kind{"commit-lag", 2 * time.Millisecond, 500 * time.Millisecond, false}
	Conflict       = Kind{"conflict", 2 * time.Millisecond, 500 * time.Millisecond, true}
)

// ErrExhausted is a budget that is used up.
var ErrExhausted = errors.New("backoff: retry budget used up")

// Retry is the pace of one call. It belongs to one goroutine at a time; Fork makes one
// for each part of a call that is split.
type Retry struct {
	budget time.Duration // of sleep; 0: until ctx ends
	slept  time.Duration
	counts map[Kind]int
}

// New returns a Retry that may sleep for budget in all; 0 leaves the end to the
// context alone.
func New(budget time.Duration) *Retry { return &Retry{budget: budget} }

// For returns the Retry of a call under ctx: bounded by ctx alone if it has a
// deadline, else by budget.
func For(ctx context.Context, budget time.Duration) *Retry {
	if _, ok := ctx.Deadline(); ok {
		budget = 0
	}
	return New(budget)
}

// Fork returns a Retry that goes on from where r is: with what is left of its budget, and
// with its delays, since what is split again after each failure would be tried without end.
func (r *Retry) Fork() Retry {
	return Retry{budget: r.budget, slept: r.slept, counts: maps.Clone(r.counts)}
}

// Slept is the time spent in delays.
func (r *Retry) Slept() time.Duration { return r.slept }

// Next returns the delay for another failure of kind k and counts it.
func (r *Retry) Next(k Kind) time.Duration {
	if r.counts == nil {
		r.counts = make(map[Kind]int, 2)
	}
	n := r.counts[k]
	r.counts[k] = n + 1
	d := k.Cap
	if n < 30 && k.Base<<n < k.Cap {
		d = k.Base << n
	}
	if k.Jitter {
		d = d/2 + rand.N(d/2+1)
	}
	return d
}

// Wait sleeps for the next delay of kind k. It returns ErrExhausted, without sleeping,
// when the budget is used up, and context.Cause(ctx) as soon as ctx ends.
func (r *Retry) Wait(ctx context.Context, k Kind) error { return r.WaitAtMost(ctx, k, 0) }

// WaitAtMost is Wait with a delay of at most limit, where limit is not 0.
func (r *Retry) WaitAtMost(ctx context.Context, k Kind, limit time.Duration) error {
	return r.WaitTelling(ctx, k, limit, nil)
}

// WaitTelling is WaitAtMost, and tells the delay first, unless tell is nil.
func (r *Retry) WaitTelling(ctx context.Context, k Kind, limit time.Duration, tell func(time.Duration)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if r.budget > 0 && r.slept >= r.budget {
		return ErrExhausted
	}
	d := r.Next(k)
	if limit > 0 {
		d = min(d, limit)
	}
	if r.budget > 0 {
		d = min(d, r.budget-r.slept)
	}
	r.slept += d
	if tell != nil {
		tell(d)
	}
	return Sleep(ctx, d)
}

// Sleep waits for d, or returns context.Cause(ctx) as soon as ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	// A timer that is due at once is run by whoever asks for it: in a bubble of synctest
	// several goroutines then run timers in one context of the race detector, which may crash
	// (Go 1.26, runtime/time.go, unlockAndRun).
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
