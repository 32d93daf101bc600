package tikv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/txn"
)

// RunTxn runs fn in a transaction and commits it, running fn again on a fresh
// transaction, with jittered delays, while the failure IsRetryable and ctx allows. An error
// of fn's own rolls back and is returned. fn must not keep tx (ErrTxnDone) and must tolerate
// being run more than once (Txn.Attempt); it may end tx by itself. An undetermined commit is
// never repeated. A panic in fn rolls back and is passed on.
func (c *Client) RunTxn(ctx context.Context, fn func(ctx context.Context, tx *Txn) error, opts ...RunOption) error {
	const op = "RunTxn"
	if err := c.checkTxn(op); err != nil {
		return err
	}
	cfg := *c.cfg.txn
	cfg.setOp(op)
	if fn == nil {
		cfg.add("fn", "is nil")
	}
	if err := apply(op, opts, &cfg, func(o RunOption) { o.applyRun(&cfg) }); err != nil {
		return err
	}
	// ctx alone ends it: the delays have no budget.
	pace := &router.Call{Op: op, RetryFor: math.MaxInt64}
	r := runner{c: c, op: op, fn: fn, cfg: &cfg}
	for attempt := 1; ; attempt++ {
		err := r.attempt(ctx, attempt)
		if err == nil {
			return nil
		}
		if !IsRetryable(err) || attempt == cfg.maxAttempts {
			return attempted(op, attempt, err)
		}
		r.learn(err)
		began := time.Now()
		end := c.engine.router.Wait(ctx, pace, backoff.Conflict)
		if w := cfg.view.watch; w != nil {
			w.Count(router.BackoffTime, router.ReasonNone, int64(time.Since(began)))
		}
		if end != nil {
			return attempted(op, attempt, errors.Join(mapError(c.errorContext(op, c.engine.txn), end), err))
		}
	}
}

// runner is one RunTxn.
type runner struct {
	c         *Client
	op        string
	fn        func(ctx context.Context, tx *Txn) error
	cfg       *txnConfig
	conflicts int      // in a row
	first     [][]byte // keys of conflicts, to be locked before fn runs
}

// maxFirst is how many keys are locked before fn runs.
const maxFirst = 64

// learn makes something of a failure.
func (r *runner) learn(err error) {
	var conflict *WriteConflictError
	if !errors.Is(err, ErrWriteConflict) {
		r.conflicts = 0
		return
	}
	r.conflicts++
	if r.cfg.pessimisticAfter > 0 && errors.As(err, &conflict) && len(conflict.Key) > 0 && len(r.first) < maxFirst &&
		!slices.ContainsFunc(r.first, func(key []byte) bool { return bytes.Equal(key, conflict.Key) }) {
		r.first = append(r.first, conflict.Key)
	}
	if first, ok := r.cfg.lockFirst.(lockFirst); ok && r.conflicts >= r.cfg.pessimisticAfter {
		r.cfg.pessimism = first.pessimism
	}
}

// attempt is one run of fn. However it ends, its transaction has ended afterwards.
func (r *runner) attempt(ctx context.Context, n int) error {
	tx, ctx, err := r.begin(ctx, n)
	if err != nil {
		return err
	}
	end := txn.End{Fate: txn.RolledBack, Err: errNotReturned, Own: true}
	defer func() { tx.t.Abandon(end) }()
	if err := r.fn(ctx, tx); err != nil {
		end.Err = err
		_ = tx.t.RollbackFor(ctx, err)
		return err
	}
	if tx.t.Finished() {
		return nil // fn has committed or rolled back by itself
	}
	end.Err = tx.Commit(ctx)
	return end.Err
}

// begin starts the transaction of an attempt. Where it is pessimistic because of
// conflicts, it holds their keys as they were at its start: where others write them while
// it waits it begins anew, for fn has not run yet.
func (r *runner) begin(ctx context.Context, n int) (*Txn, context.Context, error) {
	for {
		tx, under, err := r.c.begin(ctx, r.op, r.cfg, n)
		first, ok := r.cfg.lockFirst.(lockFirst)
		if err != nil || !ok || r.cfg.pessimism == nil || len(r.first) == 0 {
			return tx, under, err
		}
		err = first.lock(under, tx, r.first)
		if err == nil {
			return tx, under, nil
		}
		_ = tx.t.RollbackFor(under, err)
		if !errors.Is(err, ErrWriteConflict) {
			return nil, ctx, err
		}
	}
}

// attemptsError is what RunTxn failed with in the end.
type attemptsError struct {
	op  string
	n   int
	err error
}

func attempted(op string, n int, err error) error {
	if n == 1 {
		return err
	}
	return &attemptsError{op, n, err}
}

func (e *attemptsError) Error() string {
	return fmt.Sprintf("tikv: %s: after %d attempts: %s", e.op, e.n, e.err)
}
func (e *attemptsError) Unwrap() error { return e.err }

// Attempt is how often RunTxn has run its function by now; 1 for a transaction of Begin.
func (tx *Txn) Attempt() int { return max(tx.attempt, 1) }
