package txn

import (
	"context"
	"errors"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/router"
)

// Protocol is how a transaction commits.
type Protocol uint8

// The protocols.
const (
	NoProtocol Protocol = iota // nothing was written
	OnePhase                   // the prewrite of the only request commits as well
	Async                      // it has committed when all keys are locked
	TwoPhase                   // it has committed when its primary key has
	Piped                      // as in two phases, of which the first went on as long as it was written
)

// Mode says which protocols a commit may use.
type Mode uint8

// The modes.
const (
	Auto         Mode = iota // one phase, else asynchronous, else two phases
	AsyncAtMost              // never one phase
	TwoPhaseOnly             // two phases
)

// The limits of an asynchronous commit: the primary lock lists the other keys, and who
// finds the lock of a dead client has to ask for each of them (client-go config/client.go,
// AsyncCommit).
const (
	asyncKeys     = 256
	asyncKeyBytes = 4096
)

// safeWindow is how far a commit timestamp that TiKV calculates may be ahead of PD's time
// (client-go config/client.go, AsyncCommit.SafeWindow). One that a reader has pushed
// further ahead is PD's to give: the commit falls back to two phases.
const safeWindow = 2 * time.Second

// choose finds the protocol for so many requests.
func (c *commit) choose(parts int) Protocol {
	switch {
	case len(c.muts.held) == 0, c.o.Mode == TwoPhaseOnly, c.o.Check != nil, c.muts.shared:
		return TwoPhase
	case c.o.Mode == Auto && parts == 1:
		return OnePhase
	case len(c.muts.keys) <= asyncKeys && c.muts.keyBytes <= asyncKeyBytes:
		return Async
	}
	return TwoPhase
}

// bound sets the limits of the commit timestamp that TiKV is to calculate. It comes after
// all that was read on the stores that the keys are on. To come after whatever has
// committed elsewhere as well, it has to be above a timestamp that was issued since Commit
// was called.
func (c *commit) bound(ctx context.Context) error {
	now := c.start + timestamp(c.t.uptime())
	if !c.o.Causal || c.o.After > 0 {
		ts, err := c.fresh(ctx)
		if err != nil {
			return err
		}
		c.minTS = max(c.minTS, ts+1)
		now = max(now, ts)
	}
	c.maxTS = now + timestamp(safeWindow)
	return nil
}

// leaveOnePhase goes on in another protocol, since the mutations are in several regions by
// now. Where a request that was lost may have committed them all, only an asynchronous
// commit is told so, and when: TiKV answers its prewrites with the commit timestamp. c.mu
// is held.
func (c *commit) leaveOnePhase(lost bool) {
	c.fellBack = true
	if c.protocol = c.choose(2); lost {
		c.protocol = Async
	}
}

// fallBack goes on in two phases: a key has a lock that does not count for the others.
// c.mu is held.
func (c *commit) fallBack() {
	if c.protocol != TwoPhase {
		c.protocol, c.fellBack = TwoPhase, true
	}
}

// timestamp fetches one.
func (t *Txn) timestamp(ctx context.Context) (uint64, error) {
	began := time.Now()
	ts, err := t.e.pd.Timestamp(ctx)
	t.Spent(router.TimestampTime, began)
	return ts, err
}

// timestamp is a time as the difference of two timestamps.
func timestamp(d time.Duration) uint64 { return uint64(d.Milliseconds()) << 18 }

// fresh returns a new timestamp, above the one that the commit has to come after.
func (c *commit) fresh(ctx context.Context) (uint64, error) {
	ts, err := c.t.timestamp(ctx)
	if err != nil || ts > c.o.After {
		return ts, err
	}
	began := time.Now()
	call := c.e.callWith(c.op, c.t.opts.Read.CallOptions, backoff.New(0))
	call.RetryFor = c.o.Wait
	for {
		behind := time.Duration(c.o.After>>18-ts>>18) * time.Millisecond
		if behind > c.o.Wait-time.Since(began) {
			return 0, &Behind{StartTS: c.start, After: c.o.After, Now: ts}
		}
		d := min(max(behind, backoff.CommitLag.Base), backoff.CommitLag.Cap)
		if err := c.e.router.Wait(ctx, &call, backoff.Kind{Name: backoff.CommitLag.Name, Base: d, Cap: d}); err != nil {
			return 0, err
		}
		if ts, err = c.t.timestamp(ctx); err != nil || ts > c.o.After {
			return ts, err
		}
	}
}

// definite is the error of a call as if nothing had been lost: what its requests may have
// done decides nothing.
func definite(ctx context.Context, lost *router.Undetermined) error {
	switch {
	case errors.Is(lost, router.ErrClosed):
		return router.ErrClosed
	case errors.Is(ctx.Err(), context.Canceled):
		return &router.Canceled{Causes: lost.Causes}
	}
	return &router.Unavailable{Op: lost.Op, Key: lost.Key, Total: len(lost.Causes), Causes: lost.Causes}
}
