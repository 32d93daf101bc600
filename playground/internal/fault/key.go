package fault

import (
	"fmt"
	"reflect"

	"github.com/pingcap/kvproto/pkg/deadlock"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// The key errors that a rule may answer with, as playground.KeyFault numbers them.
const (
	KeyLocked uint8 = iota + 1
	WriteConflict
	AlreadyExist
	Deadlock
	CommitTSExpired
	TxnNotFound
	TxnLockNotFound
	PrimaryMismatch
	AssertionFailed
	Abort
)

// Subject is what a key error speaks of: a request's first key, its transaction, and
// the timestamp that it would commit at.
type Subject struct {
	Key      []byte
	StartTS  uint64
	CommitTS uint64
	// Now is the timestamp of the clock: a read of the latest has no StartTS of its own.
	Now uint64
	// Pessimistic is a request for pessimistic locks.
	Pessimistic bool
}

// KeyError makes the error of a kind, with all that TiKV fills in (src/storage/
// errors.rs, extract_key_error), nil for an unknown kind. The other transaction that
// it speaks of began just before the request's, or now, and does not exist.
func KeyError(kind uint8, s Subject) *kvrpcpb.KeyError {
	other := max(min(s.StartTS, s.Now), 2) - 1
	lock := &kvrpcpb.LockInfo{
		PrimaryLock: s.Key, LockVersion: other, Key: s.Key, LockTtl: 1, TxnSize: 1, LockType: kvrpcpb.Op_Put,
		MinCommitTs: other + 1,
	}
	text := fmt.Sprintf("injected key error %d", kind)
	switch kind {
	case KeyLocked:
		return &kvrpcpb.KeyError{Locked: lock}
	case WriteConflict:
		reason := kvrpcpb.WriteConflict_Optimistic
		if s.Pessimistic {
			reason = kvrpcpb.WriteConflict_PessimisticRetry
		}
		return &kvrpcpb.KeyError{Retryable: text, Conflict: &kvrpcpb.WriteConflict{
			StartTs: s.StartTS, ConflictTs: s.StartTS + 1, ConflictCommitTs: s.StartTS + 2, Key: s.Key, Primary: s.Key, Reason: reason,
		}}
	case AlreadyExist:
		return &kvrpcpb.KeyError{AlreadyExist: &kvrpcpb.AlreadyExist{Key: s.Key}}
	case Deadlock:
		return &kvrpcpb.KeyError{Deadlock: &kvrpcpb.Deadlock{
			LockTs: other, LockKey: s.Key, DeadlockKeyHash: 1,
			WaitChain: []*deadlock.WaitForEntry{
				{Txn: s.StartTS, WaitForTxn: other, KeyHash: 1, Key: s.Key},
				{Txn: other, WaitForTxn: s.StartTS, KeyHash: 1, Key: s.Key},
			},
		}}
	}
	return decidedError(kind, s, lock, text)
}

// decidedError makes the errors about a transaction that another decided.
func decidedError(kind uint8, s Subject, lock *kvrpcpb.LockInfo, text string) *kvrpcpb.KeyError {
	switch kind {
	case CommitTSExpired:
		return &kvrpcpb.KeyError{CommitTsExpired: &kvrpcpb.CommitTsExpired{
			StartTs: s.StartTS, AttemptedCommitTs: s.CommitTS, Key: s.Key, MinCommitTs: s.CommitTS + 1,
		}}
	case TxnNotFound:
		return &kvrpcpb.KeyError{TxnNotFound: &kvrpcpb.TxnNotFound{StartTs: s.StartTS, PrimaryKey: s.Key}}
	case TxnLockNotFound:
		return &kvrpcpb.KeyError{Retryable: text, TxnLockNotFound: &kvrpcpb.TxnLockNotFound{Key: s.Key}}
	case PrimaryMismatch:
		return &kvrpcpb.KeyError{PrimaryMismatch: &kvrpcpb.PrimaryMismatch{LockInfo: lock}}
	case AssertionFailed:
		return &kvrpcpb.KeyError{AssertionFailed: &kvrpcpb.AssertionFailed{
			StartTs: s.StartTS, Key: s.Key, Assertion: kvrpcpb.Assertion_NotExist,
			ExistingStartTs: lock.LockVersion, ExistingCommitTs: lock.LockVersion,
		}}
	case Abort:
		return &kvrpcpb.KeyError{Abort: text}
	}
	return nil
}

// SetKeyError puts e where an answer of its type has key errors, and reports whether
// there is such a place. Scans and batch gets have it in their first pair too, for
// older clients (TiKV src/server/service/kv.rs, future_scan, future_batch_get).
func SetKeyError(answer any, e *kvrpcpb.KeyError) bool {
	v := reflect.ValueOf(answer)
	if e == nil || v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return false
	}
	v = v.Elem()
	set := false
	if f := v.FieldByName("Error"); f.IsValid() && f.Type() == reflect.TypeFor[*kvrpcpb.KeyError]() {
		f.Set(reflect.ValueOf(e))
		set = true
	}
	if f := v.FieldByName("Errors"); f.IsValid() && f.Type() == reflect.TypeFor[[]*kvrpcpb.KeyError]() {
		f.Set(reflect.ValueOf([]*kvrpcpb.KeyError{e}))
		set = true
	}
	if f := v.FieldByName("Locked"); f.IsValid() && f.Type() == reflect.TypeFor[*kvrpcpb.LockInfo]() && e.Locked != nil {
		f.Set(reflect.ValueOf(e.Locked)) // a coprocessor's answer
		set = true
	}
	if f := v.FieldByName("Pairs"); set && f.IsValid() && f.Type() == reflect.TypeFor[[]*kvrpcpb.KvPair]() {
		f.Set(reflect.ValueOf([]*kvrpcpb.KvPair{{Error: e}}))
	}
	return set
}
