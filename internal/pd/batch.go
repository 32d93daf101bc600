package pd

import (
	"sync/atomic"
	"time"
)

// batchLimit is the most callers that share a request. The logical part of a timestamp
// has 18 bits.
const batchLimit = 10000

// batch is the callers that share one request for timestamps. While it is the open one
// anyone joins by one atomic addition, whose result is the caller's place; from sealed on
// it takes no more. It is the unit that is sent, and sent again where that failed.
type batch struct {
	joined atomic.Int64  // callers, and sealed from then on
	left   atomic.Int64  // those of them that gave up
	done   chan struct{} // closed for several callers, a token for one alone

	// Under the oracle's mutex until done, then the callers'.
	count  int       // callers, once sealed
	opened time.Time // when the first of them joined
	sent   time.Time // last
	over   bool      // done: an answer that still comes is nobody's
	first  uint64
	err    *Error
	late   bool // err is that the default bound is over, which holds for callers without one of their own
}

// sealed is added to joined when nobody may join any more: above any count of callers.
const sealed = 1 << 40

// join returns a place, or reports that the batch takes no more.
func (b *batch) join() (place int64, ok bool) {
	n := b.joined.Add(1)
	return n - 1, n <= batchLimit
}

// callers is how many have joined an open batch.
func (b *batch) callers() int { return int(min(b.joined.Load(), batchLimit)) }

// seal lets nobody join any more.
func (b *batch) seal() { b.count = int(min(b.joined.Add(sealed)-sealed, batchLimit)) }

// abandoned reports whether all callers gave up.
func (b *batch) abandoned() bool { return b.left.Load() >= int64(b.count) }

// finish wakes the callers: all at once.
func (b *batch) finish() {
	b.over = true
	if b.count == 1 {
		b.done <- struct{}{} // has room for one and gets one
	} else {
		close(b.done)
	}
}

// newBatch returns an open batch. One that a lone caller has left is used again: it stays
// sealed until here, so that who still has it in hand does not join it in between.
func (o *oracle) newBatch() *batch {
	b, _ := o.free.Get().(*batch)
	if b == nil {
		return &batch{done: make(chan struct{}, 1)}
	}
	b.count, b.over, b.first, b.err, b.late, b.opened = 0, false, 0, nil, false, time.Time{}
	b.left.Store(0)
	b.joined.Store(0)
	return b
}

// give takes back a batch whose one caller has its timestamp: the oracle has no other use
// for it, as it may have for one that ended without an answer.
func (o *oracle) give(b *batch) {
	if b.count == 1 {
		o.free.Put(b)
	}
}
