package lockwait

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/task"
)

// bench is a table of one store under fake time.
type bench struct {
	*testing.T
	*Table
	seat  Seat
	tasks *task.Group
	began time.Time
	log   []string // what ended, in order, with the milliseconds since the start
}

func inBubble(t *testing.T, f func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, seat: Seat{Region: 1, Store: 1}, tasks: task.Root(t.Context()), began: time.Now()}
		b.Table = New(Config{
			Leader: func([]byte) uint64 { return b.seat.Store }, Tasks: b.tasks,
			Detector: NewDetector(func() Seat { return b.seat }),
		})
		f(b)
		synctest.Wait()
		b.tasks.Close(nil)
		if !b.Empty() || len(b.queues) != 0 {
			t.Errorf("%d queues are left", len(b.queues))
		}
	})
}

func lockAt(key string, ts uint64) *kvrpcpb.LockInfo {
	return &kvrpcpb.LockInfo{Key: []byte(key), LockVersion: ts}
}

// wait makes a transaction wait for a key that another has locked.
func (b *bench) wait(txn uint64, key string, holder uint64, change ...func(*Waiter)) *Waiter {
	w := &Waiter{Key: []byte(key), StartTS: txn, Timeout: MaxWait}
	for _, f := range change {
		f(w)
	}
	b.Add(w, []byte(key), lockAt(key, holder))
	b.tasks.Go("waiter", func(ctx context.Context) {
		o, err := b.Wait(ctx, w)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.log = append(b.log, fmt.Sprintf("%dms %d %s", time.Since(b.began).Milliseconds(), txn, show(o, err)))
	})
	return w
}

func show(o Outcome, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case o.Released != nil:
		return fmt.Sprintf("released by %d-%d", o.Released.StartTS, o.Released.CommitTS)
	case o.TimedOut != nil:
		return fmt.Sprintf("timed out at %d, %d ms", o.TimedOut.LockVersion, o.TimedOut.DurationToLastUpdateMs)
	case o.Deadlock != nil:
		var chain []string
		for _, e := range o.Deadlock.WaitChain {
			chain = append(chain, fmt.Sprintf("%d>%d:%s", e.Txn, e.WaitForTxn, e.Key))
		}
		return fmt.Sprintf("deadlock at %s of %d: %s", o.Deadlock.LockKey, o.Deadlock.LockTs, strings.Join(chain, " "))
	}
	return fmt.Sprint(o.Answer)
}

func (b *bench) expect(want ...string) {
	b.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.log)
	slices.Sort(want)
	if !slices.Equal(b.log, want) {
		b.Errorf("\n got %q\nwant %q", b.log, want)
	}
	b.log = nil
}

func after(d time.Duration) { <-time.After(d) }

func lasting(d time.Duration) func(*Waiter) { return func(w *Waiter) { w.Timeout = d } }

func first(w *Waiter) { w.First = true }

func TestTimeout(t *testing.T) {
	for _, c := range []struct {
		ms   int64
		want time.Duration
		ok   bool
	}{
		{-1, 0, false}, {-1 << 63, 0, false}, {0, time.Second, true}, {1, time.Millisecond, true}, {999, 999 * time.Millisecond, true},
		{1000, time.Second, true}, {50000, time.Second, true}, {1<<63 - 1, time.Second, true},
	} {
		if got, ok := Timeout(c.ms); got != c.want || ok != c.ok {
			t.Errorf("%d: %v %v", c.ms, got, ok)
		}
	}
}

func TestTimedOut(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.wait(20, "a", 10, lasting(30*time.Millisecond))
		b.wait(30, "a", 10)
		after(time.Second)
		b.expect("30ms 20 timed out at 10, 0 ms", "1000ms 30 timed out at 10, 0 ms")
		// The key is locked anew meanwhile: the answer names that lock.
		b.wait(40, "a", 10, lasting(30*time.Millisecond))
		after(20 * time.Millisecond)
		b.Acquired([]byte("a"), lockAt("a", 11))
		after(10 * time.Millisecond)
		b.expect("1030ms 40 timed out at 11, 10 ms")
		b.wait(50, "a", 10, lasting(30*time.Millisecond))
		after(29900 * time.Microsecond)
		b.Acquired([]byte("a"), lockAt("a", 10))
		after(time.Millisecond)
		b.expect("1060ms 50 timed out at 10, 1 ms")
	})
}

// The oldest transaction is woken first, those who waited then 20 ms after the latest
// wake-up, those who came later not.
func TestWakeUpOrder(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.wait(40, "a", 10)
		b.wait(20, "a", 10)
		b.wait(30, "a", 10)
		b.wait(25, "b", 10)
		synctest.Wait()
		if w := b.Released([]byte("a"), Release{10, 15}); w != nil {
			t.Fatal("it is not to be resumed")
		}
		b.expect("0ms 20 released by 10-15")
		after(19 * time.Millisecond)
		b.wait(50, "a", 21)
		b.expect()
		after(time.Millisecond)
		b.expect("20ms 30 released by 10-15", "20ms 40 released by 10-15")
		b.Released([]byte("a"), Release{21, 0})
		b.Released([]byte("b"), Release{10, 15})
		b.Released([]byte("c"), Release{10, 15})
		b.expect("20ms 50 released by 21-0", "20ms 25 released by 10-15")
	})
}

func TestWakeUpDelayIsExtended(t *testing.T) {
	inBubble(t, func(b *bench) {
		for txn := uint64(20); txn < 25; txn++ {
			b.wait(txn, "a", 10)
		}
		synctest.Wait()
		b.Released([]byte("a"), Release{10, 15})
		after(15 * time.Millisecond)
		b.wait(30, "a", 16)
		b.Released([]byte("a"), Release{16, 17})
		b.expect("0ms 20 released by 10-15", "15ms 21 released by 16-17")
		after(19 * time.Millisecond)
		b.expect()
		after(time.Millisecond)
		b.expect("35ms 22 released by 16-17", "35ms 23 released by 16-17", "35ms 24 released by 16-17", "35ms 30 released by 16-17")
	})
}

// Of a waiter that its server grants the lock only that one is woken; a delayed wake-up
// stops at it.
func TestResumed(t *testing.T) {
	inBubble(t, func(b *bench) {
		var resumed []uint64
		grant := func(w *Waiter) {
			w.Resume = func(_ context.Context, handed bool) {
				resumed = append(resumed, w.StartTS)
				b.Answer(w, fmt.Sprintf("granted, handed %v", handed))
			}
		}
		b.wait(20, "a", 10, grant)
		b.wait(30, "a", 10)
		b.wait(40, "a", 10)
		b.wait(50, "a", 10, grant)
		b.wait(60, "a", 10)
		synctest.Wait()
		for _, w := range b.Released([]byte("a"), Release{10, 15}) {
			w.Resume(t.Context(), true)
		}
		b.expect("0ms 20 granted, handed true")
		after(100 * time.Millisecond)
		b.expect()
		if w := b.Released([]byte("a"), Release{20, 0}); w != nil {
			t.Fatal("30 asks again by itself")
		}
		b.expect("100ms 30 released by 20-0")
		after(20 * time.Millisecond)
		b.expect("120ms 40 released by 20-0", "120ms 50 granted, handed false")
		b.Released([]byte("a"), Release{50, 0})
		b.expect("120ms 60 released by 50-0")
		if fmt.Sprint(resumed) != "[20 50]" {
			t.Error(resumed)
		}
	})
}

// One that meets a lock again waits on, unless its time is over by then.
func TestResumedMeetsLock(t *testing.T) {
	inBubble(t, func(b *bench) {
		grant := func(w *Waiter) { w.Resume = func(context.Context, bool) {} }
		w := b.wait(20, "a", 10, grant)
		synctest.Wait()
		if got := b.Released([]byte("a"), Release{10, 15}); len(got) != 1 || got[0] != w || !b.Empty() {
			t.Fatal("20 is to be resumed")
		}
		b.Again(w, lockAt("a", 12))
		if e := b.Entries(1); len(e) != 1 || e[0].WaitForTxn != 10 {
			t.Fatal(e)
		}
		b.Released([]byte("a"), Release{12, 0})
		after(time.Second)
		b.expect() // it is being resumed
		b.Again(w, lockAt("a", 13))
		b.expect("1000ms 20 timed out at 13, 0 ms")
	})
}

func TestDeadlocks(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.wait(1, "b", 2)
		b.wait(2, "a", 1)
		b.expect("0ms 2 deadlock at a of 1: 1>2:b 2>1:a")
		b.wait(2, "c", 3)
		b.wait(3, "d", 4)
		b.wait(4, "e", 1)
		b.expect("0ms 4 deadlock at e of 1: 1>2:b 2>3:c 3>4:d 4>1:e")
		b.wait(3, "a", 1)
		b.expect("0ms 3 deadlock at a of 1: 1>2:b 2>3:c 3>1:a")
		// The first lock of a transaction is part of no circle, and hides one.
		b.wait(4, "e", 1, first)
		b.expect()
		for _, k := range []string{"b", "c", "d", "e"} {
			b.Released([]byte(k), Release{})
		}
		b.expect("0ms 1 released by 0-0", "0ms 2 released by 0-0", "0ms 3 released by 0-0", "0ms 4 released by 0-0")
		if n := b.cfg.Detector.edges(); n != 0 {
			t.Errorf("%d edges", n)
		}
	})
}

// A waiter whose client does not ask again is checked again when the holder changes.
func TestDeadlockOfNewHolder(t *testing.T) {
	inBubble(t, func(b *bench) {
		grant := func(w *Waiter) { w.Resume = func(context.Context, bool) {} }
		b.wait(20, "a", 10, grant)
		b.wait(21, "a", 10, grant, first)
		b.wait(22, "a", 10)
		b.wait(30, "b", 20)
		b.wait(30, "c", 22)
		b.Acquired([]byte("a"), lockAt("a", 30))
		b.expect("0ms 20 deadlock at a of 30: 30>20:b 20>30:a")
		after(time.Second)
		b.expect("1000ms 21 timed out at 30, 1000 ms", "1000ms 22 timed out at 30, 1000 ms",
			"1000ms 30 timed out at 20, 0 ms", "1000ms 30 timed out at 22, 0 ms")
	})
}

// What the detector knows is lost when its seat moves or has nobody on it.
func TestSeat(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.wait(1, "b", 2)
		b.seat.Term++
		b.wait(2, "a", 1)
		b.expect()
		b.wait(1, "c", 2)
		b.expect("0ms 1 deadlock at c of 2: 2>1:a 1>2:c")
		b.seat.Version++
		b.wait(1, "d", 2)
		b.expect()
		after(time.Second)
		b.expect("1000ms 1 timed out at 2, 0 ms", "1000ms 1 timed out at 2, 0 ms", "1000ms 2 timed out at 1, 0 ms")
	})
	inBubble(t, func(b *bench) {
		b.seat.Store = 0
		b.wait(1, "b", 2)
		b.wait(2, "a", 1)
		after(time.Second)
		b.expect("1000ms 1 timed out at 2, 0 ms", "1000ms 2 timed out at 1, 0 ms")
	})
}

// An edge lasts as long as a wait may: one that was left behind closes no circle later.
func TestEdgesEnd(t *testing.T) {
	inBubble(t, func(b *bench) {
		w := &Waiter{Key: []byte("b"), StartTS: 1, lock: lockAt("b", 2), hash: 7}
		b.cfg.Detector.detect(w, time.Now())
		after(time.Second - 1)
		b.wait(2, "a", 1)
		b.expect("999ms 2 deadlock at a of 1: 1>2:b 2>1:a")
		after(1)
		b.wait(2, "a", 1)
		b.expect()
		b.Released([]byte("a"), Release{})
		b.expect("1000ms 2 released by 0-0")
	})
}

func TestLeader(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.wait(20, "a", 10)
		b.seat.Store = 2 // another store leads: it knows of no waiter
		b.Released([]byte("a"), Release{10, 15})
		b.Acquired([]byte("a"), lockAt("a", 16))
		b.wait(21, "a", 16)
		if len(b.Entries(1)) != 1 || len(b.Entries(2)) != 1 || len(b.Waiters()) != 2 {
			t.Error(b.Entries(1), b.Entries(2))
		}
		b.Released([]byte("a"), Release{16, 0})
		b.expect("0ms 21 released by 16-0")
		after(time.Second)
		b.expect("1000ms 20 timed out at 10, 0 ms")
	})
}

func TestCancelled(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.wait(1, "b", 2)
		b.wait(20, "a", 10)
		b.wait(21, "a", 10)
		synctest.Wait()
		b.Released([]byte("a"), Release{10, 15})
		gone := errors.New("the store stops")
		b.tasks.Cancel(gone)
		b.expect("0ms 1 the store stops", "0ms 20 released by 10-15", "0ms 21 the store stops")
		if b.cfg.Detector.edges() != 0 {
			t.Error("an edge is left")
		}
	})
}
