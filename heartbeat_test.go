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
