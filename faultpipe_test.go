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
		e.begun(tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(3, 1<<20))
	}
	commit := func(e *faultTest) error {
		if err := putAll(e.tx, "first", faultKeys...); err != nil {
			return err
		}
		if err := putAll(e.tx, "new", faultKeys...); err != nil {
			return err
		}
		return e.commit()
	}
	work := func(rpc, name string, skip int, behind bool) faultWork {
		w := faultProtocol{"pipelined", tikv.CommitTwoPhase, begun}.work(rpc, name, skip, behind)
		w.do = commit
		return w
	}
	works := []faultWork{
		work("KvFlush", "of the primary", 0, false),
		work("KvFlush", "beside it", 1, false),
		work("KvFlush", "of another region", 2, false),
		work("KvFlush", "of the primary again", 3, false),
		work("KvFlush", "of what is left", 5, false),
		work("KvCommit", "of the primary", 0, false),
		work("KvResolveLock", "after the commit", 0, true),
		work("KvResolveLock", "after the commit, of another region", 1, true),
	}
	for _, rpc := range []string{"KvBatchRollback", "KvResolveLock"} {
		w := work(rpc, "after a conflict", 0, true)
		w.ends = tikv.ErrWriteConflict
		w.do = func(e *faultTest) error {
			commitAs(e, e.other, "old", faultKeys[2:]...)
			return commit(e)
		}
		works = append(works, w)
	}
	beat := work("KvTxnHeartBeat", "of a long transaction", 0, true)
	beat.told = toldOfBeat
	beat.begin = func(e *faultTest) {
		begun(e)
		e.must(putAll(e.tx, "first", faultKeys...))
		<-time.After(5 * time.Second)
	}
	beat.do = func(e *faultTest) error {
		<-time.After(6 * time.Second)
		return commit(e)
	}
	return append(works, beat, flushedRead("KvBufferBatchGet"), flushedRead("KvScanLock"))
}

// flushedRead reads a value, an empty value and a deletion, all flushed, the last two of
// which a second RPC tells from each other.
func flushedRead(rpc string) faultWork {
	return faultWork{
		protocol: "pipelined", rpc: rpc, name: "of flushed keys", mode: tikv.CommitTwoPhase,
		begin: func(e *faultTest) {
			e.begun(tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(3, 1<<20))
			if rpc == "KvScanLock" {
				e.subject = 0 // it does not say whose locks it is for
			}
			e.must(errors.Join(e.tx.Put(a, b("mine")), e.tx.Put(faultKeys[1], nil), e.tx.Delete(z)))
			e.must(putAll(e.tx, "more", ks("a1", "a2", "a3", "a4")...)) // makes them be flushed
			synctest.Wait()
		},
		do: func(e *faultTest) error {
			got, err := e.tx.BatchGet(e.ctx, faultKeys)
			if err == nil && (string(got[0]) != "mine" || got[1] == nil || len(got[1]) > 0 || string(got[2]) != "old" || got[3] != nil) {
				e.errorf("read %q", got)
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
