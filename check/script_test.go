package check

import (
	"slices"
	"time"
)

// step is a part of a transaction. Those that lock do it at once in a pessimistic
// transaction, and when it commits in another.
type step struct {
	do    stepKind
	keys  []int
	late  bool          // appendTo and insertInto without a lock, in whatever transaction
	fair  bool          // locks in a statement of fair locking
	hurry time.Duration // a lock is waited for no longer; 0: as long as the caller waits
}

type stepKind uint8

const (
	get stepKind = iota
	batchGet
	scan
	scanBack
	appendTo
	insertInto // as appendTo, but claims that an empty list is absent
	rewrite    // as appendTo, of several keys that are first deleted or emptied
	lock
	lockRead
	share // lockRead together with others
)

// way is how a transaction writes.
type way uint8

const (
	optimisticWay way = iota
	pessimisticWay
	pipelinedWay
)

// scriptOf is what a transaction that writes will do.
func (w *worker) scriptOf(how way) []step {
	switch {
	case how == pipelinedWay:
		return w.flushing()
	case how == pessimisticWay && w.rng.IntN(4) == 0:
		return w.sharing()
	}
	return w.script(false)
}

// flushing is what a pipelined transaction will do: it comes back to few keys, more than it
// keeps at a time, so that it meets what it has flushed.
func (w *worker) flushing() []step {
	some := w.different(3 + w.rng.IntN(3))
	steps := make([]step, 3+w.rng.IntN(5))
	for i := range steps {
		s := &steps[i]
		at := w.rng.IntN(len(some))
		s.keys = some[at : at+1]
		switch n := w.rng.IntN(9); {
		case n < 5:
			s.do = appendTo + stepKind(n%2)
		case n == 5:
			s.do, s.keys = rewrite, some
		case n == 6:
			s.do = get
		default:
			s.do, s.keys = batchGet, append(some[:len(some):len(some)], w.key())
		}
	}
	return steps
}

// sharing is what a transaction will do that locks keys together with others, popular
// ones, and has to lock another first, which will be its primary key.
func (w *worker) sharing() []step {
	all := w.different(2 + w.rng.IntN(3))
	shared := step{do: share, keys: all[1:]}
	if w.rng.IntN(6) == 0 {
		shared.hurry = time.Duration(w.rng.IntN(20)) * time.Millisecond
	}
	return append([]step{{do: appendTo + stepKind(w.rng.IntN(2)), keys: all[:1]}, shared}, w.script(false)[:1]...)
}

// different are n different keys.
func (w *worker) different(n int) []int {
	var all []int
	for len(all) < n {
		if key := w.key(); !slices.Contains(all, key) {
			all = append(all, key)
		}
	}
	return all
}

// script is what any transaction may do, or a snapshot, which only reads.
func (w *worker) script(reads bool) []step {
	steps := make([]step, 1+w.rng.IntN(3))
	for i := range steps {
		s := &steps[i]
		s.keys = []int{w.key()}
		switch n := w.rng.IntN(24); {
		case n < 12 && !reads:
			s.do, s.late, s.fair = appendTo+stepKind(n%2), w.rng.IntN(6) == 0, w.rng.IntN(4) == 0
		case n < 16 && !reads:
			s.do = lock + stepKind(n%3)
			s.fair = s.do != share && w.rng.IntN(4) == 0
		default:
			s.do = stepKind(n % int(scanBack+1))
		}
		if s.do == batchGet || s.do == lockRead {
			for range w.rng.IntN(4) {
				s.keys = append(s.keys, w.key())
			}
		}
		if w.rng.IntN(6) == 0 {
			s.hurry = time.Duration(w.rng.IntN(20)) * time.Millisecond
		}
	}
	return steps
}

// fit makes a step one that the transaction may do after those before, and that loses
// nobody's append by itself: the first lock is not shared; what is shared is neither written
// nor locked otherwise; what is written without a lock is not locked afterwards, which would
// say that it may be written over what is newer.
func (s step) fit(before []step) step {
	var locked, alone, shared, late bool
	for _, b := range before {
		same := slices.ContainsFunc(s.keys, func(key int) bool { return slices.Contains(b.keys, key) })
		switch {
		case b.do == share:
			shared = shared || same
		case b.do >= appendTo && b.late:
			late = late || same
		case b.do >= appendTo:
			locked, alone = true, alone || same
		}
	}
	if s.do == share && !locked {
		s.do = lockRead
	}
	switch s.do {
	case appendTo, insertInto:
		if s.late = late || s.late && !alone; shared {
			s.do = batchGet
		}
	case lock, lockRead:
		if shared || late {
			s.do = batchGet
		}
	case share:
		if alone || late {
			s.do = batchGet
		}
	}
	return s
}
