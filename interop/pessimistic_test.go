package interop

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/dgryski/go-farm"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/tikvrpc"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
)

// duel is a cluster of two regions with two pessimistic transactions of the official
// client, the first of which has locked the key "a".
type duel struct {
	*testing.T
	client   *txnkv.Client
	one, two *transaction.KVTxn
}

func newDuel(t *testing.T, client *txnkv.Client) *duel {
	t.Helper()
	d := &duel{T: t, client: client}
	d.put("a", "old")
	d.one, d.two = d.begin(), d.begin()
	must(t, d.lock(d.one, kv.LockNoWait, "a"))
	return d
}

func (d *duel) put(key, value string) {
	d.Helper()
	tx, err := d.client.Begin()
	must(d.T, err)
	must(d.T, tx.Set([]byte(key), []byte(value)))
	must(d.T, tx.Commit(within(d.T)))
}

func (d *duel) begin() *transaction.KVTxn {
	d.Helper()
	tx, err := d.client.Begin()
	must(d.T, err)
	tx.SetPessimistic(true)
	d.Cleanup(func() {
		if tx.IsInAggressiveLockingMode() {
			tx.CancelAggressiveLocking(context.Background())
		}
		if tx.Valid() {
			tx.Rollback()
		}
	})
	return tx
}

// lock locks keys as of now, wait in milliseconds.
func (d *duel) lock(tx *transaction.KVTxn, wait int64, keys ...string) error {
	_, err := d.lockCtx(tx, wait, func(*kv.LockCtx) {}, keys...)
	return err
}

func (d *duel) lockCtx(tx *transaction.KVTxn, wait int64, change func(*kv.LockCtx), keys ...string) (*kv.LockCtx, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	now, err := d.client.GetTimestamp(ctx)
	if err != nil {
		return nil, err
	}
	lc := kv.NewLockCtx(now, wait, time.Now())
	change(lc)
	var list [][]byte
	for _, k := range keys {
		list = append(list, []byte(k))
	}
	return lc, tx.LockKeys(ctx, lc, list...)
}

// waiters asks every store, as TiDB does, until n requests wait.
func (d *duel) waiters(n int) {
	d.Helper()
	stores, err := d.client.GetPDClient().GetAllStores(within(d.T))
	must(d.T, err)
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(time.Millisecond) {
		found := 0
		for _, s := range stores {
			req := tikvrpc.NewRequest(tikvrpc.CmdLockWaitInfo, &kvrpcpb.GetLockWaitInfoRequest{})
			resp, err := d.client.GetTiKVClient().SendRequest(within(d.T), s.Address, req, 5*time.Second)
			must(d.T, err)
			found += len(resp.Resp.(*kvrpcpb.GetLockWaitInfoResponse).Entries)
		}
		if found == n {
			return
		}
	}
	d.Fatalf("%d requests do not come to wait", n)
}

func (d *duel) expectValue(key, want string) {
	d.Helper()
	tx, err := d.client.Begin()
	must(d.T, err)
	defer tx.Rollback()
	if v, err := tx.Get(within(d.T), []byte(key)); err != nil || string(v) != want {
		d.Fatalf("%s is %q %v, want %q", key, v, err, want)
	}
}

// async runs f and returns where its error comes.
func async(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func TestPessimistic(t *testing.T) {
	t.Run("v1", func(t *testing.T) {
		c := start(t)
		c.split(t, "txn", "m")
		duels(t, c.officialTxn(t), func(key string) uint64 { return farm.Fingerprint64([]byte(key)) })
	})
	t.Run("v2", func(t *testing.T) {
		c := start(t, "--api", "v2", "--keyspace", "tenant")
		client := c.officialTxn(t, txnkv.WithAPIVersion(kvrpcpb.APIVersion_V2), txnkv.WithKeyspace("tenant"))
		// The hash is of the key as the server has it.
		duels(t, client, func(key string) uint64 { return farm.Fingerprint64(append([]byte{'x', 0, 0, 1}, key...)) })
	})
}

func duels(t *testing.T, client *txnkv.Client, hash func(key string) uint64) {
	for _, x := range []struct {
		name string
		run  func(*duel)
	}{
		{"no wait", func(d *duel) {
			if err := d.lock(d.two, kv.LockNoWait, "a"); !errors.Is(err, tikverr.ErrLockAcquireFailAndNoWaitSet) {
				d.Fatal(err)
			}
		}},
		{"timeout", func(d *duel) {
			began := time.Now()
			err := d.lock(d.two, 200, "a")
			if took := time.Since(began); !errors.Is(err, tikverr.ErrLockWaitTimeout) || took < 200*time.Millisecond {
				d.Fatal(err, took)
			}
		}},
		{"longer than the server waits", func(d *duel) {
			began := time.Now()
			err := d.lock(d.two, 1300, "a")
			if took := time.Since(began); !errors.Is(err, tikverr.ErrLockWaitTimeout) || took < 1300*time.Millisecond {
				d.Fatal(err, took)
			}
		}},
		{"released by commit", func(d *duel) {
			done := async(func() error { return d.lock(d.two, kv.LockAlwaysWait, "a") })
			d.waiters(1)
			must(d.T, d.one.Set([]byte("a"), []byte("one")))
			must(d.T, d.one.Commit(within(d.T)))
			var conflict *tikverr.ErrWriteConflict
			if err := <-done; !errors.As(err, &conflict) || conflict.ConflictTs != d.one.StartTS() ||
				conflict.ConflictCommitTs != d.one.CommitTS() || conflict.Reason != kvrpcpb.WriteConflict_PessimisticRetry {
				d.Fatal(err)
			}
			lc, err := d.lockCtx(d.two, kv.LockAlwaysWait, func(lc *kv.LockCtx) { lc.InitReturnValues(1) }, "a")
			if v := lc.Values["a"]; err != nil || string(v.Value) != "one" || !v.Exists {
				d.Fatal(v, err)
			}
			must(d.T, d.two.Set([]byte("a"), []byte("two")))
			must(d.T, d.two.Commit(within(d.T)))
			d.expectValue("a", "two")
		}},
		{"released by rollback", func(d *duel) {
			done := async(func() error { return d.lock(d.two, kv.LockAlwaysWait, "a") })
			d.waiters(1)
			must(d.T, d.one.Rollback())
			if err := <-done; !tikverr.IsErrWriteConflict(err) {
				d.Fatal(err)
			}
			must(d.T, d.lock(d.two, kv.LockAlwaysWait, "a", "z"))
			must(d.T, d.two.Set([]byte("a"), []byte("two")))
			must(d.T, d.two.Commit(within(d.T)))
			d.expectValue("a", "two")
		}},
		{"deadlock", func(d *duel) {
			must(d.T, d.lock(d.two, kv.LockNoWait, "z")) // in another region
			done := async(func() error { return d.lock(d.one, kv.LockAlwaysWait, "z") })
			d.waiters(1)
			var dead *tikverr.ErrDeadlock
			err := d.lock(d.two, kv.LockAlwaysWait, "a")
			if !errors.As(err, &dead) {
				d.Fatal(err)
			}
			if ch := dead.GetWaitChain(); dead.IsRetryable || dead.LockTs != d.one.StartTS() || string(dead.LockKey) != "a" || len(ch) != 2 ||
				ch[0].Txn != d.one.StartTS() || ch[0].WaitForTxn != d.two.StartTS() || string(ch[0].Key) != "z" ||
				dead.DeadlockKeyHash != hash("z") || ch[1].KeyHash != hash("a") ||
				ch[1].Txn != d.two.StartTS() || ch[1].WaitForTxn != d.one.StartTS() || string(ch[1].Key) != "a" {
				d.Fatalf("%+v", dead)
			}
			must(d.T, d.two.Rollback())
			if err := <-done; !tikverr.IsErrWriteConflict(err) {
				d.Fatal(err)
			}
			must(d.T, d.lock(d.one, kv.LockAlwaysWait, "z"))
		}},
		{"lock only if exists", func(d *duel) {
			must(d.T, d.one.Rollback())
			only := func(lc *kv.LockCtx) { lc.InitReturnValues(2); lc.LockOnlyIfExists = true }
			lc, err := d.lockCtx(d.two, kv.LockNoWait, only, "a")
			if err != nil || string(lc.Values["a"].Value) != "old" {
				d.Fatal(lc.Values, err)
			}
			if lc, err = d.lockCtx(d.two, kv.LockNoWait, only, "absent"); err != nil || lc.Values["absent"].Exists {
				d.Fatal(lc.Values, err)
			}
			three := d.begin()
			must(d.T, d.lock(three, kv.LockNoWait, "absent"))
			if err := d.lock(three, kv.LockNoWait, "a"); !errors.Is(err, tikverr.ErrLockAcquireFailAndNoWaitSet) {
				d.Fatal(err)
			}
		}},
		{"check existence", func(d *duel) {
			must(d.T, d.one.Rollback())
			lc, err := d.lockCtx(d.two, kv.LockNoWait, func(lc *kv.LockCtx) { lc.InitCheckExistence(2) }, "a", "absent")
			if err != nil || !lc.Values["a"].Exists || lc.Values["absent"].Exists {
				d.Fatal(lc.Values, err)
			}
		}},
		{"fair locking", func(d *duel) {
			d.two.StartAggressiveLocking()
			var lc *kv.LockCtx
			done := async(func() (err error) {
				lc, err = d.lockCtx(d.two, kv.LockAlwaysWait, func(lc *kv.LockCtx) { lc.InitReturnValues(1) }, "a")
				return err
			})
			d.waiters(1)
			must(d.T, d.one.Set([]byte("a"), []byte("one")))
			must(d.T, d.one.Commit(within(d.T)))
			must(d.T, <-done)
			if v := lc.Values["a"]; lc.MaxLockedWithConflictTS != d.one.CommitTS() || v.LockedWithConflictTS != d.one.CommitTS() || string(v.Value) != "one" {
				d.Fatalf("%+v %d", v, lc.MaxLockedWithConflictTS)
			}
			d.two.DoneAggressiveLocking(within(d.T))
			must(d.T, d.two.Set([]byte("a"), []byte("two")))
			must(d.T, d.two.Commit(within(d.T)))
			d.expectValue("a", "two")
		}},
		{"fair locking, deadlock", func(d *duel) {
			must(d.T, d.lock(d.two, kv.LockNoWait, "z"))
			done := async(func() error { return d.lock(d.one, kv.LockAlwaysWait, "z") })
			d.waiters(1)
			d.two.StartAggressiveLocking()
			var dead *tikverr.ErrDeadlock
			if err := d.lock(d.two, kv.LockAlwaysWait, "a"); !errors.As(err, &dead) || dead.LockTs != d.one.StartTS() {
				d.Fatal(err)
			}
			d.two.CancelAggressiveLocking(within(d.T))
			must(d.T, d.two.Rollback())
			if err := <-done; !tikverr.IsErrWriteConflict(err) {
				d.Fatal(err)
			}
		}},
		{"fair locking, cancelled", func(d *duel) {
			d.two.StartAggressiveLocking()
			done := async(func() error { return d.lock(d.two, kv.LockAlwaysWait, "a") })
			d.waiters(1)
			must(d.T, d.one.Rollback())
			must(d.T, <-done)
			three := d.begin()
			if err := d.lock(three, kv.LockNoWait, "a"); !errors.Is(err, tikverr.ErrLockAcquireFailAndNoWaitSet) {
				d.Fatal(err)
			}
			d.two.CancelAggressiveLocking(within(d.T)) // unlocks behind the caller's back
			err := d.lock(three, 5000, "a")
			if tikverr.IsErrWriteConflict(err) { // three waited and was woken: it asks again
				err = d.lock(three, 5000, "a")
			}
			must(d.T, err)
		}},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(newDuel(t, client)) })
	}
}

// Transactions of the official client count in one key, each under its lock, in both
// modes at once.
func TestPessimisticCounters(t *testing.T) {
	c := start(t)
	client := c.officialTxn(t)
	d := &duel{T: t, client: client}
	d.put("counter", "0")
	const workers, each = 6, 10
	var ends []<-chan error
	for i := range workers {
		ends = append(ends, async(func() error {
			for range each {
				if err := d.count(i%2 == 0); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	for _, end := range ends {
		must(t, <-end)
	}
	d.expectValue("counter", strconv.Itoa(workers*each))
	d.waiters(0)
}

func (d *duel) count(fair bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tx, err := d.client.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	tx.SetPessimistic(true)
	for {
		if fair {
			tx.StartAggressiveLocking()
		}
		lc, err := d.lockCtx(tx, kv.LockAlwaysWait, func(lc *kv.LockCtx) { lc.InitReturnValues(1) }, "counter")
		if fair && err != nil {
			tx.CancelAggressiveLocking(ctx)
		} else if fair {
			tx.DoneAggressiveLocking(ctx)
		}
		if tikverr.IsErrWriteConflict(err) {
			continue
		}
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(lc.Values["counter"].Value))
		if err != nil {
			return err
		}
		if err := tx.Set([]byte("counter"), fmt.Append(nil, n+1)); err != nil {
			return err
		}
		return tx.Commit(ctx)
	}
}
