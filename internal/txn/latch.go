package txn

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
)

// Latches let the commits of one client that write the same keys queue up before they send
// anything, and refuse those that another has overtaken.
type Latches interface {
	// Hold waits until no other commit holds any of the keys. Its error is a *Conflict if
	// one of them was committed after start, or ctx's cause. The transaction's end, with
	// its commit timestamp or 0, is told to release.
	Hold(ctx context.Context, keys [][]byte, start uint64) (release func(commitTS uint64), err error)
}

// latchTable is Latches. A key belongs to the slot of its hash; a commit takes the slots of
// its keys in order, so that no two wait for each other.
type latchTable struct {
	seed  maphash.Seed
	slots []latch // a power of two
}

// NewLatches returns latches with at least so many slots.
func NewLatches(slots int) Latches {
	n := 1
	for n < slots {
		n *= 2
	}
	return &latchTable{seed: maphash.MakeSeed(), slots: make([]latch, n)}
}

// latch is a slot: who holds it, who waits for it in order, and when keys of it were
// committed last.
type latch struct {
	mu      sync.Mutex
	held    bool
	waiting []chan struct{} // each closed when the slot is handed over
	latest  map[uint64]uint64
	kept    int // of latest, when it was last gone through
}

// A slot forgets commits that are so much older than the newest, whenever it has come to
// remember twice as many: a transaction that is older still meets them in the cluster
// (client-go internal/latch, expireDuration).
const (
	latchMemory = 2 * 60 * 1000 << 18 // of timestamps
	latchMany   = 16
)

// Hold implements Latches.
func (t *latchTable) Hold(ctx context.Context, keys [][]byte, start uint64) (func(uint64), error) {
	hashes := make([]uint64, len(keys))
	for i, key := range keys {
		hashes[i] = maphash.Bytes(t.seed, key)
	}
	mask := uint64(len(t.slots) - 1)
	slots := make([]uint64, len(hashes))
	for i, h := range hashes {
		slots[i] = h & mask
	}
	slices.Sort(slots)
	slots = slices.Compact(slots)
	for i, slot := range slots {
		if err := t.slots[slot].take(ctx); err != nil {
			t.release(slots[:i])
			return nil, err
		}
	}
	for i, h := range hashes {
		if ts := t.slots[h&mask].last(h); ts > start {
			t.release(slots)
			return nil, &Conflict{Key: slices.Clone(keys[i]), StartTS: start, ConflictTS: ts, ConflictCommitTS: ts}
		}
	}
	return func(commitTS uint64) {
		if commitTS != 0 {
			for _, h := range hashes {
				t.slots[h&mask].committed(h, commitTS)
			}
		}
		t.release(slots)
	}, nil
}

func (t *latchTable) release(slots []uint64) {
	for _, slot := range slots {
		t.slots[slot].give()
	}
}

func (l *latch) take(ctx context.Context) error {
	l.mu.Lock()
	if !l.held {
		l.held = true
		l.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	l.waiting = append(l.waiting, mine)
	l.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	i := slices.Index(l.waiting, mine)
	if i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
	l.mu.Unlock()
	if i < 0 { // it was handed over
		l.give()
	}
	return context.Cause(ctx)
}

// give hands the slot to who waits longest.
func (l *latch) give() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.held = false
		return
	}
	close(l.waiting[0])
	l.waiting = slices.Delete(l.waiting, 0, 1)
}

func (l *latch) last(hash uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.latest[hash]
}

func (l *latch) committed(hash, ts uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.latest == nil {
		l.latest = make(map[uint64]uint64)
	}
	l.latest[hash] = max(l.latest[hash], ts)
	if len(l.latest) > max(latchMany, 2*l.kept) {
		for h, at := range l.latest {
			if at+latchMemory < ts {
				delete(l.latest, h)
			}
		}
		l.kept = len(l.latest)
	}
}
