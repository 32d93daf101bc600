package tikv_test

import (
	"context"
	"errors"
	"strings"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// readWorks are reads that meet no lock.
func readWorks() []faultWork {
	read := func(rpc, name string, latest bool, do func(e *faultTest, s *tikv.Snapshot) ([][]byte, error)) faultWork {
		return faultWork{protocol: "reads", rpc: rpc, name: name, check: unchanged, do: func(e *faultTest) error {
			snap, err := e.client.Latest(), error(nil)
			if !latest {
				snap, err = e.client.Snapshot(e.ctx)
			}
			if err != nil {
				return err
			}
			got, err := do(e, snap)
			return e.same(got, "old", err)
		}}
	}
	batchGet := func(e *faultTest, s *tikv.Snapshot) ([][]byte, error) { return s.BatchGet(e.ctx, faultKeys) }
	scan := func(opts ...tikv.ScanOption) func(e *faultTest, s *tikv.Snapshot) ([][]byte, error) {
		return func(e *faultTest, s *tikv.Snapshot) ([][]byte, error) {
			pairs, err := tikv.Collect(s.Scan(e.ctx, tikv.Range{}, opts...))
			if err == nil && len(pairs) != len(faultKeys) {
				e.errorf("%d pairs", len(pairs))
			}
			return pairValues(pairs), err
		}
	}
	get := func(e *faultTest, s *tikv.Snapshot) ([][]byte, error) {
		v, err := s.Get(e.ctx, a)
		return [][]byte{v}, err
	}
	return []faultWork{
		read("KvGet", "Get", false, get),
		read("KvGet", "Get of the latest", true, get),
		read("KvBatchGet", "BatchGet", false, batchGet),
		read("KvBatchGet", "BatchGet of the latest", true, batchGet),
		read("KvScan", "Scan", false, scan()),
		read("KvScan", "Scan backwards", false, scan(tikv.WithReverse(), tikv.WithPageSize(1))),
	}
}

// protocol is a way to commit, with what is before.
type faultProtocol struct {
	name  string
	mode  tikv.CommitMode
	begin func(e *faultTest) // a transaction that has written all keys
}

// begun begins the case's transaction.
func (e *faultTest) begun(opts ...tikv.BeginOption) {
	e.t.Helper()
	e.tx = begin(e.t, e.client, append([]tikv.BeginOption{tikv.WithCommitMode(e.work.mode)}, opts...)...)
	e.subject = e.tx.StartTS()
}

func (e *faultTest) put() { e.must(putAll(e.tx, "new", faultKeys...)) }

func (e *faultTest) commit() error { return e.tx.Commit(e.ctx) }

// work is a commit.
func (p faultProtocol) work(rpc, name string, skip int, behind bool) faultWork {
	w := faultWork{
		protocol: p.name, rpc: rpc, name: name, skip: skip, behind: behind, mode: p.mode,
		begin: p.begin, do: (*faultTest).commit, check: (*faultTest).committed,
	}
	if rpc == "KvCommit" && !behind {
		w.told = toldOfCommit
	}
	return w
}

// commits are the requests of a commit in two regions, and in one.
func (p faultProtocol) commits() []faultWork {
	works := []faultWork{p.work("KvPrewrite", "of the first region", 0, false), p.work("KvPrewrite", "of the second region", 1, false)}
	if p.mode == tikv.CommitTwoPhase {
		return append(works, p.work("KvCommit", "of the primary", 0, false), p.work("KvCommit", "of the secondaries", 1, true))
	}
	inOne := p.work("KvPrewrite", "of the only region", 0, false)
	inOne.together = true
	return append(works, p.work("KvCommit", "of the first region", 0, true), p.work("KvCommit", "of the second region", 1, true), inOne)
}

// onePhase is the commit in one phase.
func (p faultProtocol) onePhase() faultWork {
	w := p.work("KvPrewrite", "of the only region", 0, false)
	w.mode, w.together = tikv.CommitAuto, true
	return w
}

func optimisticWorks() []faultWork {
	begun := func(e *faultTest) {
		e.begun()
		e.put()
	}
	twoPhases := faultProtocol{"two-phase", tikv.CommitTwoPhase, begun}
	async := faultProtocol{"asynchronous", tikv.CommitAsync, begun}
	works := append(twoPhases.commits(), async.commits()...)
	// The keys that come last conflict: the first are rolled back.
	for _, p := range []faultProtocol{twoPhases, async} {
		rollback := p.work("KvBatchRollback", "after a conflict", 0, true)
		rollback.ends = tikv.ErrWriteConflict
		rollback.begin = func(e *faultTest) {
			begun(e)
			commitAs(e, e.other, "old", faultKeys[2:]...)
		}
		// The second region takes its time.
		beat := p.work("KvTxnHeartBeat", "during a long prewrite", 0, true)
		beat.begin = func(e *faultTest) {
			begun(e)
			slow := e.cluster.Inject(playground.Fault{Method: "KvPrewrite", StartTS: uint64(e.subject), Key: z, Delay: 1800 * time.Millisecond, Times: 1})
			e.also = slow.Remove
		}
		if p.mode == tikv.CommitTwoPhase {
			beat.told = toldOfBeat
		}
		works = append(works, rollback, beat)
	}
	return append(works, faultProtocol{"one-phase", tikv.CommitAuto, begun}.onePhase())
}

// resolvingWorks meet what the dead have left.
func resolvingWorks() []faultWork {
	var works []faultWork
	for _, r := range []struct {
		what, value string
		leave       func(e *faultTest)
		rpcs        []string
	}{
		{"locks of a committed transaction", "new", func(e *faultTest) { e.leaveLocks(false) }, []string{"KvCheckTxnStatus", "KvResolveLock"}},
		{"locks of a dead transaction", "old", func(e *faultTest) { e.leaveLocks(true) }, []string{"KvCheckTxnStatus", "KvResolveLock"}},
		{"locks of an asynchronous commit", "new", (*faultTest).leaveAsync, []string{"KvCheckSecondaryLocks", "KvCheckTxnStatus", "KvResolveLock"}},
		{"pessimistic locks", "old", (*faultTest).leavePessimistic, []string{"KvCheckTxnStatus", "KVPessimisticRollback"}},
		{"shared locks", "old", func(e *faultTest) { e.leaveShared(false) }, []string{"KvCheckTxnStatus", "KVPessimisticRollback"}},
		{"shared locks of a committed transaction", "old", func(e *faultTest) { e.leaveShared(true) }, []string{"KvCheckTxnStatus", "KvResolveLock"}},
	} {
		for _, rpc := range r.rpcs {
			work := func(name string) faultWork {
				w := faultWork{protocol: "resolving", rpc: rpc, name: name + " over " + r.what, begin: r.leave, told: toldOfOthers}
				if strings.Contains(r.what, "shared") {
					w.more = ks("another")
				}
				if rpc == "KvCheckTxnStatus" {
					w.told = told(tikv.ErrRejected, map[playground.KeyFault]error{playground.TxnNotFound: nil})
					if r.what == "pessimistic locks" || r.what == "shared locks" { // which may point to what is the primary key no more
						w.told[playground.PrimaryMismatch] = nil
					}
				}
				return w
			}
			read := work("read")
			read.check = unchanged
			read.do = func(e *faultTest) error { return e.readVersions(r.value) }
			if rpc != "KVPessimisticRollback" && r.what != "pessimistic locks" && !strings.Contains(r.what, "shared") { // which readers pass
				works = append(works, read)
			}
			write := work("write")
			write.check = (*faultTest).committed
			write.begin = func(e *faultTest) {
				r.leave(e)
				e.tx = begin(e.t, e.client)
				e.put()
			}
			write.do = (*faultTest).commit
			lock := work("lock")
			lock.check = (*faultTest).committed
			lock.begin = func(e *faultTest) {
				r.leave(e)
				e.tx = begin(e.t, e.client, tikv.WithPessimistic())
			}
			lock.do = func(e *faultTest) error { return e.lockAll(r.value) }
			if w := work(""); w.more == nil { // of shared locks it is told as lock is
				works = append(works, write)
			}
			works = append(works, lock)
		}
	}
	return works
}

// readVersions waits until locks are gone.
func (e *faultTest) readVersions(want string) error {
	snap, err := e.client.Snapshot(e.ctx)
	if err != nil {
		return err
	}
	got, err := snap.GetVersions(e.ctx, faultKeys)
	var values [][]byte
	for _, v := range got {
		values = append(values, v.Value)
	}
	return e.same(values, want, err)
}

// leaveLocks lets a client die in the middle of a commit, before the decision or after.
func (e *faultTest) leaveLocks(dead bool) {
	e.perish(func(m *mortal) {
		tx := begin(e.t, m.Client)
		e.subject = tx.StartTS()
		e.must(putAll(tx, "new", faultKeys...))
		fault := playground.Fault{Method: "KvCommit", StartTS: uint64(tx.StartTS()), DropRequest: true}
		if !dead {
			fault.Skip = 1
		}
		injected := e.cluster.Inject(fault)
		defer injected.Remove()
		done := start(e.ctx, func(ctx context.Context) error { return tx.Commit(ctx) })
		synctest.Wait()
		m.die()
		if err := <-done; (err == nil) == dead {
			e.errorf("commit of who is to die: %v", err)
		}
	})
	e.left(dead)
}

// leaveAsync lets a client die that has committed asynchronously and left all locks.
func (e *faultTest) leaveAsync() {
	e.perish(func(m *mortal) {
		tx := begin(e.t, m.Client, tikv.WithCommitMode(tikv.CommitAsync))
		e.subject = tx.StartTS()
		e.must(putAll(tx, "new", faultKeys...))
		injected := e.cluster.Inject(playground.Fault{Method: "KvCommit", StartTS: uint64(tx.StartTS()), DropRequest: true})
		defer injected.Remove()
		e.must(tx.Commit(e.ctx))
		synctest.Wait()
		m.die()
	})
	e.left(true)
}

// leavePessimistic lets a client die that has locked all keys.
func (e *faultTest) leavePessimistic() {
	e.perish(func(m *mortal) {
		tx := begin(e.t, m.Client, tikv.WithPessimistic())
		e.subject = tx.StartTS()
		e.must(tx.Lock(e.ctx, faultKeys))
	})
	<-time.After(16 * time.Second)
	e.left(true)
}

// left checks that locks are left, and lets them expire.
func (e *faultTest) left(expire bool) {
	e.t.Helper()
	if len(e.cluster.Locks(nil, nil)) == 0 {
		e.errorf("no locks are left behind")
	}
	if expire {
		<-time.After(5 * time.Second)
	}
}

var errNotCommitted = errors.New("not committed")

// never is the check of what does not commit, whatever the call said.
func never(e *faultTest, _ error) { e.committed(errNotCommitted) }
