package tikv

import (
	"fmt"
	"math"
	"time"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/txn"
)

// Lock is a transaction's lock on a key, as a call met it.
type Lock struct {
	Key, Primary                      []byte
	StartTS, ForUpdateTS, MinCommitTS Timestamp
	TTL                               time.Duration // from StartTS
	Pessimistic, Shared, AsyncCommit  bool
}

// LockWait is a call that waits for a lock to go. Waiter is the start of its transaction,
// or the moment that its snapshot shows, 0 for Latest; Holder and Primary are those of
// the transaction that has the lock.
type LockWait struct {
	Op             string
	Key, Primary   []byte
	Waiter, Holder Timestamp
	Since          time.Time // when the call began
}

// LockWaits lists the calls of this client that wait for locks at this moment, the
// longest first, without I/O. A call that asks the cluster again does not wait, but in the
// queue of a store, once that has told whose the lock is.
func (c *Client) LockWaits() []LockWait {
	all := []LockWait{}
	ec := c.errorContext("", c.engine.txn)
	for _, w := range c.engine.txns.Waiting() {
		lw := LockWait{
			Op: w.Op, Key: ec.key(w.Lock.Key), Primary: ec.key(w.Lock.Primary),
			Waiter: Timestamp(w.By), Holder: Timestamp(w.Lock.StartTS), Since: w.Since,
		}
		if w.By == math.MaxUint64 {
			lw.Waiter = 0
		}
		all = append(all, lw)
	}
	return all
}

// LockedError is a lock that was not waited for, or not long enough. Left is how much of
// its transaction's life there was when it was met: 0 if none, or that is not known.
type LockedError struct {
	Lock Lock
	Left time.Duration

	kind string
	keys keys.Printer
}

// Error names the lock and whose it is.
func (e *LockedError) Error() string {
	kind := e.kind
	if kind == "" {
		kind = "lock"
	}
	text := fmt.Sprintf("tikv: key %s is locked: %s of transaction %d, primary key %s",
		e.keys.Key(e.Lock.Key), kind, uint64(e.Lock.StartTS), e.keys.Key(e.Lock.Primary))
	if e.Left > 0 {
		text += fmt.Sprintf(", %v to live", e.Left.Round(time.Millisecond))
	}
	return text
}

// Is matches ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// locked makes the engine's error public.
func (ec errorContext) locked(e *txn.Locked) error {
	return &LockedError{Lock: ec.lock(&e.Lock), Left: e.Left, kind: e.Lock.Kind(), keys: ec.keys}
}

func (ec errorContext) lock(l *lock.Lock) Lock {
	return Lock{
		Key: ec.key(l.Key), Primary: ec.key(l.Primary),
		StartTS: Timestamp(l.StartTS), ForUpdateTS: Timestamp(l.ForUpdateTS), MinCommitTS: Timestamp(l.MinCommitTS),
		TTL: time.Duration(l.TTL) * time.Millisecond, Pessimistic: l.Pessimistic, Shared: l.Shared, AsyncCommit: l.Async,
	}
}

// WithLockBypass tells the view of locks that it need not meet, by the start timestamps
// of their transactions: those of ignore hide nothing from it, being rolled back or sure
// to commit after it; those of readThrough have committed before it. What is wrong in a
// list is read wrong. The last 1,024 of each are kept.
func WithLockBypass(ignore, readThrough []Timestamp) SnapshotAtOption {
	return snapshotAtOption{"WithLockBypass", func(c *readConfig) string {
		c.bypass = &lockBypass{timestamps(ignore), timestamps(readThrough)}
		return ""
	}}
}

// lockBypass is start timestamps of transactions.
type lockBypass struct{ ignore, through []uint64 }

func timestamps(all []Timestamp) []uint64 {
	out := make([]uint64, len(all))
	for i, ts := range all {
		out[i] = uint64(ts)
	}
	return out
}
