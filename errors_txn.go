package tikv

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/txn"
)

// WriteConflictError is a key that another transaction wrote after this one began, or
// is about to write.
type WriteConflictError struct {
	Key, Primary                          []byte
	StartTS, ConflictTS, ConflictCommitTS Timestamp // ConflictCommitTS is 0 for one that has not committed

	op   string
	keys keys.Printer
}

// Error names the transactions.
func (e *WriteConflictError) Error() string {
	text := fmt.Sprintf("tikv: %s: write conflict on key %s: transaction %d with %d", e.op, e.keys.Key(e.Key), uint64(e.StartTS), uint64(e.ConflictTS))
	if e.ConflictCommitTS != 0 {
		text += ", committed at " + strconv.FormatUint(uint64(e.ConflictCommitTS), 10)
	}
	return text
}

// Is matches ErrWriteConflict.
func (e *WriteConflictError) Is(target error) bool { return target == ErrWriteConflict }

// AlreadyExistsError is a key that Insert or CheckAbsent found.
type AlreadyExistsError struct {
	Key []byte

	op   string
	keys keys.Printer
}

// Error names the key, redacted unless the client shows keys.
func (e *AlreadyExistsError) Error() string {
	return "tikv: " + e.op + ": key " + e.keys.Key(e.Key) + " already exists"
}

// Is matches ErrAlreadyExists.
func (e *AlreadyExistsError) Is(target error) bool { return target == ErrAlreadyExists }

// AssertionError is a key that is not what WithAssertion said.
type AssertionError struct {
	Key                                   []byte
	Assertion                             Assertion
	StartTS, ExistingTS, ExistingCommitTS Timestamp // of the transaction, and of the version that is there; 0: none, or the transaction's own

	op   string
	keys keys.Printer
}

// Error names the key, redacted unless the client shows keys.
func (e *AssertionError) Error() string {
	return "tikv: " + e.op + ": key " + e.keys.Key(e.Key) + " is not what was asserted: " + e.Assertion.String()
}

// Is matches ErrAssertion.
func (e *AssertionError) Is(target error) bool { return target == ErrAssertion }

// lagError is a commit that has to come after a timestamp that PD has not reached.
type lagError struct {
	op  string
	err *txn.Behind
}

func (e *lagError) Error() string {
	return fmt.Sprintf("tikv: %s: transaction %d must commit after %d, and it is %d", e.op, e.err.StartTS, e.err.After, e.err.Now)
}
func (e *lagError) Is(target error) bool { return target == ErrCommitTSLag }

// SnapshotTooOldError is a read whose versions may be gone.
type SnapshotTooOldError struct {
	ReadTS, SafePoint Timestamp

	op string
}

// Error names both timestamps.
func (e *SnapshotTooOldError) Error() string {
	return fmt.Sprintf("tikv: %s: timestamp %d is behind the GC safe point %d", e.op, uint64(e.ReadTS), uint64(e.SafePoint))
}

// Is matches ErrSnapshotTooOld.
func (e *SnapshotTooOldError) Is(target error) bool { return target == ErrSnapshotTooOld }

// abortedError is a transaction that did not commit and cannot any more.
type abortedError struct {
	op  string
	err *txn.Aborted
}

func (e *abortedError) Error() string {
	return fmt.Sprintf("tikv: %s: transaction %d aborted: %s", e.op, e.err.StartTS, e.err.Why)
}
func (e *abortedError) Is(target error) bool { return target == ErrTxnAborted }

// tooLargeError is a key, an entry or a transaction over a limit.
type tooLargeError struct {
	op, what    string
	size, limit int
}

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("tikv: %s: %s: %d, the limit is %d", e.op, e.what, e.size, e.limit)
}
func (e *tooLargeError) Is(target error) bool { return target == ErrTooLarge }

// stateError is a call that the transaction's state forbids.
type stateError struct {
	op  string
	err error
}

func (e *stateError) Error() string { return "tikv: " + e.op + ": " + e.err.Error()[len("tikv: "):] }
func (e *stateError) Unwrap() error { return e.err }

// mapTxnError turns an error of the transaction engine into a public one; false: it is
// none of those.
func mapTxnError(ec errorContext, err error) (error, bool) {
	switch err {
	case txn.ErrNotFound:
		return ErrNotFound, true
	case txn.ErrDone:
		return &stateError{ec.op, ErrTxnDone}, true
	case txn.ErrBusy:
		return &stateError{ec.op, ErrTxnBusy}, true
	case txn.ErrSavepoint:
		return &ArgumentError{Op: ec.op, Arg: "savepoint", Reason: "has ended, or is another transaction's"}, true
	}
	switch e := err.(type) {
	case *txn.Conflict:
		return &WriteConflictError{
			Key: ec.key(e.Key), Primary: ec.key(e.Primary), StartTS: Timestamp(e.StartTS),
			ConflictTS: Timestamp(e.ConflictTS), ConflictCommitTS: Timestamp(e.ConflictCommitTS),
			op: ec.op, keys: ec.keys,
		}, true
	case *txn.Exists:
		return &AlreadyExistsError{Key: ec.key(e.Key), op: ec.op, keys: ec.keys}, true
	case *txn.Asserted:
		out := &AssertionError{
			Key: ec.key(e.Key), Assertion: AssertExists, StartTS: Timestamp(e.StartTS),
			ExistingTS: Timestamp(e.ExistingTS), ExistingCommitTS: Timestamp(e.ExistingCommitTS), op: ec.op, keys: ec.keys,
		}
		if e.Absent {
			out.Assertion = AssertAbsent
		}
		return out, true
	case *txn.Behind:
		return &lagError{ec.op, e}, true
	case *txn.Misuse:
		return &ArgumentError{Op: ec.op, Arg: e.Arg, Reason: e.Why}, true
	case *txn.Aborted:
		return &abortedError{ec.op, e}, true
	case *txn.TooOld:
		return &SnapshotTooOldError{ReadTS: Timestamp(e.ReadTS), SafePoint: Timestamp(e.SafePoint), op: ec.op}, true
	case *txn.Future:
		return &ArgumentError{Op: ec.op, Arg: "timestamp", Reason: fmt.Sprintf("%d lies in the future: it is %d", e.TS, e.Now)}, true
	case *txn.Locked:
		return ec.locked(e), true
	case *txn.TooLarge:
		return &tooLargeError{ec.op, e.What + " in the transaction", e.Size, e.Limit}, true
	case *txn.Undetermined:
		return ec.undeterminedTxn(e), true
	}
	return nil, false
}

func (ec errorContext) undeterminedTxn(e *txn.Undetermined) error {
	out := &UndeterminedError{Op: ec.op, keys: ec.keys}
	var lost *router.Undetermined
	if errors.As(e.Err, &lost) {
		out.Causes = ec.causes(lost.Causes)
	}
	out.Primary, out.StartTS, out.home = ec.key(e.Primary), Timestamp(e.StartTS), home(ec.cluster, ec.codec)
	for _, key := range e.Secondaries {
		out.Secondaries = append(out.Secondaries, ec.key(key))
	}
	return out
}
