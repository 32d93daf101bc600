package tikv_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// lockWork is a work of a pessimistic transaction that has begun: do locks, and what it
// has locked is written and committed.
func lockWork(protocol, rpc, name string, skip int, do func(e *faultTest) error) faultWork {
	w := faultWork{protocol: protocol, rpc: rpc, name: name, skip: skip, mode: tikv.CommitTwoPhase, do: do, check: (*faultTest).committed}
	w.begin = func(e *faultTest) { e.begun(tikv.WithPessimistic()) }
	if rpc == "KvPessimisticLock" {
		w.told = toldOfLock
	}
	return w
}

// after lets something happen once the transaction has begun.
func (w faultWork) after(then func(e *faultTest)) faultWork {
	before := w.begin
	w.begin = func(e *faultTest) {
		before(e)
		then(e)
	}
	return w
}

// finish writes and commits what was locked; where err says that it was not, it ends the
// transaction.
func (e *faultTest) finish(err error) error {
	if err == nil { // a heartbeat may tell that it was locked for too long
		err = putAll(e.tx, "new", faultKeys...)
	}
	if err != nil {
		_ = e.tx.Rollback(e.t.Context())
		return err
	}
	return e.tx.Commit(e.ctx)
}

// lockAll locks all keys, whose values must be those, and commits.
func (e *faultTest) lockAll(value string) error {
	got, err := e.tx.BatchGetForUpdate(e.ctx, faultKeys)
	return e.finish(e.hold(got, value, err))
}

// hold keeps in mind what a lock returned.
func (e *faultTest) hold(got []tikv.Locked, value string, err error) error {
	if err != nil {
		return err
	}
	for _, l := range got {
		e.held = append(e.held, l.Value)
	}
	if value == "" { // any
		return nil
	}
	return e.same(e.held, value, nil)
}

// newer commits new values for keys.
func newer(keys ...[]byte) func(e *faultTest) {
	return func(e *faultTest) { commitAs(e, e.other, "newer", keys...) }
}

// heldFor lets another transaction hold keys for a while, and then write all of the case.
func heldFor(d time.Duration, keys ...[]byte) func(e *faultTest) {
	return heldThen(d, keys, faultKeys)
}

// heldThen lets another transaction hold keys for a while, and then write some.
func heldThen(d time.Duration, keys, written [][]byte) func(e *faultTest) {
	return func(e *faultTest) {
		tx := begin(e.t, e.other, tikv.WithPessimistic())
		e.must(tx.Lock(e.t.Context(), keys))
		done := start(e.t.Context(), func(ctx context.Context) error {
			<-time.After(d)
			e.must(putAll(tx, "newer", written...))
			return tx.Commit(ctx)
		})
		e.also = func() { e.must(<-done) }
	}
}

// circled lets another transaction wait for the one of the case, which has locked the
// first key, with the last one locked. One of both is told of the circle that the case
// closes: the other one if what knew that it waits is gone by then.
func circled(e *faultTest) {
	e.must(e.tx.Lock(e.t.Context(), faultKeys[:1]))
	tx := begin(e.t, e.other, tikv.WithPessimistic())
	e.must(tx.Lock(e.t.Context(), faultKeys[3:]))
	done := start(e.t.Context(), func(ctx context.Context) error {
		if err := tx.Lock(ctx, faultKeys[:1]); err != nil {
			return errors.Join(err, tx.Rollback(ctx))
		}
		e.must(putAll(tx, "newer", faultKeys...))
		return tx.Commit(ctx)
	})
	<-time.After(time.Second) // it waits
	e.also = func() {
		err := <-done
		if e.err == nil && !errors.Is(err, tikv.ErrDeadlock) || e.err != nil && err != nil {
			e.errorf("of the circle one ends with %v, the other with %v", e.err, err)
		}
	}
}

// besideWriter lets another client write all keys, under locks, again and again, until the
// transaction of the case has ended.
func besideWriter(e *faultTest) {
	beside(e, 700*time.Millisecond, func(ctx context.Context, tx *tikv.Txn, i int) error {
		err := tx.Lock(ctx, faultKeys)
		return errors.Join(err, putAll(tx, string(rune('A'+i%26)), faultKeys...))
	})
}

// beside lets another client run a pessimistic transaction, with its number, every so often
// until that of the case has ended.
func beside(e *faultTest, every time.Duration, fn func(ctx context.Context, tx *tikv.Txn, i int) error) {
	ctx, cancel := context.WithCancel(e.t.Context())
	done := start(ctx, func(ctx context.Context) error {
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(every):
			}
			_ = e.other.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error { return fn(ctx, tx, i) }, tikv.WithPessimistic(), inTwoPhases)
		}
	})
	e.also = func() { cancel(); <-done }
}

// stolen takes the lock on the last key away from the transaction of the case, and
// writes the key.
func stolen(e *faultTest) {
	e.must(e.tx.Lock(e.t.Context(), faultKeys))
	e.put()
	loseLock(e.t, e.other, e.tx.StartTS(), z)
	commitAs(e, e.other, "old", z)
}

// pause lasts longer than the first heartbeat is away, if there is time.
func (e *faultTest) pause() {
	if e.strict {
		<-time.After(4 * time.Second)
	} else {
		<-time.After(30 * time.Second)
	}
}

// pessimisticWorks are what a pessimistic transaction sends beside what every one does.
func pessimisticWorks() []faultWork {
	const of = "pessimistic"
	lock := func(rpc, name string, skip int, do func(e *faultTest) error) faultWork {
		return lockWork(of, rpc, name, skip, do)
	}
	all := func(value string) func(e *faultTest) error {
		return func(e *faultTest) error { return e.lockAll(value) }
	}
	locked := func(e *faultTest) {
		e.begun(tikv.WithPessimistic())
		e.must(e.tx.Lock(e.t.Context(), faultKeys))
		e.put()
	}
	works := []faultWork{
		lock("KvPessimisticLock", "Lock, of the first region", 0, func(e *faultTest) error { return e.finish(e.tx.Lock(e.ctx, faultKeys)) }),
		lock("KvPessimisticLock", "Lock, of the second region", 1, func(e *faultTest) error { return e.finish(e.tx.Lock(e.ctx, faultKeys)) }),
		lock("KvPessimisticLock", "with values", 0, all("old")),
		lock("KvPessimisticLock", "with values, of the second region", 1, all("old")),
		lock("KvPessimisticLock", "in stages", 1, func(e *faultTest) error {
			for _, k := range faultKeys {
				v, err := e.tx.GetForUpdate(e.ctx, k)
				if err := e.hold([]tikv.Locked{{Value: v}}, "old", err); err != nil {
					return e.finish(err)
				}
			}
			return e.finish(nil)
		}),
		lock("KvPessimisticLock", "above a newer commit", 0, all("newer")).after(newer(faultKeys...)),
		lock("KvPessimisticLock", "again, after a newer commit", 1, all("newer")).after(newer(faultKeys...)),
		lock("KvPessimisticLock", "while another holds the key", 0, all("newer")).after(heldFor(3*time.Second, a)),
		lock("KvPessimisticLock", "again, while another holds the key", 1, all("newer")).after(heldFor(3*time.Second, a)),
	}
	circle := lock("KvPessimisticLock", "that closes a circle", 0, func(e *faultTest) error { return e.finish(e.tx.Lock(e.ctx, faultKeys[3:])) }).after(circled)
	circle.ends, circle.orNot = tikv.ErrDeadlock, true
	for i, rpc := range []string{"KvPessimisticLock", "KvPrewrite", "KvCommit"} {
		w := lock(rpc, "beside a writer", 0, func(e *faultTest) error {
			got, err := e.tx.BatchGetForUpdate(e.ctx, faultKeys)
			<-time.After(time.Second)
			return e.finish(e.hold(got, "", err))
		}).after(besideWriter)
		if i == 2 {
			w.told = toldOfCommit
		}
		works = append(works, w)
	}
	rollback := lock("KVPessimisticRollback", "Rollback", 0, func(e *faultTest) error {
		_ = e.tx.Rollback(e.ctx)
		return nil
	})
	rollback.begin, rollback.behind, rollback.check = locked, true, never
	undo := lock("KVPessimisticRollback", "after a lock that failed", 0, func(e *faultTest) error {
		return e.finish(e.tx.Lock(e.ctx, faultKeys, tikv.WithNoWait()))
	}).after(heldFor(3*time.Second, z))
	undo.behind, undo.ends = true, tikv.ErrLocked
	gone := func(rpc string) faultWork {
		w := lock(rpc, "after a lock was lost", 0, (*faultTest).commit).after(stolen)
		w.behind, w.ends = true, tikv.ErrTxnAborted
		return w
	}
	works = append(works, circle, rollback, undo, gone("KvBatchRollback"), gone("KVPessimisticRollback"))
	return append(works, lockedWorks(of, locked)...)
}

// lockedWorks are what a transaction sends that has locked and written all keys.
func lockedWorks(of string, locked func(e *faultTest)) []faultWork {
	twoPhases := faultProtocol{of, tikv.CommitTwoPhase, locked}
	async := faultProtocol{of + ", asynchronous", tikv.CommitAsync, locked}
	onePhase := faultProtocol{of + ", one-phase", tikv.CommitAuto, locked}
	beat := twoPhases.work("KvTxnHeartBeat", "while it holds locks", 0, true)
	beat.told = toldOfBeat
	beat.begin = func(e *faultTest) {
		locked(e)
		<-time.After(9900 * time.Millisecond)
	}
	beat.do = func(e *faultTest) error {
		e.pause()
		return e.tx.Commit(e.ctx)
	}
	works := append(twoPhases.commits(), async.commits()...)
	return append(works, onePhase.onePhase(), beat)
}

// fairWorks are what a transaction sends in fair locking, beside what every one does.
func fairWorks() []faultWork {
	const of = "fair"
	lock := func(rpc, name string, skip int, do func(e *faultTest) error) faultWork {
		return lockWork(of, rpc, name, skip, do).after((*faultTest).fair)
	}
	all := func(value string) func(e *faultTest) error {
		return func(e *faultTest) error { return e.finish(e.statement(value, faultKeys...)) }
	}
	locked := func(e *faultTest) {
		e.begun(tikv.WithPessimistic())
		e.fair()
		e.must(e.lockFair(e.t.Context(), "old", faultKeys...))
		e.must(e.stage.Done(e.t.Context()))
		e.put()
	}
	works := []faultWork{
		lock("KvPessimisticLock", "the first key", 0, all("old")),
		lock("KvPessimisticLock", "a later key", 2, all("old")),
		lock("KvPessimisticLock", "above a newer commit", 0, all("newer")).after(newer(faultKeys...)),
		lock("KvPessimisticLock", "a later key, above a newer commit", 2, all("newer")).after(newer(faultKeys...)),
		lock("KvPessimisticLock", "while another holds the key", 0, all("newer")).after(heldFor(3*time.Second, a)),
		lock("KvPessimisticLock", "again, while another holds the key", 1, all("newer")).after(heldFor(3*time.Second, a)),
		// What the attempt before has locked points to another primary key.
		lock("KvPessimisticLock", "in the next attempt", 0, all("old")).after(func(e *faultTest) {
			e.must(e.lockFair(e.t.Context(), "old", faultKeys[3], faultKeys[0]))
			e.held = nil
			e.must(e.stage.Retry(e.t.Context()))
		}),
	}
	for i, rpc := range []string{"KvPessimisticLock", "KvPrewrite", "KvCommit"} {
		w := lock(rpc, "beside a writer", 0, func(e *faultTest) error {
			err := e.lockFair(e.ctx, "", faultKeys...)
			<-time.After(time.Second)
			if err == nil {
				err = e.stage.Done(e.ctx)
			}
			return e.finish(err)
		}).after(besideWriter)
		if i == 2 {
			w.told = toldOfCommit
		}
		works = append(works, w)
	}
	circle := lock("KvPessimisticLock", "that closes a circle", 0, func(e *faultTest) error {
		_, err := e.tx.BatchGetForUpdate(e.ctx, faultKeys[3:])
		if err == nil {
			err = e.stage.Done(e.ctx)
		}
		return e.finish(err)
	})
	circle.begin = func(e *faultTest) {
		e.begun(tikv.WithPessimistic())
		circled(e)
		e.fair()
	}
	circle.ends, circle.orNot = tikv.ErrDeadlock, true
	cancelled := lock("KVPessimisticRollback", "Cancel", 0, func(e *faultTest) error {
		return errors.Join(e.stage.Cancel(e.ctx), e.tx.Rollback(e.t.Context()))
	}).after(func(e *faultTest) { e.must(e.lockFair(e.t.Context(), "old", faultKeys...)) })
	cancelled.behind, cancelled.check = true, never
	released := lock("KVPessimisticRollback", "Done, of what was not asked for again", 0, func(e *faultTest) error {
		err := e.statement("old", faultKeys[:2]...)
		e.held = nil
		return e.finish(err)
	}).after(func(e *faultTest) {
		e.must(e.lockFair(e.t.Context(), "old", faultKeys...))
		e.held = nil
		e.must(e.stage.Retry(e.t.Context()))
	})
	released.behind = true
	works = append(works, circle, cancelled, released)
	return append(works, lockedWorks(of, locked)...)
}

func (e *faultTest) fair() {
	stage, err := e.tx.FairLock()
	e.must(err)
	e.stage = stage
}

// lockFair locks keys one by one, as a statement of fair locking does; their values must
// be those, if they are certain. Of what has changed since the transaction began it must
// be told.
func (e *faultTest) lockFair(ctx context.Context, value string, keys ...[]byte) error {
	for i, k := range keys {
		got, err := e.tx.BatchGetForUpdate(ctx, [][]byte{k})
		if err := e.hold(got, value, err); err != nil {
			return err
		}
		// An answer that was made up tells of a commit that there never was.
		certain := value != "" && e.kind.fault.KeyError != playground.WriteConflict
		if changed := got[0].ConflictTS != 0; i == 0 && certain && changed != (value == "newer") {
			e.errorf("%s is %+v", k, got[0])
		}
	}
	return nil
}

// statement is lockFair to the end.
func (e *faultTest) statement(value string, keys ...[]byte) error {
	err := e.lockFair(e.ctx, value, keys...)
	if err == nil {
		err = e.stage.Done(e.ctx)
	}
	return err
}

// loseLock removes a transaction's pessimistic lock behind its back.
func loseLock(t *testing.T, c *tikv.Client, start tikv.Timestamp, key []byte) {
	t.Helper()
	resp, err := tikv.Call(t.Context(), c.RPC(), tikv.ToKey(tikv.KeyTxn, key), tikvpb.TikvClient.KVPessimisticRollback, &kvrpcpb.PessimisticRollbackRequest{
		StartVersion: uint64(start), ForUpdateTs: math.MaxUint64, Keys: [][]byte{key},
	})
	if err != nil || len(resp.Errors) > 0 {
		t.Fatal(resp, err)
	}
}
