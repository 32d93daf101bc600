package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// duel is two pessimistic transactions, in two regions; the first has locked "a".
type duel struct {
	*testing.T
	cluster  *tikvtest.Cluster
	c        *tikv.Client
	one, two *tikv.Txn
}

func dueling(t *testing.T, run func(d *duel)) {
	for _, api := range []playground.APIVersion{playground.APIV1, playground.APIV2} {
		t.Run(fmt.Sprintf("api %d", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithAPIVersion(api), playground.WithSplitKeys(playground.KeyTxn, b("m")))
				d := &duel{T: t, cluster: cluster, c: cluster.Open()}
				commit(t, d.c, "a", "old", "z", "old")
				synctest.Wait() // for its second key
				d.one, d.two = d.begin(), d.begin()
				must(t, d.one.Lock(t.Context(), ks("a")))
				run(d)
				synctest.Wait()
				must(t, d.one.Rollback(t.Context()), d.two.Rollback(t.Context()))
				synctest.Wait()
				if left := cluster.Locks(nil, nil); len(left) > 0 {
					t.Errorf("locks are left: %+v", left)
				}
			})
		})
	}
}

func (d *duel) begin() *tikv.Txn {
	d.Helper()
	return begin(d.T, d.c, tikv.WithPessimistic())
}

// held are the keys that are locked, and by whom.
func (d *duel) held() string {
	synctest.Wait()
	s := ""
	for _, l := range d.cluster.Locks(nil, nil) {
		who := "?"
		switch l.StartTS {
		case uint64(d.one.StartTS()):
			who = "1"
		case uint64(d.two.StartTS()):
			who = "2"
		}
		if !l.Pessimistic {
			who += "!"
		}
		s += fmt.Sprintf("%s:%s(%s) ", l.Key, who, l.Primary)
	}
	return s
}

func (d *duel) same(what string, got, want any) {
	d.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		d.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (d *duel) is(err, want error) {
	d.Helper()
	if !errors.Is(err, want) {
		d.Errorf("%v, want %v", err, want)
	}
}

func ks(keys ...string) [][]byte {
	var all [][]byte
	for _, k := range keys {
		all = append(all, []byte(k))
	}
	return all
}

func TestPessimisticLockWaits(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		began := time.Now()
		err := d.two.Lock(ctx, ks("a"), tikv.WithNoWait())
		var locked *tikv.LockedError
		if !errors.As(err, &locked) || !errors.Is(err, tikv.ErrLocked) || tikv.IsRetryable(err) || !tikv.NotSent(err) ||
			string(locked.Lock.Key) != "a" || locked.Lock.StartTS != d.one.StartTS() || !locked.Lock.Pessimistic || locked.Lock.TTL < 20*time.Second {
			d.Fatalf("%v %+v", err, locked)
		}
		d.same("no wait took", time.Since(began), time.Duration(0))
		for _, wait := range []time.Duration{100 * time.Millisecond, time.Second, 3500 * time.Millisecond} {
			began = time.Now()
			d.is(d.two.Lock(ctx, ks("a"), tikv.WithLockWait(wait)), tikv.ErrLocked)
			if took := time.Since(began); took < wait || took > wait+10*time.Millisecond {
				d.Errorf("waited %v, not %v", took, wait)
			}
		}
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		began = time.Now()
		err = d.two.Lock(short, ks("a"))
		var away *tikv.UnavailableError
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &away) {
			d.Fatal(err)
		}
		// The store's wait ends at that instant too: it may have answered or not.
		if a := away.Attempts; len(a) > 0 && a[0].Reason != tikv.ReasonLock && a[0].Reason != tikv.ReasonTimeout {
			d.Errorf("%v: %v", a[0].Reason, err)
		}
		d.same("a deadline", time.Since(began), 5*time.Second)
		cancelled, stop := context.WithCancel(ctx)
		time.AfterFunc(1500*time.Millisecond, stop)
		began = time.Now()
		d.is(d.two.Lock(cancelled, ks("a")), context.Canceled)
		d.same("a cancellation", time.Since(began), 1500*time.Millisecond)
		d.same("held", d.held(), "a:1(a) ")

		// As long as it takes, which is longer than any budget.
		done := start(ctx, func(ctx context.Context) error { return d.two.Lock(ctx, ks("a")) })
		<-time.After(10 * time.Minute)
		must(t, d.one.Put(b("a"), b("one")), d.one.Commit(ctx), <-done)
		v, err := d.two.GetForUpdate(ctx, b("a"))
		must(t, err)
		d.same("value", string(v), "one")
		must(t, d.two.Put(b("a"), b("two")), d.two.Commit(ctx))
		want(d.T, d.c.Latest(), "a", "two")
	})
}

// A call that fails lets go of what it has locked, also of what it asked for again as of a
// later time.
func TestFailedLockLeavesNothing(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.one.Lock(ctx, ks("z")))
		commit(d.T, d.c, "b", "newer")
		d.is(d.two.Lock(ctx, ks("b", "z"), tikv.WithNoWait()), tikv.ErrLocked)
		d.same("held", d.held(), "a:1(a) z:1(a) ")
	})
}

// The locks of who has died are resolved soon, and not waited for.
func TestLockOfTheDead(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		mortal, err := tikv.Open(ctx, d.cluster.PD(), append(d.cluster.ClientOptions(), tikv.WithAPIVersion(tikv.APIVersion(d.cluster.APIVersion())))...)
		must(d.T, err)
		dead := begin(d.T, mortal, tikv.WithPessimistic())
		must(d.T, dead.Lock(ctx, ks("x", "y")), mortal.Close())
		<-time.After(19 * time.Second)
		began := time.Now()
		must(d.T, d.two.Lock(ctx, ks("y")))
		if took := time.Since(began); took > 1300*time.Millisecond || took < time.Second {
			d.Errorf("waited for %v", took)
		}
		began = time.Now()
		must(d.T, d.two.Lock(ctx, ks("x"), tikv.WithNoWait()))
		d.same("a dead lock took", time.Since(began), time.Duration(0))
		d.same("held", d.held(), "a:1(a) x:2(y) y:2(y) ")
	})
}

func TestLockReads(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.one.Put(b("a"), b("one")), d.one.Commit(ctx))
		commit(d.T, d.c, "b", "", "c", "3")
		// What was committed since the start is seen, and no conflict.
		v, err := d.two.GetForUpdate(ctx, b("a"))
		must(d.T, err)
		d.same("a", string(v), "one")
		want(d.T, d.two, "a", "old")
		if v, err = d.two.GetForUpdate(ctx, b("b")); err != nil || v == nil || len(v) != 0 {
			d.Error(v, err)
		}
		_, err = d.two.GetForUpdate(ctx, b("nothing"))
		d.is(err, tikv.ErrNotFound)
		_, err = d.two.GetForUpdate(ctx, b("none"), tikv.WithLockIfExists())
		d.is(err, tikv.ErrNotFound)
		v, err = d.two.GetForUpdate(ctx, b("c"), tikv.WithExistenceOnly(), tikv.WithLockIfExists())
		if err != nil || v == nil || len(v) != 0 {
			d.Error(v, err)
		}
		d.same("held", d.held(), "a:2(a) b:2(a) c:2(a) nothing:2(a) ")
		// Again, in any order, twice, with its own writes on top.
		must(d.T, d.two.Put(b("b"), b("mine")), d.two.Delete(b("c")))
		got, err := d.two.BatchGetForUpdate(ctx, ks("z", "nothing", "a", "b", "z", "c", "a"))
		must(d.T, err)
		texts := ""
		for _, l := range got {
			texts += fmt.Sprintf("%q %v %d;", l.Value, l.Exists, l.ConflictTS)
		}
		d.same("batch", texts, `"old" true 0;"" false 0;"one" true 0;"mine" true 0;"old" true 0;"" false 0;"one" true 0;`)
		if got[0].Value[0] = 'X'; string(got[4].Value) != "old" {
			d.Error("two answers share their bytes")
		}
		got, err = d.two.BatchGetForUpdate(ctx, ks("z", "none", "y"), tikv.WithExistenceOnly(), tikv.WithLockIfExists())
		must(d.T, err)
		if !got[0].Exists || got[0].Value == nil || len(got[0].Value) != 0 || got[1].Exists || got[2].Exists || got[1].Value != nil {
			d.Errorf("%+v", got)
		}
		d.same("held", d.held(), "a:2(a) b:2(a) c:2(a) nothing:2(a) z:2(a) ")
		must(d.T, d.two.Commit(ctx))
		want(d.T, d.c.Latest(), "b", "mine")
		want(d.T, d.c.Latest(), "c", "-")
		want(d.T, d.c.Latest(), "z", "old")
	})
}

// The first key that is locked is the primary one, and no other.
func TestLockPrimary(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		d.is(d.two.Lock(ctx, ks("a", "b"), tikv.WithNoWait()), tikv.ErrLocked)
		d.same("held after a failure", d.held(), "a:1(a) ")
		_, err := d.two.GetForUpdate(ctx, b("gone"), tikv.WithLockIfExists())
		d.is(err, tikv.ErrNotFound)
		must(d.T, d.two.Lock(ctx, ks("z", "c")), d.two.Lock(ctx, ks("b")), d.two.Put(b("0"), nil))
		d.same("held", d.held(), "a:1(a) b:2(c) c:2(c) z:2(c) ")
		held := d.cluster.Inject(playground.Fault{Method: "KvCommit", Hold: true})
		done := start(ctx, func(ctx context.Context) error { return d.two.Commit(ctx) })
		d.same("prewritten", d.held(), "0:2!(c) a:1(a) b:2!(c) c:2!(c) z:2!(c) ")
		held.Remove()
		must(d.T, <-done)
		want(d.T, d.c.Latest(), "0", "")
		d.same("committed", d.held(), "a:1(a) ")
	})
}

func TestLockMisuse(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		now, err := d.c.Timestamp(ctx)
		must(d.T, err, d.one.Lock(ctx, ks("s"), tikv.WithShared()))
		fair := d.begin()
		stage, err := fair.FairLock()
		must(d.T, err)
		before := len(d.cluster.Locks(nil, nil))
		for name, err := range map[string]error{
			"no key":           d.two.Lock(ctx, [][]byte{nil}),
			"waits":            d.two.Lock(ctx, ks("b"), tikv.WithNoWait(), tikv.WithLockWait(1)),
			"negative":         d.two.Lock(ctx, ks("b"), tikv.WithLockWait(-1)),
			"nil option":       d.two.Lock(ctx, ks("b"), nil),
			"no timestamp":     d.two.Lock(ctx, ks("b"), tikv.WithForUpdateTS(0)),
			"an old timestamp": d.two.Lock(ctx, ks("b"), tikv.WithForUpdateTS(d.two.StartTS()-1)),
			"the future":       d.two.Lock(ctx, ks("b"), tikv.WithForUpdateTS(now+1<<40)),
			"shared first":     d.two.Lock(ctx, ks("b"), tikv.WithShared()),
			"shared if exists": second(d.one.GetForUpdate(ctx, b("b"), tikv.WithShared(), tikv.WithLockIfExists())),
			"upgrade":          d.one.Lock(ctx, ks("s")),
			"write of shared":  d.one.Put(b("s"), nil),
			"delete of shared": d.one.Delete(b("s")),
			"several if exist": second(d.two.BatchGetForUpdate(ctx, ks("b", "z"), tikv.WithLockIfExists())),
			"two statements":   second(fair.FairLock()),
			"a commit inside":  fair.Commit(ctx),
			"bad pessimism":    d.c.RunTxn(ctx, func(context.Context, *tikv.Txn) error { return nil }, tikv.WithPessimisticAfter(0)),
		} {
			var arg *tikv.ArgumentError
			if !errors.As(err, &arg) || !errors.Is(err, tikv.ErrInvalid) {
				d.Errorf("%s: %v", name, err)
			}
		}
		must(d.T, d.one.Put(b("w"), nil))
		d.is(d.one.Lock(ctx, ks("w"), tikv.WithShared()), tikv.ErrInvalid)
		d.is(d.two.Lock(ctx, [][]byte{make([]byte, 9000)}), tikv.ErrTooLarge)
		d.same("locks", len(d.cluster.Locks(nil, nil)), before)
		must(d.T, stage.Cancel(ctx), fair.Commit(ctx))
		d.is(fair.Lock(ctx, ks("b")), tikv.ErrTxnDone)
		limited := begin(d.T, d.c, tikv.WithPessimistic(), tikv.WithTxnLimits(1, 100))
		must(d.T, limited.Lock(ctx, ks("b")))
		d.is(limited.Lock(ctx, ks("c")), tikv.ErrTooLarge)
		must(d.T, limited.Rollback(ctx))
	})
}

// Whether a key exists is known of what is locked, and checked of what will be.
func TestLockClaims(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		d.is(d.one.Insert(b("a"), nil), tikv.ErrAlreadyExists)
		d.is(d.one.CheckAbsent(b("a")), tikv.ErrAlreadyExists)
		must(d.T, d.one.Lock(ctx, ks("new")), d.one.Insert(b("new"), b("1")), d.one.CheckAbsent(b("b")), d.one.Lock(ctx, ks("b")))
		var exists *tikv.AlreadyExistsError
		must(d.T, d.two.Insert(b("z"), b("2")))
		if err := d.two.Lock(ctx, ks("y", "z")); !errors.As(err, &exists) || string(exists.Key) != "z" {
			d.Error(err)
		}
		d.same("held", d.held(), "a:1(a) b:1(a) new:1(a) ")
		must(d.T, d.one.Delete(b("a")), d.one.Insert(b("a"), b("2")), d.one.Commit(ctx))
		want(d.T, d.c.Latest(), "new", "1")
		want(d.T, d.c.Latest(), "a", "2")
		want(d.T, d.c.Latest(), "b", "-")
		// What was not locked is checked at commit: Insert, and what must be absent.
		for _, claim := range []func(tx *tikv.Txn) error{
			func(tx *tikv.Txn) error { return tx.Insert(b("z"), nil) },
			func(tx *tikv.Txn) error { return tx.CheckAbsent(b("z")) },
		} {
			tx := d.begin()
			must(d.T, tx.Lock(ctx, ks("a")), claim(tx))
			d.is(tx.Commit(ctx), tikv.ErrAlreadyExists)
			tx = d.begin()
			must(d.T, tx.Lock(ctx, ks("a")), tx.CheckAbsent(b("free")), tx.Insert(b("free2"), nil))
			must(d.T, tx.Commit(ctx))
			must(d.T, d.c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Delete(b("free2")) }))
		}
		want(d.T, d.c.Latest(), "free", "-")
		synctest.Wait()
		d.same("held", d.held(), "")
	})
}

// What is written without a lock is as safe as in an optimistic transaction.
func TestLockedAndUnlockedWrites(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.one.Put(b("x"), b("one")), d.one.Delete(b("z")))
		commit(d.T, d.c, "x", "won")
		err := d.one.Commit(ctx)
		var conflict *tikv.WriteConflictError
		if !errors.As(err, &conflict) || string(conflict.Key) != "x" || !tikv.IsRetryable(err) {
			d.Error(err)
		}
		d.same("held", d.held(), "")
		want(d.T, d.c.Latest(), "z", "old")
		// Locked, it is not in danger: who began later has to wait.
		must(d.T, d.two.Lock(ctx, ks("a")), d.two.Put(b("a"), b("two")), d.two.Put(b("y"), b("two")))
		rival := begin(d.T, d.c)
		must(d.T, rival.Put(b("a"), b("rival")))
		done := start(ctx, func(ctx context.Context) error { return rival.Commit(ctx) })
		<-time.After(time.Second)
		must(d.T, d.two.Commit(ctx))
		d.is(<-done, tikv.ErrWriteConflict)
		want(d.T, d.c.Latest(), "a", "two")
		want(d.T, d.c.Latest(), "y", "two")
	})
}

// A commit that meets another one on a key that it has not locked waits for it: TiKV
// says that the lock is over, for it takes the key to be protected otherwise.
func TestUnlockedWriteLeavesTheLivingAlone(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		older := begin(d.T, d.c, tikv.WithStartTS(d.one.StartTS()-1))
		must(d.T, older.Put(b("x"), b("older")))
		held := d.cluster.Inject(playground.Fault{Method: "KvCommit", StartTS: uint64(older.StartTS()), Hold: true})
		first := start(ctx, func(ctx context.Context) error { return older.Commit(ctx) })
		synctest.Wait()
		must(d.T, d.one.Put(b("x"), b("one")))
		second := start(ctx, func(ctx context.Context) error { return d.one.Commit(ctx) })
		<-time.After(2 * time.Second)
		held.Remove()
		must(d.T, <-first)
		d.is(<-second, tikv.ErrWriteConflict)
		want(d.T, d.c.Latest(), "x", "older")
	})
}

func TestForUpdateTS(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.one.Rollback(ctx))
		at, err := d.c.Timestamp(ctx)
		must(d.T, err)
		ts := commit(d.T, d.c, "a", "new")
		err = d.two.Lock(ctx, ks("a", "b"), tikv.WithForUpdateTS(at))
		var conflict *tikv.WriteConflictError
		if !errors.As(err, &conflict) || string(conflict.Key) != "a" || conflict.ConflictCommitTS != ts {
			d.Error(err)
		}
		d.same("held", d.held(), "")
		v, err := d.two.GetForUpdate(ctx, b("a"), tikv.WithForUpdateTS(ts))
		must(d.T, err)
		d.same("value", string(v), "new")
		d.same("for-update-ts", d.cluster.Locks(nil, nil)[0].ForUpdateTS, uint64(ts))
	})
}

func TestDeadlock(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.two.Lock(ctx, ks("z")))
		done := start(ctx, func(ctx context.Context) error { return d.one.Lock(ctx, ks("z")) })
		<-time.After(100 * time.Millisecond)
		err := d.two.Lock(ctx, ks("a"))
		var dead *tikv.DeadlockError
		if !errors.As(err, &dead) || !errors.Is(err, tikv.ErrDeadlock) || !tikv.IsRetryable(err) || !tikv.NotSent(err) || dead.Retryable {
			d.Fatal(err)
		}
		if w := dead.Chain; string(dead.Key) != "a" || len(w) != 2 ||
			w[0].Waiter != d.one.StartTS() || w[0].Holder != d.two.StartTS() || string(w[0].Key) != "z" ||
			w[1].Waiter != d.two.StartTS() || w[1].Holder != d.one.StartTS() || string(w[1].Key) != "a" {
			d.Errorf("%+v", dead)
		}
		must(d.T, d.two.Rollback(ctx), <-done)
		d.same("held", d.held(), "a:1(a) z:1(a) ")
	})
}

// A circle through keys of the refused call itself is gone with it: it may be made again.
func TestDeadlockOfOneCall(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.two.Lock(ctx, ks("two")))
		// two gets "z", for which one waits then, before it asks for "a": in the middle of one's
		// first wait of 200 ms, so that two closes the circle. Between waits one would.
		slow := d.cluster.Inject(playground.Fault{Method: "KvPessimisticLock", Key: b("a"), Delay: 200 * time.Millisecond, StartTS: uint64(d.two.StartTS())})
		first := start(ctx, func(ctx context.Context) error {
			<-time.After(100 * time.Millisecond)
			return d.one.Lock(ctx, ks("z"))
		})
		err := d.two.Lock(ctx, ks("a", "z"))
		var dead *tikv.DeadlockError
		if !errors.As(err, &dead) || !dead.Retryable {
			d.Fatal(err)
		}
		slow.Remove()
		must(d.T, <-first)
		d.same("held", d.held(), "a:1(a) two:2(two) z:1(a) ")
		again := start(ctx, func(ctx context.Context) error { return d.two.Lock(ctx, ks("a", "z")) })
		<-time.After(time.Second)
		must(d.T, d.one.Commit(ctx), <-again)
		d.same("held", d.held(), "a:2(two) two:2(two) z:2(two) ")
	})
}

func TestSharedLocks(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.two.Lock(ctx, ks("two")))
		for _, tx := range []*tikv.Txn{d.one, d.two} {
			v, err := tx.GetForUpdate(ctx, b("z"), tikv.WithShared())
			must(d.T, err)
			d.same("value", string(v), "old")
			_, err = tx.GetForUpdate(ctx, b("absent"), tikv.WithShared())
			d.is(err, tikv.ErrNotFound)
			v, err = tx.GetForUpdate(ctx, b("z"), tikv.WithShared()) // again
			must(d.T, err)
			d.same("value", string(v), "old")
		}
		three := d.begin()
		must(d.T, three.Lock(ctx, ks("three")))
		d.is(three.Lock(ctx, ks("z"), tikv.WithLockWait(500*time.Millisecond)), tikv.ErrLocked)
		done := start(ctx, func(ctx context.Context) error { return three.Lock(ctx, ks("z")) })
		<-time.After(3 * time.Second)
		must(d.T, d.one.Put(b("a"), b("one")), d.one.Commit(ctx))
		<-time.After(3 * time.Second)
		must(d.T, d.two.Rollback(ctx), <-done, three.Put(b("z"), b("three")), three.Commit(ctx))
		want(d.T, d.c.Latest(), "z", "three")
		want(d.T, d.c.Latest(), "a", "one")
	})
}

// A call that has its locks, but not the values of them, has locked nothing.
func TestLockedValuesAreNotRead(t *testing.T) {
	for name, c := range map[string]struct {
		before []string // which is read because it was locked before
		opts   []tikv.LockReadOption
	}{
		"shared": {[]string{"two"}, []tikv.LockReadOption{tikv.WithShared()}},
		"beside": {[]string{"two", "z"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dueling(t, func(d *duel) {
				ctx := d.Context()
				must(d.T, d.two.Lock(ctx, ks(c.before...)))
				held := d.held()
				lost := d.cluster.Inject(playground.Fault{Method: "KvBatchGet", DropRequest: true})
				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				d.is(second(d.two.BatchGetForUpdate(short, ks("y", "z"), c.opts...)), context.DeadlineExceeded)
				if lost.Hits() == 0 {
					d.Error("nothing was to be read")
				}
				lost.Remove()
				synctest.Wait()
				d.same("held", d.held(), held)
				must(d.T, second(d.two.BatchGetForUpdate(ctx, ks("y", "z"))), d.two.Put(b("y"), b("two")), d.two.Commit(ctx))
				want(d.T, d.c.Latest(), "y", "two")
			})
		})
	}
}

// What must be absent is looked at, under the lock, also where that is shared, and whether
// it is said before the lock or after.
func TestSharedLockClaims(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		commit(d.T, d.c, "made", "since")
		for _, c := range []struct {
			key   string
			after bool
			want  error
		}{{"z", false, tikv.ErrAlreadyExists}, {"z", true, tikv.ErrAlreadyExists}, {"free", false, nil}, {"free", true, nil}, {"made", true, tikv.ErrAlreadyExists}} {
			tx := d.two
			if c.key != "made" { // which is newer than the second one's start
				tx = d.begin()
			}
			must(d.T, tx.Lock(ctx, ks("y")), tx.Put(b("y"), b("new")))
			if !c.after {
				must(d.T, tx.CheckAbsent(b(c.key)))
			}
			err := tx.Lock(ctx, ks(c.key), tikv.WithShared())
			if c.after && err == nil {
				must(d.T, tx.CheckAbsent(b(c.key)))
			}
			if err == nil {
				err = tx.Commit(ctx)
			}
			if must(d.T, tx.Rollback(ctx)); !errors.Is(err, c.want) {
				d.Errorf("%+v: %v", c, err)
			}
			synctest.Wait()
			d.same("held", d.held(), "a:1(a) ")
		}
		if ts, ok := d.two.CommitTS(); ok {
			d.Errorf("committed at %d", ts)
		}
	})
}

// A key that a call which failed may have shared can be written: the commit waits until it
// is shared no more.
func TestWriteOfWhatWasShared(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.two.Lock(ctx, ks("two")))
		held := d.cluster.Inject(playground.Fault{Method: "KVPessimisticRollback", Hold: true})
		d.is(d.two.Lock(ctx, ks("a", "z"), tikv.WithShared(), tikv.WithNoWait()), tikv.ErrLocked)
		d.same("held", d.held(), "a:1(a) two:2(two) z:2(two) ")
		must(d.T, d.two.Put(b("z"), b("two")))
		done := start(ctx, func(ctx context.Context) error { return d.two.Commit(ctx) })
		synctest.Wait()
		held.Remove()
		must(d.T, <-done)
		want(d.T, d.c.Latest(), "z", "two")
	})
}

// In an optimistic transaction the same calls make the commit check.
func TestOptimisticForUpdate(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		tx := begin(d.T, d.c)
		must(d.T, tx.Put(b("mine"), b("1")))
		got, err := tx.BatchGetForUpdate(ctx, ks("z", "absent", "mine"), tikv.WithLockWait(1))
		must(d.T, err)
		if string(got[0].Value) != "old" || got[1].Exists || string(got[2].Value) != "1" || tx.Len() != 3 {
			d.Errorf("%+v %d", got, tx.Len())
		}
		_, err = tx.GetForUpdate(ctx, b("other"), tikv.WithLockIfExists())
		d.is(err, tikv.ErrNotFound)
		d.same("keys", tx.Len(), 3)
		d.same("held", d.held(), "a:1(a) ")
		stage, err := tx.FairLock()
		must(d.T, err, stage.Retry(ctx), stage.Done(ctx), stage.Cancel(ctx))
		commit(d.T, d.c, "z", "new")
		d.is(tx.Commit(ctx), tikv.ErrWriteConflict)
	})
}

func TestRollbackUnlocks(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.one.Lock(ctx, ks("b", "x", "y", "z")), d.one.Put(b("a"), nil))
		slow := d.cluster.Inject(playground.Fault{Method: "KVPessimisticRollback", Delay: time.Second})
		began := time.Now()
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		d.is(d.one.Rollback(short), context.DeadlineExceeded)
		d.same("took", time.Since(began), 100*time.Millisecond)
		must(d.T, d.one.Rollback(ctx))
		d.is(d.one.Put(b("a"), nil), tikv.ErrTxnDone)
		<-time.After(time.Second)
		d.same("held", d.held(), "")
		if slow.Hits() != 2 {
			d.Errorf("%d requests", slow.Hits())
		}
	})
}

// What a call that failed has locked is let go, also where it may come late, and the
// transaction goes on.
func TestFailedLockIsUndone(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.two.Lock(ctx, ks("two")))
		for name, f := range map[string]playground.Fault{
			"lost":  {Method: "KvPessimisticLock", Key: b("y"), DropAnswer: true},
			"error": {Method: "KvPessimisticLock", Key: b("y"), RegionError: playground.RaftEntryTooLarge},
		} {
			fault := d.cluster.Inject(f)
			short, cancel := context.WithTimeout(ctx, 3*time.Second)
			if err := d.two.Lock(short, ks("b", "y")); err == nil {
				d.Errorf("%s: no error", name)
			}
			cancel()
			fault.Remove()
			<-time.After(time.Second)
			d.same(name, d.held(), "a:1(a) two:2(two) ")
		}
		must(d.T, d.two.Lock(ctx, ks("b", "y")), d.two.Put(b("b"), b("1")), d.two.Commit(ctx))
		want(d.T, d.c.Latest(), "b", "1")
	})
}

// Without its lock, or without the right to take one, a transaction cannot go on: it may be
// run again.
func TestLostLock(t *testing.T) {
	aborted := func(d *duel, err error) {
		d.Helper()
		if !errors.Is(err, tikv.ErrTxnAborted) || !tikv.IsRetryable(err) || !tikv.NotSent(err) {
			d.Error(err)
		}
	}
	lose := func(d *duel, keys ...string) {
		d.Helper()
		dead := &dead{t: d.T, c: d.c, start: uint64(d.two.StartTS())}
		for _, key := range keys {
			resp := lostCall(dead, key, tikvpb.TikvClient.KVPessimisticRollback,
				&kvrpcpb.PessimisticRollbackRequest{StartVersion: dead.start, ForUpdateTs: math.MaxUint64, Keys: ks(key)})
			dead.no("rollback", resp.Errors...)
		}
	}
	cases := map[string]func(d *duel){
		"and the key written since": func(d *duel) {
			lose(d, "z")
			commit(d.T, d.c, "z", "won")
			must(d.T, d.two.Put(b("z"), b("two")))
			aborted(d, d.two.Commit(d.Context()))
			want(d.T, d.c.Latest(), "z", "won")
		},
		"and the key locked since": func(d *duel) {
			lose(d, "z")
			must(d.T, d.one.Lock(d.Context(), ks("z")), d.two.Put(b("z"), b("two")))
			aborted(d, d.two.Commit(d.Context()))
		},
		"and nothing else": func(d *duel) {
			lose(d, "z", "b")
			must(d.T, d.two.Put(b("z"), b("two")), d.two.Commit(d.Context()))
			want(d.T, d.c.Latest(), "z", "two")
		},
		"asynchronously": func(d *duel) {
			lose(d, "b", "z")
			commit(d.T, d.c, "b", "won")
			aborted(d, d.two.Commit(d.Context(), tikv.WithCommitMode(tikv.CommitAuto)))
		},
		"a key on which it was rolled back": func(d *duel) {
			(&dead{t: d.T, c: d.c, start: uint64(d.two.StartTS())}).rollback("y")
			aborted(d, d.two.Lock(d.Context(), ks("y")))
		},
	}
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			dueling(t, func(d *duel) {
				must(d.T, d.two.Lock(d.Context(), ks("b", "z")))
				run(d)
			})
		})
	}
}

func TestBusyLock(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		done := start(ctx, func(ctx context.Context) error { return d.two.Lock(ctx, ks("a")) })
		synctest.Wait()
		for name, err := range map[string]error{
			"Put": d.two.Put(b("x"), nil), "Lock": d.two.Lock(ctx, ks("b")), "Get": second(d.two.Get(ctx, b("a"))),
			"Commit": d.two.Commit(ctx), "Rollback": d.two.Rollback(ctx), "FairLock": second(d.two.FairLock()),
		} {
			if !errors.Is(err, tikv.ErrTxnBusy) {
				d.Errorf("%s: %v", name, err)
			}
		}
		must(d.T, d.one.Rollback(ctx), <-done)
	})
}

// A thousand keys over many regions, locked twice, in requests that go together.
func TestLockMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at [][]byte
		for i := 50; i < 1000; i += 50 {
			at = append(at, fmt.Appendf(nil, "k%03d", i))
		}
		cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, at...))
		c := cluster.Open()
		tx, other := begin(t, c, tikv.WithPessimistic()), begin(t, c, tikv.WithPessimistic())
		keys := keysOf(1000)
		slices.Reverse(keys)
		must(t, other.Lock(t.Context(), ks("k500")))
		done := start(t.Context(), func(ctx context.Context) error { return tx.Lock(ctx, keys) })
		<-time.After(5 * time.Second)
		if n := len(cluster.Locks(nil, nil)); n != 951 {
			t.Errorf("%d locks", n)
		}
		must(t, other.Rollback(t.Context()), <-done)
		if n := len(cluster.Locks(nil, nil)); n != 1000 || tx.Len() != 1000 {
			t.Errorf("%d locks, %d keys", n, tx.Len())
		}
		before := cluster.Counts().Calls["KvPessimisticLock"]
		must(t, tx.Lock(t.Context(), keys))
		if n := cluster.Counts().Calls["KvPessimisticLock"]; n != before {
			t.Errorf("%d requests for what is locked", n-before)
		}
		must(t, tx.Rollback(t.Context()))
		if n := len(cluster.Locks(nil, nil)); n != 0 {
			t.Errorf("%d locks are left", n)
		}
	})
}

// A call that waits in a store's queue is listed with whom it waits for, as long as it does.
func TestPessimisticLockWaitsAreListed(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		done := start(ctx, func(ctx context.Context) error { return d.two.Lock(ctx, ks("a")) })
		pause(d.T, 5*time.Second)
		all := d.c.LockWaits()
		if len(all) != 1 || all[0].Op != "Txn.Lock" || string(all[0].Key) != "a" || all[0].Waiter != d.two.StartTS() || all[0].Holder != d.one.StartTS() {
			d.Fatalf("%+v", all)
		}
		must(d.T, d.one.Rollback(ctx), <-done)
		if all := d.c.LockWaits(); len(all) != 0 {
			d.Fatalf("%+v", all)
		}
	})
}
