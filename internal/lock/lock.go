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
	StartTS      uint64
	TTL          uint64 // milliseconds, from the physical part of StartTS; 0: over already
	TxnSize      uint64 // how many keys the transaction has in the region, if known
	ForUpdateTS  uint64
	Pessimistic  bool
}

// FromProto returns the locks that an error tells of: one, or the members of a shared
// lock, whose wrapper itself says nothing (kvproto kvrpcpb.LockInfo).
func FromProto(info *kvrpcpb.LockInfo) []Lock {
	if members := info.GetSharedLockInfos(); len(members) > 0 {
		locks := make([]Lock, len(members))
		for i, m := range members {
			locks[i] = fromInfo(m)
			if len(locks[i].Key) == 0 {
				locks[i].Key = info.GetKey()
			}
		}
		return locks
	}
	return []Lock{fromInfo(info)}
}

func fromInfo(info *kvrpcpb.LockInfo) Lock {
	return Lock{
		Key:         info.GetKey(),
		Primary:     info.GetPrimaryLock(),
		StartTS:     info.GetLockVersion(),
		TTL:         info.GetLockTtl(),
		TxnSize:     info.GetTxnSize(),
		ForUpdateTS: info.GetLockForUpdateTs(),
		Pessimistic: info.GetLockType() == kvrpcpb.Op_PessimisticLock || info.GetLockType() == kvrpcpb.Op_SharedPessimisticLock,
	}
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
