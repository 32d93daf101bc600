// Package lock finds out what became of the transactions whose locks a call meets, and
// removes those locks. The truth about a transaction is in its primary key: a resolver
// asks for it, remembers what is final, and tells readers which locks they may ignore
// or read through, and everybody how long the others will live.
package lock

import (
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// Lock is a lock that a call met.
type Lock struct {
	Key, Primary []byte // wire keys
	StartTS      uint64 // 0: a shared lock that does not name its holders
	TTL          uint64 // milliseconds, from the physical part of StartTS; 0: over already
	TxnSize      uint64 // how many keys the transaction has in the region, if known
	ForUpdateTS  uint64
	MinCommitTS  uint64
	Pessimistic  bool
	Shared       bool // others may hold the key with it
	Async        bool // of an asynchronous commit
}

// FromProto returns the locks that an error tells of: one, or the members of a shared
// lock, whose wrapper itself says nothing (TiKV components/txn_types/src/lock.rs,
// SharedLocks::into_lock_info).
func FromProto(info *kvrpcpb.LockInfo) []Lock {
	members := info.GetSharedLockInfos()
	if len(members) == 0 {
		return []Lock{fromInfo(info)}
	}
	locks := make([]Lock, len(members))
	for i, m := range members {
		locks[i] = fromInfo(m)
		locks[i].Shared = true
		if len(locks[i].Key) == 0 {
			locks[i].Key = info.GetKey()
		}
	}
	return locks
}

func fromInfo(info *kvrpcpb.LockInfo) Lock {
	op := info.GetLockType()
	return Lock{
		Key:         info.GetKey(),
		Primary:     info.GetPrimaryLock(),
		StartTS:     info.GetLockVersion(),
		TTL:         info.GetLockTtl(),
		TxnSize:     info.GetTxnSize(),
		ForUpdateTS: info.GetLockForUpdateTs(),
		MinCommitTS: info.GetMinCommitTs(),
		Pessimistic: op == kvrpcpb.Op_PessimisticLock || op == kvrpcpb.Op_SharedPessimisticLock,
		Shared:      op == kvrpcpb.Op_SharedLock || op == kvrpcpb.Op_SharedPessimisticLock,
		Async:       info.GetUseAsyncCommit(),
	}
}

// Kind is the lock's type in words.
func (l *Lock) Kind() string {
	kind := "lock"
	switch {
	case l.Pessimistic:
		kind = "pessimistic lock"
	case l.Async:
		kind = "async-commit lock"
	}
	if l.Shared {
		kind = "shared " + kind
	}
	return kind
}

// physical is the milliseconds of a timestamp.
func physical(ts uint64) uint64 { return ts >> 18 }

// left is how long a lock of a transaction begun at start lives on after now; 0 if it
// has expired: TiKV's rule is that physical(start) + ttl < physical(now), strictly
// (src/storage/txn/actions/check_txn_status.rs).
func left(start, ttl, now uint64) time.Duration {
	end, at := physical(start)+ttl, physical(now)
	if end < at {
		return 0
	}
	return time.Duration(end-at+1) * time.Millisecond
}
