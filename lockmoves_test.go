package tikv_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// loseAndSplit loses the answer to a request of two's that locks a key, after some others,
// and lets the key be in another region then.
func (d *duel) loseAndSplit(key string, after int) *playground.Injection {
	return d.cluster.Inject(playground.Fault{
		Method: "KvPessimisticLock", Key: b(key), StartTS: uint64(d.two.StartTS()), Skip: after, Times: 1, DropAnswer: true,
		After: func() {
			if _, err := d.cluster.Split(playground.KeyTxn, b("q")); err != nil {
				d.Error(err)
			}
		},
	})
}

// A call goes on at the newest timestamp that it has asked at, wherever its keys are by then:
// where an answer was lost they may be locked at that one, and TiKV answers a request at an
// older timestamp with what they held at the older one (src/storage/txn/actions/
// acquire_pessimistic_lock.rs, handle_existing_exclusive_lock).
func TestLockAnswerLostWhereRegionsChange(t *testing.T) {
	cases := map[string]func(d *duel){
		"a value": func(d *duel) {
			commit(d.T, d.c, "z", "won")
			lost := d.loseAndSplit("z", 1)
			v, err := d.two.GetForUpdate(d.Context(), b("z"))
			must(d.T, err)
			d.same("z", string(v), "won")
			d.same("lost", lost.Hits(), 1)
		},
		"values": func(d *duel) {
			commit(d.T, d.c, "n", "won", "z", "won")
			lost := d.loseAndSplit("z", 1)
			got, err := d.two.BatchGetForUpdate(d.Context(), ks("b", "n", "z"))
			must(d.T, err)
			d.same("n", string(got[1].Value), "won")
			d.same("z", string(got[2].Value), "won")
			d.same("lost", lost.Hits(), 1)
		},
		"whether it exists": func(d *duel) {
			commit(d.T, d.c, "x", "won")
			lost := d.loseAndSplit("x", 1)
			must(d.T, d.two.Lock(d.Context(), ks("x")))
			d.is(d.two.Insert(b("x"), nil), tikv.ErrAlreadyExists)
			d.same("lost", lost.Hits(), 1)
		},
		"a shared lock": func(d *duel) {
			must(d.T, d.two.Lock(d.Context(), ks("two")))
			commit(d.T, d.c, "z", "won")
			lost := d.loseAndSplit("z", 1)
			v, err := d.two.GetForUpdate(d.Context(), b("z"), tikv.WithShared())
			must(d.T, err)
			d.same("z", string(v), "won")
			d.same("lost", lost.Hits(), 1)
		},
		// TiKV tells at once, and again if asked again, what it has locked the key above.
		"fair locking": func(d *duel) {
			ts := commit(d.T, d.c, "z", "won")
			stage := d.fair(d.two)
			lost := d.loseAndSplit("z", 0)
			if got := d.lockOne(d.two, "z"); string(got.Value) != "won" || got.ConflictTS != ts {
				d.Errorf("%+v", got)
			}
			must(d.T, stage.Done(d.Context()), d.two.Put(b("z"), b("2")), d.two.Commit(d.Context()))
			want(d.T, d.c.Latest(), "z", "2")
			d.same("lost", lost.Hits(), 1)
		},
	}
	for name, run := range cases {
		t.Run(name, func(t *testing.T) { dueling(t, run) })
	}
}

// A copy of a request that comes when its call has ended leaves a lock that the transaction
// knows of: it ends with it.
func TestLockComesLate(t *testing.T) {
	for _, how := range []struct {
		name string
		end  func(ctx context.Context, tx *tikv.Txn) error
	}{
		{"rolled back", func(ctx context.Context, tx *tikv.Txn) error { return tx.Rollback(ctx) }},
		{"committed", func(ctx context.Context, tx *tikv.Txn) error { return tx.Commit(ctx) }},
		{"locked again", func(ctx context.Context, tx *tikv.Txn) error {
			if err := tx.Lock(ctx, ks("y")); err != nil {
				return err
			}
			if err := tx.Put(b("y"), b("two")); err != nil {
				return err
			}
			return tx.Commit(ctx)
		}},
	} {
		t.Run(how.name, func(t *testing.T) {
			dueling(t, func(d *duel) {
				ctx := d.Context()
				must(d.T, d.two.Lock(ctx, ks("two")), d.one.Lock(ctx, ks("y")))
				late := d.cluster.Inject(playground.Fault{
					Method: "KvPessimisticLock", Key: b("y"), StartTS: uint64(d.two.StartTS()), Times: 1, Hold: true,
				})
				done := start(ctx, func(ctx context.Context) error { return d.two.Lock(ctx, ks("y"), tikv.WithNoWait()) })
				d.is(<-done, tikv.ErrLocked)
				must(d.T, d.one.Rollback(ctx))
				synctest.Wait() // for what lets go of what the call may have locked by now
				late.Remove()
				d.same("held", d.held(), "two:2(two) y:2(two) ")
				must(d.T, how.end(ctx, d.two))
				d.same("held", d.held(), "")
			})
		})
	}
}

// What was written without a lock may have one, of a call that has failed, although the
// transaction has no other.
func TestWriteOverALateLock(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		late := d.cluster.Inject(playground.Fault{Method: "KvPessimisticLock", Key: b("y"), StartTS: uint64(d.two.StartTS()), Hold: true})
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		d.is(d.two.Lock(short, ks("y")), context.DeadlineExceeded)
		synctest.Wait()
		late.Remove()
		d.same("held", d.held(), "a:1(a) y:2(y) ")
		must(d.T, d.two.Put(b("y"), b("two")), d.two.Put(b("x"), b("two")), d.two.Commit(ctx))
		want(d.T, d.c.Latest(), "y", "two")
		d.same("held", d.held(), "a:1(a) ")
	})
}

// A lock whose region nobody leads ends with its budget, as other calls do.
func TestLockOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open(tikv.WithRetryFor(3 * time.Second))
		tx := begin(t, c, tikv.WithPessimistic())
		want(t, tx, "a", "-")
		for id := range uint64(3) {
			must(t, cluster.Stop(playground.Store(1+id)))
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer time.AfterFunc(10*time.Minute, cancel).Stop()
		began := time.Now()
		if err := tx.Lock(ctx, ks("a")); err == nil || ctx.Err() != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		for id := range uint64(3) {
			must(t, cluster.Start(playground.Store(1+id)))
		}
		must(t, tx.Rollback(t.Context()))
	})
}
