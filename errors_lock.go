package tikv

import (
	"fmt"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/txn"
)

// DeadlockError is a lock refused because it would close a circle of waiting. Running the
// whole transaction again, which lets go of its locks, may succeed. Retryable says that
// the call alone may be made again: the lock that the others wait for was its own, and is
// released.
type DeadlockError struct {
	Key       []byte
	Retryable bool
	Chain     []LockWait // who waits for whom on which key, the refused wait last

	op   string
	keys keys.Printer
}

// Error names the key and the transactions.
func (e *DeadlockError) Error() string {
	text := "tikv: " + e.op + ": deadlock on key " + e.keys.Key(e.Key)
	for i, w := range e.Chain {
		text += fmt.Sprintf("%s%d waits for %d", []string{": ", ", "}[min(i, 1)], uint64(w.Waiter), uint64(w.Holder))
	}
	return text
}

// Is matches ErrDeadlock.
func (e *DeadlockError) Is(target error) bool { return target == ErrDeadlock }

func (ec errorContext) deadlock(e *txn.Deadlock) error {
	out := &DeadlockError{Key: ec.key(e.Key), Retryable: e.Retryable, op: ec.op, keys: ec.keys}
	for _, w := range e.Chain {
		out.Chain = append(out.Chain, LockWait{Key: ec.key(w.Key), Waiter: Timestamp(w.Waiter), Holder: Timestamp(w.Holder)})
	}
	return out
}
