package tikv_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

func (d *duel) beats() int { return d.cluster.Counts().Calls["KvTxnHeartBeat"] }

// Locks that are taken in stages live as long as the transaction does.
func TestHeartbeatKeepsLocks(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		<-time.After(30 * time.Second)
		must(d.T, d.one.Lock(ctx, ks("b", "z")))
		<-time.After(5 * time.Minute)
		d.is(d.two.Lock(ctx, ks("z"), tikv.WithNoWait()), tikv.ErrLocked)
		d.same("held", d.held(), "a:1(a) b:1(a) z:1(a) ")
		if n := d.beats(); n < 32 || n > 34 {
			d.Errorf("%d heartbeats in 5 1/2 minutes", n)
		}
		must(d.T, d.one.Put(b("a"), b("one")), d.one.Commit(ctx))
		n := d.beats()
		<-time.After(time.Minute)
		d.same("heartbeats after the end", d.beats(), n)
		want(d.T, d.c.Latest(), "a", "one")
	})
}

// A call that fails takes its primary lock with it, and the heart beats for the next one.
func TestHeartbeatFollowsThePrimary(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		d.is(d.two.Lock(ctx, ks("0", "a", "z"), tikv.WithNoWait()), tikv.ErrLocked)
		<-time.After(time.Minute)
		must(d.T, d.two.Lock(ctx, ks("z")))
		<-time.After(time.Minute)
		d.same("held", d.held(), "a:1(a) z:2(z) ")
		must(d.T, d.two.Commit(ctx))
	})
}

// A transaction whose primary lock is gone fails at once, and so does what waits in it.
func TestHeartbeatFails(t *testing.T) {
	for name, during := range map[string]func(d *duel) error{
		"Lock":   func(d *duel) error { return d.two.Lock(d.Context(), ks("a")) },
		"Commit": func(d *duel) error { return d.two.Commit(d.Context()) },
		"none":   func(d *duel) error { <-time.After(time.Minute); return d.two.Put(b("x"), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			dueling(t, func(d *duel) {
				ctx := d.Context()
				must(d.T, d.two.Lock(ctx, ks("b", "x")), d.two.Put(b("z"), nil))
				// The client is away for longer than its lock lives.
				away := d.cluster.Inject(playground.Fault{Method: "KvTxnHeartBeat", DropRequest: true, StartTS: uint64(d.two.StartTS())})
				<-time.After(25 * time.Second)
				three := d.begin()
				must(d.T, three.Lock(ctx, ks("b"), tikv.WithNoWait()))
				slow := d.cluster.Inject(playground.Fault{Method: "KvPrewrite", Delay: 10 * time.Minute})
				done := start(ctx, func(context.Context) error { return during(d) })
				synctest.Wait()
				away.Remove()
				began := time.Now()
				err := <-done
				if !errors.Is(err, tikv.ErrTxnAborted) || !tikv.IsRetryable(err) || !tikv.NotSent(err) || time.Since(began) > time.Minute {
					d.Errorf("after %v: %v", time.Since(began), err)
				}
				slow.Remove()
				<-time.After(11 * time.Minute)
				d.same("held", d.held(), "a:1(a) b:?(b) ")
				if name != "Commit" {
					d.is(d.two.Commit(ctx), tikv.ErrTxnAborted)
				}
				must(d.T, d.two.Rollback(ctx), three.Rollback(ctx))
			})
		})
	}
}

// A transaction is not kept alive for ever.
func TestHeartbeatsEnd(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		<-time.After(59 * time.Minute)
		d.is(d.two.Lock(ctx, ks("a"), tikv.WithNoWait()), tikv.ErrLocked)
		<-time.After(2 * time.Minute)
		must(d.T, d.two.Lock(ctx, ks("a"), tikv.WithNoWait()))
		d.is(d.one.Commit(ctx), tikv.ErrTxnAborted)
	})
}

// A transaction whose handle is dropped lets go of its locks.
func TestDroppedHandle(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		func() {
			lost := d.begin()
			must(d.T, lost.Lock(ctx, ks("b", "z")), lost.Put(b("b"), nil))
			stage, err := lost.FairLock()
			must(d.T, err)
			_, err = lost.GetForUpdate(ctx, b("c"))
			_ = stage
			d.is(err, tikv.ErrNotFound)
		}()
		d.same("held", d.held(), "a:1(a) b:?(b) c:?(b) z:?(b) ")
		for range 10 {
			runtime.GC()
			<-time.After(10 * time.Second)
		}
		d.same("held", d.held(), "a:1(a) ")
	})
}

// An optimistic commit that is away for longer than its lock lives fails at once, too.
func TestHeartbeatOfACommit(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		tx := begin(d.T, d.c)
		must(d.T, tx.Put(b("b"), b("new")), tx.Put(b("y"), b("new")))
		away := d.cluster.Inject(playground.Fault{Method: "KvTxnHeartBeat", DropRequest: true})
		slow := d.cluster.Inject(playground.Fault{Method: "KvPrewrite", Key: b("y"), Delay: 10 * time.Minute, StartTS: uint64(tx.StartTS())})
		done := start(ctx, func(ctx context.Context) error { return tx.Commit(ctx) })
		<-time.After(5 * time.Second)
		snap, err := d.c.Snapshot(ctx)
		must(d.T, err)
		want(d.T, snap, "b", "-")
		away.Remove()
		began := time.Now()
		d.is(<-done, tikv.ErrTxnAborted)
		if took := time.Since(began); took > 30*time.Second {
			d.Errorf("after %v", took)
		}
		slow.Remove()
	})
}

// A lock whose answer was late is prolonged before its life is over.
func TestHeartbeatOfALateLock(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		do     func(d *duel) (*tikv.Txn, error)
	}{
		"Lock": {"KvPessimisticLock", func(d *duel) (*tikv.Txn, error) { return d.two, d.two.Lock(d.Context(), ks("z")) }},
		"fair": {"KvPessimisticLock", func(d *duel) (*tikv.Txn, error) {
			stage := d.fair(d.two)
			d.lockOne(d.two, "z")
			return d.two, stage.Done(d.Context())
		}},
		"flush": {"KvFlush", func(d *duel) (*tikv.Txn, error) {
			tx := begin(d.T, d.c, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(1, 1<<20))
			return tx, errors.Join(tx.Put(b("z"), nil), tx.Put(b("y"), nil), tx.Put(b("x"), nil))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dueling(t, func(d *duel) {
				ctx := d.Context()
				must(d.T, d.one.Rollback(ctx))
				lost := d.cluster.Inject(playground.Fault{Method: c.method, DropAnswer: true, Times: 1})
				began := time.Now()
				tx, err := c.do(d)
				must(d.T, err)
				if took := time.Since(began); took < 20*time.Second || lost.Hits() != 1 {
					d.Errorf("locked after %v", took)
				}
				<-time.After(time.Second)
				three := d.begin()
				d.is(three.Lock(ctx, ks("z"), tikv.WithNoWait()), tikv.ErrLocked)
				must(d.T, three.Rollback(ctx), tx.Put(b("z"), b("two")), tx.Commit(ctx))
				want(d.T, d.c.Latest(), "z", "two")
			})
		})
	}
}

// Heartbeats each of which has to be sent twice come in time.
func TestHeartbeatsThatTakeLong(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		const step = 19 * time.Millisecond
		for range 5 {
			lost := d.cluster.Inject(playground.Fault{Method: "KvTxnHeartBeat", DropRequest: true, Times: 1})
			for after := time.Duration(0); after < 6*time.Second; <-time.After(step) { // it is sent again after 5 s
				if lost.Hits() > 0 {
					after += step
				}
				d.is(d.two.Lock(ctx, ks("a"), tikv.WithNoWait()), tikv.ErrLocked)
			}
			lost.Remove()
		}
		must(d.T, d.one.Put(b("a"), b("one")), d.one.Commit(ctx))
	})
}

// What is locked goes with the client, also where a commit that fails holds it still.
func TestCloseDuringCommits(t *testing.T) {
	for name, begun := range map[string]func(d *duel, c *tikv.Client) *tikv.Txn{
		"locked": func(d *duel, c *tikv.Client) *tikv.Txn {
			tx := begin(d.T, c, tikv.WithPessimistic())
			must(d.T, tx.Lock(d.Context(), ks("b", "x")), tx.Put(b("b"), nil), tx.Put(b("x"), nil))
			return tx
		},
		"not locked": func(d *duel, c *tikv.Client) *tikv.Txn {
			tx := begin(d.T, c)
			must(d.T, tx.Put(b("b"), nil), tx.Put(b("x"), nil))
			return tx
		},
	} {
		t.Run(name, func(t *testing.T) {
			dueling(t, func(d *duel) {
				c, err := tikv.Open(d.Context(), d.cluster.PD(), d.cluster.ClientOptions()...)
				must(d.T, err)
				tx := begun(d, c)
				busy := d.cluster.Inject(playground.Fault{Method: "KvPrewrite", RegionError: playground.ServerIsBusy})
				done := start(d.Context(), func(ctx context.Context) error { return tx.Commit(ctx) })
				<-time.After(time.Second)
				must(d.T, c.Close())
				d.same("held", d.held(), "a:1(a) ")
				d.is(<-done, tikv.ErrClosed)
				busy.Remove()
			})
		})
	}
}
