package tikv_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

func (d *duel) fair(tx *tikv.Txn) *tikv.FairLock {
	d.Helper()
	stage, err := tx.FairLock()
	must(d.T, err)
	return stage
}

// one locks a key and tells what is known of it.
func (d *duel) lockOne(tx *tikv.Txn, key string, opts ...tikv.LockReadOption) tikv.Locked {
	d.Helper()
	got, err := tx.BatchGetForUpdate(d.Context(), ks(key), opts...)
	must(d.T, err)
	return got[0]
}

func (d *duel) calls() int {
	return d.cluster.Counts().Calls["KvPessimisticLock"]
}

func TestFairLock(t *testing.T) {
	cases := map[string]func(d *duel){
		"locked above a commit while it waited": func(d *duel) {
			ctx := d.Context()
			stage := d.fair(d.two)
			var got []tikv.Locked
			done := start(ctx, func(ctx context.Context) (err error) {
				got, err = d.two.BatchGetForUpdate(ctx, ks("a"))
				return err
			})
			<-time.After(3 * time.Second)
			before := d.calls()
			must(d.T, d.one.Put(b("a"), b("one")), d.one.Commit(ctx), <-done)
			ts, _ := d.one.CommitTS()
			if string(got[0].Value) != "one" || !got[0].Exists || got[0].ConflictTS != ts {
				d.Errorf("%+v, committed at %d", got[0], ts)
			}
			d.same("requests after it was released", d.calls(), before)
			d.same("for-update-ts", d.cluster.Locks(nil, nil)[0].ForUpdateTS, uint64(ts))
			must(d.T, stage.Done(ctx), stage.Cancel(ctx), d.two.Put(b("a"), b("two")), d.two.Commit(ctx))
			want(d.T, d.c.Latest(), "a", "two")
		},
		"locked above a commit before": func(d *duel) {
			ctx := d.Context()
			ts := commit(d.T, d.c, "x", "won")
			stage := d.fair(d.two)
			if got := d.lockOne(d.two, "x", tikv.WithExistenceOnly()); got.ConflictTS != ts || !got.Exists {
				d.Errorf("%+v", got)
			}
			must(d.T, stage.Retry(ctx))
			before := d.calls()
			// Its value came with the conflict.
			if got := d.lockOne(d.two, "x"); got.ConflictTS != 0 || string(got.Value) != "won" {
				d.Errorf("%+v", got)
			}
			d.same("requests", d.calls(), before)
			must(d.T, stage.Done(ctx), d.two.Put(b("x"), b("2")), d.two.Commit(ctx))
			want(d.T, d.c.Latest(), "x", "2")
		},
		// The commit that it is locked above has a timestamp that PD has yet to issue.
		"who begins after its commit sees it": func(d *duel) {
			ctx := d.Context()
			rival := begin(d.T, d.c, tikv.WithCommitMode(tikv.CommitAuto))
			must(d.T, rival.Put(b("z"), b("won")), rival.Commit(ctx))
			stage := d.fair(d.two)
			if got := d.lockOne(d.two, "z"); got.ConflictTS == 0 {
				d.Errorf("%+v", got)
			}
			must(d.T, stage.Done(ctx), d.two.Put(b("z"), b("two")))
			must(d.T, d.two.Commit(ctx, tikv.WithCommitMode(tikv.CommitAuto), tikv.WithCausalConsistency()))
			snap, err := d.c.Snapshot(ctx)
			must(d.T, err)
			want(d.T, snap, "z", "two")
		},
		"a newer timestamp knows the commit": func(d *duel) {
			ts := commit(d.T, d.c, "x", "won")
			stage := d.fair(d.two)
			if got := d.lockOne(d.two, "x", tikv.WithForUpdateTS(ts)); got.ConflictTS != 0 || string(got.Value) != "won" {
				d.Errorf("%+v", got)
			}
			must(d.T, stage.Cancel(d.Context()))
		},
		"the statement of the documentation": func(d *duel) {
			ctx := d.Context()
			must(d.T, d.one.Put(b("a"), b("z")))
			done := start(ctx, func(ctx context.Context) error {
				stage, err := d.two.FairLock()
				if err != nil {
					return err
				}
				defer stage.Cancel(ctx)
				for at := d.two.StartTS(); ; {
					// "a" names the row.
					name, err := d.c.SnapshotAt(at).Get(ctx, b("a"))
					if err != nil {
						return err
					}
					all := ""
					for _, key := range []string{"a", string(name)} {
						got, err := d.two.BatchGetForUpdate(ctx, ks(key))
						if err != nil {
							return err
						}
						if ts := got[0].ConflictTS; ts != 0 {
							all, at = "again", ts
							break
						}
						all += string(got[0].Value)
					}
					if all != "again" {
						d.same("read", all, "zold")
						return stage.Done(ctx)
					}
					if err := stage.Retry(ctx); err != nil {
						return err
					}
				}
			})
			<-time.After(time.Second)
			must(d.T, d.one.Commit(ctx), <-done)
			d.same("held", d.held(), "a:2(a) z:2(a) ")
			must(d.T, d.two.Commit(ctx))
		},
		"again with another key": func(d *duel) {
			ctx := d.Context()
			must(d.T, d.two.Lock(ctx, ks("primary")))
			stage := d.fair(d.two)
			d.lockOne(d.two, "b")
			d.lockOne(d.two, "c")
			must(d.T, stage.Retry(ctx))
			d.lockOne(d.two, "c")
			d.lockOne(d.two, "y")
			d.same("held", d.held(), "a:1(a) b:2(primary) c:2(primary) primary:2(primary) y:2(primary) ")
			must(d.T, stage.Retry(ctx))
			d.same("held", d.held(), "a:1(a) c:2(primary) primary:2(primary) y:2(primary) ")
			d.lockOne(d.two, "y")
			must(d.T, stage.Done(ctx))
			d.same("held", d.held(), "a:1(a) primary:2(primary) y:2(primary) ")
			must(d.T, d.two.Commit(ctx))
		},
		"the primary key moves": func(d *duel) {
			ctx := d.Context()
			stage := d.fair(d.two)
			d.lockOne(d.two, "b")
			d.lockOne(d.two, "c")
			must(d.T, stage.Retry(ctx))
			d.lockOne(d.two, "c") // chosen now, so that its lock has to be changed
			d.lockOne(d.two, "b")
			d.same("held", d.held(), "a:1(a) b:2(c) c:2(c) ")
			must(d.T, stage.Retry(ctx))
			before := d.calls()
			d.lockOne(d.two, "c")
			d.lockOne(d.two, "b")
			d.same("requests", d.calls(), before)
			must(d.T, stage.Retry(ctx))
			d.lockOne(d.two, "z")
			must(d.T, stage.Done(ctx))
			d.same("held", d.held(), "a:1(a) z:2(z) ")
			// The heart beats for the key that it is by now.
			<-time.After(time.Minute)
			must(d.T, d.two.Put(b("z"), b("2")), d.two.Commit(ctx))
			want(d.T, d.c.Latest(), "z", "2")
		},
		"an attempt that locks nothing": func(d *duel) {
			ctx := d.Context()
			stage := d.fair(d.two)
			d.lockOne(d.two, "b")
			must(d.T, stage.Retry(ctx), stage.Retry(ctx))
			d.same("held", d.held(), "a:1(a) ")
			<-time.After(time.Minute) // no heart beats for what is gone
			must(d.T, stage.Done(ctx), d.two.Lock(ctx, ks("c")))
			d.same("held", d.held(), "a:1(a) c:2(c) ")
			<-time.After(time.Minute)
			must(d.T, d.two.Commit(ctx))
		},
		"locks of an attempt long ago are taken anew": func(d *duel) {
			ctx := d.Context()
			must(d.T, d.two.Lock(ctx, ks("primary")))
			stage := d.fair(d.two)
			d.lockOne(d.two, "b")
			must(d.T, stage.Retry(ctx))
			<-time.After(21 * time.Second)
			before := d.calls()
			d.lockOne(d.two, "b")
			d.same("requests", d.calls(), before+1)
			must(d.T, stage.Done(ctx), d.two.Commit(ctx))
		},
		"cancelled": func(d *duel) {
			ctx := d.Context()
			stage := d.fair(d.two)
			d.lockOne(d.two, "b")
			d.lockOne(d.two, "z")
			must(d.T, stage.Retry(ctx))
			d.lockOne(d.two, "z")
			must(d.T, stage.Cancel(ctx))
			d.same("held", d.held(), "a:1(a) ")
			must(d.T, stage.Done(ctx), stage.Retry(ctx), d.two.Lock(ctx, ks("b", "c")))
			d.same("held", d.held(), "a:1(a) b:2(b) c:2(b) ")
			must(d.T, d.two.Commit(ctx))
		},
		"rolled back in the middle": func(d *duel) {
			ctx := d.Context()
			stage := d.fair(d.two)
			d.lockOne(d.two, "b")
			must(d.T, stage.Retry(ctx))
			d.lockOne(d.two, "z")
			must(d.T, d.two.Rollback(ctx))
			d.same("held", d.held(), "a:1(a) ")
			must(d.T, stage.Retry(ctx), stage.Done(ctx), stage.Cancel(ctx))
		},
		"several keys end it": func(d *duel) {
			ctx := d.Context()
			stage := d.fair(d.two)
			d.lockOne(d.two, "b")
			must(d.T, stage.Retry(ctx))
			ts := commit(d.T, d.c, "z", "new")
			got, err := d.two.BatchGetForUpdate(ctx, ks("b", "z"))
			must(d.T, err)
			d.same("value", string(got[1].Value), "new")
			d.same("conflict", got[1].ConflictTS, tikv.Timestamp(0))
			d.same("held", d.held(), "a:1(a) b:2(b) z:2(b) ")
			must(d.T, stage.Cancel(ctx))
			d.same("held", d.held(), "a:1(a) b:2(b) z:2(b) ")
			must(d.T, d.two.Put(b("b"), nil), d.two.Commit(ctx))
			if at, _ := d.two.CommitTS(); at <= ts {
				d.Error(at, ts)
			}
		},
		"what it locked and read is known": func(d *duel) {
			ctx := d.Context()
			stage := d.fair(d.two)
			d.lockOne(d.two, "z")
			d.lockOne(d.two, "new")
			d.is(d.two.Insert(b("z"), nil), tikv.ErrAlreadyExists)
			must(d.T, d.two.Insert(b("new"), b("1")), stage.Done(ctx))
			d.is(d.two.Insert(b("z"), nil), tikv.ErrAlreadyExists)
			must(d.T, d.two.Commit(ctx))
			want(d.T, d.c.Latest(), "new", "1")
		},
		"a claim that a newer commit breaks": func(d *duel) {
			ctx := d.Context()
			must(d.T, d.two.Insert(b("new"), b("2")))
			commit(d.T, d.c, "new", "1")
			stage := d.fair(d.two)
			_, err := d.two.BatchGetForUpdate(ctx, ks("new"))
			d.is(err, tikv.ErrAlreadyExists)
			d.same("held", d.held(), "a:1(a) ")
			must(d.T, stage.Cancel(ctx))
		},
		"not there by a newer commit": func(d *duel) {
			ctx := d.Context()
			must(d.T, d.c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Delete(b("z")) }))
			stage := d.fair(d.two)
			if got := d.lockOne(d.two, "z", tikv.WithLockIfExists()); got.Exists || got.ConflictTS == 0 {
				d.Errorf("%+v", got)
			}
			d.same("held", d.held(), "a:1(a) ")
			if got := d.lockOne(d.two, "z"); got.Exists {
				d.Errorf("%+v", got)
			}
			must(d.T, stage.Cancel(ctx))
		},
		"no wait, and a wait that ends": func(d *duel) {
			ctx := d.Context()
			stage := d.fair(d.two)
			_, err := d.two.GetForUpdate(ctx, b("a"), tikv.WithNoWait())
			d.is(err, tikv.ErrLocked)
			_, err = d.two.GetForUpdate(ctx, b("a"), tikv.WithLockWait(2500*time.Millisecond))
			d.is(err, tikv.ErrLocked)
			must(d.T, stage.Cancel(ctx))
		},
		"two wait: one after the other": func(d *duel) {
			ctx := d.Context()
			three := d.begin()
			wait := func(tx *tikv.Txn, value string) <-chan error {
				return start(ctx, func(ctx context.Context) error {
					stage, err := tx.FairLock()
					must(d.T, err)
					if _, err := tx.GetForUpdate(ctx, b("a")); err != nil {
						return err
					}
					must(d.T, stage.Done(ctx), tx.Put(b("a"), b(value)))
					<-time.After(time.Second)
					return tx.Commit(ctx)
				})
			}
			last, first := wait(three, "three"), wait(d.two, "two")
			<-time.After(5 * time.Second)
			before := d.calls()
			must(d.T, d.one.Put(b("a"), b("one")), d.one.Commit(ctx), <-first)
			want(d.T, d.c.Latest(), "a", "two")
			must(d.T, <-last)
			want(d.T, d.c.Latest(), "a", "three")
			if n := d.calls() - before; n > 2 {
				d.Errorf("%d requests", n)
			}
		},
		// The lock is lost, another writes, and a late copy of the request takes it again above
		// that: the commit is told apart by the timestamp that it expects.
		"a lock that is not the one that was taken": func(d *duel) {
			ctx := d.Context()
			stage := d.fair(d.two)
			copied := d.cluster.Inject(playground.Fault{Method: "KvPessimisticLock", Key: b("x"), Duplicate: true, Times: 1})
			d.lockOne(d.two, "x")
			must(d.T, stage.Done(ctx))
			if copied.Hits() != 1 {
				d.Error("no copy")
			}
			must(d.T, d.two.Put(b("x"), b("2")), d.two.Commit(ctx))
			want(d.T, d.c.Latest(), "x", "2")
		},
	}
	for name, run := range cases {
		t.Run(name, func(t *testing.T) { dueling(t, run) })
	}
	if testing.Verbose() {
		fmt.Println(len(cases), "cases")
	}
}
