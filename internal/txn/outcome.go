package txn

import (
	"context"
	"math"
	"slices"

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
	return &Undetermined{Inquiry: Inquiry{Primary: slices.Clone(c.primaryKey()), StartTS: c.start}, Err: err}
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
	return 0, e.checkSafe(ctx, q.StartTS)
}
