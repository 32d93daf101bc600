package tikv_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// pipelinedWorks are the RPCs of pipelined transactions. Three generations are flushed:
// {a, b, y}, the primary key alone at first, {a, b, z} and {y, z}.
func pipelinedWorks() []faultWork {
	begun := func(e *faultTest) {
		e.tx = begin(e.t, e.client, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(3, 1<<20))
	}
	commit := func(e *faultTest) error {
		if err := putAll(e.tx, "first", faultKeys...); err != nil {
			return err
		}
		if err := putAll(e.tx, "new", faultKeys...); err != nil {
			return err
		}
		return e.tx.Commit(e.ctx)
	}
	write := func(rpc, name string, skip int, behind bool) faultWork {
		return faultWork{
			rpc: rpc, name: name + ", pipelined", skip: skip, behind: behind, mode: tikv.CommitTwoPhase,
			begin: begun, do: commit, check: (*faultTest).committed,
		}
	}
	works := []faultWork{
		write("KvFlush", "of the primary", 0, false),
		write("KvFlush", "beside it", 1, false),
		write("KvFlush", "of another region", 2, false),
		write("KvFlush", "of the primary again", 3, false),
		write("KvFlush", "of what is left", 5, false),
		write("KvCommit", "of the primary", 0, false),
		write("KvResolveLock", "after the commit", 0, true),
		write("KvResolveLock", "after the commit, of another region", 1, true),
	}
	for _, rpc := range []string{"KvBatchRollback", "KvResolveLock"} {
		w := write(rpc, "after a conflict", 0, true)
		w.do = func(e *faultTest) error {
			commitAs(e, e.other, "old", faultKeys[2:]...)
			if err := commit(e); !errors.Is(err, tikv.ErrWriteConflict) {
				e.t.Errorf("no conflict: %v", err)
			}
			return nil
		}
		w.check = func(e *faultTest, _ error) { e.committed(tikv.ErrWriteConflict) }
		works = append(works, w)
	}
	beat := write("KvTxnHeartBeat", "of a long transaction", 0, true)
	beat.begin = func(e *faultTest) {
		begun(e)
		e.must(putAll(e.tx, "first", faultKeys...))
		<-time.After(5 * time.Second)
	}
	beat.do = func(e *faultTest) error {
		<-time.After(6 * time.Second)
		return commit(e)
	}
	return append(works, beat)
}

// Reads of what was flushed, under every fault.
func TestPipelinedReadFaults(t *testing.T) {
	cases := 0
	for _, rpc := range []string{"KvBufferBatchGet", "KvScanLock"} {
		for _, f := range faultKinds {
			if f.place == onPD {
				continue
			}
			for _, strict := range []bool{false, true} {
				cases++
				t.Run(rpc+"/"+f.name+map[bool]string{false: "/defaults", true: "/deadline"}[strict], func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { runFault(t, flushedRead(rpc), f, strict) })
				})
			}
		}
	}
	t.Logf("%d cases", cases)
}

// flushedRead reads a value, an empty value and a deletion, all flushed, the last two of
// which a second RPC tells from each other.
func flushedRead(rpc string) faultWork {
	read := [][]byte{a, []byte("b"), []byte("y"), z}
	return faultWork{
		rpc: rpc, name: "BatchGet of flushed keys",
		begin: func(e *faultTest) {
			e.tx = begin(e.t, e.client, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(3, 1<<20))
			e.must(e.tx.Put(a, b("mine")))
			e.must(e.tx.Put(b("b"), nil))
			e.must(e.tx.Delete(z))
			e.must(e.tx.Put(b("c"), nil)) // in the next generation
			e.must(e.tx.Put(b("d"), nil))
			e.must(e.tx.Put(b("e"), nil))
			e.must(e.tx.Put(b("f"), nil))
			synctest.Wait()
		},
		do: func(e *faultTest) error {
			got, err := e.tx.BatchGet(e.ctx, read)
			if err == nil && (string(got[0]) != "mine" || got[1] == nil || len(got[1]) > 0 || string(got[2]) != "old" || got[3] != nil) {
				e.t.Errorf("read %q", got)
			}
			e.must(e.tx.Rollback(e.t.Context()))
			return err
		},
		check: func(e *faultTest, _ error) { e.committed(errors.New("rolled back")) },
	}
}

// What stores are told of a transaction, or are not, changes nothing but what others have
// to ask.
func TestPipelinedBroadcastFaults(t *testing.T) {
	for name, f := range map[string]playground.Fault{
		"lost request": {DropRequest: true}, "lost answer": {DropAnswer: true}, "disconnect": {Disconnect: true},
		"duplicate": {Duplicate: true}, "delay": {Delay: 25 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			piping(t, func(p *plumbing) {
				f.Method = "BroadcastTxnStatus"
				told := p.cluster.Inject(f)
				tx := p.begin(3)
				p.put(tx, "new", 0, 8)
				<-time.After(25 * time.Second)
				must(p.T, tx.Commit(p.Context()))
				if got := p.all(p.snapshot(p.other)); len(got) != 8 {
					p.Errorf("%v", got)
				}
				p.over(tx)
				if told.Hits() < 12 { // two heartbeats, the commit, and the end of the locks
					p.Errorf("%d stores were told", told.Hits())
				}
				told.Remove()
			})
		})
	}
}

// Key errors of a flush end the transaction with what they say; those of the commit that
// do not say what became of it leave that open.
func TestPipelinedKeyErrors(t *testing.T) {
	for fault := playground.KeyLocked; fault <= playground.Abort; fault++ {
		for _, rpc := range []string{"KvFlush", "KvCommit"} {
			t.Run(rpc+"/"+fault.String(), func(t *testing.T) {
				piping(t, func(p *plumbing) { p.keyError(rpc, fault) })
			})
		}
	}
}

func (p *plumbing) keyError(rpc string, fault playground.KeyFault) {
	injected := p.cluster.Inject(playground.Fault{Method: rpc, KeyError: fault, Times: 1})
	tx := p.begin(3)
	p.put(tx, "new", 0, 3)
	err := tx.Commit(p.Context())
	wants := map[playground.KeyFault]error{
		playground.KeyLocked: nil, playground.WriteConflict: tikv.ErrWriteConflict, playground.AlreadyExist: tikv.ErrAlreadyExists,
		playground.TxnNotFound: tikv.ErrTxnAborted, playground.TxnLockNotFound: tikv.ErrTxnAborted, playground.AssertionFailed: tikv.ErrAssertion,
		playground.Deadlock: tikv.ErrRejected, playground.CommitTSExpired: tikv.ErrRejected, playground.PrimaryMismatch: tikv.ErrRejected,
		playground.Abort: tikv.ErrRejected,
	}
	want, settled := wants[fault], true
	if rpc == "KvCommit" {
		settled = fault == playground.TxnLockNotFound || fault == playground.CommitTSExpired
		if fault == playground.CommitTSExpired {
			want = nil
		}
	}
	switch {
	case injected.Hits() != 1:
		p.Errorf("%d hits", injected.Hits())
	case !settled && !errors.Is(err, tikv.ErrUndetermined), settled && !errors.Is(err, want), settled && errors.Is(err, tikv.ErrUndetermined):
		p.Errorf("%v", err)
	}
	n := 0
	if !settled {
		ts, rerr := p.other.ResolveOutcome(p.Context(), err)
		must(p.T, rerr)
		if ts != 0 {
			p.Errorf("committed at %d", ts)
		}
	} else if err == nil {
		n = 3
	}
	for range 2 { // the second finds no locks
		if got := p.all(p.snapshot(p.other)); len(got) != n {
			p.Errorf("%v after %v", got, err)
		}
		<-time.After(time.Second)
	}
	if p.locks() > 0 {
		p.Errorf("%d locks", p.locks())
	}
	if ts, ok := tx.CommitTS(); ok != (err == nil) {
		p.Errorf("%d after %v", ts, err)
	}
}
