package txn

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/wire"
)

const (
	// maxAge is how old a transaction may be when it begins to commit.
	maxAge = 24 * time.Hour
	// maxPush is how far ahead a reader can reasonably have pushed a commit timestamp.
	maxPush = time.Hour
	// writeTimeout is one attempt's of a write.
	writeTimeout = 20 * time.Second
)

// Check is asked about a commit timestamp when all keys are locked; its error ends the
// transaction.
type Check func(commitTS uint64) error

// CommitOptions are how a transaction commits.
type CommitOptions struct {
	Mode   Mode
	Causal bool          // the commit need not come after what it does not know of
	After  uint64        // the commit comes after this timestamp
	Wait   time.Duration // how long PD may take to get there
	Check  Check         // may be nil; it is for two phases

	DiskFull kvrpcpb.DiskFullOpt
	Source   uint64 // for change feeds
}

// Commit makes the writes durable, or ends the transaction without. After an error that
// is no *Undetermined nothing was or will be written.
func (t *Txn) Commit(ctx context.Context, op string, o CommitOptions) error {
	if err := t.guard.write(); err != nil {
		return err
	}
	if err := t.mayCommit(o); err != nil {
		t.leave()
		return err
	}
	end := End{Fate: Failed, Err: ErrPanicked}
	defer func() { t.leaveWith(end) }() // also where the check panics
	err := t.carryOut(ctx, op, o)
	end = endOf(err)
	return err
}

// carryOut is Commit for who is inside.
func (t *Txn) carryOut(ctx context.Context, op string, o CommitOptions) error {
	if t.pipe != nil {
		return t.pipe.commit(ctx, op, o)
	}
	if t.buf.Len() == 0 {
		return nil
	}
	c := &commit{t: t, e: t.e, op: op, o: o, start: t.StartTS(), room: t.e.takeRoom()}
	defer c.giveRoom()
	if t.buf.Len() > fewMutations {
		c.more = t.e.takeMore()
	}
	c.muts.collect(t.buf.Freeze(), t.buf.Len(), t.pess.holds(), &c.few, c.more)
	if len(c.muts.keys) == 0 {
		return nil
	}
	t.wrote.Keys, t.wrote.Bytes = uint32(len(c.muts.keys)), c.muts.bytes
	if t.uptime() > maxAge {
		return &Aborted{StartTS: c.start, Why: "it is older than a day"}
	}
	if t.uptime() > safePointMaxAge {
		// Behind the safe point conflicts leave no trace: deletions go.
		if err := t.e.checkSafe(ctx, c.start, time.Now()); err != nil {
			return err
		}
	}
	if len(c.muts.wanted) > 0 {
		if err := checkWanted(ctx, op, t.snap, c.muts.wanted); err != nil {
			return err
		}
	}
	if len(c.muts.absent) > 0 { // locked later than the start
		if err := checkWanted(ctx, op, t.asOf(), c.muts.absent); err != nil {
			return err
		}
	}
	c.minTS, c.ttl, c.primary = c.start+1, lockTTL(c.muts.bytes), t.pess.primaryOf(c.muts.held)
	t.owe()
	ctx, done := t.enter(ctx)
	defer done()
	if err := t.pess.mayWrite(ctx); err != nil {
		return t.ended(err)
	}
	if t.e.latches == nil || t.pess.holds() {
		return t.ended(c.run(ctx))
	}
	began := time.Now()
	release, err := t.e.latches.Hold(ctx, c.muts.keys, c.start)
	t.Spent(router.LatchTime, began)
	if err != nil {
		var conflict *Conflict
		if !errors.As(err, &conflict) {
			err = new(router.Call).Ended(ctx)
		}
		return err
	}
	defer func() { release(t.CommitTS()) }()
	return t.ended(c.run(ctx))
}

// commit is the commit of one transaction: locks with the values on all keys, then the
// commit record on the primary key, which decides, then on the others; or one of the
// shorter ways.
type commit struct {
	t     *Txn
	e     *Engine
	op    string
	o     CommitOptions
	muts  mutations
	start uint64
	ttl   time.Duration
	busy  bool  // tasks use what is in its room
	more  *more // nil: few are enough

	primary      int    // index in muts.held
	minTS, maxTS uint64 // between which TiKV may choose the commit timestamp

	mu       sync.Mutex
	protocol Protocol // by now
	fellBack bool     // it was another at first
	commitTS uint64   // OnePhase: of the commit; Async: the least that it can be, by now
	at       *region.Region
	prime    part   // at and prime: where the primary lock was written, and with what
	locked   []part // that have left locks, or may have
	failures failures

	*room
}

// room is the memory of what most commits need, kept for the next one. It refers to
// neither transaction nor engine: what a pool can hold the linker keeps, with all methods.
type room struct {
	few   few
	parts [2]part
	runs  [2]router.Run
	first prewriting
	last  errand
}

func (e *Engine) takeRoom() *room {
	if r, _ := e.rooms.Get().(*room); r != nil {
		return r
	}
	return &room{}
}

// giveRoom takes back what nobody refers to any more. Tasks need keys, but no mutations.
func (c *commit) giveRoom() {
	c.e.giveMore(c.more)
	if !c.busy {
		*c.room = room{}
		c.e.rooms.Put(c.room)
	}
}

// primaryKey is what all locks point to. Where nothing leaves a lock it is only looked
// at.
func (c *commit) primaryKey() []byte {
	if len(c.muts.held) == 0 {
		return c.muts.keys[0]
	}
	return c.muts.held[c.primary]
}

func (c *commit) run(ctx context.Context) error {
	defer c.t.beat.stop()
	err := c.prewrite(ctx)
	c.t.protocol.Store(uint32(c.protocol))
	c.t.fellBack.Store(c.fellBack)
	switch {
	case err != nil:
		return c.fail(err)
	case len(c.muts.held) == 0:
		c.t.protocol.Store(uint32(NoProtocol))
		return nil
	case c.protocol != TwoPhase:
		return c.committed(c.commitTS)
	}
	return c.conclude(ctx)
}

// conclude commits the primary key at a fresh timestamp: all locks are there.
func (c *commit) conclude(ctx context.Context) error {
	ts, err := c.timestamp(ctx)
	if err != nil {
		return c.fail(err)
	}
	c.t.decide()
	began := time.Now()
	ts, err = c.commitPrimary(ctx, ts)
	c.t.Spent(router.CommitTime, began)
	if err != nil {
		return c.fail(err)
	}
	return c.committed(ts)
}

// committed is the end of a transaction that has committed: what is left is owed.
func (c *commit) committed(ts uint64) error {
	c.t.commitTS.Store(ts)
	c.t.committed()
	switch c.protocol {
	case Async:
		c.e.locks.Committed(c.start, ts) // who meets its locks need not wait for them
		c.commitKeys(ts, c.muts.held)
	case TwoPhase:
		c.commitKeys(ts, c.muts.held[:c.prime.from])
		c.commitKeys(ts, c.muts.held[c.prime.to:])
	}
	return nil
}

// fail is the end of a transaction that has not committed, or perhaps has: then nothing is
// rolled back.
func (c *commit) fail(err error) error {
	var unknown *router.Undetermined
	if errors.As(err, &unknown) {
		c.t.guard.settled()
		return c.undetermined(err)
	}
	c.cleanUp()
	return err
}

// commitPrimary commits the primary key, with those of the same request and region. It
// returns the commit timestamp, and leaves in c.prime which keys those were, of the held.
func (c *commit) commitPrimary(ctx context.Context, ts uint64) (uint64, error) {
	s := &c.last
	c.begin(ctx, &s.call, &s.retry)
	s.call.Decides = true
	c.prime.from, c.prime.to = c.muts.heldFrom(c.prime.from), c.muts.heldFrom(c.prime.to)
	at := c.at
	for {
		s.fillCommit(c, ts, c.muts.held[c.prime.from:c.prime.to], kvrpcpb.CommitRole_Primary)
		err := c.e.router.SendInto(ctx, &s.call, at, &s.commit, &s.got)
		if errors.Is(err, router.ErrRegionChanged) {
			if at, err = c.e.router.Locate(ctx, &s.call, c.primaryKey()); err != nil {
				return 0, lostOr(&s.call, err)
			}
			c.within(at)
			continue
		}
		if err != nil {
			return 0, lostOr(&s.call, err)
		}
		switch ke := s.got.Error; {
		case ke == nil:
			return ts, nil
		case ke.GetCommitTsExpired() != nil:
			// A reader was told that the transaction commits later. No copy of the
			// request can succeed any more, so that what was lost before is settled.
			s.call = *s.call.Settled()
			if ts, err = c.laterTS(ctx, ke.GetCommitTsExpired()); err != nil {
				return 0, err
			}
		case ke.GetTxnLockNotFound() != nil:
			return 0, keyError(&s.call, c.start, ke) // rolled back: definitive, too
		default:
			// In words only, and that may be an internal timeout of a write that was
			// under way.
			return 0, lostAnyway(&s.call, keyError(&s.call, c.start, ke))
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
	limit := expired.GetAttemptedCommitTs() + timestamp(maxPush)
	if expired.GetMinCommitTs() > limit {
		return 0, &Aborted{StartTS: c.start, Why: "its commit was pushed more than an hour ahead"}
	}
	return c.timestamp(ctx)
}

// timestamp returns a commit timestamp that the check agrees with.
func (c *commit) timestamp(ctx context.Context) (uint64, error) {
	ts, err := c.fresh(ctx)
	if err != nil || c.o.Check == nil {
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
	return c.o.Check(ts)
}

// within leaves in c.prime those of its keys that a region holds.
func (c *commit) within(at *region.Region) {
	held := c.e.codec.WireRange(at.Range)
	p := &c.prime
	for !held.Contains(c.muts.held[p.from]) {
		p.from++
	}
	for !held.Contains(c.muts.held[p.to-1]) {
		p.to--
	}
}

// begin makes a call of the commit in memory that the caller has.
func (c *commit) begin(ctx context.Context, call *router.Call, retry *backoff.Retry) {
	o := c.t.opts.Read.CallOptions
	*retry = *backoff.For(ctx, o.retryFor())
	*call = c.e.callWith(c.op, o, retry)
	call.Timeout = writeTimeout
}

// context is what all requests of the commit have in common.
func (c *commit) context() kvrpcpb.Context {
	return kvrpcpb.Context{DiskFullOpt: c.o.DiskFull, TxnSource: c.o.Source}
}

// answer takes the timestamps that a prewrite was answered with. A lock that was left for
// two phases alone, here or before, says so by having none. c.mu is held.
func (c *commit) answer(got *wire.Prewritten, asked Protocol) {
	switch {
	case asked == OnePhase && got.OnePCCommitTS != 0:
		c.commitTS = got.OnePCCommitTS
	case asked == Async && got.MinCommitTS != 0:
		c.commitTS = max(c.commitTS, got.MinCommitTS)
	case asked != TwoPhase:
		c.fallBack()
	}
}
