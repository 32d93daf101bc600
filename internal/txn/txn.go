package txn

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/membuf"
	"github.com/tikv-go/tikv/internal/router"
)

// Options are how a transaction works.
type Options struct {
	Read              ReadOptions
	MaxKeys, MaxBytes int // 0: no limit
	KeyPrefix         int // bytes of each key that are not counted
	Assertions        kvrpcpb.AssertionLevel
	Pessimism         any // nil: it is optimistic; else what Pessimistic returns
	Pipeline          any // nil, or what Pipelined returns
}

// kept are the Options that are of use later.
type kept struct {
	Read       ReadOptions
	KeyPrefix  int
	Assertions kvrpcpb.AssertionLevel
}

// Txn is a transaction: a snapshot, a buffer of writes and, if it is pessimistic, locks.
// Its calls are admitted by its guard, so that it may be used, though not usefully, by
// several goroutines at once.
type Txn struct {
	guard guard
	e     *Engine
	room  Room
	snap  *Snapshot // in room
	opts  kept
	age   time.Duration // of the start timestamp when the transaction began
	begun time.Time

	buf      membuf.Buffer
	len      atomic.Int64 // of buf, for those who ask at any time
	size     atomic.Int64
	commitTS atomic.Uint64
	protocol atomic.Uint32 // a Protocol
	fellBack atomic.Bool
	wrote    Written
	tally    router.Tally

	pess *pessimist // nil: it is optimistic
	pipe pipeline   // nil: it is not pipelined
	beat heartbeat
	held func() bool

	owing bool // the call that is inside counts among the engine's commits
}

// Begin starts a transaction at start, which was issued age ago.
func (e *Engine) Begin(start uint64, age time.Duration, o Options) *Txn {
	t := new(Txn)
	e.BeginIn(t, start, age, o)
	return t
}

// BeginIn is Begin in memory that nothing else uses.
func (e *Engine) BeginIn(t *Txn, start uint64, age time.Duration, o Options) {
	t.e, t.age, t.begun = e, max(age, 0), time.Now()
	o.Read.Tally = &t.tally
	t.opts = kept{o.Read, o.KeyPrefix, o.Assertions}
	t.snap = e.SnapshotIn(&t.room, start, true, &t.opts.Read)
	t.buf.Limit(membuf.Limits{Keys: o.MaxKeys, Bytes: o.MaxBytes, Prefix: o.KeyPrefix})
	if p, ok := o.Pessimism.(pessimism); ok {
		t.pess = &pessimist{pessimism: p, asOf: start, asked: t.begun.Add(-t.age)}
	}
	if lay, ok := o.Pipeline.(func(*Txn) pipeline); ok {
		t.pipe = lay(t)
	}
}

// StartTS is the timestamp as of which the transaction reads.
func (t *Txn) StartTS() uint64 { return t.snap.ts }

// CommitTS is the timestamp at which it committed, or 0.
func (t *Txn) CommitTS() uint64 { return t.commitTS.Load() }

// Protocol is how the transaction has committed, or was to, and whether it was to commit
// in another way at first.
func (t *Txn) Protocol() (p Protocol, fellBack bool) {
	return Protocol(t.protocol.Load()), t.fellBack.Load()
}

// Tally is what the transaction's calls have cost so far.
func (t *Txn) Tally() *router.Tally { return &t.tally }

// Spent counts the time since began, spent before the transaction was there.
func (t *Txn) Spent(f router.Figure, began time.Time) { t.opts.Read.spent(f, began) }

// Begun is when the transaction began here.
func (t *Txn) Begun() time.Time { return t.begun }

// Written is what a commit was to write, and so far how.
type Written struct {
	Keys, Regions uint32
	Bytes         int
}

// Snapshot is what the transaction reads without its writes.
func (t *Txn) Snapshot() *Snapshot { return t.snap }

// Finished reports whether a Commit or Rollback has ended the transaction; what has failed
// from without has not been told of yet.
func (t *Txn) Finished() bool { return t.guard.finished() }

// Len is the number of keys in the buffer.
func (t *Txn) Len() int { return int(t.len.Load()) }

// Size is the bytes of keys and values in the buffer.
func (t *Txn) Size() int { return int(t.size.Load()) }

// uptime is how long ago the start timestamp was issued.
func (t *Txn) uptime() time.Duration { return t.age + time.Since(t.begun) }

// Get returns the value of key as the transaction sees it, or ErrNotFound. It belongs
// to the caller.
func (t *Txn) Get(ctx context.Context, op string, key []byte) ([]byte, error) {
	if err := t.guard.read(); err != nil {
		return nil, err
	}
	defer t.guard.endRead()
	switch e, _ := t.buf.Get(key); e.Op {
	case membuf.Put:
		return append([]byte{}, e.Value...), nil
	case membuf.Delete:
		return nil, ErrNotFound
	}
	if t.pipe != nil {
		value, err := t.pipe.get(ctx, op, key)
		return value, t.still(err)
	}
	return t.snap.Get(ctx, op, key)
}

// still is the error of a read beside a flush: what made that fail, if it has, for then
// what was flushed is being removed.
func (t *Txn) still(err error) error {
	if failure := t.guard.failed(); failure != nil {
		return failure
	}
	return err
}

// BatchGet returns the values of keys in their order as the transaction sees them.
func (t *Txn) BatchGet(ctx context.Context, op string, wanted [][]byte, versions bool) ([]Value, error) {
	if err := t.guard.read(); err != nil {
		return nil, err
	}
	defer t.guard.endRead()
	return t.lookAt(ctx, op, wanted, versions)
}

// lookAt is BatchGet for who is inside.
func (t *Txn) lookAt(ctx context.Context, op string, wanted [][]byte, versions bool) ([]Value, error) {
	out := make([]Value, len(wanted))
	var (
		ask [][]byte
		at  []int
	)
	for i, key := range wanted {
		switch e, _ := t.buf.Get(key); e.Op {
		case membuf.Put:
			out[i].Bytes = append([]byte{}, e.Value...)
		case membuf.None:
			ask, at = append(ask, key), append(at, i)
		}
	}
	if err := t.fetch(ctx, op, ask, versions, at, out); err != nil {
		return nil, err
	}
	return out, nil
}

// fetch reads what the buffer does not have, the i-th key for out[at[i]].
func (t *Txn) fetch(ctx context.Context, op string, keys [][]byte, versions bool, at []int, out []Value) error {
	if t.pipe != nil {
		return t.still(t.pipe.batchGet(ctx, op, keys, versions, func(i int, v Value) { out[at[i]] = v }))
	}
	return t.snap.BatchGet(ctx, op, keys, versions, func(i int, v Value) { out[at[i]] = v })
}

// Claim is what a write says of its key, as the transaction sees it: of what the
// transaction wrote or locked itself it is known at once, of the rest when it is locked or
// when the transaction commits.
type Claim uint8

// The claims. What is asserted is checked as far as the transaction's level says.
const (
	NoClaim Claim = iota
	MustBeAbsent
	AssertExists
	AssertAbsent
)

// Put buffers a write.
func (t *Txn) Put(key, value []byte, claim Claim) error {
	return t.change(func() error {
		flags, err := t.write(key, claim)
		if err != nil {
			return err
		}
		return t.buf.Put(key, value, flags)
	})
}

// Delete buffers a deletion.
func (t *Txn) Delete(key []byte, claim Claim) error {
	return t.change(func() error {
		flags, err := t.write(key, claim)
		if err != nil {
			return err
		}
		return t.buf.Delete(key, flags)
	})
}

// CheckAbsent claims that key has no value.
func (t *Txn) CheckAbsent(key []byte) error {
	return t.change(func() error {
		flags, err := t.claim(key, MustBeAbsent)
		if err != nil {
			return err
		}
		return t.buf.Mark(key, flags, 0)
	})
}

// write returns the flags of a write.
func (t *Txn) write(key []byte, claim Claim) (membuf.Flags, error) {
	if t.pess.holds() {
		if e, _ := t.buf.Get(key); e.Flags&membuf.Shared != 0 {
			return 0, &Misuse{"key", "is locked with WithShared, and cannot be written"}
		}
	}
	return t.claim(key, claim)
}

// claim returns the flags that make the commit check a claim, or the error of one that the
// transaction's own writes belie.
func (t *Txn) claim(key []byte, claim Claim) (membuf.Flags, error) {
	if claim == NoClaim || claim != MustBeAbsent && t.opts.Assertions == kvrpcpb.AssertionLevel_Off {
		return 0, nil
	}
	e, _ := t.buf.Get(key)
	if exists, known := t.pess.knows(e, key); known && claim == MustBeAbsent && e.Op == membuf.None {
		if exists {
			return 0, &Exists{Key: append([]byte{}, key...)}
		}
		return 0, nil
	}
	switch {
	case e.Op == membuf.None:
		return [...]membuf.Flags{MustBeAbsent: membuf.Absent, AssertExists: membuf.AssertExists, AssertAbsent: membuf.AssertAbsent}[claim], nil
	case (e.Op == membuf.Put) == (claim == AssertExists):
		return 0, nil
	case claim == MustBeAbsent:
		return 0, &Exists{Key: append([]byte{}, key...)}
	}
	return 0, &Asserted{Key: append([]byte{}, key...), Absent: claim == AssertAbsent, StartTS: t.StartTS()}
}

// change lets fn change the buffer.
func (t *Txn) change(fn func() error) error {
	if err := t.guard.write(); err != nil {
		return err
	}
	defer t.leave()
	err := fn()
	if err != nil && t.pipe != nil { // which is not given fn: that would put it on the heap
		var made bool
		if made, err = t.pipe.makeRoom(err); made {
			err = fn()
		}
	}
	if err == nil && t.pipe != nil {
		err = t.pipe.changed()
	}
	t.count()
	return err
}

func (t *Txn) count() {
	t.len.Store(int64(t.buf.Len()))
	t.size.Store(int64(t.buf.Size()))
}

// Pages returns the pages of a range as the transaction sees it, with the writes made
// before now.
func (t *Txn) Pages(op string, r keys.Range, o ScanOptions) (*MergedPages, error) {
	if err := t.guard.read(); err != nil {
		return nil, err
	}
	defer t.guard.endRead()
	if err := t.whole(); err != nil {
		return nil, err
	}
	return newMergedPages(t, t.buf.Freeze(), op, r, o), nil
}
