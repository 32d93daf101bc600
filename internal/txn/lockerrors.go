package txn

import (
	"bytes"
	"fmt"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// Misuse is a lock that cannot be asked for in the state that the transaction is in.
type Misuse struct{ Arg, Why string }

// Error says what is wrong.
func (e *Misuse) Error() string { return "txn: " + e.Arg + " " + e.Why }

// Deadlock is a lock that would have closed a circle of waiting.
type Deadlock struct {
	Key []byte // that was to be locked; a wire key, as all here
	// Retryable: who waits for this transaction waits for a key of the refused call, so
	// that locking again, once what that call got is undone, may succeed.
	Retryable bool
	Chain     []Wait
}

// Wait is a transaction that waits for a key that another holds.
type Wait struct {
	Key            []byte
	Waiter, Holder uint64
}

// Error says how long the circle is.
func (e *Deadlock) Error() string {
	return fmt.Sprintf("txn: deadlock of %d transactions", len(e.Chain))
}

// deadlock is the error of a call for keys. The entry of the one who waits for this
// transaction is where the circle would have closed (TiKV src/server/lock_manager/
// deadlock.rs, do_detect). client-go compares hashes of keys instead, and never finds
// them equal in a keyspace.
func (l *lockCall) deadlock(d *kvrpcpb.Deadlock) error {
	e := &Deadlock{Key: d.GetLockKey()}
	for _, w := range d.GetWaitChain() {
		e.Chain = append(e.Chain, Wait{Key: w.GetKey(), Waiter: w.GetTxn(), Holder: w.GetWaitForTxn()})
		if w.GetWaitForTxn() != l.t.StartTS() {
			continue
		}
		for _, key := range l.keys {
			e.Retryable = e.Retryable || bytes.Equal(key, w.GetKey())
		}
	}
	return e
}
