package txn

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/tikv-go/tikv/internal/lock"
)

// Inquiry is what it takes to find out how a transaction ended. What was written in one
// phase leaves its record at the primary key, as every other commit does.
type Inquiry struct {
	Primary     []byte // wire key
	StartTS     uint64
	Secondaries [][]byte // of an asynchronous commit: wire keys
}

// undetermined is the error of a commit that ended with err and may or may not have
// happened.
func (c *commit) undetermined(err error) error {
	q := Inquiry{Primary: slices.Clone(c.primaryKey()), StartTS: c.start}
	if c.protocol == Async {
		q.Secondaries = slices.Clone(c.secondaries())
		c.settle(q)
	}
	return &Undetermined{Inquiry: q, Err: err}
}

// settle lets an asynchronous commit end that nobody looks after any more: nobody can read
// past its locks before they have expired.
func (c *commit) settle(q Inquiry) {
	e, op, o := c.e, c.op, c.t.opts.Read.CallOptions
	o.RetryFor = owedFor
	e.owed.Go("settle", func(ctx context.Context) {
		call := e.call(ctx, op, o)
		call.Owed = true
		if _, err := e.locks.Settle(ctx, call, q.StartTS, q.Primary, q.Secondaries); err != nil {
			e.log.LogAttrs(ctx, slog.LevelWarn, "an outcome is not settled", slog.Uint64("start_ts", q.StartTS), slog.Any("error", err))
		}
	})
}

// Outcome finds out how a transaction ended whose commit is under way no more: its
// commit timestamp, or 0 if it did not commit. What is undecided is rolled back. A
// *TooOld error: the record may be gone.
func (e *Engine) Outcome(ctx context.Context, op string, o CallOptions, q Inquiry) (commitTS uint64, err error) {
	if _, err := e.Issued(ctx, q.StartTS, math.MaxInt64); err != nil {
		return 0, err
	}
	e.touch()
	s, err := e.locks.Settle(ctx, e.call(ctx, op, o), q.StartTS, q.Primary, q.Secondaries)
	switch {
	case err != nil:
		return 0, err
	case s.State == lock.Committed:
		return s.CommitTS, nil
	}
	// Garbage collection takes commit records of what was overwritten or deleted.
	return 0, e.checkSafe(ctx, q.StartTS, time.Now())
}
