package tikv

import (
	"context"
	"errors"
	"math"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/router"
)

// RunTxn runs fn in a transaction and commits it, running fn again on a fresh
// transaction, with jittered delays, while the failure IsRetryable and ctx allows. fn
// must not keep tx (ErrTxnDone) and must tolerate being run more than once. An
// undetermined commit is never repeated. A panic in fn rolls back and is passed on.
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
	for attempt := 1; ; attempt++ {
		err := c.runOnce(ctx, op, fn, &cfg)
		if err == nil || !IsRetryable(err) || attempt == cfg.maxAttempts {
			return err
		}
		if end := c.engine.router.Wait(ctx, pace, backoff.Conflict); end != nil {
			return errors.Join(mapError(c.errorContext(op, c.engine.txn), end), err)
		}
	}
}

// runOnce is one attempt. However fn ends, its transaction has ended afterwards.
func (c *Client) runOnce(ctx context.Context, op string, fn func(ctx context.Context, tx *Txn) error, cfg *txnConfig) error {
	tx, err := c.begin(ctx, op, cfg)
	if err != nil {
		return err
	}
	defer tx.t.Abandon()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if tx.t.Ended() {
		return nil // fn has committed or rolled back by itself
	}
	return tx.Commit(ctx)
}
