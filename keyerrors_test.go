package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

type keyErrorRow struct {
	field                                 string
	ke                                    *kvrpcpb.KeyError
	lock, prewrite, resent, commit, beats error
}

// keyErrors are all the errors that a store can answer about a key, and what they are for
// who is answered so: for a pessimistic lock, for the prewrite of a commit in two phases,
// for that in one phase when an answer was lost before, for the commit of the primary key,
// and for a heartbeat; nil: the call goes on. Where a field has more than one meaning it
// stands here more than once.
var keyErrors = []keyErrorRow{
	{"Locked", &kvrpcpb.KeyError{Locked: &kvrpcpb.LockInfo{Key: b("a"), PrimaryLock: b("a"), LockVersion: 1, LockTtl: 1}},
		nil, nil, nil, tikv.ErrUndetermined, nil},
	{"Retryable", &kvrpcpb.KeyError{Retryable: "words"},
		tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrUndetermined, tikv.ErrUndetermined, nil},
	{"Abort", &kvrpcpb.KeyError{Abort: "words"},
		tikv.ErrRejected, tikv.ErrRejected, tikv.ErrUndetermined, tikv.ErrUndetermined, nil},
	{"Abort, PessimisticLockNotFound", &kvrpcpb.KeyError{Abort: "Error(Txn(Error(Mvcc(Error(PessimisticLockNotFound { start_ts: TimeStamp(1), key: [97], reason: LockTsMismatch })))))"},
		tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrUndetermined, tikv.ErrUndetermined, nil},
	{"Abort, PessimisticLockRolledBack", &kvrpcpb.KeyError{Abort: "Error(Txn(Error(Mvcc(Error(PessimisticLockRolledBack { start_ts: TimeStamp(1), key: [97] })))))"},
		tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrUndetermined, tikv.ErrUndetermined, nil},
	{"Conflict", &kvrpcpb.KeyError{Retryable: "words", Conflict: &kvrpcpb.WriteConflict{Key: b("a"), ConflictTs: 1, ConflictCommitTs: 2}},
		nil, tikv.ErrWriteConflict, tikv.ErrWriteConflict, tikv.ErrUndetermined, nil},
	{"Conflict, SelfRolledBack", &kvrpcpb.KeyError{Retryable: "words", Conflict: &kvrpcpb.WriteConflict{Key: b("a"), Reason: kvrpcpb.WriteConflict_SelfRolledBack}},
		tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrUndetermined, nil},
	{"AlreadyExist", &kvrpcpb.KeyError{AlreadyExist: &kvrpcpb.AlreadyExist{Key: b("a")}},
		tikv.ErrAlreadyExists, tikv.ErrAlreadyExists, tikv.ErrAlreadyExists, tikv.ErrUndetermined, nil},
	{"Deadlock", &kvrpcpb.KeyError{Deadlock: &kvrpcpb.Deadlock{LockKey: b("a")}},
		tikv.ErrDeadlock, tikv.ErrRejected, tikv.ErrUndetermined, tikv.ErrUndetermined, nil},
	{"CommitTsExpired", &kvrpcpb.KeyError{CommitTsExpired: &kvrpcpb.CommitTsExpired{Key: b("a")}},
		tikv.ErrRejected, tikv.ErrRejected, tikv.ErrUndetermined, nil, nil},
	{"TxnNotFound", &kvrpcpb.KeyError{TxnNotFound: &kvrpcpb.TxnNotFound{PrimaryKey: b("a")}},
		tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrUndetermined, tikv.ErrTxnAborted},
	{"CommitTsTooLarge", &kvrpcpb.KeyError{CommitTsTooLarge: &kvrpcpb.CommitTsTooLarge{CommitTs: 1}},
		tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrUndetermined, tikv.ErrUndetermined, nil},
	{"AssertionFailed", &kvrpcpb.KeyError{AssertionFailed: &kvrpcpb.AssertionFailed{Key: b("a"), Assertion: kvrpcpb.Assertion_Exist}},
		tikv.ErrAssertion, tikv.ErrAssertion, tikv.ErrAssertion, tikv.ErrUndetermined, nil},
	{"PrimaryMismatch", &kvrpcpb.KeyError{PrimaryMismatch: &kvrpcpb.PrimaryMismatch{LockInfo: &kvrpcpb.LockInfo{Key: b("a")}}},
		tikv.ErrRejected, tikv.ErrRejected, tikv.ErrUndetermined, tikv.ErrUndetermined, tikv.ErrTxnAborted},
	{"TxnLockNotFound", &kvrpcpb.KeyError{Retryable: "words", TxnLockNotFound: &kvrpcpb.TxnLockNotFound{Key: b("a")}},
		tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrTxnAborted, tikv.ErrTxnAborted},
	{"DebugInfo", &kvrpcpb.KeyError{DebugInfo: &kvrpcpb.DebugInfo{}},
		tikv.ErrRejected, tikv.ErrRejected, tikv.ErrUndetermined, tikv.ErrUndetermined, nil},
}

// Each error of a key is of one kind for each request of a transaction, and the kind says
// what may be done: a transaction that is gone may be run again, one that may have
// committed may not.
func TestKeyErrors(t *testing.T) {
	for i, all := 0, reflect.TypeFor[kvrpcpb.KeyError](); i < all.NumField(); i++ {
		f := all.Field(i)
		known := slices.ContainsFunc(keyErrors, func(k keyErrorRow) bool {
			field, _, _ := strings.Cut(k.field, ",")
			return field == f.Name
		})
		if !strings.HasPrefix(f.Name, "XXX_") && !known {
			t.Errorf("%s is not in the table", f.Name)
		}
	}
	for _, k := range keyErrors {
		answer := map[string]interface{ Marshal() ([]byte, error) }{
			"KvPessimisticLock": &kvrpcpb.PessimisticLockResponse{Errors: []*kvrpcpb.KeyError{k.ke}},
			"KvPrewrite":        &kvrpcpb.PrewriteResponse{Errors: []*kvrpcpb.KeyError{k.ke}},
			"KvCommit":          &kvrpcpb.CommitResponse{Error: k.ke},
			"KvTxnHeartBeat":    &kvrpcpb.TxnHeartBeatResponse{Error: k.ke},
		}
		for _, c := range []struct {
			method string
			lost   bool // an answer
			want   error
			do     func(ctx context.Context, tx *tikv.Txn) error
			opts   []tikv.BeginOption
		}{
			{"KvPessimisticLock", false, k.lock, func(ctx context.Context, tx *tikv.Txn) error { return tx.Lock(ctx, ks("a")) }, []tikv.BeginOption{tikv.WithPessimistic()}},
			{"KvPrewrite", false, k.prewrite, nil, nil},
			{"KvPrewrite", true, k.resent, nil, []tikv.BeginOption{tikv.WithCommitMode(tikv.CommitAuto)}},
			{"KvCommit", false, k.commit, nil, nil},
			{"KvTxnHeartBeat", false, k.beats, func(ctx context.Context, tx *tikv.Txn) error {
				if err := tx.Lock(ctx, ks("a")); err != nil {
					return err
				}
				<-time.After(11 * time.Second)
				return nil
			}, []tikv.BeginOption{tikv.WithPessimistic()}},
		} {
			t.Run(fmt.Sprintf("%s/%s, lost %v", k.field, c.method, c.lost), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cluster := tikvtest.NewCluster(t)
					tx := begin(t, cluster.Open(), c.opts...)
					if c.lost {
						cluster.Inject(playground.Fault{Method: c.method, Times: 1, DropRequest: true})
					}
					skip := map[bool]int{true: 1}[c.lost]
					cluster.Inject(playground.Fault{Method: c.method, Skip: skip, Times: 1, KeyError: playground.Abort, Mangle: func([]byte) []byte {
						encoded, err := answer[c.method].Marshal()
						if err != nil {
							t.Error(err)
						}
						return encoded
					}})
					var err error
					if c.do != nil {
						err = c.do(t.Context(), tx)
					}
					if err == nil {
						err = tx.Put(b("a"), b("new")) // which fails if the transaction has
					}
					if err == nil {
						err = tx.Commit(t.Context())
					}
					if !errors.Is(err, c.want) || tikv.IsRetryable(err) != (c.want == tikv.ErrTxnAborted || c.want == tikv.ErrWriteConflict || c.want == tikv.ErrDeadlock) ||
						tikv.NotSent(err) == (err == nil || c.want == tikv.ErrUndetermined) {
						t.Errorf("%v, want %v; retryable %v, not sent %v", err, c.want, tikv.IsRetryable(err), tikv.NotSent(err))
					}
					if c.want == tikv.ErrTxnAborted && c.method == "KvPessimisticLock" {
						if err := tx.Commit(t.Context()); !errors.Is(err, tikv.ErrTxnAborted) {
							t.Errorf("what is gone goes on: %v", err)
						}
					}
				})
			})
		}
	}
}

// A pessimistic transaction that has lost a lock, and whose key others have written since,
// is run again; so is one that others have rolled back when it asks for another lock.
func TestLostLocksAreRunAgain(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, c *tikv.Client, tx *tikv.Txn) error{
		"written since": func(t *testing.T, c *tikv.Client, tx *tikv.Txn) error {
			loseLock(t, c, tx.StartTS(), b("a"))
			commit(t, c, "a", "1")
			return nil
		},
		"locked by another": func(t *testing.T, c *tikv.Client, tx *tikv.Txn) error {
			loseLock(t, c, tx.StartTS(), b("a"))
			other := begin(t, c, tikv.WithPessimistic())
			must(t, other.Lock(t.Context(), ks("a")))
			time.AfterFunc(time.Second, func() { _ = other.Rollback(t.Context()) })
			return nil
		},
		"rolled back": func(t *testing.T, c *tikv.Client, tx *tikv.Txn) error {
			loseLock(t, c, tx.StartTS(), b("a"))
			at, err := c.ResolveOutcome(t.Context(), &tikv.UndeterminedError{StartTS: tx.StartTS(), Primary: b("b")})
			if err != nil || at != 0 {
				t.Error(at, err)
			}
			return tx.Lock(t.Context(), ks("b"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t)
				c, other := cluster.Open(), cluster.Open()
				commit(t, c, "a", "0")
				var told error
				err := c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
					v, err := tx.GetForUpdate(ctx, b("a"))
					if err != nil {
						return err
					}
					must(t, tx.Put(b("a"), append(v, '+')))
					if tx.Attempt() > 1 {
						return nil
					}
					if err := lose(t, other, tx); err != nil {
						told = err
						return err
					}
					told = tx.Commit(ctx)
					return told
				}, tikv.WithPessimistic(), inTwoPhases)
				must(t, err)
				if !errors.Is(told, tikv.ErrTxnAborted) || !tikv.IsRetryable(told) || !tikv.NotSent(told) {
					t.Errorf("the first attempt ends with %v", told)
				}
				want(t, c.Latest(), "a", map[bool]string{true: "1+", false: "0+"}[name == "written since"])
			})
		})
	}
}
