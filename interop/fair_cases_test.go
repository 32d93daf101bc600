package interop

import (
	"errors"
	"fmt"
	"time"

	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
)

// fairCases are fair (aggressive) locking: who waited has its lock also where the key was
// written meanwhile, and learns of it.
func fairCases() []kase {
	returning := func(lc *kv.LockCtx) { lc.InitReturnValues(1) }
	return []kase{
		{name: "locked in spite of a commit while it waited", run: dueling(func(d *duel) {
			d.two.StartAggressiveLocking()
			var lc *kv.LockCtx
			done := async(func() (err error) {
				lc, err = d.lockCtx(d.two, kv.LockAlwaysWait, func(lc *kv.LockCtx) { lc.InitReturnValues(1) }, "a")
				return err
			})
			d.waiters(1)
			d.set(d.one, "a=one")
			d.must(d.one.Commit(d.ctx()))
			d.must(<-done)
			if v := d.value(lc, "a"); lc.MaxLockedWithConflictTS != d.one.CommitTS() || v.LockedWithConflictTS != d.one.CommitTS() || string(v.Value) != "one" {
				d.Fatalf("%+v %d", v, lc.MaxLockedWithConflictTS)
			}
			d.two.DoneAggressiveLocking(d.ctx())
			d.set(d.two, "a=two")
			d.must(d.two.Commit(d.ctx()))
			d.want(nil, "a=two")
		})},
		{name: "deadlock", run: dueling(func(d *duel) {
			d.must(d.lock(d.two, kv.LockNoWait, "z"))
			txns, keys := []*transaction.KVTxn{d.one, d.two}, []string{"a", "z"}
			for _, tx := range txns {
				tx.StartAggressiveLocking()
			}
			victim, ends, err := d.circle(txns, keys)
			d.inCircle(err, victim, txns, keys)
			txns[victim].CancelAggressiveLocking(d.ctx())
			d.must(txns[victim].Rollback())
			d.must(<-ends[1-victim])
			txns[1-victim].DoneAggressiveLocking(d.ctx())
		})},
		{name: "cancelled", run: dueling(func(d *duel) {
			d.two.StartAggressiveLocking()
			done := async(func() error { return d.lock(d.two, kv.LockAlwaysWait, "a") })
			d.waiters(1)
			d.must(d.one.Rollback())
			d.must(<-done)
			three := d.pessimistic()
			if err := d.lock(three, kv.LockNoWait, "a"); !errors.Is(err, tikverr.ErrLockAcquireFailAndNoWaitSet) {
				d.Fatal(err)
			}
			d.two.CancelAggressiveLocking(d.ctx()) // unlocks behind the caller's back
			err := d.lock(three, kv.LockAlwaysWait, "a")
			if tikverr.IsErrWriteConflict(err) { // three waited and was woken: it asks again
				err = d.lock(three, kv.LockAlwaysWait, "a")
			}
			d.must(err)
		})},
		{name: "no conflict", run: func(e *env) {
			e.put("a=old")
			tx := e.pessimistic()
			tx.StartAggressiveLocking()
			lc, err := e.lockCtx(tx, kv.LockNoWait, returning, "a")
			if v := e.value(lc, "a"); err != nil || lc.MaxLockedWithConflictTS != 0 || v.LockedWithConflictTS != 0 || string(v.Value) != "old" {
				e.Fatalf("%+v %v", v, err)
			}
			tx.DoneAggressiveLocking(e.ctx())
			e.set(tx, "a=new")
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=new")
		}},
		{name: "locked in spite of an earlier commit", run: func(e *env) {
			tx := e.pessimistic()
			old := e.now()
			winner := e.put("a=won")
			tx.StartAggressiveLocking()
			lc := kv.NewLockCtx(old, kv.LockNoWait, time.Now())
			lc.InitReturnValues(1)
			e.must(tx.LockKeys(e.ctx(), lc, e.key("a")))
			if v := e.value(lc, "a"); v.LockedWithConflictTS != winner.CommitTS() || string(v.Value) != "won" {
				e.Fatalf("%+v", v)
			}
			// The lock is as of the commit that it met.
			e.same("for-update-ts", e.locks()[0].LockForUpdateTS, winner.CommitTS())
			tx.DoneAggressiveLocking(e.ctx())
			e.set(tx, "a=new")
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=new")
		}},
		{name: "a conflict with a deletion", run: func(e *env) {
			e.put("a=old")
			tx := e.pessimistic()
			old := e.now()
			gone := e.begin()
			e.del(gone, "a")
			e.must(gone.Commit(e.ctx()))
			tx.StartAggressiveLocking()
			lc := kv.NewLockCtx(old, kv.LockNoWait, time.Now())
			lc.InitReturnValues(1)
			e.must(tx.LockKeys(e.ctx(), lc, e.key("a")))
			if v := e.value(lc, "a"); v.LockedWithConflictTS != gone.CommitTS() || v.Exists {
				e.Fatalf("%+v", v)
			}
			tx.DoneAggressiveLocking(e.ctx())
		}},
		{name: "again with the same key: no request", run: func(e *env) {
			e.put("a=old")
			tx := e.pessimistic()
			tx.StartAggressiveLocking()
			_, err := e.lockCtx(tx, kv.LockNoWait, returning, "a")
			e.must(err)
			before := e.c.calls(e.T, "KvPessimisticLock")
			tx.RetryAggressiveLocking(e.ctx())
			lc, err := e.lockCtx(tx, kv.LockNoWait, returning, "a")
			if v := e.value(lc, "a"); err != nil || string(v.Value) != "old" {
				e.Fatal(v, err)
			}
			e.same("requests", e.c.calls(e.T, "KvPessimisticLock"), before)
			tx.DoneAggressiveLocking(e.ctx())
			e.set(tx, "a=new")
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=new")
		}},
		{name: "again with another key: the first is let go", run: func(e *env) {
			tx := e.pessimistic()
			e.must(e.lock(tx, kv.LockNoWait, "primary"))
			tx.StartAggressiveLocking()
			e.must(e.lock(tx, kv.LockNoWait, "a"))
			tx.RetryAggressiveLocking(e.ctx())
			e.must(e.lock(tx, kv.LockNoWait, "b"))
			tx.DoneAggressiveLocking(e.ctx())
			e.eventually("two locks", func() bool { return len(e.locks()) == 2 })
			e.same("locks", e.bare(e.locks()[0].Key)+" "+e.bare(e.locks()[1].Key), "b primary")
			e.set(tx, "b=1", "primary=1")
			e.must(tx.Commit(e.ctx()))
			e.same("scan", e.scan(e.snapshot()), "b=1 primary=1")
		}},
		{name: "several keys at once: as without", run: func(e *env) {
			tx := e.pessimistic()
			old := e.now()
			winner := e.put("b=won")
			tx.StartAggressiveLocking()
			err := tx.LockKeys(e.ctx(), kv.NewLockCtx(old, kv.LockNoWait, time.Now()), e.keys("a", "b")...)
			e.conflict(err, "b", winner)
			if tx.IsInAggressiveLockingMode() {
				e.Fatal("still in the mode")
			}
			e.unlocked()
		}},
		{name: "two wait: one after the other", run: dueling(func(d *duel) {
			three := d.pessimistic()
			wait := func(tx *transaction.KVTxn) <-chan error {
				tx.StartAggressiveLocking()
				return async(func() error { return d.lock(tx, kv.LockAlwaysWait, "a") })
			}
			waits := map[*transaction.KVTxn]<-chan error{d.two: wait(d.two)}
			d.waiters(1)
			waits[three] = wait(three)
			d.waiters(2)
			d.set(d.one, "a=one")
			d.must(d.one.Commit(d.ctx()))
			first, last := d.two, three // or the other way round, where one has just asked again
			select {
			case err := <-waits[d.two]:
				d.must(err)
			case err := <-waits[three]:
				d.must(err)
				first, last = three, d.two
			}
			d.waiters(1)
			for i, tx := range []*transaction.KVTxn{first, last} {
				if tx == last {
					d.must(<-waits[last])
				}
				tx.DoneAggressiveLocking(d.ctx())
				d.set(tx, fmt.Sprintf("a=%d", i))
				d.must(tx.Commit(d.ctx()))
			}
			d.want(nil, "a=1")
			d.same("history", d.history("a"), "Put Put Put Put")
		})},
		{name: "timeout", run: dueling(func(d *duel) {
			d.two.StartAggressiveLocking()
			if err := d.lock(d.two, 100, "a"); !errors.Is(err, tikverr.ErrLockWaitTimeout) {
				d.Fatal(err)
			}
			d.two.CancelAggressiveLocking(d.ctx())
			d.same("locks", len(d.locks()), 1)
		})},
	}
}
