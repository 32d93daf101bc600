package tikv_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// A commit check sees the timestamp while the keys are locked, and its error undoes it.
func TestCommitCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		client := cluster.Open()
		ctx, key := t.Context(), []byte("k")
		no := errors.New("no")
		for _, how := range []string{"Commit", "Begin", "RunTxn"} {
			var asked tikv.Timestamp
			locks := 0
			check := tikv.WithCommitCheck(func(ts tikv.Timestamp) error {
				asked, locks = ts, len(cluster.Locks(nil, nil))
				return no
			})
			put := func(_ context.Context, tx *tikv.Txn) error { return tx.Put(key, []byte(how)) }
			var err error
			switch how {
			case "RunTxn":
				err = client.RunTxn(ctx, put, check)
			default:
				var begin []tikv.BeginOption
				var commit []tikv.CommitOption
				if how == "Begin" {
					begin = append(begin, check)
				} else {
					commit = append(commit, check)
				}
				tx, berr := client.Begin(ctx, begin...)
				if berr != nil {
					t.Fatal(berr)
				}
				if err := put(ctx, tx); err != nil {
					t.Fatal(err)
				}
				err = tx.Commit(ctx, commit...)
				if _, ok := tx.CommitTS(); ok {
					t.Error("a commit timestamp after a refused commit")
				}
			}
			if !errors.Is(err, no) || asked == 0 || locks != 1 {
				t.Errorf("%s: %v; asked about %v with %d locks", how, err, asked, locks)
			}
			synctest.Wait()
			if left := cluster.Locks(nil, nil); len(left) != 0 {
				t.Errorf("%s: locks are left: %v", how, left)
			}
			if _, err := client.Latest().Get(ctx, key); !errors.Is(err, tikv.ErrNotFound) {
				t.Errorf("%s: %v", how, err)
			}
		}
	})
}

// The check is asked again where a reader has pushed the commit ahead.
func TestCommitCheckIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		client := cluster.Open()
		ctx, key := t.Context(), []byte("k")
		tx, err := client.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.Put(key, []byte("1")); err != nil {
			t.Fatal(err)
		}
		var asked []tikv.Timestamp
		err = tx.Commit(ctx, tikv.WithCommitCheck(func(ts tikv.Timestamp) error {
			asked = append(asked, ts)
			if len(asked) == 1 {
				snap, err := client.Snapshot(ctx)
				if err != nil {
					return err
				}
				if _, err := snap.Get(ctx, key); !errors.Is(err, tikv.ErrNotFound) {
					return err
				}
			}
			return nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		if ts, ok := tx.CommitTS(); len(asked) != 2 || !ok || ts != asked[1] || asked[1] <= asked[0] {
			t.Errorf("asked about %v, committed at %v", asked, ts)
		}
	})
}

// A check that panics leaves no locks.
func TestCommitCheckPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		client := cluster.Open()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = client.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error { return tx.Put([]byte("k"), nil) },
				tikv.WithCommitCheck(func(tikv.Timestamp) error { panic("check") }))
		}()
		synctest.Wait()
		if left := cluster.Locks(nil, nil); len(left) != 0 {
			t.Errorf("locks are left: %v", left)
		}
		if err := client.RunTxn(t.Context(), func(context.Context, *tikv.Txn) error { return nil }, tikv.WithCommitCheck(nil)); !errors.Is(err, tikv.ErrInvalid) {
			t.Error(err)
		}
	})
}
