package lockwait

import (
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/deadlock"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// MaxWait is the longest that a request waits, and how long if it leaves that to the
// server (TiKV src/server/lock_manager/config.rs, wait_for_lock_timeout).
const MaxWait = time.Second

// WakeUpDelay is how long after a key's waiter was woken the others are (same file,
// wake_up_delay_duration).
const WakeUpDelay = 20 * time.Millisecond

// Timeout is a request's wait_timeout as a duration; false: it does not wait (TiKV src/
// storage/lock_manager/mod.rs, WaitTimeout).
func Timeout(ms int64) (time.Duration, bool) {
	switch {
	case ms < 0:
		return 0, false
	case ms == 0 || ms >= MaxWait.Milliseconds():
		return MaxWait, true
	}
	return time.Duration(ms) * time.Millisecond, true
}

// Waiter is a request that waits for one key's lock. The exported fields are set by its
// maker, before Add.
type Waiter struct {
	Key     []byte // as requests have it
	StartTS uint64
	Timeout time.Duration
	First   bool   // it cannot be part of a circle: its transaction holds nothing
	Share   bool   // it wants the lock together with others
	Tag     []byte // the request's resource group tag
	Region  uint64 // that the request named
	Keys    int    // that it is for
	// Resume runs the request again, in the mode in which the server grants locks; nil
	// in the other, in which the client does. It ends with Answer or Again. With handed
	// the caller holds the key's latch and is in its region.
	Resume func(ctx context.Context, handed bool)

	hash  uint64
	place place
	since time.Time

	// Guarded by the table.
	lock     *kvrpcpb.LockInfo // that it waits for
	updated  time.Time         // when the key was locked anew, if it was
	index    int               // how often the queue had been woken when it was added
	queued   bool              // false while it is resumed
	finished bool
	late     *Outcome // what ends it if it meets a lock when it is resumed

	done chan Outcome
}

// Release is how a lock ended: committed, or rolled back if CommitTS is 0.
type Release struct{ StartTS, CommitTS uint64 }

// Outcome is how a wait ended; one field is set.
type Outcome struct {
	Released *Release          // the lock was: ask again
	TimedOut *kvrpcpb.LockInfo // it was not
	Deadlock *kvrpcpb.Deadlock
	Answer   any // of a request that was resumed
}

// Info is a waiter as inspection shows it.
type Info struct {
	Store, Region, StartTS uint64
	Keys                   int
	Since                  time.Time
}

// entry is the wait for a holder as answers have it.
func (w *Waiter) entry(holder uint64) *deadlock.WaitForEntry {
	return &deadlock.WaitForEntry{
		Txn: w.StartTS, WaitForTxn: holder, KeyHash: w.hash, Key: w.Key, ResourceGroupTag: w.Tag,
	}
}

// timedOut names the lock, and how long ago the key was locked anew, if that was while
// the request waited: at least 1 ms, as 0 is "was not" (TiKV src/server/lock_manager/
// waiter_manager.rs, Waiter::cancel_for_timeout).
func (w *Waiter) timedOut(now time.Time) Outcome {
	info := *w.lock
	if !w.updated.IsZero() {
		info.DurationToLastUpdateMs = max(1, uint64(now.Sub(w.updated).Milliseconds()))
	}
	return Outcome{TimedOut: &info}
}
