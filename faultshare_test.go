package tikv_test

import (
	"context"
	"errors"
	"slices"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// sharedKeys are locked together with others, one in each region.
var sharedKeys = [][]byte{[]byte("c"), []byte("x")}

// sharedWorks are what a transaction sends that has a lock of its own and shares others.
func sharedWorks() []faultWork {
	const of = "shared"
	begun := func(e *faultTest) {
		commitAs(e, e.other, "old", sharedKeys...)
		e.begun(tikv.WithPessimistic())
		e.must(e.tx.Lock(e.t.Context(), faultKeys[:1]))
	}
	lock := func(rpc, name string, skip int, do func(e *faultTest) error) faultWork {
		w := lockWork(of, rpc, name, skip, do)
		w.begin, w.check, w.more = begun, (*faultTest).shared, sharedKeys
		return w
	}
	share := func(value string, opts ...tikv.LockReadOption) func(e *faultTest) error {
		return func(e *faultTest) error { return e.finish(e.share(value, opts...)) }
	}
	locked := func(e *faultTest) {
		begun(e)
		e.must(e.share("old"))
		e.put()
	}
	works := []faultWork{
		lock("KvPessimisticLock", "Lock, of the first region", 0, func(e *faultTest) error { return e.finish(e.tx.Lock(e.ctx, sharedKeys, tikv.WithShared())) }),
		lock("KvPessimisticLock", "Lock, of the second region", 1, func(e *faultTest) error { return e.finish(e.tx.Lock(e.ctx, sharedKeys, tikv.WithShared())) }),
		lock("KvPessimisticLock", "with values", 0, share("old")),
		lock("KvPessimisticLock", "above a newer commit", 0, share("newer")).after(newer(sharedKeys...)),
		lock("KvPessimisticLock", "beside another sharer", 0, share("old")).after(alsoShared(3 * time.Second)),
		lock("KvPessimisticLock", "while another holds the key", 0, share("newer")).after(writtenAfter(3*time.Second, sharedKeys...)),
	}
	for _, rpc := range []string{"KvPessimisticLock", "KvPrewrite", "KvCommit"} {
		w := lock(rpc, "beside a writer and a sharer", 0, func(e *faultTest) error {
			err := e.share("")
			<-time.After(time.Second)
			return e.finish(err)
		}).after(besideShare)
		if rpc == "KvCommit" {
			w.told = toldOfCommit
		}
		works = append(works, w)
	}
	rollback := lock("KVPessimisticRollback", "Rollback", 0, func(e *faultTest) error {
		_ = e.tx.Rollback(e.ctx)
		return nil
	})
	rollback.begin, rollback.behind, rollback.check = locked, true, never
	undo := lock("KVPessimisticRollback", "after a lock that failed", 0, share("", tikv.WithNoWait())).after(writtenAfter(3*time.Second, sharedKeys[1]))
	undo.behind, undo.ends = true, tikv.ErrLocked
	gone := func(rpc string) faultWork {
		w := lock(rpc, "after a lock was lost", 0, (*faultTest).commit).after(func(e *faultTest) {
			e.must(e.share("old"))
			e.put()
			loseLock(e.t, e.other, e.tx.StartTS(), sharedKeys[1])
			commitAs(e, e.other, "newer", sharedKeys[1])
		})
		w.behind, w.ends = true, tikv.ErrTxnAborted
		return w
	}
	works = append(works, rollback, undo, gone("KvBatchRollback"), gone("KVPessimisticRollback"))
	for _, w := range lockedWorks(of, locked) {
		if w.protocol == of && w.mode == tikv.CommitTwoPhase { // which it is in any case
			w.check, w.more = (*faultTest).shared, sharedKeys
			works = append(works, w)
		}
	}
	return works
}

// share locks the shared keys, one after the other as those do who want them for themselves
// (of a call for both the order is open), whose values must be those, if they are certain.
func (e *faultTest) share(value string, opts ...tikv.LockReadOption) error {
	for _, k := range sharedKeys {
		got, err := e.tx.BatchGetForUpdate(e.ctx, [][]byte{k}, append(opts, tikv.WithShared())...)
		if err != nil {
			return err
		}
		if e.seen = append(e.seen, got[0].Value); value != "" && string(got[0].Value) != value {
			e.errorf("shared %q", got[0].Value)
		}
	}
	return nil
}

// shared is committed for a transaction that shares locks: what it has seen under them had
// not changed when it committed, and it has not written there.
func (e *faultTest) shared(err error) {
	e.t.Helper()
	e.committed(err)
	own := func(v playground.Version) bool {
		return v.StartTS == uint64(e.tx.StartTS()) && v.Kind == playground.WritePut
	}
	versions, verr := e.cluster.Versions(faultKeys[0])
	e.must(verr)
	i := slices.IndexFunc(versions, own)
	for n, k := range sharedKeys {
		of, verr := e.cluster.Versions(k)
		e.must(verr)
		if slices.ContainsFunc(of, own) {
			e.errorf("%s was written", k)
		}
		if i < 0 || e.seen == nil { // not committed, or not looked at
			continue
		}
		e.written(k, e.seen[n], slices.DeleteFunc(of, func(v playground.Version) bool { return v.CommitTS > versions[i].CommitTS }))
	}
}

// alsoShared lets another transaction share the keys for a while.
func alsoShared(d time.Duration) func(e *faultTest) {
	return func(e *faultTest) {
		tx := begin(e.t, e.other, tikv.WithPessimistic())
		e.must(tx.Lock(e.t.Context(), ks("another")))
		e.must(tx.Lock(e.t.Context(), sharedKeys, tikv.WithShared()))
		done := start(e.t.Context(), func(ctx context.Context) error {
			<-time.After(d)
			return tx.Commit(ctx)
		})
		e.also = func() { e.must(<-done) }
	}
}

// writtenAfter lets another transaction hold keys for itself for a while, and then write
// them.
func writtenAfter(d time.Duration, keys ...[]byte) func(e *faultTest) {
	return heldThen(d, keys, keys)
}

// besideShare lets another client write the shared keys, under locks of its own, and share
// them, in turns, until the transaction of the case has ended.
func besideShare(e *faultTest) {
	beside(e, 300*time.Millisecond, func(ctx context.Context, tx *tikv.Txn, i int) error {
		if i%2 == 0 {
			return errors.Join(tx.Lock(ctx, sharedKeys), putAll(tx, string(rune('A'+i%26)), sharedKeys...))
		}
		return errors.Join(tx.Lock(ctx, ks("another")), tx.Lock(ctx, sharedKeys, tikv.WithShared()))
	})
}

// leaveShared lets two clients die that share all keys but the first, which is the primary
// key of one of them. ended: that one has committed, and the locks are left.
func (e *faultTest) leaveShared(ended bool) {
	for _, primary := range [][]byte{b("another"), a} {
		e.perish(func(m *mortal) {
			tx := begin(e.t, m.Client, tikv.WithPessimistic(), inTwoPhases)
			e.must(tx.Lock(e.ctx, [][]byte{primary}))
			e.must(tx.Lock(e.ctx, faultKeys[1:], tikv.WithShared()))
			if !ended || &primary[0] != &a[0] {
				return
			}
			e.subject = tx.StartTS()
			e.must(tx.Put(a, b("old")))
			injected := e.cluster.Inject(playground.Fault{Method: "KvCommit", StartTS: uint64(tx.StartTS()), Skip: 1, DropRequest: true})
			defer injected.Remove()
			e.must(tx.Commit(e.ctx))
			synctest.Wait()
			m.die()
		})
	}
	<-time.After(16 * time.Second)
	e.left(true)
}
