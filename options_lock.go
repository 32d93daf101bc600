package tikv

import (
	"context"
	"time"

	"github.com/tikv-go/tikv/internal/txn"
)

type (
	// LockReadOption is an option of GetForUpdate and BatchGetForUpdate.
	LockReadOption interface{ applyLockRead(*lockConfig) }
	// LockOption is an option of Lock and of the reading locks. Those about waiting and
	// about the for-update timestamp are of no consequence in an optimistic transaction,
	// which neither waits nor locks before it commits.
	LockOption interface {
		LockReadOption
		applyLock(*lockConfig)
	}
)

// lockConfig is one lock call's.
type lockConfig struct {
	problems
	o txn.LockOptions
}

type (
	begunFunc func(tx *Txn) // before Begin returns it
	lockFirst struct {
		pessimism any
		lock      func(ctx context.Context, tx *Txn, keys [][]byte) error
	}
)

// The kinds of options. set returns what is wrong with the value, or nothing.
type (
	lockOption struct {
		name string
		set  func(*lockConfig) string
	}
	lockReadOption struct {
		name string
		set  func(*lockConfig) string
	}
)

func (o lockOption) applyLock(c *lockConfig)         { c.add(o.name, o.set(c)) }
func (o lockOption) applyLockRead(c *lockConfig)     { c.add(o.name, o.set(c)) }
func (o lockReadOption) applyLockRead(c *lockConfig) { c.add(o.name, o.set(c)) }

// WithLockWait makes a lock wait for at most d, in all, for other transactions; then it is
// ErrLocked. The default is to wait until ctx ends.
func WithLockWait(d time.Duration) LockOption {
	return lockOption{"WithLockWait", func(c *lockConfig) string {
		if c.o.Wait = d; d <= 0 {
			return "must be above 0; WithNoWait is not to wait"
		}
		return c.oneWait()
	}}
}

// WithNoWait makes a lock that is held by a living transaction be ErrLocked at once.
func WithNoWait() LockOption {
	return lockOption{"WithNoWait", func(c *lockConfig) string {
		c.o.NoWait = true
		return c.oneWait()
	}}
}

func (c *lockConfig) oneWait() string {
	if c.o.NoWait && c.o.Wait > 0 {
		return "is given with another wait"
	}
	return ""
}

// WithShared locks together with other sharers, and against those who write. It cannot be
// the first lock of a transaction, nor turned into a lock of its own: keys locked so are
// not to be written. In an optimistic transaction it is a lock like others.
func WithShared() LockOption {
	return lockOption{"WithShared", func(c *lockConfig) string { c.o.Shared = true; return "" }}
}

// WithForUpdateTS makes a commit after ts on one of the keys ErrWriteConflict. ts must have
// been issued, and not before StartTS. By default the newest commit may be of any time.
func WithForUpdateTS(ts Timestamp) LockOption {
	return lockOption{"WithForUpdateTS", func(c *lockConfig) string {
		if c.o.ForUpdate = uint64(ts); ts == 0 || ts == ^Timestamp(0) {
			return "is not a timestamp"
		}
		return ""
	}}
}

// WithLockIfExists leaves absent keys unlocked. It is for one key, or for a transaction
// that has locked another before.
func WithLockIfExists() LockReadOption {
	return lockReadOption{"WithLockIfExists", func(c *lockConfig) string { c.o.IfExists = true; return "" }}
}

// WithExistenceOnly asks for no values: those that are there are empty.
func WithExistenceOnly() LockReadOption {
	return lockReadOption{"WithExistenceOnly", func(c *lockConfig) string { c.o.Existence = true; return "" }}
}

// WithPessimistic makes the transaction lock keys when it is asked to (Lock, GetForUpdate)
// and not only when it commits. What it writes without having locked it is checked at
// commit, as in an optimistic transaction: a newer commit is ErrWriteConflict.
func WithPessimistic() TxnOption {
	return txnOption{"WithPessimistic", func(c *txnConfig) string {
		c.pessimism, c.handed = txn.Pessimistic(), begunFunc((*Txn).holdWeakly)
		return ""
	}}
}

// WithPessimisticAfter makes RunTxn go on with pessimistic transactions after so many
// conflicts in a row. These lock the keys of the conflicts before they run fn, so that who
// conflicts waits instead of running fn in vain; fn need not lock anything itself.
func WithPessimisticAfter(conflicts int) RunOption {
	return runOption{"WithPessimisticAfter", func(c *txnConfig) string {
		c.pessimisticAfter = conflicts
		c.lockFirst = lockFirst{txn.Pessimistic(), func(ctx context.Context, tx *Txn, keys [][]byte) error {
			return tx.Lock(ctx, keys, WithForUpdateTS(tx.StartTS()))
		}}
		return atLeastOne(conflicts)
	}}
}
