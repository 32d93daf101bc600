package txn

import (
	"errors"
	"fmt"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/membuf"
	"github.com/tikv-go/tikv/internal/router"
)

// The ends of calls that never reached the cluster.
var (
	ErrDone     = errors.New("txn: transaction already ended")
	ErrBusy     = errors.New("txn: transaction in use by another call")
	ErrNotFound = errors.New("txn: key not found")
)

// Conflict is a key that another transaction wrote, or is about to.
type Conflict struct {
	Key, Primary                          []byte // of the conflict; wire keys
	StartTS, ConflictTS, ConflictCommitTS uint64
}

// Error says that there is a conflict.
func (e *Conflict) Error() string {
	return fmt.Sprintf("txn: %d conflicts with %d", e.StartTS, e.ConflictTS)
}

// Exists is a key that has a value against the transaction's claim.
type Exists struct{ Key []byte }

// Error says that a key exists.
func (e *Exists) Error() string { return "txn: key already exists" }

// Asserted is a key that is not what a write said of it.
type Asserted struct {
	Key                                   []byte
	Absent                                bool   // what was said: that it has no value
	StartTS, ExistingTS, ExistingCommitTS uint64 // of the transaction, and of the version that is there, if one is
}

// Error says that an assertion failed.
func (e *Asserted) Error() string { return fmt.Sprintf("txn: an assertion of %d failed", e.StartTS) }

// Behind is a commit that has to come after a timestamp that PD has not reached in time.
type Behind struct{ StartTS, After, Now uint64 }

// Error names the timestamps.
func (e *Behind) Error() string {
	return fmt.Sprintf("txn: %d must commit after %d, and it is %d", e.StartTS, e.After, e.Now)
}

// Aborted is a transaction that certainly did not commit and can not any more.
type Aborted struct {
	StartTS uint64
	Why     string
}

// Error says why.
func (e *Aborted) Error() string { return fmt.Sprintf("txn: %d aborted: %s", e.StartTS, e.Why) }

// TooOld is a read behind the safe point.
type TooOld struct{ ReadTS, SafePoint uint64 }

// Error names both timestamps.
func (e *TooOld) Error() string {
	return fmt.Sprintf("txn: %d is behind the safe point %d", e.ReadTS, e.SafePoint)
}

// Future is a timestamp that PD has not given out yet.
type Future struct{ TS, Now uint64 }

// Error names both timestamps.
func (e *Future) Error() string { return fmt.Sprintf("txn: %d is after %d, now", e.TS, e.Now) }

// Locked is a lock in the way of a call.
type Locked struct {
	Lock lock.Lock
	Left time.Duration // of its life when it was met; 0: it is over, or not known
}

// Error names the lock's transaction.
func (e *Locked) Error() string { return fmt.Sprintf("txn: %s of %d", e.Lock.Kind(), e.Lock.StartTS) }

// TooLarge is a transaction beyond its limits.
type TooLarge = membuf.TooLarge

// Undetermined is a commit whose outcome is unknown.
type Undetermined struct {
	Inquiry
	Err error
}

// Error is the cause's.
func (e *Undetermined) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Undetermined) Unwrap() error { return e.Err }

// keyError is the error for an answer that ends a call.
func keyError(call *router.Call, start uint64, ke *kvrpcpb.KeyError) error {
	switch c := ke.GetConflict(); {
	case c != nil && c.GetReason() == kvrpcpb.WriteConflict_SelfRolledBack:
		return &Aborted{StartTS: start, Why: "rolled back by another transaction"}
	case c != nil:
		return &Conflict{
			Key: c.GetKey(), Primary: c.GetPrimary(),
			StartTS: c.GetStartTs(), ConflictTS: c.GetConflictTs(), ConflictCommitTS: c.GetConflictCommitTs(),
		}
	case ke.GetAlreadyExist() != nil:
		return &Exists{Key: ke.GetAlreadyExist().GetKey()}
	case ke.GetAssertionFailed() != nil:
		a := ke.GetAssertionFailed()
		return &Asserted{
			Key: a.GetKey(), Absent: a.GetAssertion() == kvrpcpb.Assertion_NotExist,
			StartTS: start, ExistingTS: a.GetExistingStartTs(), ExistingCommitTS: a.GetExistingCommitTs(),
		}
	case ke.GetTxnLockNotFound() != nil, ke.GetTxnNotFound() != nil:
		return &Aborted{StartTS: start, Why: "its lock is gone: it took longer than the lock lived"}
	case ke.GetRetryable() != "":
		return lostOr(call, &Aborted{StartTS: start, Why: ke.GetRetryable()})
	case ke.GetCommitTsTooLarge() != nil:
		return lostOr(call, &Aborted{StartTS: start, Why: "it would have committed later than it may"})
	case router.Classify(ke.GetAbort()) == router.ClassGone:
		// What is in the way of a prewrite may be another's lock, which may go: a copy of
		// the request that was lost could pass then (prewrite.rs, check_lock).
		return lostOr(call, &Aborted{StartTS: start, Why: "a lock of its own is gone: it took longer than the lock lived"})
	}
	return lock.Refused(call, ke)
}
