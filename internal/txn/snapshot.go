package txn

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/wire"
)

// Latest is the read timestamp of a view of the newest data.
const Latest = math.MaxUint64

// ReadOptions are how a view reads.
type ReadOptions struct {
	CallOptions
	Isolation   kvrpcpb.IsolationLevel
	NoFillCache bool
}

// Snapshot is a view of the data at one timestamp, or of the newest. It is immutable
// but for what it learns, and safe for concurrent use.
type Snapshot struct {
	e    *Engine
	ts   uint64
	opts *ReadOptions // which others may share, and nobody changes
	seen *seen
}

// Room is the memory of a view, for who has it beside its own.
type Room struct {
	snapshot Snapshot
	seen     seen
}

// Snapshot returns a view as of ts. Unless issued, ts need not be of the past: the
// first read will find out. The view keeps o, which is not to be changed any more.
func (e *Engine) Snapshot(ts uint64, issued bool, o *ReadOptions) *Snapshot {
	return e.SnapshotIn(new(Room), ts, issued, o)
}

// SnapshotIn is Snapshot in memory that nothing else uses.
func (e *Engine) SnapshotIn(room *Room, ts uint64, issued bool, o *ReadOptions) *Snapshot {
	room.seen.past.Store(issued || ts == Latest)
	room.snapshot = Snapshot{e: e, ts: ts, opts: o, seen: &room.seen}
	return &room.snapshot
}

// With returns the same view with other options.
func (s *Snapshot) With(o *ReadOptions) *Snapshot {
	return &Snapshot{e: s.e, ts: s.ts, opts: o, seen: s.seen}
}

// TS is the view's timestamp.
func (s *Snapshot) TS() uint64 { return s.ts }

// seen is what a view has learned: it holds for the view's timestamp alone.
type seen struct {
	past  atomic.Bool // the timestamp has been issued
	locks atomic.Pointer[met]
}

// met are the start timestamps of locks that a view knows; nil: none. It is replaced,
// never changed.
type met struct {
	ignore  []uint64 // they hide nothing
	through []uint64 // they are to be read through
}

// maxSeen bounds each list; the oldest go first. They only save work.
const maxSeen = 1024

func (s *seen) lists() (ignore, through []uint64) {
	if m := s.locks.Load(); m != nil {
		return m.ignore, m.through
	}
	return nil, nil
}

// Bypass tells a view that nothing else uses of locks that it need not meet: of
// transactions, by their start timestamps, that hide nothing from it, and of such as
// committed before.
func (s *Snapshot) Bypass(ignore, through []uint64) {
	s.seen.learn(lock.Verdict{Ignore: newest(ignore), Through: newest(through)})
}

// newest is what a list keeps of ts.
func newest(ts []uint64) []uint64 { return ts[max(0, len(ts)-maxSeen):] }

// learn adds to the lists, and reports whether anything was new.
func (s *seen) learn(v lock.Verdict) bool {
	for {
		old := s.locks.Load()
		now := new(met)
		if old != nil {
			*now = *old
		}
		a := add(&now.ignore, v.Ignore)
		b := add(&now.through, v.Through)
		if !a && !b {
			return false
		}
		if s.locks.CompareAndSwap(old, now) {
			return true
		}
	}
}

func add(list *[]uint64, more []uint64) bool {
	var fresh []uint64
	for _, ts := range more {
		if !slices.Contains(*list, ts) {
			fresh = append(fresh, ts)
		}
	}
	if len(fresh) == 0 {
		return false
	}
	grown := slices.Concat(*list, fresh)
	*list = newest(grown)
	return true
}

// fill says how a request reads.
func (s *Snapshot) fill(c *kvrpcpb.Context) {
	c.IsolationLevel, c.NotFillCache = s.opts.Isolation, s.opts.NoFillCache
	c.ResolvedLocks, c.CommittedLocks = s.seen.lists()
}

// ready comes before a read. A timestamp that PD has not issued may not reach TiKV,
// which would have to serve reads and commits above it from then on.
func (s *Snapshot) ready(ctx context.Context) error {
	if !s.seen.past.Load() {
		if s.ts > s.e.issued.Load() {
			if _, err := s.e.Issued(ctx, s.ts, math.MaxInt64); err != nil {
				return err
			}
		}
		s.seen.past.Store(true)
	}
	if s.ts != Latest {
		s.e.touch()
	}
	return nil
}

// begin starts a read.
func (s *Snapshot) begin(ctx context.Context, op string) (*router.Call, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	return s.e.call(ctx, op, s.opts.CallOptions), nil
}

// check refuses what was read behind the safe point of when the read was answered.
func (s *Snapshot) check(ctx context.Context, answered time.Time) error {
	if s.ts == Latest {
		return nil
	}
	return s.e.checkSafe(ctx, s.ts, answered)
}

// meet deals with locks that a read met: when it returns the read may be sent again.
func (s *Snapshot) meet(ctx context.Context, call *router.Call, locks []lock.Lock, settle bool) error {
	v, err := s.e.locks.ForRead(ctx, call, lock.Reader{TS: s.ts, Settle: settle}, locks)
	if err != nil {
		return err
	}
	news := s.seen.learn(v)
	if s.ts == Latest {
		call.AtLeader() // a replica may take until it has what the resolution of the lock left
	}
	switch {
	case v.Live != nil:
		return s.e.await(ctx, call, backoff.LockRead, s.ts, *v.Live, v.Wait)
	case !news:
		// The server was told, and reports the lock all the same: it can not look
		// behind it. The lock is on its way out.
		return s.e.await(ctx, call, backoff.LockRead, s.ts, locks[0], 0)
	}
	return nil
}

// Value is what a key holds.
type Value struct {
	Bytes    []byte // nil: absent
	CommitTS uint64 // if asked for
}

// present makes an empty value one that is not nil: protobuf does not tell them apart.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// get is what one Get needs, kept for the next one.
type get struct {
	call    router.Call
	retry   backoff.Retry
	context kvrpcpb.Context
	req     kvrpcpb.GetRequest
	got     wire.Value
}

func (e *Engine) takeGet() *get {
	if g, _ := e.gets.Get().(*get); g != nil {
		return g
	}
	return &get{}
}

// giveGet takes back what the router has encoded and keeps nothing of.
func (e *Engine) giveGet(g *get) {
	*g = get{}
	e.gets.Put(g)
}

// passed are the transactions that locked the key of a read of the newest after it began:
// whenever they commit, it is later. Without them a key that is written all the time
// could never be read.
type passed struct {
	first uint64 // whose lock it met first
	by    []uint64
}

// pass reports whether a lock need not be waited for.
func (p *passed) pass(start uint64) bool {
	if p.first == 0 {
		p.first = start
	}
	if start == p.first || slices.Contains(p.by, start) {
		return false
	}
	p.by = append(p.by, start)
	return true
}

// Get returns the value of key, or ErrNotFound.
func (s *Snapshot) Get(ctx context.Context, op string, key []byte) ([]byte, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	g := s.e.takeGet()
	defer s.e.giveGet(g)
	g.retry = *backoff.For(ctx, s.opts.retryFor())
	g.call = s.e.callWith(op, s.opts.CallOptions, &g.retry)
	var late passed
	for {
		s.fill(&g.context)
		if late.by != nil {
			g.context.ResolvedLocks = slices.Concat(g.context.ResolvedLocks, late.by)
		}
		g.req = kvrpcpb.GetRequest{Context: &g.context, Key: key, Version: s.ts}
		g.got.Reset()
		if err := s.e.router.DoInto(ctx, &g.call, key, &g.req, &g.got); err != nil {
			return nil, err
		}
		switch ke := g.got.Error; {
		case ke.GetLocked() != nil:
			locks := lock.FromProto(ke.GetLocked())
			if s.ts == Latest && late.pass(locks[0].StartTS) {
				continue
			}
			if err := s.meet(ctx, &g.call, locks, false); err != nil {
				return nil, err
			}
			continue
		case ke != nil:
			return nil, keyError(&g.call, s.ts, ke)
		}
		if err := s.check(ctx, g.call.Answered()); err != nil {
			return nil, err
		}
		if g.got.NotFound {
			return nil, ErrNotFound
		}
		return present(g.got.Value), nil
	}
}

// Issued returns a timestamp of now, at most maxAge old unless that is not above ts. It
// is a *Future error if PD has not issued ts yet.
func (e *Engine) Issued(ctx context.Context, ts uint64, maxAge time.Duration) (uint64, error) {
	now, err := e.pd.RecentTimestamp(ctx, maxAge)
	if err == nil && now < ts {
		now, err = e.pd.Timestamp(ctx)
	}
	if err == nil && now < ts {
		err = &Future{TS: ts, Now: now}
	}
	if err == nil {
		e.issued.Store(now)
	}
	return now, err
}
