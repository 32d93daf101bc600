package mvcc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// failure is an error with the form in which answers carry it (TiKV src/storage/
// errors.rs, extract_key_error). The command that meets it may look at the parts.
type failure struct{ *kvrpcpb.KeyError }

// Error returns the failure's text.
func (f failure) Error() string { return f.String() }

// keyError is err as an answer carries it; nil for nil.
func keyError(err error) *kvrpcpb.KeyError {
	if err == nil {
		return nil
	}
	var (
		f    failure
		c    *check.Error
		lost *errPessimisticLockNotFound
		done *errCommitted
	)
	switch {
	case errors.As(err, &f):
		return f.KeyError
	case errors.As(err, &c):
		return c.KeyError()
	case errors.As(err, &lost):
		return &kvrpcpb.KeyError{Abort: lost.Error()}
	case errors.As(err, &done):
		return &kvrpcpb.KeyError{Abort: done.Error()}
	}
	return check.Other(err.Error()).KeyError()
}

// errorText is err as answers carry it that have only a string.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	var f failure
	if errors.As(err, &f) && f.Abort != "" {
		return f.Abort
	}
	return err.Error()
}

// rustTxn and rustMVCC are the debug forms of TiKV's nested errors, which is what the
// text in answers is; list is that of bytes, ts that of a timestamp.
func rustTxn(format string, args ...any) string {
	return "Error(Txn(Error(" + fmt.Sprintf(format, args...) + ")))"
}

func rustMVCC(format string, args ...any) string {
	return rustTxn("Mvcc(Error(%s))", fmt.Sprintf(format, args...))
}

type list []byte

func (l list) String() string {
	return strings.ReplaceAll(fmt.Sprint([]byte(l)), " ", ", ")
}

type ts uint64

func (t ts) String() string { return fmt.Sprintf("TimeStamp(%d)", uint64(t)) }

func abort(text string) error { return failure{&kvrpcpb.KeyError{Abort: text}} }

func errLocked(info *kvrpcpb.LockInfo) error { return failure{&kvrpcpb.KeyError{Locked: info}} }

func errConflict(c *kvrpcpb.WriteConflict) error {
	return failure{&kvrpcpb.KeyError{Conflict: c, Retryable: rustMVCC(
		"WriteConflict { start_ts: %v, conflict_start_ts: %v, conflict_commit_ts: %v, key: %v, primary: %v, reason: %v }",
		ts(c.StartTs), ts(c.ConflictTs), ts(c.ConflictCommitTs), list(c.Key), list(c.Primary), c.Reason)}}
}

func errAlreadyExist(k key) error {
	return failure{&kvrpcpb.KeyError{AlreadyExist: &kvrpcpb.AlreadyExist{Key: k.raw}}}
}

func errTxnLockNotFound(startTS, commitTS uint64, k key) failure {
	return failure{&kvrpcpb.KeyError{
		TxnLockNotFound: &kvrpcpb.TxnLockNotFound{Key: k.raw},
		Retryable: rustMVCC("TxnLockNotFound { start_ts: %v, commit_ts: %v, key: %v, mvcc_info: None }",
			ts(startTS), ts(commitTS), list(k.raw)),
	}}
}

func errTxnNotFound(startTS uint64, k key) error {
	return failure{&kvrpcpb.KeyError{TxnNotFound: &kvrpcpb.TxnNotFound{StartTs: startTS, PrimaryKey: k.raw}}}
}

func errCommitTSExpired(startTS, commitTS, minCommitTS uint64, k key) failure {
	return failure{&kvrpcpb.KeyError{CommitTsExpired: &kvrpcpb.CommitTsExpired{
		StartTs: startTS, AttemptedCommitTs: commitTS, Key: k.raw, MinCommitTs: minCommitTS}}}
}

func errAssertion(a *kvrpcpb.AssertionFailed) error {
	return failure{&kvrpcpb.KeyError{AssertionFailed: a}}
}

func errPrimaryMismatch(info *kvrpcpb.LockInfo) error {
	return failure{&kvrpcpb.KeyError{PrimaryMismatch: &kvrpcpb.PrimaryMismatch{LockInfo: info}}}
}

// What follows has no field of its own and is carried as text.

func errInvalidTSO(startTS, commitTS uint64) error {
	return abort(rustTxn("InvalidTxnTso { start_ts: %v, commit_ts: %v }", ts(startTS), ts(commitTS)))
}

// errInvalidTSOText is the same where TiKV shows it to people.
func errInvalidTSOText(startTS, commitTS uint64) string {
	return fmt.Sprintf("Invalid transaction tso with start_ts:%d, commit_ts:%d", startTS, commitTS)
}

// errCommitted is told from other text by its type: one command answers with the timestamp.
type errCommitted struct {
	startTS, commitTS uint64
	key               key
}

// Error returns the text that answers carry.
func (e *errCommitted) Error() string {
	return rustMVCC("Committed { start_ts: %v, commit_ts: %v, key: %v }", ts(e.startTS), ts(e.commitTS), list(e.key.raw))
}

func errRolledBack(startTS uint64, k key) error {
	return abort(rustMVCC("PessimisticLockRolledBack { start_ts: %v, key: %v }", ts(startTS), list(k.raw)))
}

func errLockType(startTS uint64, k key, pessimistic bool) error {
	return abort(rustMVCC("LockTypeNotMatch { start_ts: %v, key: %v, pessimistic: %v }", ts(startTS), list(k.raw), pessimistic))
}

func errDefaultNotFound(stored []byte) error {
	return abort(rustMVCC("DefaultNotFound { key: %v }", list(stored)))
}

// errPessimisticLockNotFound is told from other text by its type: a prewrite that meets
// it looks whether the transaction is committed already.
type errPessimisticLockNotFound struct {
	startTS uint64
	key     key
	reason  string // as TiKV src/storage/mvcc/mod.rs, PessimisticLockNotFoundReason
}

// Error returns the text that answers carry.
func (e *errPessimisticLockNotFound) Error() string {
	return rustMVCC("PessimisticLockNotFound { start_ts: %v, key: %v, reason: %s }", ts(e.startTS), list(e.key.raw), e.reason)
}
