package txn

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

const (
	// maxAge is how old a transaction may be when it begins to commit.
	maxAge = 24 * time.Hour
	// maxPush is how far ahead a reader can reasonably have pushed a commit timestamp.
	maxPush = time.Hour
	// writeTimeout is one attempt's of a write.
	writeTimeout = 20 * time.Second
	// writeParallel is how many requests of one commit are in flight.
	writeParallel = 64
	// owedParallel is how many are when nobody waits for them.
	owedParallel = 16
)

// Check is asked about a commit timestamp when all keys are locked; its error ends the
// transaction.
type Check func(commitTS uint64) error

// Commit makes the writes durable, or ends the transaction without. After an error that
// is no *Undetermined nothing was or will be written. check may be nil.
func (t *Txn) Commit(ctx context.Context, op string, check Check) error {
	if err := t.guard.write(); err != nil {
		return err
	}
	defer t.guard.endWrite()
	defer t.guard.finish()
	m := collect(t.buf.Freeze(), t.buf.Len())
	if m.len() == 0 {
		return nil
	}
	if t.uptime() > maxAge {
		return &Aborted{StartTS: t.StartTS(), Why: "it is older than a day"}
	}
	if t.uptime() > safePointMaxAge {
		// Behind the safe point conflicts leave no trace: deletions go.
		if err := t.e.checkSafe(ctx, t.StartTS()); err != nil {
			return err
		}
	}
	if len(m.asserted) > 0 {
		if err := t.checkAsserted(ctx, op, m); err != nil {
			return err
		}
	}
	c := &commit{t: t, e: t.e, op: op, muts: m, start: t.StartTS(), primary: m.primary(), check: check}
	c.ttl = lockTTL(m.total())
	t.e.commits.add(1)
	defer t.e.commits.add(-1)
	ctx, done := t.e.untilClosing(ctx)
	defer done()
	return c.run(ctx)
}

// commit is the commit of one transaction in two phases: locks with the values on all
// keys, then the commit record on the primary key, which decides, then on the others.
type commit struct {
	t       *Txn
	e       *Engine
	op      string
	muts    *mutations
	start   uint64
	primary int // index of the primary mutation; -1: none leaves a lock
	ttl     time.Duration
	check   Check
	beat    heartbeat

	mu      sync.Mutex
	at      *region.Region // where the primary lock was written
	locked  []int          // mutations that have left locks, or may have
	primeAt []int          // those of the primary's request
}

// primaryKey is what all locks point to. Where nothing leaves a lock it is only looked
// at.
func (c *commit) primaryKey() []byte { return c.muts.keys[max(c.primary, 0)] }

func (c *commit) run(ctx context.Context) error {
	defer c.beat.stop()
	if err := c.prewrite(ctx); err != nil {
		c.cleanUp()
		return err
	}
	if c.primary < 0 {
		return nil
	}
	ts, err := c.timestamp(ctx)
	if err != nil {
		c.cleanUp()
		return err
	}
	ts, rest, err := c.commitPrimary(ctx, ts)
	if err != nil {
		var unknown *router.Undetermined
		if errors.As(err, &unknown) {
			return c.undetermined(err)
		}
		c.cleanUp()
		return err
	}
	c.t.commitTS.Store(ts)
	c.beat.stop()
	c.commitRest(ts, rest)
	return nil
}

// commitPrimary commits the primary key, with those of the same request and region. It
// returns the commit timestamp and the mutations that remain.
func (c *commit) commitPrimary(ctx context.Context, ts uint64) (uint64, []int, error) {
	call := c.call(ctx)
	call.Decides = true
	index, at := c.primeAt, c.at
	for {
		req := c.commitRequest(ts, index, kvrpcpb.CommitRole_Primary)
		resp, err := send[*kvrpcpb.CommitResponse](ctx, c.e, call, at, req)
		if errors.Is(err, router.ErrRegionChanged) {
			if at, err = c.e.router.Locate(ctx, call, c.primaryKey()); err != nil {
				return 0, nil, lostOr(call, err)
			}
			index = c.within(index, at)
			continue
		}
		if err != nil {
			return 0, nil, lostOr(call, err)
		}
		switch ke := resp.GetError(); {
		case ke == nil:
			return ts, c.without(index), nil
		case ke.GetCommitTsExpired() != nil:
			// A reader was told that the transaction commits later. No copy of the
			// request can succeed any more, so that what was lost before is settled.
			call = call.Settled()
			if ts, err = c.laterTS(ctx, ke.GetCommitTsExpired()); err != nil {
				return 0, nil, err
			}
		case ke.GetTxnLockNotFound() != nil:
			return 0, nil, keyError(call, c.start, ke) // rolled back: definitive, too
		default:
			// In words only, and that may be an internal timeout of a write that was
			// under way.
			return 0, nil, lostAnyway(call, keyError(call, c.start, ke))
		}
	}
}

// lostAnyway is the error of a call that ended with an answer which does not decide.
func lostAnyway(call *router.Call, err error) error {
	var unknown *router.Undetermined
	if errors.As(err, &unknown) {
		return err
	}
	return call.Undetermined(err)
}

// lostOr is the error of a call that ends with err: unknown, if an answer was lost.
func lostOr(call *router.Call, err error) error {
	var unknown *router.Undetermined
	if call.Lost() && !errors.As(err, &unknown) {
		return call.Undetermined(err)
	}
	return err
}

// laterTS returns a new commit timestamp.
func (c *commit) laterTS(ctx context.Context, expired *kvrpcpb.CommitTsExpired) (uint64, error) {
	limit := expired.GetAttemptedCommitTs() + uint64(maxPush.Milliseconds())<<18
	if expired.GetMinCommitTs() > limit {
		return 0, &Aborted{StartTS: c.start, Why: "its commit was pushed more than an hour ahead"}
	}
	return c.timestamp(ctx)
}

// timestamp returns a commit timestamp that the check agrees with.
func (c *commit) timestamp(ctx context.Context) (uint64, error) {
	ts, err := c.e.pd.Timestamp(ctx)
	if err != nil || c.check == nil {
		return ts, err
	}
	answered := false
	defer func() {
		if !answered { // it panicked: nobody else cleans up
			c.cleanUp()
		}
	}()
	err = c.ask(ts)
	answered = true
	return ts, err
}

// ask runs the check, which may close the client.
func (c *commit) ask(ts uint64) error {
	c.e.commits.add(-1)
	defer c.e.commits.add(1)
	return c.check(ts)
}

// within returns the mutations that a region holds, the primary first.
func (c *commit) within(index []int, at *region.Region) []int {
	held := c.e.codec.WireRange(at.Range)
	out := []int{c.primary}
	for _, i := range index {
		if i != c.primary && held.Contains(c.muts.keys[i]) {
			out = append(out, i)
		}
	}
	return out
}

// without returns the mutations that leave locks and are not among those.
func (c *commit) without(index []int) []int {
	done := make([]bool, c.muts.len())
	for _, i := range index {
		done[i] = true
	}
	var rest []int
	for i := range c.muts.keys {
		if !done[i] && c.muts.locks(i) {
			rest = append(rest, i)
		}
	}
	return rest
}

func (c *commit) commitRequest(ts uint64, index []int, role kvrpcpb.CommitRole) *kvrpcpb.CommitRequest {
	return &kvrpcpb.CommitRequest{
		Context:       &kvrpcpb.Context{},
		StartVersion:  c.start,
		CommitVersion: ts,
		Keys:          pick(c.muts.keys, index),
		PrimaryKey:    c.primaryKey(),
		CommitRole:    role,
	}
}

// call returns a call of the commit.
func (c *commit) call(ctx context.Context) *router.Call {
	call := c.e.call(ctx, c.op, c.t.opts.Read.CallOptions)
	call.Timeout = writeTimeout
	return call
}

// owed runs fn on batches of mutations, in the background and until it is done or the
// client has closed. Whatever is left undone others will do.
func (c *commit) owed(name string, index []int, fn func(ctx context.Context, call *router.Call, part router.Group) error) {
	if len(index) == 0 {
		return
	}
	c.e.owed.Go(name, func(ctx context.Context) {
		o := c.t.opts.Read.CallOptions
		o.RetryFor = owedFor
		call := c.e.call(ctx, c.op, o)
		call.Owed, call.Timeout = true, writeTimeout
		if err := c.eachPart(ctx, call, owedParallel, index, fn); err != nil {
			c.e.log.LogAttrs(ctx, slog.LevelWarn, name+" not done", slog.Uint64("start_ts", c.start), slog.Any("error", err))
		}
	})
}

// eachPart runs fn on batches of mutations, each of one region, and again on those of
// changed regions.
func (c *commit) eachPart(ctx context.Context, call *router.Call, parallel int, index []int, fn func(context.Context, *router.Call, router.Group) error) error {
	groups, err := c.group(ctx, call, index)
	if err != nil {
		return err
	}
	parts := c.muts.keyBatches(groups)
	return task.Each(ctx, parallel, len(parts), func(ctx context.Context, i int) error {
		part := call
		if len(parts) > 1 { // else its delays go on growing
			part = call.Part()
		}
		err := fn(ctx, part, parts[i])
		if errors.Is(err, router.ErrRegionChanged) {
			return c.eachPart(ctx, part, 1, parts[i].Index, fn)
		}
		return err
	})
}

// group sorts mutations by region.
func (c *commit) group(ctx context.Context, call *router.Call, index []int) ([]router.Group, error) {
	groups, err := c.e.router.Group(ctx, call, pick(c.muts.keys, index))
	if err != nil {
		return nil, err
	}
	for i := range groups {
		groups[i].Index = pick(index, groups[i].Index)
	}
	return groups, nil
}

// commitRest commits the other keys. The transaction has committed: nobody needs to
// wait.
func (c *commit) commitRest(ts uint64, rest []int) {
	c.owed("commit secondaries", rest, func(ctx context.Context, call *router.Call, p router.Group) error {
		req := c.commitRequest(ts, p.Index, kvrpcpb.CommitRole_Secondary)
		resp, err := send[*kvrpcpb.CommitResponse](ctx, c.e, call, p.Region, req)
		if err == nil && resp.GetError() != nil {
			err = keyError(call, c.start, resp.GetError())
		}
		return err
	})
}

// cleanUp rolls back what may have been locked by a transaction that certainly did not
// commit. The rollback records keep copies of its requests that come late from locking
// again.
func (c *commit) cleanUp() {
	c.beat.stop()
	slices.Sort(c.locked)
	c.owed("roll back", slices.Compact(c.locked), func(ctx context.Context, call *router.Call, p router.Group) error {
		req := &kvrpcpb.BatchRollbackRequest{
			Context: &kvrpcpb.Context{}, StartVersion: c.start, Keys: pick(c.muts.keys, p.Index),
		}
		resp, err := send[*kvrpcpb.BatchRollbackResponse](ctx, c.e, call, p.Region, req)
		if err == nil && resp.GetError() != nil {
			err = keyError(call, c.start, resp.GetError())
		}
		return err
	})
}
