package txn

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/wire"
)

// unknownSize says that nobody knows how many keys a transaction has in a region: others
// that remove its locks shall search.
const unknownSize = math.MaxUint64

// prewriting is what one request of a prewrite needs, kept for the next one.
type prewriting struct {
	part    part
	asked   Protocol // when it was sent
	call    router.Call
	retry   backoff.Retry
	context kvrpcpb.Context
	req     kvrpcpb.PrewriteRequest
	got     wire.Prewritten

	locks []lock.Lock // what came of it: in the way
	err   error       // nil, if it was noted: see note
}

func (e *Engine) takePrewriting() *prewriting {
	if s, _ := e.prewrites.Get().(*prewriting); s != nil {
		return s
	}
	return &prewriting{}
}

func (e *Engine) givePrewriting(s *prewriting) {
	*s = prewriting{}
	e.prewrites.Put(s)
}

// prewrite locks all keys, or, in one phase, commits them.
func (c *commit) prewrite(ctx context.Context) error {
	s := &c.first
	c.begin(ctx, &s.call, &s.retry)
	runs, err := c.e.router.Runs(ctx, &s.call, c.muts.keys, c.runs[:0])
	if err == nil {
		runs, err = c.presplit(ctx, &s.call, runs)
	}
	if err != nil {
		return err
	}
	parts := batches(runs, 0, c.muts.size, c.parts[:0])
	c.t.wrote.Regions = uint32(len(runs))
	if c.protocol = c.choose(len(parts)); c.protocol != TwoPhase {
		c.t.decide()
		if err := c.bound(ctx); err != nil {
			return err
		}
	}
	began := time.Now()
	if len(parts) == 1 {
		c.send(ctx, s, parts[0])
		_ = c.finishPart(ctx, s)
	} else {
		c.prewriteAll(ctx, &s.call, parts)
	}
	c.t.Spent(router.PrewriteTime, began)
	return c.failures.verdict(ctx, c.protocol)
}

// prewriteAll sends the requests, a window at a time.
func (c *commit) prewriteAll(ctx context.Context, call *router.Call, parts []part) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	base := *call
	base.Retry = nil // each part has its own
	sends, parcels := make([]*prewriting, 0, window), make([]router.Parcel, min(len(parts), window))
	told := func(i int) { // the primary lock has to be kept alive from when it is known to be there
		s := sends[i]
		if s.locks, s.err = c.take(s, parcels[i].Err); s.err != nil && !errors.Is(s.err, router.ErrRegionChanged) {
			if s.err = c.note(s.err); s.err != nil {
				cancel(s.err)
			}
		}
	}
	for wave := range slices.Chunk(parts, window) {
		clear(parcels)
		for i, p := range wave {
			s := c.e.takePrewriting()
			base.PartInto(&s.call)
			s.retry = call.Retry.Fork()
			s.call.Retry = &s.retry
			c.fill(s, p)
			parcels[i] = router.Parcel{Call: &s.call, Region: p.region, Req: &s.req, Resp: &s.got}
			sends = append(sends, s)
		}
		c.e.router.SendAll(ctx, parcels[:len(wave)], told)
		c.finish(ctx, sends)
		for _, s := range sends {
			c.e.givePrewriting(s)
		}
		if sends = sends[:0]; c.failures.decided != nil {
			break
		}
	}
}

// finish does what is left to do of requests that were answered, unless it is of no use any
// more.
func (c *commit) finish(ctx context.Context, sends []*prewriting) {
	if c.failures.decided != nil {
		return
	}
	left := sends[:0:0]
	for _, s := range sends {
		if s.err != nil || len(s.locks) > 0 {
			left = append(left, s)
		}
	}
	_ = task.Each(ctx, owedParallel, len(left), func(ctx context.Context, i int) error {
		return c.finishPart(ctx, left[i])
	})
}

// finishPart goes on from what came of a request until the keys are locked. It returns,
// and notes, the error that ends it; an error that leaves open whether they are is noted
// alone, since another part may tell.
func (c *commit) finishPart(ctx context.Context, s *prewriting) error {
	for {
		switch {
		case errors.Is(s.err, router.ErrRegionChanged):
			return c.note(c.prewriteMoved(ctx, s))
		case s.err != nil || len(s.locks) == 0:
			return c.note(s.err)
		}
		if err := c.meet(ctx, s, s.locks); err != nil {
			return c.note(err)
		}
		c.send(ctx, s, s.part)
	}
}

// send sends the request for a part, and takes what comes of it.
func (c *commit) send(ctx context.Context, s *prewriting, p part) {
	c.fill(s, p)
	s.locks, s.err = c.take(s, c.e.router.SendInto(ctx, &s.call, p.region, &s.req, &s.got))
}

// prewriteMoved locks the keys of a part in the regions that they are in by now.
func (c *commit) prewriteMoved(ctx context.Context, s *prewriting) error {
	p := s.part
	runs, err := c.e.router.Runs(ctx, &s.call, c.muts.keys[p.from:p.to], nil)
	if err != nil {
		return lostOr(&s.call, err)
	}
	for i := range runs {
		runs[i].From, runs[i].To = runs[i].From+p.from, runs[i].To+p.from
	}
	parts := batches(runs, 0, c.muts.size, nil)
	c.mu.Lock()
	if c.protocol == OnePhase && len(parts) > 1 {
		c.leaveOnePhase(s.call.Lost())
	}
	c.mu.Unlock()
	for _, p := range parts {
		p.inRegion = unknownSize
		c.send(ctx, s, p)
		if err := c.finishPart(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// fill makes the request for a part.
func (c *commit) fill(s *prewriting, p part) {
	c.mu.Lock()
	s.part, s.asked = p, c.protocol
	c.mu.Unlock()
	s.call.Decides = s.asked != TwoPhase
	s.context = c.context()
	s.got.Reset()
	s.req = kvrpcpb.PrewriteRequest{
		Context:      &s.context,
		Mutations:    c.muts.all[p.from:p.to],
		PrimaryLock:  c.primaryKey(),
		StartVersion: c.start,
		LockTtl:      uint64((c.ttl + c.t.uptime()).Milliseconds()),
		TxnSize:      p.inRegion,
		MinCommitTs:  c.minTS,
	}
	if c.t.pess.holds() {
		c.t.pess.prewrite(c.t, &s.req)
	}
	if c.muts.asserts {
		s.req.AssertionLevel = c.t.opts.Assertions
	}
	switch s.asked {
	case OnePhase:
		s.req.TryOnePc, s.req.MaxCommitTs = true, c.maxTS
	case Async:
		s.req.UseAsyncCommit, s.req.MaxCommitTs = true, c.maxTS
		if c.primes(p) {
			s.req.Secondaries = c.secondaries()
		}
	}
}

// primes reports whether the primary key is in a part.
func (c *commit) primes(p part) bool {
	return len(c.muts.held) > 0 && c.muts.heldFrom(p.from) <= c.primary && c.primary < c.muts.heldFrom(p.to)
}

// secondaries are all keys that are left with locks but the primary.
func (c *commit) secondaries() [][]byte {
	held, i := c.muts.held, c.primary
	if i == 0 {
		return held[1:]
	}
	return slices.Concat(held[:i], held[i+1:])
}

// take reads what came of a request. It returns the locks that are in its way.
func (c *commit) take(s *prewriting, err error) ([]lock.Lock, error) {
	refused := err == nil && len(s.got.Errors) > 0
	if !refused || s.context.IsRetryRequest {
		// Written, or perhaps so by a copy of the request whose answer was lost.
		c.wrote(s, err == nil && !refused)
	}
	if err != nil {
		return nil, err
	}
	var locks []lock.Lock
	for _, ke := range s.got.Errors {
		if ke.GetLocked() == nil {
			return nil, keyError(&s.call, c.start, ke)
		}
		locks = append(locks, lock.FromProto(ke.GetLocked())...)
	}
	return locks, nil
}

// meet deals with locks in the way of a request: when it returns the request may be sent
// again.
func (c *commit) meet(ctx context.Context, s *prewriting, locks []lock.Lock) error {
	// Nothing was written. Who began later is about to write what this transaction has read
	// before: a conflict, and of two transactions that are in each other's way only one
	// waits. A copy of the request that was lost, though, may yet come when that one is gone.
	c.t.revive(locks)
	for _, l := range locks {
		if l.StartTS > c.start && !s.call.Lost() {
			return &Conflict{Key: l.Key, Primary: l.Primary, StartTS: c.start, ConflictTS: l.StartTS}
		}
	}
	v, err := c.e.locks.ForWrite(ctx, &s.call, c.start, locks)
	if err == nil && v.Live != nil {
		err = c.e.await(ctx, &s.call, backoff.Lock, c.start, *v.Live, v.Wait)
	}
	if err != nil {
		return lostOr(&s.call, err)
	}
	if !s.call.Lost() {
		s.call = *s.call.Settled()
	}
	return nil
}

// wrote notes that a part has left its locks, certainly or perhaps. With the primary lock
// the transaction begins to live, and has to be kept alive.
func (c *commit) wrote(s *prewriting, certain bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if certain {
		c.answer(&s.got, s.asked)
		if s.asked == OnePhase && c.protocol == OnePhase {
			return // committed
		}
	}
	if n := len(c.locked); n > 0 && c.locked[n-1].to == s.part.from {
		c.locked[n-1].to = s.part.to
	} else {
		c.locked = append(c.locked, s.part)
	}
	if certain && c.primes(s.part) {
		c.at, c.prime = s.part.region, s.part
		c.t.beat.start(c.t, c.primaryKey(), c.t.firstBeat(s.req.LockTtl, c.ttl/2))
	}
}

// failures are what ended the parts of a prewrite.
type failures struct {
	decided   error                // the first after which the keys of a part are certainly not locked
	assertion error                // the same, but others tell more
	unknown   *router.Undetermined // the first that leaves that open
}

// note keeps an error, and returns it if the others need not go on.
func (c *commit) note(err error) error {
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := &c.failures
	var unknown *router.Undetermined
	var asserted *Asserted
	switch {
	case errors.As(err, &unknown):
		if f.unknown == nil {
			f.unknown = unknown
		}
		return nil
	case errors.As(err, &asserted):
		if f.assertion == nil {
			f.assertion = err
		}
		return nil
	case f.decided == nil:
		f.decided = err
	}
	return err
}

// verdict is the error of a prewrite whose requests have ended. In one phase, or
// asynchronously, it has committed if all of them wrote what they were to write, whether
// it was told so or not: one that certainly did not settles it.
func (f *failures) verdict(ctx context.Context, p Protocol) error {
	switch {
	case f.decided != nil:
		return f.decided
	case f.assertion != nil:
		return f.assertion
	case f.unknown == nil:
		return nil
	case p == TwoPhase:
		return definite(ctx, f.unknown)
	}
	return f.unknown
}
