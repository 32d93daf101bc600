package interop

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dgryski/go-farm"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/tikvrpc"
	"github.com/tikv/client-go/v2/txnkv/transaction"
)

// pessimisticAreas are mostly duels: two pessimistic transactions, the first of
// which has locked the key "a".
func pessimisticAreas() []area {
	return []area{
		{name: "pessimistic v1", cases: slices.Concat(pessimisticCases(), lockingCases())},
		{name: "pessimistic keyspace", args: []string{"--keyspace", "tenant"}, txn: tenant, cases: pessimisticCases()},
		{name: "fair locking", cases: fairCases()},
	}
}

type duel struct {
	*env
	one, two *transaction.KVTxn
}

func dueling(run func(*duel)) func(*env) {
	return func(e *env) {
		e.split("m")
		d := &duel{env: e}
		d.put("a=old")
		d.one, d.two = d.pessimistic(), d.pessimistic()
		d.must(d.lock(d.one, kv.LockNoWait, "a"))
		run(d)
	}
}

// pessimistic begins such a transaction.
func (e *env) pessimistic() *transaction.KVTxn {
	e.Helper()
	tx := e.begin()
	tx.SetPessimistic(true)
	return tx
}

// lock locks keys as of now, wait in milliseconds.
func (e *env) lock(tx *transaction.KVTxn, wait int64, keys ...string) error {
	_, err := e.lockCtx(tx, wait, func(*kv.LockCtx) {}, keys...)
	return err
}

func (e *env) lockCtx(tx *transaction.KVTxn, wait int64, change func(*kv.LockCtx), keys ...string) (*kv.LockCtx, error) {
	ctx := e.ctx() // which rollbacks behind the caller's back go on with
	now, err := e.txn.GetTimestamp(ctx)
	if err != nil {
		return nil, err
	}
	lc := kv.NewLockCtx(now, wait, time.Now())
	change(lc)
	return lc, tx.LockKeys(ctx, lc, e.keys(keys...)...)
}

// value is what a lock returned of a key.
func (e *env) value(lc *kv.LockCtx, key string) kv.ReturnedValue {
	return lc.Values[string(e.key(key))]
}

// waiters asks every store, as TiDB does, until n requests wait.
func (e *env) waiters(n int) {
	e.Helper()
	stores, err := e.txn.GetPDClient().GetAllStores(e.ctx())
	e.must(err)
	e.eventually(fmt.Sprintf("%d waiting requests", n), func() bool {
		found := 0
		for _, s := range stores {
			req := tikvrpc.NewRequest(tikvrpc.CmdLockWaitInfo, &kvrpcpb.GetLockWaitInfoRequest{})
			resp, err := e.txn.GetTiKVClient().SendRequest(e.ctx(), s.Address, req, 5*time.Second)
			e.must(err)
			found += len(resp.Resp.(*kvrpcpb.GetLockWaitInfoResponse).Entries)
		}
		return found == n
	})
}

// async runs f and returns where its error comes.
func async(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func pessimisticCases() []kase {
	return []kase{
		{name: "no wait", run: dueling(func(d *duel) {
			if err := d.lock(d.two, kv.LockNoWait, "a"); !errors.Is(err, tikverr.ErrLockAcquireFailAndNoWaitSet) {
				d.Fatal(err)
			}
		})},
		{name: "timeout", run: dueling(func(d *duel) {
			began := time.Now()
			err := d.lock(d.two, 200, "a")
			if took := time.Since(began); !errors.Is(err, tikverr.ErrLockWaitTimeout) || took < 200*time.Millisecond {
				d.Fatal(err, took)
			}
		})},
		{name: "longer than the server waits", run: dueling(func(d *duel) {
			began := time.Now()
			err := d.lock(d.two, 1300, "a")
			if took := time.Since(began); !errors.Is(err, tikverr.ErrLockWaitTimeout) || took < 1300*time.Millisecond {
				d.Fatal(err, took)
			}
		})},
		{name: "released by commit", run: dueling(func(d *duel) {
			done := async(func() error { return d.lock(d.two, kv.LockAlwaysWait, "a") })
			d.waiters(1)
			d.set(d.one, "a=one")
			d.must(d.one.Commit(d.ctx()))
			var conflict *tikverr.ErrWriteConflict
			if err := <-done; !errors.As(err, &conflict) || conflict.ConflictTs != d.one.StartTS() ||
				conflict.ConflictCommitTs != d.one.CommitTS() || conflict.Reason != kvrpcpb.WriteConflict_PessimisticRetry {
				d.Fatal(err)
			}
			lc, err := d.lockCtx(d.two, kv.LockAlwaysWait, func(lc *kv.LockCtx) { lc.InitReturnValues(1) }, "a")
			if v := d.value(lc, "a"); err != nil || string(v.Value) != "one" || !v.Exists {
				d.Fatal(v, err)
			}
			d.set(d.two, "a=two")
			d.must(d.two.Commit(d.ctx()))
			d.want(nil, "a=two")
		})},
		{name: "released by rollback", run: dueling(func(d *duel) {
			done := async(func() error { return d.lock(d.two, kv.LockAlwaysWait, "a") })
			d.waiters(1)
			d.must(d.one.Rollback())
			if err := <-done; !tikverr.IsErrWriteConflict(err) {
				d.Fatal(err)
			}
			d.must(d.lock(d.two, kv.LockAlwaysWait, "a", "z"))
			d.set(d.two, "a=two")
			d.must(d.two.Commit(d.ctx()))
			d.want(nil, "a=two")
		})},
		{name: "deadlock", run: dueling(func(d *duel) {
			d.must(d.lock(d.two, kv.LockNoWait, "z")) // in another region
			done := async(func() error { return d.lock(d.one, kv.LockAlwaysWait, "z") })
			d.waiters(1)
			var dead *tikverr.ErrDeadlock
			err := d.lock(d.two, kv.LockAlwaysWait, "a")
			if !errors.As(err, &dead) {
				d.Fatal(err)
			}
			if ch := dead.GetWaitChain(); dead.IsRetryable || dead.LockTs != d.one.StartTS() || d.bare(dead.LockKey) != "a" || len(ch) != 2 ||
				ch[0].Txn != d.one.StartTS() || ch[0].WaitForTxn != d.two.StartTS() || d.bare(ch[0].Key) != "z" ||
				dead.DeadlockKeyHash != d.hash("z") || ch[1].KeyHash != d.hash("a") ||
				ch[1].Txn != d.two.StartTS() || ch[1].WaitForTxn != d.one.StartTS() || d.bare(ch[1].Key) != "a" {
				d.Fatalf("%+v", dead)
			}
			d.must(d.two.Rollback())
			if err := <-done; !tikverr.IsErrWriteConflict(err) {
				d.Fatal(err)
			}
			d.must(d.lock(d.one, kv.LockAlwaysWait, "z"))
		})},
		{name: "lock only if exists", run: dueling(func(d *duel) {
			d.must(d.one.Rollback())
			only := func(lc *kv.LockCtx) { lc.InitReturnValues(2); lc.LockOnlyIfExists = true }
			lc, err := d.lockCtx(d.two, kv.LockNoWait, only, "a")
			if err != nil || string(d.value(lc, "a").Value) != "old" {
				d.Fatal(lc.Values, err)
			}
			if lc, err = d.lockCtx(d.two, kv.LockNoWait, only, "absent"); err != nil || d.value(lc, "absent").Exists {
				d.Fatal(lc.Values, err)
			}
			three := d.pessimistic()
			d.must(d.lock(three, kv.LockNoWait, "absent"))
			if err := d.lock(three, kv.LockNoWait, "a"); !errors.Is(err, tikverr.ErrLockAcquireFailAndNoWaitSet) {
				d.Fatal(err)
			}
		})},
		{name: "check existence", run: dueling(func(d *duel) {
			d.must(d.one.Rollback())
			lc, err := d.lockCtx(d.two, kv.LockNoWait, func(lc *kv.LockCtx) { lc.InitCheckExistence(2) }, "a", "absent")
			if err != nil || !d.value(lc, "a").Exists || d.value(lc, "absent").Exists {
				d.Fatal(lc.Values, err)
			}
		})},
	}
}

// hash is of the key as the server has it.
func (e *env) hash(key string) uint64 { return farm.Fingerprint64(e.wire(key)) }

// lockingCases are about locks that nobody fights for.
func lockingCases() []kase {
	return []kase{
		{name: "values of several keys", run: func(e *env) {
			e.split("m")
			e.put("a=1", "gone=1", "z="+strings.Repeat("long", 200))
			tx := e.begin()
			e.del(tx, "gone")
			e.must(tx.Commit(e.ctx()))
			lc, err := e.lockCtx(e.pessimistic(), kv.LockNoWait, func(lc *kv.LockCtx) { lc.InitReturnValues(4) }, "a", "absent", "gone", "z")
			e.must(err)
			for key, want := range map[string]string{"a": "1", "absent": "", "gone": "", "z": strings.Repeat("long", 200)} {
				if v := e.value(lc, key); string(v.Value) != want || v.Exists != (want != "") || v.AlreadyLocked {
					e.Fatalf("%s: %+v", key, v)
				}
			}
		}},
		{name: "a lock's fields", run: func(e *env) {
			tx := e.pessimistic()
			lc, err := e.lockCtx(tx, kv.LockNoWait, func(*kv.LockCtx) {}, "a")
			e.must(err)
			e.must(e.lock(tx, kv.LockNoWait, "b"))
			locks := e.locks()
			e.same("locks", len(locks), 2)
			for _, l := range locks {
				if l.LockType != kvrpcpb.Op_PessimisticLock || l.TxnID != tx.StartTS() || e.bare(l.Primary) != "a" || l.TTL < 20_000 || l.UseAsyncCommit {
					e.Fatalf("%+v", l)
				}
			}
			if a, b := locks[0].LockForUpdateTS, locks[1].LockForUpdateTS; a != lc.ForUpdateTS || b <= a {
				e.Fatal(a, b, lc.ForUpdateTS)
			}
		}},
		{name: "newer than the statement", run: func(e *env) {
			tx := e.pessimistic()
			old := e.now()
			winner := e.put("a=1")
			lc := kv.NewLockCtx(old, kv.LockNoWait, time.Now())
			err := tx.LockKeys(e.ctx(), lc, e.key("a"))
			e.conflict(err, "a", winner)
			e.same("locks", len(e.locks()), 0)
			e.must(e.lock(tx, kv.LockNoWait, "a"))
		}},
		{name: "one of several is taken: none stays", run: func(e *env) {
			e.split("m")
			holder, tx := e.pessimistic(), e.pessimistic()
			e.must(e.lock(holder, kv.LockNoWait, "z"))
			if err := e.lock(tx, kv.LockNoWait, "a", "b", "z"); !errors.Is(err, tikverr.ErrLockAcquireFailAndNoWaitSet) {
				e.Fatal(err)
			}
			e.eventually("only the holder's lock", func() bool { return len(e.locks()) == 1 })
			e.same("lock", e.bare(e.locks()[0].Key), "z")
		}},
		{name: "insert what exists fails at the lock", run: func(e *env) {
			e.put("a=1")
			tx := e.pessimistic()
			e.insert(tx, "a", "2")
			e.exists(e.lock(tx, kv.LockNoWait, "a"), "a")
			e.unlocked()
		}},
		{name: "insert what is absent", run: func(e *env) {
			tx := e.pessimistic()
			e.insert(tx, "a", "1")
			e.must(e.lock(tx, kv.LockNoWait, "a"))
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=1")
		}},
		{name: "locked and not written", run: func(e *env) {
			e.put("a=1")
			tx := e.pessimistic()
			e.must(e.lock(tx, kv.LockNoWait, "a"))
			e.set(tx, "b=1")
			e.must(tx.Commit(e.ctx()))
			e.same("history", e.history("a"), "Lock Put")
			e.want(nil, "a=1", "b=1")
		}},
		{name: "rollback unlocks and leaves no record", run: func(e *env) {
			tx := e.pessimistic()
			e.must(e.lock(tx, kv.LockNoWait, "a", "b"))
			e.must(tx.Rollback())
			e.unlocked()
			e.same("history", e.history("a"), "")
		}},
		{name: "written without a lock: not checked", run: func(e *env) {
			tx := e.pessimistic()
			e.must(e.lock(tx, kv.LockNoWait, "a"))
			e.set(tx, "a=1", "index=1")
			e.put("index=other")
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=1", "index=1")
		}},
		{name: "written without a lock: checked where asked", run: func(e *env) {
			tx := e.pessimistic()
			e.must(e.lock(tx, kv.LockNoWait, "a"))
			e.set(tx, "a=1")
			e.must(tx.GetMemBuffer().SetWithFlags(e.key("unique"), []byte("1"), kv.SetNeedConstraintCheckInPrewrite))
			winner := e.put("unique=other")
			err := tx.Commit(e.ctx())
			e.conflict(err, "unique", winner)
			var c *tikverr.ErrWriteConflict
			if errors.As(err, &c); c.Reason != kvrpcpb.WriteConflict_LazyUniquenessCheck {
				e.Fatal(err)
			}
		}},
		{name: "a lock that was lost, nothing written since", run: func(e *env) {
			tx := e.pessimistic()
			e.must(e.lock(tx, kv.LockNoWait, "a", "b"))
			e.loseLock(tx, "b")
			e.set(tx, "a=1", "b=1")
			e.must(tx.Commit(e.ctx())) // TiKV amends it
			e.want(nil, "a=1", "b=1")
		}},
		{name: "a lock that was lost, and the key written since", run: func(e *env) {
			tx := e.pessimistic()
			e.must(e.lock(tx, kv.LockNoWait, "a", "b"))
			e.loseLock(tx, "b")
			e.put("b=other")
			e.set(tx, "a=1", "b=1")
			if err := tx.Commit(e.ctx()); err == nil || !strings.Contains(err.Error(), "PessimisticLockNotFound") {
				e.Fatal(err)
			}
			e.want(nil, "a", "b=other")
		}},
		{name: "heartbeats", run: func(e *env) {
			tx := e.pessimistic()
			e.must(e.lock(tx, kv.LockNoWait, "a"))
			probe := tikv.StoreProbe{KVStore: e.txn.KVStore}
			for ask, want := range map[uint64]uint64{500_000: 500_000, 100: 500_000} { // never shorter
				e.must(e.beat(probe, "a", tx.StartTS(), 500_000, 500_000))
				e.must(e.beat(probe, "a", tx.StartTS(), ask, want))
			}
			e.same("TTL", e.locks()[0].TTL, 500_000)
			if _, err := probe.SendTxnHeartbeat(e.ctx(), e.key("a"), tx.StartTS()+1, 1000); err == nil {
				e.Fatal("a heartbeat of nobody")
			}
			e.must(tx.Rollback())
			e.unlocked()
			if _, err := probe.SendTxnHeartbeat(e.ctx(), e.key("a"), tx.StartTS(), 1000); err == nil {
				e.Fatal("a heartbeat without a lock")
			}
		}},
		{name: "who waits for whom", run: func(e *env) {
			holder, waiter := e.pessimistic(), e.pessimistic()
			e.must(e.lock(holder, kv.LockNoWait, "a"))
			done := async(func() error { return e.lock(waiter, kv.LockAlwaysWait, "a") })
			e.waiters(1)
			addr := e.addr(e.locate(e.wire("a")).Leader.StoreId)
			req := tikvrpc.NewRequest(tikvrpc.CmdLockWaitInfo, &kvrpcpb.GetLockWaitInfoRequest{})
			resp, err := e.txn.GetTiKVClient().SendRequest(e.ctx(), addr, req, 5*time.Second)
			e.must(err)
			entries := resp.Resp.(*kvrpcpb.GetLockWaitInfoResponse).Entries
			if len(entries) != 1 || entries[0].Txn != waiter.StartTS() || entries[0].WaitForTxn != holder.StartTS() ||
				e.bare(entries[0].Key) != "a" || entries[0].KeyHash != e.hash("a") {
				e.Fatalf("%+v", entries)
			}
			e.must(holder.Rollback())
			if err := <-done; !tikverr.IsErrWriteConflict(err) {
				e.Fatal(err)
			}
			e.waiters(0)
		}},
		{name: "deadlock of three", run: func(e *env) {
			e.split("b", "c")
			var txns []*transaction.KVTxn
			for _, k := range []string{"a", "b", "c"} {
				tx := e.pessimistic()
				e.must(e.lock(tx, kv.LockNoWait, k))
				txns = append(txns, tx)
			}
			first := async(func() error { return e.lock(txns[0], kv.LockAlwaysWait, "b") })
			e.waiters(1)
			second := async(func() error { return e.lock(txns[1], kv.LockAlwaysWait, "c") })
			e.waiters(2)
			var dead *tikverr.ErrDeadlock
			if err := e.lock(txns[2], kv.LockAlwaysWait, "a"); !errors.As(err, &dead) {
				e.Fatal(err)
			}
			var chain []string
			for _, w := range dead.GetWaitChain() {
				chain = append(chain, fmt.Sprintf("%d>%d %s", w.Txn, w.WaitForTxn, e.bare(w.Key)))
			}
			e.same("chain", chain, []string{
				fmt.Sprintf("%d>%d b", txns[0].StartTS(), txns[1].StartTS()),
				fmt.Sprintf("%d>%d c", txns[1].StartTS(), txns[2].StartTS()),
				fmt.Sprintf("%d>%d a", txns[2].StartTS(), txns[0].StartTS()),
			})
			e.must(txns[2].Rollback())
			if err := <-second; !tikverr.IsErrWriteConflict(err) {
				e.Fatal(err)
			}
			e.must(txns[1].Rollback())
			if err := <-first; !tikverr.IsErrWriteConflict(err) {
				e.Fatal(err)
			}
		}},
		{name: "a waiter goes on after its region has split", run: func(e *env) {
			e.put("a=0")
			holder, waiter := e.pessimistic(), e.pessimistic()
			e.must(e.lock(holder, kv.LockNoWait, "a"))
			done := async(func() error { return e.lock(waiter, kv.LockAlwaysWait, "a") })
			e.waiters(1)
			e.splitTxn("", "b")
			e.set(holder, "a=1")
			e.must(holder.Commit(e.ctx()))
			if err := <-done; err != nil && !tikverr.IsErrWriteConflict(err) {
				e.Fatal(err)
			}
			e.must(e.lock(waiter, kv.LockAlwaysWait, "a"))
		}},
		{name: "counters, in both modes at once", run: func(e *env) {
			const workers, each = 6, 8
			e.put("n=0")
			var ends []<-chan error
			for i := range workers {
				ends = append(ends, async(func() error {
					for range each {
						if err := e.count("n", i%2 == 0); err != nil {
							return err
						}
					}
					return nil
				}))
			}
			for _, end := range ends {
				e.must(<-end)
			}
			e.want(nil, fmt.Sprintf("n=%d", workers*each))
			e.waiters(0)
		}},
	}
}

// beat sends a heartbeat and compares the life that the lock has then.
func (e *env) beat(probe tikv.StoreProbe, key string, start, ttl, want uint64) error {
	got, err := probe.SendTxnHeartbeat(e.ctx(), e.key(key), start, ttl)
	if err == nil && got != want {
		err = fmt.Errorf("a heartbeat of %d leaves %d, want %d", ttl, got, want)
	}
	return err
}

// loseLock takes a transaction's pessimistic lock away behind its back.
func (e *env) loseLock(tx *transaction.KVTxn, key string) {
	e.Helper()
	store, at := e.at(e.wire(key))
	resp, err := store.KVPessimisticRollback(e.ctx(), &kvrpcpb.PessimisticRollbackRequest{
		Context: at, StartVersion: tx.StartTS(), ForUpdateTs: math.MaxUint64, Keys: [][]byte{e.wire(key)},
	})
	if err != nil || resp.RegionError != nil || len(resp.Errors) > 0 {
		e.Fatal(resp, err)
	}
}

// count adds one to a number under its lock.
func (e *env) count(key string, fair bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tx, err := e.txn.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	tx.SetPessimistic(true)
	for {
		if fair {
			tx.StartAggressiveLocking()
		}
		lc, err := e.lockCtx(tx, kv.LockAlwaysWait, func(lc *kv.LockCtx) { lc.InitReturnValues(1) }, key)
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
		n, err := strconv.Atoi(string(e.value(lc, key).Value))
		if err != nil {
			return err
		}
		if err := tx.Set(e.key(key), fmt.Append(nil, n+1)); err != nil {
			return err
		}
		return tx.Commit(ctx)
	}
}
