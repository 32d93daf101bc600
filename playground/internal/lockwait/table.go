// Package lockwait is where pessimistic lock requests wait for locks of other
// transactions: a queue for each key of each store, and the cluster's deadlock detector
// (TiKV src/storage/lock_manager, src/server/lock_manager).
package lockwait

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/deadlock"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/task"
)

// Config is what a Table runs with.
type Config struct {
	// Leader is the store that now leads the region of an encoded key: its queues see
	// what happens to the key. Waiters that a region's leader leaves behind when it
	// moves hear of nothing and time out, as TiKV's do.
	Leader   func(encoded []byte) uint64
	Detector *Detector
	Tasks    *task.Group // for the delayed wake-ups
}

// Table holds the queues of a cluster.
type Table struct {
	cfg   Config
	count atomic.Int64 // of waiters in queues

	mu     sync.Mutex
	queues map[place]*queue
}

// place is a key at a store.
type place struct {
	store uint64
	key   string // encoded
}

// queue is what waits at a place (TiKV src/storage/lock_manager/lock_waiting_queue.rs,
// KeyLockWaitState). It is removed when it is empty.
type queue struct {
	waiters []*Waiter // by start timestamp: the oldest transaction is woken first
	wakes   int       // of waiters whose client asks again
	last    Release   // the latest
	notify  time.Time // when the others are woken; zero: no wake-up is under way
}

// New returns a table in which nothing waits.
func New(cfg Config) *Table {
	return &Table{cfg: cfg, queues: make(map[place]*queue)}
}

// Empty tells that nothing waits. To who holds a key's latch it tells that nothing will
// wait for the key until the latch is given back.
func (t *Table) Empty() bool { return t.count.Load() == 0 }

// Add queues a waiter for the encoded key's lock, and ends its wait at once if that
// would close a circle. The caller holds the key's latch.
func (t *Table) Add(w *Waiter, encoded []byte, lock *kvrpcpb.LockInfo) {
	w.hash, w.place = Hash(w.Key), place{t.cfg.Leader(encoded), string(encoded)}
	w.since, w.lock, w.done = time.Now(), lock, make(chan Outcome, 1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.push(w)
	t.detect(w)
}

// Again queues a waiter that was resumed and met a lock, unless its time was over
// meanwhile (on_push_canceled_entry). The caller holds the key's latch.
func (t *Table) Again(w *Waiter, lock *kvrpcpb.LockInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case w.finished:
	case w.late == nil:
		t.push(w)
	default:
		if w.late.TimedOut != nil {
			lock.DurationToLastUpdateMs = w.late.TimedOut.DurationToLastUpdateMs
			w.late.TimedOut = lock
		}
		t.finish(w, *w.late)
	}
}

// Answer ends the wait of a waiter that was resumed.
func (t *Table) Answer(w *Waiter, answer any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finish(w, Outcome{Answer: answer})
}

// push puts a waiter behind those of older transactions.
func (t *Table) push(w *Waiter) {
	q := t.queues[w.place]
	if q == nil {
		q = new(queue)
		t.queues[w.place] = q
	}
	i, _ := slices.BinarySearchFunc(q.waiters, w, func(o, w *Waiter) int {
		return cmp.Or(cmp.Compare(o.StartTS, w.StartTS), -1)
	})
	q.waiters = slices.Insert(q.waiters, i, w)
	w.index, w.queued = q.wakes, true
	t.count.Add(1)
}

// take removes the i-th waiter of a place.
func (t *Table) take(p place, i int) *Waiter {
	q := t.queues[p]
	w := q.waiters[i]
	q.waiters = slices.Delete(q.waiters, i, i+1)
	w.queued = false
	t.count.Add(-1)
	return w
}

// clean forgets a place where nothing waits.
func (t *Table) clean(p place) {
	if q := t.queues[p]; q != nil && len(q.waiters) == 0 {
		delete(t.queues, p)
	}
}

// remove takes a waiter out of its queue, if it is in it.
func (t *Table) remove(w *Waiter) bool {
	if !w.queued {
		return false
	}
	t.take(w.place, slices.Index(t.queues[w.place].waiters, w))
	t.clean(w.place)
	return true
}

// detect ends the wait of a waiter that closes a circle.
func (t *Table) detect(w *Waiter) {
	if w.First {
		return
	}
	if d := t.cfg.Detector.detect(w, time.Now()); d != nil {
		t.end(w, Outcome{Deadlock: d})
	}
}

// finish ends a wait.
func (t *Table) finish(w *Waiter, o Outcome) {
	if w.finished {
		return
	}
	w.finished = true
	// The wait that would have closed a circle was not taken up, but of a shared lock's
	// holders some others were (waiter_manager.rs, handle_deadlock).
	if o.Deadlock == nil || w.lock.LockType == kvrpcpb.Op_SharedLock {
		t.cfg.Detector.forget(w)
	}
	w.done <- o
}

// end ends a wait from outside the queue; that of a waiter which is being resumed ends
// when that is done (TiKV src/storage/lock_manager/lock_wait_context.rs, finish_request).
func (t *Table) end(w *Waiter, o Outcome) {
	if t.remove(w) {
		t.finish(w, o)
	} else if w.late == nil {
		w.late = &o
	}
}

// Released wakes the first waiter for a key, whose lock was released, and, if that wants
// the lock in share mode, those next to it that want it so too. Those that their server
// grants the lock are returned, for the caller to resume: it holds the key's latch
// (pop_for_waking_up).
func (t *Table) Released(encoded []byte, r Release) (resume []*Waiter) {
	p := place{t.cfg.Leader(encoded), string(encoded)}
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.queues[p]
	if q == nil {
		return nil
	}
	defer t.clean(p)
	q.last = r
	woken := []*Waiter{t.take(p, 0)}
	for woken[0].Share && len(q.waiters) > 0 && q.waiters[0].Share {
		woken = append(woken, t.take(p, 0))
	}
	later := false
	for _, w := range woken {
		if w.Resume != nil {
			resume = append(resume, w)
			continue
		}
		q.wakes++
		later = true
		t.finish(w, Outcome{Released: &r})
	}
	if later && len(q.waiters) > 0 {
		t.wakeLater(p, q)
	}
	return resume
}

// wakeLater wakes the others after a delay, counted from the latest wake-up: the one
// that was woken may not come back, and those who ask again meet the new holder
// (handle_delayed_wake_up, async_delayed_notify_all).
func (t *Table) wakeLater(p place, q *queue) {
	begun := !q.notify.IsZero()
	q.notify = time.Now().Add(WakeUpDelay)
	if begun {
		return
	}
	t.cfg.Tasks.Go("lock wake-up", func(ctx context.Context) {
		for {
			left := t.delay(q)
			if left <= 0 {
				break
			}
			if !sleep(ctx, left) {
				return
			}
		}
		if w := t.wakeRest(p, q); w != nil {
			w.Resume(ctx, false)
		}
	})
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *Table) delay(q *queue) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Until(q.notify)
}

// wakeRest wakes those who waited when the latest waiter was woken, up to the first who
// came later, or who is to be resumed, which it returns (delayed_notify_all).
func (t *Table) wakeRest(p place, q *queue) *Waiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queues[p] != q { // it was emptied
		return nil
	}
	defer t.clean(p)
	q.notify = time.Time{}
	for len(q.waiters) > 0 && q.waiters[0].index < q.wakes {
		w := t.take(p, 0)
		if w.Resume != nil {
			return w
		}
		r := q.last
		t.finish(w, Outcome{Released: &r})
	}
	return nil
}

// Acquired tells a key's waiters who holds it now. Those whose client does not ask again
// are checked for a circle again (TiKV src/server/lock_manager/waiter_manager.rs,
// handle_update_wait_for). The caller holds the key's latch.
func (t *Table) Acquired(encoded []byte, lock *kvrpcpb.LockInfo) {
	p := place{t.cfg.Leader(encoded), string(encoded)}
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.queues[p]
	if q == nil {
		return
	}
	now := time.Now()
	for _, w := range slices.Clone(q.waiters) {
		w.updated = now
		if w.lock.LockVersion == lock.LockVersion {
			continue
		}
		again := w.Resume != nil && !w.First
		if again {
			t.cfg.Detector.forget(w)
		}
		if w.lock = lock; again {
			t.detect(w)
		}
	}
}

// Wait waits until the waiter's wait has ended, or ctx, whose cause it returns then.
func (t *Table) Wait(ctx context.Context, w *Waiter) (Outcome, error) {
	timer := time.NewTimer(time.Until(w.since.Add(w.Timeout)))
	defer timer.Stop()
	select {
	case o := <-w.done:
		return o, nil
	case <-timer.C:
		t.mu.Lock()
		if !w.finished {
			t.end(w, w.timedOut(time.Now()))
		}
		t.mu.Unlock()
	case <-ctx.Done():
	}
	select {
	case o := <-w.done:
		return o, nil
	case <-ctx.Done():
		t.leave(w)
		return Outcome{}, context.Cause(ctx)
	}
}

// leave ends the wait of a waiter that nobody waits with.
func (t *Table) leave(w *Waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(w)
	t.finish(w, Outcome{})
}

// Entries lists what waits at a store, as GetLockWaitInfo answers it.
func (t *Table) Entries(store uint64) []*deadlock.WaitForEntry {
	var all []*deadlock.WaitForEntry
	t.each(func(w *Waiter) {
		if w.place.store == store {
			all = append(all, w.entry(w.lock.LockVersion)) // 0 for a shared lock, as in TiKV
		}
	})
	return all
}

// Waiters lists what waits at all stores, the oldest wait first.
func (t *Table) Waiters() []Info {
	var all []Info
	t.each(func(w *Waiter) {
		all = append(all, Info{Store: w.place.store, Region: w.Region, StartTS: w.StartTS, Keys: w.Keys, Since: w.since})
	})
	return all
}

func (t *Table) each(f func(*Waiter)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*Waiter
	for _, q := range t.queues {
		all = append(all, q.waiters...)
	}
	slices.SortFunc(all, func(a, b *Waiter) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.StartTS, b.StartTS), cmp.Compare(a.place.key, b.place.key))
	})
	for _, w := range all {
		f(w)
	}
}
