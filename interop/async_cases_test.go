package interop

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
)

// commit commits and tells as what: "1pc", "async_commit" or "2pc", with " fallback" where
// another was tried first.
func (e *env) commit(tx *transaction.KVTxn) string {
	e.Helper()
	var info transaction.TxnInfo
	tx.SetCommitCallback(func(text string, _ error) { e.must(json.Unmarshal([]byte(text), &info)) })
	e.must(tx.Commit(e.ctx()))
	if info.AsyncCommitFallback || info.OnePCFallback {
		return info.TxnCommitMode + " fallback"
	}
	return info.TxnCommitMode
}

// quick begins a transaction that may be of async or one-phase commit.
func (e *env) quick(async, onePC bool) *transaction.KVTxn {
	e.Helper()
	tx := e.begin()
	tx.SetEnableAsyncCommit(async)
	tx.SetEnable1PC(onePC)
	return tx
}

func asyncArea() area {
	mode := func(async, onePC bool, want string, pairs ...string) func(*env) {
		return func(e *env) {
			e.split("", "m")
			tx := e.quick(async, onePC)
			e.set(tx, pairs...)
			e.same("mode", e.commit(tx), want)
			e.want(nil, pairs...)
			e.want(e.txn.GetSnapshot(tx.CommitTS()-1), strings.Split(pairs[0], "=")[0])
			e.unlocked()
			e.same("history", e.history(strings.Split(pairs[0], "=")[0]), "Put")
		}
	}
	above := func(async, onePC, follower bool) func(*env) {
		return func(e *env) {
			e.split("", "m")
			e.put("a=1", "z=1")
			tx := e.quick(async, onePC)
			e.set(tx, "a=2")
			if !onePC {
				e.set(tx, "z=2")
			}
			at := e.now()
			snap := e.txn.GetSnapshot(at)
			if follower {
				snap.SetReplicaRead(kv.ReplicaReadFollower)
			}
			e.want(snap, "a=1", "z=1")
			e.commit(tx)
			if tx.CommitTS() <= at {
				e.Fatalf("committed at %d, read at %d", tx.CommitTS(), at)
			}
			e.want(e.txn.GetSnapshot(at), "a=1", "z=1")
		}
	}
	return area{name: "async and one-phase commit", cases: []kase{
		{name: "one phase", run: mode(true, true, "1pc", "a=1", "b=1")},
		{name: "one phase, not async", run: mode(false, true, "1pc", "a=1", "b=1")},
		{name: "one phase of two regions", run: mode(false, true, "2pc fallback", "a=1", "z=1")},
		{name: "async", run: mode(true, false, "async_commit", "a=1", "b=1")},
		{name: "async of two regions", run: mode(true, false, "async_commit", "a=1", "z=1")},
		{name: "either, of two regions", run: mode(true, true, "async_commit fallback", "a=1", "z=1")},
		{name: "neither", run: mode(false, false, "2pc", "a=1", "z=1")},
		{name: "one phase takes one request and leaves no lock", alone: true, run: func(e *env) {
			before := []int{e.c.calls(e.T, "KvPrewrite"), e.c.calls(e.T, "KvCommit")}
			tx := e.quick(false, true)
			e.set(tx, "a=1", "b=2", "c=3")
			e.same("mode", e.commit(tx), "1pc")
			e.same("requests", []int{e.c.calls(e.T, "KvPrewrite"), e.c.calls(e.T, "KvCommit")}, []int{before[0] + 1, before[1]})
			e.same("locks", len(e.locks()), 0)
			if w := e.info("b").Writes[0]; w.StartTs != tx.StartTS() || w.CommitTs != tx.CommitTS() {
				e.Fatalf("%+v, started %d, committed %d", w, tx.StartTS(), tx.CommitTS())
			}
		}},
		{name: "async is committed when all is prewritten", run: func(e *env) {
			e.split("", "m")
			e.put("a=1", "z=1")
			tx := e.quick(true, false)
			e.set(tx, "a=2", "z=2")
			e.fault(map[string]any{"method": "KvCommit", "start_ts": tx.StartTS(), "drop_request": true})
			e.same("mode", e.commit(tx), "async_commit")
			locks := e.locks()
			e.same("locks", len(locks), 2)
			for _, l := range locks {
				if primary := e.bare(l.Key) == "a"; !l.UseAsyncCommit || l.MinCommitTS <= tx.StartTS() || e.bare(l.Primary) != "a" {
					e.Fatalf("%v %+v", primary, l)
				}
			}
			var secondaries []string
			store, at := e.at(e.wire("a"))
			resp, err := store.KvScanLock(e.ctx(), &kvrpcpb.ScanLockRequest{Context: at, StartKey: e.wire("a"), Limit: 1, MaxVersion: e.now()})
			if err != nil || len(resp.GetLocks()) != 1 {
				e.Fatal(resp, err)
			}
			for _, k := range resp.Locks[0].Secondaries {
				secondaries = append(secondaries, e.bare(k))
			}
			e.same("secondaries", secondaries, []string{"z"})
			// Who comes when the locks have expired finds that it is committed, though nobody
			// has said so.
			e.advance(time.Minute)
			e.now()
			e.want(e.txn.GetSnapshot(tx.CommitTS()), "a=2", "z=2")
			e.want(e.txn.GetSnapshot(tx.CommitTS()-1), "a=1", "z=1")
			e.unlocked()
		}},
		{name: "async commits above what was read", run: above(true, false, false)},
		{name: "one phase commits above what was read", run: above(false, true, false)},
		{name: "async commits above what a follower read", run: above(true, false, true)},
		{name: "one phase commits above what a follower read", run: above(false, true, true)},
		{name: "async falls back where it would be too late", alone: true, run: func(e *env) {
			tx := e.quick(true, false)
			e.set(tx, "a=1")
			e.post("jump-tso", map[string]any{"by": "1h"})
			e.want(nil, "a") // as of the new now, which commits must be above
			e.same("mode", e.commit(tx), "2pc fallback")
			e.want(nil, "a=1")
			e.unlocked()
		}},
		{name: "one phase falls back where it would be too late", alone: true, run: func(e *env) {
			tx := e.quick(false, true)
			e.set(tx, "a=1")
			e.post("jump-tso", map[string]any{"by": "1h"})
			e.want(nil, "a")
			e.same("mode", e.commit(tx), "2pc fallback")
			e.want(nil, "a=1")
		}},
		{name: "conflicts", run: func(e *env) {
			for i, tx := range []*transaction.KVTxn{e.quick(true, false), e.quick(false, true)} {
				key := fmt.Sprintf("a%d", i)
				e.set(tx, key+"=1", "other=1")
				winner := e.put(key + "=2")
				e.conflict(tx.Commit(e.ctx()), key, winner)
				e.unlocked()
				e.want(nil, key+"=2", "other")
			}
		}},
		{name: "insert what exists", run: func(e *env) {
			e.put("a=1")
			for _, tx := range []*transaction.KVTxn{e.quick(true, false), e.quick(false, true)} {
				e.insert(tx, "a", "2")
				e.set(tx, "b=2")
				e.exists(tx.Commit(e.ctx()), "a")
				e.unlocked()
			}
			e.same("scan", e.scan(e.snapshot()), "a=1")
		}},
		{name: "a lost answer", run: func(e *env) {
			for i, tx := range []*transaction.KVTxn{e.quick(true, false), e.quick(false, true)} {
				key := fmt.Sprintf("a%d", i)
				e.set(tx, key+"=1")
				lost := e.fault(map[string]any{"method": "KvPrewrite", "start_ts": tx.StartTS(), "times": 1, "disconnect": true})
				e.commit(tx)
				e.same("hits", lost.hits(), 1)
				e.want(e.txn.GetSnapshot(tx.CommitTS()), key+"=1")
				e.want(e.txn.GetSnapshot(tx.CommitTS()-1), key)
				e.unlocked()
				e.same("history", e.history(key), "Put")
			}
		}},
		{name: "a prewrite that comes twice", run: func(e *env) {
			for i, tx := range []*transaction.KVTxn{e.quick(true, false), e.quick(false, true)} {
				key := fmt.Sprintf("a%d", i)
				e.set(tx, key+"=1")
				e.fault(map[string]any{"method": "KvPrewrite", "start_ts": tx.StartTS(), "duplicate": true})
				e.commit(tx)
				e.want(e.txn.GetSnapshot(tx.CommitTS()), key+"=1")
				e.unlocked()
				e.same("history", e.history(key), "Put")
			}
		}},
		{name: "pessimistic", run: func(e *env) {
			e.split("", "m")
			for i, want := range []string{"async_commit", "1pc"} {
				key := fmt.Sprintf("a%d", i)
				tx := e.quick(i == 0, i == 1)
				tx.SetPessimistic(true)
				e.must(e.lock(tx, kv.LockNoWait, key))
				e.set(tx, key+"=1", "b=1")
				e.same("mode", e.commit(tx), want)
				e.want(nil, key+"=1", "b=1")
				e.unlocked()
			}
		}},
		{name: "locked and not written", run: func(e *env) {
			e.put("a=1")
			for i, want := range []string{"async_commit", "1pc"} {
				tx := e.quick(i == 0, i == 1)
				tx.SetPessimistic(true)
				e.must(e.lock(tx, kv.LockNoWait, "a"))
				e.set(tx, fmt.Sprintf("b%d=1", i))
				e.same("mode", e.commit(tx), want)
				e.unlocked()
			}
			e.same("history", e.history("a"), "Lock Lock Put")
		}},
		{name: "deletions", run: func(e *env) {
			e.put("a=1", "b=1")
			for i, key := range []string{"a", "b"} {
				tx := e.quick(i == 0, i == 1)
				e.del(tx, key)
				e.commit(tx)
				e.want(nil, key)
				e.unlocked()
				e.same("history", e.history(key), "Del Put")
			}
		}},
		{name: "values short and long", run: func(e *env) {
			for i, n := range []int{255, 256, 100_000} {
				for j, want := range []string{"async_commit", "1pc"} {
					key := fmt.Sprintf("%d-%d", i, j)
					tx := e.quick(j == 0, j == 1)
					e.set(tx, key+"="+strings.Repeat("v", n))
					e.same("mode", e.commit(tx), want)
					e.want(nil, key+"="+strings.Repeat("v", n))
				}
			}
		}},
		{name: "too many keys for async", run: func(e *env) {
			tx := e.quick(true, false)
			for i := range 300 { // the limit is 256
				e.set(tx, fmt.Sprintf("%03d=v", i))
			}
			e.same("mode", e.commit(tx), "2pc")
			e.want(nil, "000=v", "299=v")
		}},
		{name: "one phase, while the region splits", run: func(e *env) {
			e.split("")
			e.put("a=1", "z=1") // the client knows the region
			e.splitTxn("m")
			tx := e.quick(false, true)
			e.set(tx, "a=2", "z=2")
			e.same("mode", e.commit(tx), "2pc fallback")
			e.want(nil, "a=2", "z=2")
		}},
		{name: "causal, without asking PD for a timestamp", run: func(e *env) {
			for i := range 2 {
				tx := e.quick(i == 0, i == 1)
				tx.SetCausalConsistency(true)
				key := fmt.Sprintf("a%d", i)
				e.set(tx, key+"=1")
				e.commit(tx)
				if tx.CommitTS() <= tx.StartTS() {
					e.Fatal(tx.StartTS(), tx.CommitTS())
				}
				e.want(nil, key+"=1")
			}
		}},
		{name: "with a new leader, which does not know what was read", run: func(e *env) {
			for i := range 4 {
				r := e.home()
				tx := e.quick(i%2 == 0, i%2 == 1)
				e.set(tx, "a="+fmt.Sprint(i))
				at := e.now()
				e.txn.GetSnapshot(at).Get(e.ctx(), e.key("a"))
				for _, store := range r.Stores {
					if store != r.Leader {
						e.post("transfer-leader", map[string]any{"region": r.ID, "store": store})
						break
					}
				}
				e.commit(tx)
				if tx.CommitTS() <= at {
					e.Fatalf("committed at %d below a read at %d", tx.CommitTS(), at)
				}
				e.want(nil, "a="+fmt.Sprint(i))
				e.unlocked()
			}
		}},
		{name: "many at once, each sees the one before", run: func(e *env) {
			const n = 30
			var ends []<-chan error
			e.put("n=0")
			for i := range 4 {
				ends = append(ends, async(func() error {
					for done := 0; done < n; {
						tx, err := e.txn.Begin()
						if err != nil {
							return err
						}
						tx.SetEnableAsyncCommit(i%2 == 0)
						tx.SetEnable1PC(i%2 == 1)
						v, err := tx.Get(e.Context(), e.key("n"))
						if err != nil {
							return err
						}
						var count int
						fmt.Sscan(string(v), &count)
						if err := tx.Set(e.key("n"), fmt.Append(nil, count+1)); err != nil {
							return err
						}
						switch err = tx.Commit(e.Context()); {
						case err == nil:
							done++
						case !again(err):
							return err
						}
					}
					return nil
				}))
			}
			for _, end := range ends {
				e.must(<-end)
			}
			e.want(nil, fmt.Sprintf("n=%d", 4*n))
		}},
	}}
}

// pipe is a pipelined transaction.
func (e *env) pipe() *transaction.KVTxn {
	e.Helper()
	return e.begin(tikv.WithDefaultPipelinedTxn())
}

func (e *env) flush(tx *transaction.KVTxn) {
	e.Helper()
	_, err := tx.GetMemBuffer().Flush(true)
	e.must(err)
	e.must(tx.GetMemBuffer().FlushWait())
}

func pipelinedArea() area {
	return area{name: "pipelined", cases: []kase{
		{name: "flushes, reads them, commits", run: func(e *env) {
			e.split("", "p2")
			before := e.c.calls(e.T, "KvFlush")
			tx := e.pipe()
			e.set(tx, "p1=1", "p2=1")
			e.flush(tx)
			e.set(tx, "p3=1")
			e.flush(tx)
			e.want(tx, "p1=1", "p2=1", "p3=1", "absent")
			e.must(tx.Commit(e.ctx()))
			e.same("scan", e.scan(e.snapshot()), "p1=1 p2=1 p3=1")
			e.unlocked()
			if n := e.c.calls(e.T, "KvFlush"); n < before+3 || e.c.calls(e.T, "KvBufferBatchGet") == 0 {
				e.Fatalf("%d flushes", n-before)
			}
		}},
		{name: "nobody else sees what is flushed", run: func(e *env) {
			e.put("a=old")
			tx := e.pipe()
			e.set(tx, "a=new", "b=new")
			e.flush(tx)
			snap := e.txn.GetSnapshot(tx.StartTS() - 1)
			e.want(snap, "a=old", "b")
			for _, l := range e.locks() {
				if l.TxnID != tx.StartTS() || l.LockType == kvrpcpb.Op_PessimisticLock || l.UseAsyncCommit {
					e.Fatalf("%+v", l)
				}
			}
			e.must(tx.Commit(e.ctx()))
			e.want(snap, "a=old", "b")
			e.want(nil, "a=new", "b=new")
		}},
		{name: "a reader passes, and the commit is above it", run: func(e *env) {
			e.put("a=old")
			tx := e.pipe()
			e.set(tx, "a=new")
			e.flush(tx)
			at := e.now()
			e.want(e.txn.GetSnapshot(at), "a=old")
			e.must(tx.Commit(e.ctx()))
			if tx.CommitTS() <= at {
				e.Fatal(tx.CommitTS(), at)
			}
			e.want(e.txn.GetSnapshot(at), "a=old")
			e.want(nil, "a=new")
		}},
		{name: "a key in two flushes: the later wins", run: func(e *env) {
			tx := e.pipe()
			e.set(tx, "a=1", "b=1")
			e.flush(tx)
			e.set(tx, "a=2")
			e.flush(tx)
			e.want(tx, "a=2", "b=1")
			e.must(tx.Commit(e.ctx()))
			e.same("scan", e.scan(e.snapshot()), "a=2 b=1")
		}},
		{name: "deletes what it flushed", run: func(e *env) {
			e.put("b=old")
			tx := e.pipe()
			e.set(tx, "a=1", "b=1", "c=1")
			e.flush(tx)
			e.del(tx, "a", "b")
			e.flush(tx)
			e.want(tx, "a", "b", "c=1")
			e.must(tx.Commit(e.ctx()))
			e.same("scan", e.scan(e.snapshot()), "c=1")
		}},
		{name: "rolled back", run: func(e *env) {
			e.split("", "m")
			e.put("a=old")
			tx := e.pipe()
			e.set(tx, "a=new", "z=new")
			e.flush(tx)
			e.same("locks", len(e.locks()), 2)
			e.must(tx.Rollback())
			e.unlocked()
			e.same("scan", e.scan(e.snapshot()), "a=old")
			e.same("history", e.history("z"), "Rollback")
		}},
		{name: "a conflict at a flush", run: func(e *env) {
			tx := e.pipe()
			winner := e.put("a=won")
			e.set(tx, "a=lost")
			_, err := tx.GetMemBuffer().Flush(true)
			if err == nil {
				err = tx.GetMemBuffer().FlushWait()
			}
			e.conflict(err, "a", winner)
			e.must(tx.Rollback())
			e.want(nil, "a=won")
		}},
		{name: "insert what exists", run: func(e *env) {
			e.put("a=1")
			tx := e.pipe()
			e.insert(tx, "a", "2")
			_, err := tx.GetMemBuffer().Flush(true)
			if err == nil {
				err = tx.GetMemBuffer().FlushWait()
			}
			e.exists(err, "a")
			e.must(tx.Rollback())
			e.want(nil, "a=1")
		}},
		{name: "many keys in many regions and flushes", run: func(e *env) {
			e.split("200", "400")
			tx := e.pipe()
			var want []string
			for i := range 600 {
				pair := fmt.Sprintf("%03d=%d", i, i)
				want = append(want, pair)
				e.set(tx, pair)
				if i%150 == 149 {
					e.flush(tx)
				}
			}
			e.must(tx.Commit(e.ctx()))
			e.same("scan", e.scan(e.snapshot()), strings.Join(want, " "))
			e.unlocked()
		}},
		{name: "a region that splits between flushes", run: func(e *env) {
			tx := e.pipe()
			e.set(tx, "a=1", "z=1")
			e.flush(tx)
			e.splitTxn("", "m")
			e.set(tx, "b=1", "y=1")
			e.flush(tx)
			e.want(tx, "a=1", "y=1", "z=1")
			e.must(tx.Commit(e.ctx()))
			e.same("scan", e.scan(e.snapshot()), "a=1 b=1 y=1 z=1")
			e.unlocked()
		}},
		{name: "a flush that comes twice", run: func(e *env) {
			tx := e.pipe()
			e.fault(map[string]any{"method": "KvFlush", "start_ts": tx.StartTS(), "duplicate": true})
			e.set(tx, "a=1")
			e.flush(tx)
			e.set(tx, "a=2")
			e.flush(tx)
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=2")
			e.same("history", e.history("a"), "Put")
		}},
		{name: "a flush that comes late is refused", run: func(e *env) {
			tx := e.pipe()
			e.set(tx, "a=1")
			e.flush(tx)
			e.set(tx, "a=2")
			e.flush(tx)
			// The first again, as it was: its generation is not newer than the lock's.
			store, at := e.at(e.wire("a"))
			resp, err := store.KvFlush(e.ctx(), &kvrpcpb.FlushRequest{
				Context: at, StartTs: tx.StartTS(), MinCommitTs: tx.StartTS() + 1, Generation: 1, LockTtl: 20_000, PrimaryKey: e.wire("a"),
				Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: e.wire("a"), Value: []byte("1")}},
			})
			if err != nil || resp.RegionError != nil || len(resp.Errors) != 0 {
				e.Fatal(resp, err)
			}
			e.want(tx, "a=2")
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=2")
		}},
		{name: "the stores are told what became of it", run: func(e *env) {
			before := e.c.calls(e.T, "BroadcastTxnStatus")
			tx := e.pipe()
			e.set(tx, "a=1")
			e.flush(tx)
			e.must(tx.Commit(e.ctx()))
			e.eventually("a broadcast", func() bool { return e.c.calls(e.T, "BroadcastTxnStatus") > before })
			e.want(nil, "a=1")
		}},
	}}
}
