package tikv_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// increment adds one to a counter.
func increment(ctx context.Context, tx *tikv.Txn) error {
	b, err := tikv.Optional(tx.Get(ctx, []byte("counter")))
	if err != nil {
		return err
	}
	n := uint64(0)
	if b != nil {
		n = binary.BigEndian.Uint64(b)
	}
	return tx.Put([]byte("counter"), binary.BigEndian.AppendUint64(nil, n+1))
}

// Concurrent increments: the counter is the number of commits.
func TestRunTxnCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(3))
		const workers, each = 8, 20
		done := make(chan error)
		attempts := make([]int, workers)
		for w := range workers {
			c := cluster.Open()
			go func() {
				var err error
				for range each {
					err = errors.Join(err, c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
						attempts[w]++
						return increment(ctx, tx)
					}))
				}
				done <- err
			}()
		}
		for range workers {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		total := 0
		for _, n := range attempts {
			total += n
		}
		v, err := cluster.Open().Latest().Get(t.Context(), []byte("counter"))
		if err != nil || binary.BigEndian.Uint64(v) != workers*each {
			t.Fatal(v, err)
		}
		if total <= workers*each {
			t.Error("no attempt met another")
		}
		t.Logf("%d attempts for %d commits", total, workers*each)
	})
}

func TestRunTxnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		ctx := t.Context()
		mine := errors.New("mine")
		var kept *tikv.Txn

		// fn's own error rolls back, and is returned as it is.
		err := c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
			kept = tx
			return errors.Join(tx.Put([]byte("k"), nil), mine)
		})
		if !errors.Is(err, mine) {
			t.Error(err)
		}
		if err := kept.Put([]byte("k"), nil); !errors.Is(err, tikv.ErrTxnDone) {
			t.Error(err)
		}

		// A panic is passed on, and so is the end of the goroutine.
		func() {
			defer func() {
				if r := recover(); r != mine {
					t.Error(r)
				}
			}()
			_ = c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
				kept = tx
				_ = tx.Put([]byte("k"), nil)
				panic(mine)
			})
		}()
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_ = c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
				runtime.Goexit()
				return nil
			})
		}()
		<-gone
		if err := kept.Commit(ctx); !errors.Is(err, tikv.ErrTxnDone) {
			t.Error(err)
		}
		want(t, c.Latest(), "k", "-")

		// fn may end the transaction by itself.
		must(t, c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error { return tx.Rollback(ctx) }))
		must(t, c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
			return errors.Join(tx.Put([]byte("k"), nil), tx.Commit(ctx))
		}))
		want(t, c.Latest(), "k", "")
	})
}

// What another call of fn still does with the transaction when fn returns ends it.
func TestRunTxnBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		held := cluster.Inject(playground.Fault{Method: "KvGet", Hold: true})
		done := make(chan error)
		err := c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
			go func() { done <- second(tx.Get(ctx, []byte("a"))) }()
			synctest.Wait()
			return nil
		})
		if !errors.Is(err, tikv.ErrTxnBusy) {
			t.Error(err)
		}
		held.Remove()
		if err := <-done; !errors.Is(err, tikv.ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestRunTxnAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		runs := 0
		conflict := func(ctx context.Context, tx *tikv.Txn) error {
			runs++
			commit(t, c, "k", fmt.Sprint(runs))
			return tx.Put([]byte("k"), nil)
		}
		if err := c.RunTxn(t.Context(), conflict, tikv.WithMaxAttempts(3)); !errors.Is(err, tikv.ErrWriteConflict) || runs != 3 {
			t.Error(err, runs)
		}
		runs = 0
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		err := c.RunTxn(ctx, conflict)
		if !errors.Is(err, tikv.ErrWriteConflict) || !errors.Is(err, context.DeadlineExceeded) || runs < 10 || time.Since(start) != 10*time.Second {
			t.Error(err, runs, time.Since(start))
		}
		// A conflict that fn met and wrapped is one, too.
		runs = 0
		err = c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
			if runs++; runs < 4 {
				return fmt.Errorf("wrapped: %w", tikv.ErrWriteConflict)
			}
			return nil
		})
		if err != nil || runs != 4 {
			t.Error(err, runs)
		}
	})
}

// A commit whose outcome is unknown is not repeated.
func TestRunTxnUndetermined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		lost := cluster.Inject(playground.Fault{Method: "KvCommit", DropAnswer: true})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		runs, start := 0, tikv.Timestamp(0)
		err := c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
			runs++
			start = tx.StartTS()
			return increment(ctx, tx)
		}, inTwoPhases)
		var unknown *tikv.UndeterminedError
		if !errors.As(err, &unknown) || !errors.Is(err, tikv.ErrUndetermined) || !errors.Is(err, context.DeadlineExceeded) ||
			tikv.IsRetryable(err) || tikv.NotSent(err) || runs != 1 || lost.Hits() == 0 {
			t.Fatal(err, runs, lost.Hits())
		}
		if string(unknown.Primary) != "counter" || unknown.StartTS != start {
			t.Errorf("%+v", unknown)
		}
		lost.Remove()
		v, err := c.Latest().Get(t.Context(), []byte("counter"))
		if err != nil || binary.BigEndian.Uint64(v) != 1 {
			t.Error(v, err)
		}
	})
}

func TestRunTxnStopsWhenTheClientCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c, other := cluster.Open(), cluster.Open()
		done := make(chan error)
		go func() {
			done <- c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
				commit(t, other, "k", "v")
				return tx.Put([]byte("k"), nil)
			})
		}()
		time.AfterFunc(time.Second, func() { _ = c.Close() })
		if err := <-done; !errors.Is(err, tikv.ErrClosed) {
			t.Error(err)
		}
	})
}

// What ends a transaction while fn runs, unnoticed, is an error of RunTxn.
func TestRunTxnIsEndedFromWithout(t *testing.T) {
	for name, end := range map[string]struct {
		by   func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client, tx *tikv.Txn)
		want error
	}{
		"its lock is lost": {func(t *testing.T, cluster *tikvtest.Cluster, _ *tikv.Client, tx *tikv.Txn) {
			away := cluster.Inject(playground.Fault{Method: "KvTxnHeartBeat", DropRequest: true, StartTS: uint64(tx.StartTS())})
			<-time.After(25 * time.Second)
			another := begin(t, cluster.Open(), tikv.WithPessimistic())
			must(t, another.Lock(t.Context(), ks("k"), tikv.WithNoWait()), another.Rollback(t.Context()))
			away.Remove()
			<-time.After(time.Minute)
		}, tikv.ErrTxnAborted},
		"the client closes": {func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client, tx *tikv.Txn) {
			tx.OnEnd(func(tikv.TxnResult) {})
			must(t, c.Close())
		}, tikv.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t)
				c := cluster.Open()
				err := c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
					must(t, tx.Lock(ctx, ks("k")), tx.Put(b("k"), b("new")))
					end.by(t, cluster, c, tx)
					return nil
				}, tikv.WithPessimistic(), tikv.WithMaxAttempts(1))
				if !errors.Is(err, end.want) {
					t.Errorf("RunTxn returned %v, want %v", err, end.want)
				}
				want(t, cluster.Open().Latest(), "k", "-")
			})
		})
	}
}

func ExampleClient_RunTxn() {
	ctx := context.Background()
	cluster, err := playground.Start(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), tikv.WithDialer(cluster.DialContext))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	err = client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
		if err := tx.Put([]byte("alice"), []byte("10")); err != nil {
			return err
		}
		return tx.Put([]byte("bob"), []byte("20"))
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// Move everything from alice to bob, or nothing.
	err = client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
		if _, err := tx.Get(ctx, []byte("alice")); err != nil {
			return err
		}
		if err := tx.Delete([]byte("alice")); err != nil {
			return err
		}
		return tx.Put([]byte("bob"), []byte("30"))
	})
	fmt.Println(err)
	for kv, err := range client.Latest().Scan(ctx, tikv.Range{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s=%s\n", kv.Key, kv.Value)
	}
	// Output:
	// <nil>
	// bob=30
}

// After some conflicts RunTxn locks their keys before it runs fn, which needs no locks of
// its own then.
func TestRunTxnTurnsPessimistic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
		const workers, each = 8, 10
		runs := func(opts ...tikv.RunOption) (total, most int) {
			done := make(chan error)
			attempts, worst := make([]int, workers), make([]int, workers)
			for w := range workers {
				c := cluster.Open()
				go func() {
					var err error
					for range each {
						err = errors.Join(err, c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
							attempts[w]++
							worst[w] = max(worst[w], tx.Attempt())
							<-time.After(20 * time.Millisecond)
							return increment(ctx, tx)
						}, opts...))
					}
					done <- err
				}()
			}
			for range workers {
				must(t, <-done)
			}
			for _, n := range attempts {
				total += n
			}
			return total, slices.Max(worst)
		}
		optimistic, worst := runs()
		pessimistic, most := runs(tikv.WithPessimisticAfter(1))
		t.Logf("%d runs for %d commits, up to %d of one; %d with locks after a conflict", optimistic, workers*each, worst, pessimistic)
		if pessimistic > 2*workers*each || worst <= 2 || most != 2 {
			t.Errorf("%d runs, up to %d of one", pessimistic, most)
		}
		v, err := cluster.Open().Latest().Get(t.Context(), []byte("counter"))
		if err != nil || binary.BigEndian.Uint64(v) != 2*workers*each {
			t.Error(v, err)
		}
		synctest.Wait() // for what the attempts that failed owe
		if left := cluster.Locks(nil, nil); len(left) > 0 {
			t.Error(left)
		}
	})
}

// A pessimistic transaction lets go of its locks however fn ends, and a deadlock is one
// reason more to run it again.
func TestRunTxnPessimistic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
		c, ctx := cluster.Open(), t.Context()
		mine := errors.New("mine")
		lock := func(ctx context.Context, tx *tikv.Txn) error { return tx.Lock(ctx, ks("a", "z")) }
		unlocked := func(what string) {
			t.Helper()
			synctest.Wait()
			if left := cluster.Locks(nil, nil); len(left) > 0 {
				t.Errorf("%s: %+v", what, left)
			}
		}
		err := c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error { return errors.Join(lock(ctx, tx), mine) }, tikv.WithPessimistic())
		if !errors.Is(err, mine) {
			t.Error(err)
		}
		unlocked("an error")
		func() {
			defer func() {
				if r := recover(); r != mine {
					t.Error(r)
				}
			}()
			_ = c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
				must(t, lock(ctx, tx))
				panic(mine)
			}, tikv.WithPessimistic())
		}()
		unlocked("a panic")
		must(t, c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
			return errors.Join(lock(ctx, tx), tx.Put(b("a"), b("1")))
		}, tikv.WithPessimistic()))
		unlocked("a commit")
		want(t, c.Latest(), "a", "1")

		var runs atomic.Int32
		done := make(chan error)
		for _, order := range [][]string{{"a", "z"}, {"z", "a"}} {
			go func() {
				done <- c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
					runs.Add(1)
					for _, key := range order {
						if _, err := tikv.Optional(tx.GetForUpdate(ctx, b(key))); err != nil {
							return err
						}
						<-time.After(50 * time.Millisecond)
					}
					return increment(ctx, tx)
				}, tikv.WithPessimistic())
			}()
		}
		must(t, <-done, <-done)
		if runs.Load() < 3 {
			t.Errorf("%d runs: no deadlock", runs.Load())
		}
		unlocked("a deadlock")
		// The last error says how often it was tried.
		err = c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error { return tikv.ErrDeadlock }, tikv.WithMaxAttempts(3))
		if !errors.Is(err, tikv.ErrDeadlock) || err.Error() != "tikv: RunTxn: after 3 attempts: tikv: deadlock" {
			t.Error(err)
		}
	})
}
