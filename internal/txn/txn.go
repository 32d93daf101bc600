package txn

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/membuf"
)

// Options are how a transaction works.
type Options struct {
	Read              ReadOptions
	MaxKeys, MaxBytes int // 0: no limit
	KeyPrefix         int // bytes of each key that are not counted
	Assertions        kvrpcpb.AssertionLevel
}

// Txn is a transaction: a snapshot and a buffer of writes. Its calls are
// admitted by its guard, so that it may be used, though not usefully, by several
// goroutines at once.
type Txn struct {
	guard guard
	e     *Engine
	room  Room
	snap  *Snapshot // in room
	opts  Options
	age   time.Duration // of the start timestamp when the transaction began
	begun time.Time

	buf      membuf.Buffer
	len      atomic.Int64 // of buf, for those who ask at any time
	size     atomic.Int64
	commitTS atomic.Uint64
	protocol atomic.Uint32 // a Protocol
	fellBack atomic.Bool
}

// Begin starts a transaction at start, which was issued age ago.
func (e *Engine) Begin(start uint64, age time.Duration, o Options) *Txn {
	t := new(Txn)
	e.BeginIn(t, start, age, o)
	return t
}

// BeginIn is Begin in memory that nothing else uses.
func (e *Engine) BeginIn(t *Txn, start uint64, age time.Duration, o Options) {
	t.e, t.opts, t.age, t.begun = e, o, max(age, 0), time.Now()
	t.snap = e.SnapshotIn(&t.room, start, true, o.Read)
	t.buf.Limit(membuf.Limits{Keys: o.MaxKeys, Bytes: o.MaxBytes, Prefix: o.KeyPrefix})
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

// Snapshot is what the transaction reads without its writes.
func (t *Txn) Snapshot() *Snapshot { return t.snap }

// Ended reports whether the transaction has ended.
func (t *Txn) Ended() bool { return t.guard.ended() }

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
	return t.snap.Get(ctx, op, key)
}

// BatchGet returns the values of keys in their order as the transaction sees them.
func (t *Txn) BatchGet(ctx context.Context, op string, wanted [][]byte, versions bool) ([]Value, error) {
	if err := t.guard.read(); err != nil {
		return nil, err
	}
	defer t.guard.endRead()
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
	if err := t.snap.BatchGet(ctx, op, ask, versions, func(i int, v Value) { out[at[i]] = v }); err != nil {
		return nil, err
	}
	return out, nil
}

// Claim is what a write says of its key, as the transaction sees it: of what the
// transaction wrote itself it is known at once, of the rest when it commits.
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
		flags, err := t.claim(key, claim)
		if err != nil {
			return err
		}
		return t.buf.Put(key, value, flags)
	})
}

// Delete buffers a deletion.
func (t *Txn) Delete(key []byte, claim Claim) error {
	return t.change(func() error {
		flags, err := t.claim(key, claim)
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

// claim returns the flags that make the commit check a claim, or the error of one that the
// transaction's own writes belie.
func (t *Txn) claim(key []byte, claim Claim) (membuf.Flags, error) {
	if claim == NoClaim || claim != MustBeAbsent && t.opts.Assertions == kvrpcpb.AssertionLevel_Off {
		return 0, nil
	}
	e, _ := t.buf.Get(key)
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

// Lock makes keys be locked at commit, written or not.
func (t *Txn) Lock(wanted [][]byte) error {
	return t.change(func() error {
		var added membuf.Buffer // the distinct keys that are new
		for _, key := range wanted {
			if _, ok := t.buf.Get(key); !ok {
				if err := added.Mark(key, membuf.Locked, 0); err != nil {
					return err
				}
			}
		}
		if err := t.buf.Fits(added.Len(), added.Size()-added.Len()*t.opts.KeyPrefix); err != nil {
			return err
		}
		for _, key := range wanted {
			if err := t.buf.Mark(key, membuf.Locked, 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// change lets fn change the buffer.
func (t *Txn) change(fn func() error) error {
	if err := t.guard.write(); err != nil {
		return err
	}
	defer t.guard.endWrite()
	err := fn()
	t.len.Store(int64(t.buf.Len()))
	t.size.Store(int64(t.buf.Size()))
	return err
}

// Rollback ends the transaction. An optimistic one that was not committed has nothing
// in the cluster.
func (t *Txn) Rollback() error {
	if err := t.guard.write(); err != nil {
		if err == ErrDone {
			return nil
		}
		return err
	}
	t.guard.finish()
	t.guard.endWrite()
	return nil
}

// Abandon ends the transaction whatever its other calls do: they end by themselves.
func (t *Txn) Abandon() { t.guard.finish() }

// Pages returns the pages of a range as the transaction sees it, with the writes made
// before now.
func (t *Txn) Pages(op string, r keys.Range, o ScanOptions) (*MergedPages, error) {
	if err := t.guard.read(); err != nil {
		return nil, err
	}
	defer t.guard.endRead()
	return newMergedPages(t, t.buf.Freeze(), op, r, o), nil
}
