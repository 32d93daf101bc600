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
	"github.com/pingcap/kvproto/pkg/deadlock"
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

// waiters asks every store, as TiDB does, until n requests wait, and returns how. None
// waits for more than a second: then the client asks again, and for a moment it does not
// wait. So who is to be woken may find the lock free instead, and who was to close a circle
// may find that another has.
func (e *env) waiters(n int) (found []*deadlock.WaitForEntry) {
	e.Helper()
	stores, err := e.txn.GetPDClient().GetAllStores(e.ctx())
	e.must(err)
	e.eventually(fmt.Sprintf("%d waiting requests", n), func() bool {
		found = nil
		for _, s := range stores {
			found = append(found, e.waitersAt(s.Address)...)
		}
		return len(found) == n
	})
	return found
}

func (e *env) waitersAt(addr string) []*deadlock.WaitForEntry {
	e.Helper()
	req := tikvrpc.NewRequest(tikvrpc.CmdLockWaitInfo, &kvrpcpb.GetLockWaitInfoRequest{})
	resp, err := e.txn.GetTiKVClient().SendRequest(e.ctx(), addr, req, patience)
	e.must(err)
	return resp.Resp.(*kvrpcpb.GetLockWaitInfoResponse).Entries
}

// released is how a wait ends for a lock that was rolled back: woken, or with the lock.
func (e *env) released(err error) {
	e.Helper()
	if err != nil && !tikverr.IsErrWriteConflict(err) {
		e.Fatal(err)
	}
}

// circle lets each transaction wait for the key that the next one has locked. One of them
// closes the circle and is refused; circle returns its number and error, and where the
// others' ends come.
func (e *env) circle(txns []*transaction.KVTxn, keys []string) (victim int, ends []<-chan error, refused error) {
	e.Helper()
	type end struct {
		of  int
		err error
	}
	all := make(chan end, len(txns))
	for i, tx := range txns {
		done := make(chan error, 1)
		ends = append(ends, done)
		go func() {
			err := e.lock(tx, kv.LockAlwaysWait, keys[(i+1)%len(keys)])
			done <- err
			all <- end{i, err}
		}()
		if i < len(txns)-1 {
			e.waiters(i + 1)
		}
	}
	first := <-all
	return first.of, ends, first.err
}

// inCircle checks what the victim of a circle is told: whose lock it met, and who waits for
// whom, beginning with that one.
func (e *env) inCircle(err error, victim int, txns []*transaction.KVTxn, keys []string) *tikverr.ErrDeadlock {
	e.Helper()
	n := len(txns)
	var dead *tikverr.ErrDeadlock
	if !errors.As(err, &dead) || dead.LockTs != txns[(victim+1)%n].StartTS() {
		e.Fatal(err)
	}
	var got, want []string
	for _, w := range dead.GetWaitChain() {
		got = append(got, fmt.Sprintf("%d>%d %s", w.Txn, w.WaitForTxn, e.bare(w.Key)))
	}
	for i := range n {
		from, to := (victim+1+i)%n, (victim+2+i)%n
		want = append(want, fmt.Sprintf("%d>%d %s", txns[from].StartTS(), txns[to].StartTS(), keys[to]))
	}
	e.same("chain", got, want)
	return dead
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
			d.released(<-done)
			d.must(d.lock(d.two, kv.LockAlwaysWait, "a", "z"))
			d.set(d.two, "a=two")
			d.must(d.two.Commit(d.ctx()))
			d.want(nil, "a=two")
		})},
		{name: "deadlock", run: dueling(func(d *duel) {
			d.must(d.lock(d.two, kv.LockNoWait, "z")) // in another region
			txns, keys := []*transaction.KVTxn{d.one, d.two}, []string{"a", "z"}
			victim, ends, err := d.circle(txns, keys)
			dead, other := d.inCircle(err, victim, txns, keys), 1-victim
			if ch := dead.GetWaitChain(); dead.IsRetryable || d.bare(dead.LockKey) != keys[other] ||
				dead.DeadlockKeyHash != d.hash(keys[victim]) || ch[1].KeyHash != d.hash(keys[other]) {
				d.Fatalf("%+v", dead)
			}
			d.must(txns[victim].Rollback())
			d.released(<-ends[other])
			d.must(d.lock(txns[other], kv.LockAlwaysWait, keys[victim]))
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
			var entries []*deadlock.WaitForEntry
			e.eventually("one waits at the leader", func() bool {
				entries = e.waitersAt(addr)
				return len(entries) == 1
			})
			if entries[0].Txn != waiter.StartTS() || entries[0].WaitForTxn != holder.StartTS() ||
				e.bare(entries[0].Key) != "a" || entries[0].KeyHash != e.hash("a") {
				e.Fatalf("%+v", entries)
			}
			e.must(holder.Rollback())
			e.released(<-done)
			e.waiters(0)
		}},
		{name: "deadlock of three", run: func(e *env) {
			e.split("b", "c")
			var txns []*transaction.KVTxn
			keys := []string{"a", "b", "c"}
			for _, k := range keys {
				tx := e.pessimistic()
				e.must(e.lock(tx, kv.LockNoWait, k))
				txns = append(txns, tx)
			}
			victim, ends, err := e.circle(txns, keys)
			e.inCircle(err, victim, txns, keys)
			for i := range 2 { // each is waited for by the one before it
				behind := (victim + 2 - i) % 3
				e.must(txns[(behind+1)%3].Rollback())
				e.released(<-ends[behind])
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
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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
