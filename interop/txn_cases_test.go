package interop

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
)

var tenant = []txnkv.ClientOpt{txnkv.WithAPIVersion(kvrpcpb.APIVersion_V2), txnkv.WithKeyspace("tenant")}

// txnAreas are optimistic transactions without and with a keyspace.
func txnAreas() []area {
	return []area{
		{name: "optimistic v1", cases: slices.Concat(optimisticCases(), diskCases())},
		{name: "optimistic keyspace", args: []string{"--keyspace", "tenant"}, txn: tenant, cases: optimisticCases()},
	}
}

// split lets the official client cut regions.
func (e *env) split(keys ...string) []uint64 {
	e.Helper()
	ids, err := e.txn.SplitRegions(e.ctx(), e.keys(keys...), false, nil)
	e.must(err)
	return ids
}

// insert sets a key that must be absent.
func (e *env) insert(tx *transaction.KVTxn, key, value string) {
	e.Helper()
	e.must(tx.GetMemBuffer().SetWithFlags(e.key(key), []byte(value), kv.SetPresumeKeyNotExists))
}

// exists checks that an error says that a key exists.
func (e *env) exists(err error, key string) {
	e.Helper()
	var exist *tikverr.ErrKeyExist
	if !errors.As(err, &exist) || !bytes.HasSuffix(exist.Key, e.key(key)) {
		e.Fatalf("%v, want that %s exists", err, key)
	}
}

// conflict checks that an error is a conflict about a key with a transaction.
func (e *env) conflict(err error, key string, with *transaction.KVTxn) {
	e.Helper()
	var c *tikverr.ErrWriteConflict
	if !errors.As(err, &c) || !bytes.HasSuffix(c.Key, e.key(key)) || c.ConflictTs != with.StartTS() || c.ConflictCommitTs != with.CommitTS() {
		e.Fatalf("%v, want a conflict about %s with %d, committed at %d", err, key, with.StartTS(), with.CommitTS())
	}
}

func optimisticCases() []kase {
	return []kase{
		{name: "commit, and its timestamps", run: func(e *env) {
			before := e.now()
			tx := e.put("a=1", "b=2")
			if after := e.now(); tx.StartTS() <= before || tx.CommitTS() <= tx.StartTS() || tx.CommitTS() >= after {
				e.Fatal(before, tx.StartTS(), tx.CommitTS(), after)
			}
			e.want(nil, "a=1", "b=2")
			e.want(e.txn.GetSnapshot(tx.CommitTS()), "a=1")
			e.want(e.txn.GetSnapshot(tx.CommitTS()-1), "a", "b")
		}},
		{name: "reads what it wrote", run: func(e *env) {
			e.put("a=old", "b=old", "c=old")
			tx := e.begin()
			e.set(tx, "a=new", "d=new")
			e.del(tx, "b")
			e.want(tx, "a=new", "b", "c=old", "d=new")
			e.same("scan", e.scan(tx), "a=new c=old d=new")
			e.same("backwards", e.list(tx.IterReverse(e.end(), e.key(""))), "d=new c=old a=new")
			got, err := tx.BatchGet(e.ctx(), e.keys("a", "b", "c", "d"))
			e.must(err)
			e.same("batch", len(got), 3)
			e.same("nobody else", e.scan(e.snapshot()), "a=old b=old c=old")
		}},
		{name: "does not see later commits", run: func(e *env) {
			e.put("a=1")
			tx := e.begin()
			e.put("a=2", "b=2")
			e.want(tx, "a=1", "b")
			e.same("scan", e.scan(tx), "a=1")
		}},
		{name: "a conflict names the winner", run: func(e *env) {
			e.put("a=0")
			one, two := e.begin(), e.begin()
			e.set(one, "a=1")
			e.set(two, "a=2")
			e.must(one.Commit(e.ctx()))
			e.conflict(two.Commit(e.ctx()), "a", one)
			e.want(nil, "a=1")
			e.unlocked()
		}},
		{name: "no conflict between different keys", run: func(e *env) {
			one, two := e.begin(), e.begin()
			e.set(one, "a=1")
			e.set(two, "b=2")
			e.must(one.Commit(e.ctx()))
			e.must(two.Commit(e.ctx()))
			e.same("both", e.scan(e.snapshot()), "a=1 b=2")
		}},
		{name: "a deletion conflicts too", run: func(e *env) {
			e.put("a=0")
			one, two := e.begin(), e.begin()
			e.del(one, "a")
			e.set(two, "a=2")
			e.must(one.Commit(e.ctx()))
			e.conflict(two.Commit(e.ctx()), "a", one)
			e.want(nil, "a")
		}},
		{name: "a conflict rolls back all keys", run: func(e *env) {
			tx := e.begin()
			e.set(tx, "a=lost", "b=lost", "c=lost")
			winner := e.put("b=won")
			e.conflict(tx.Commit(e.ctx()), "b", winner)
			cleaned(tx)
			e.same("locks", len(e.locks()), 0)
			e.same("left", e.scan(e.snapshot()), "b=won")
			e.same("history", e.history("b"), "Put Rollback")
		}},
		{name: "delete leaves a record", run: func(e *env) {
			put := e.put("a=1")
			tx := e.begin()
			e.del(tx, "a")
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a")
			e.want(e.txn.GetSnapshot(put.CommitTS()), "a=1")
			e.same("history", e.history("a"), "Del Put")
		}},
		{name: "rollback leaves nothing", run: func(e *env) {
			tx := e.begin()
			e.set(tx, "a=1")
			e.must(tx.Rollback())
			e.want(nil, "a")
			e.same("history", e.history("a"), "")
			if err := tx.Commit(e.ctx()); !errors.Is(err, tikverr.ErrInvalidTxn) {
				e.Fatal(err)
			}
		}},
		{name: "insert what exists", run: func(e *env) {
			e.put("a=1")
			tx := e.begin()
			e.insert(tx, "a", "2")
			e.set(tx, "b=2")
			e.exists(tx.Commit(e.ctx()), "a")
			e.unlocked()
			e.same("left", e.scan(e.snapshot()), "a=1")
		}},
		{name: "insert what is absent or deleted", run: func(e *env) {
			e.put("b=1")
			tx := e.begin()
			e.del(tx, "b")
			e.must(tx.Commit(e.ctx()))
			tx = e.begin()
			e.insert(tx, "a", "new")
			e.insert(tx, "b", "new")
			e.must(tx.Commit(e.ctx()))
			e.same("scan", e.scan(e.snapshot()), "a=new b=new")
		}},
		{name: "insert and delete again: still checked", run: func(e *env) {
			e.put("a=1")
			for _, key := range []string{"a", "absent"} {
				tx := e.begin()
				e.insert(tx, key, "2")
				e.must(tx.GetMemBuffer().Delete(e.key(key)))
				e.set(tx, "other=1")
				err := tx.Commit(e.ctx())
				if key == "absent" {
					e.must(err)
				} else {
					e.exists(err, key)
				}
			}
			e.same("history", e.history("absent"), "")
			e.same("left", e.scan(e.snapshot()), "a=1 other=1")
		}},
		{name: "a locked key conflicts, and leaves a lock's record", run: func(e *env) {
			e.put("a=1")
			tx := e.begin()
			e.must(tx.LockKeys(e.ctx(), kv.NewLockCtx(tx.StartTS(), kv.LockAlwaysWait, time.Now()), e.key("a")))
			e.set(tx, "b=1")
			e.must(tx.Commit(e.ctx()))
			e.same("history", e.history("a"), "Lock Put")
			e.want(nil, "a=1")
			tx = e.begin()
			e.must(tx.LockKeys(e.ctx(), kv.NewLockCtx(tx.StartTS(), kv.LockAlwaysWait, time.Now()), e.key("a")))
			e.set(tx, "b=2")
			winner := e.put("a=2")
			e.conflict(tx.Commit(e.ctx()), "a", winner)
		}},
		{name: "conflicts with who only locked", run: func(e *env) {
			e.put("a=1")
			old := e.begin()
			e.set(old, "a=2")
			tx := e.begin()
			e.must(tx.LockKeys(e.ctx(), kv.NewLockCtx(tx.StartTS(), kv.LockAlwaysWait, time.Now()), e.key("a")))
			e.must(tx.Commit(e.ctx()))
			e.conflict(old.Commit(e.ctx()), "a", tx)
		}},
		{name: "many keys in many regions", run: func(e *env) {
			e.split("0200", "0400", "0700")
			tx := e.begin()
			const n = 1000
			for i := range n {
				e.set(tx, fmt.Sprintf("%04d=%d", i, i))
			}
			e.must(tx.Commit(e.ctx()))
			var want []string
			for i := range n {
				want = append(want, fmt.Sprintf("%04d=%d", i, i))
			}
			e.same("scan", e.scan(e.snapshot()), strings.Join(want, " "))
			slices.Reverse(want)
			e.same("backwards", e.list(e.snapshot().IterReverse(e.end(), e.key(""))), strings.Join(want, " "))
		}},
		{name: "values short and long", run: func(e *env) {
			sizes := []int{1, 255, 256, 4096, 1 << 20} // TiKV keeps up to 255 bytes in the lock
			tx := e.begin()
			for _, n := range sizes {
				e.must(tx.Set(e.key(fmt.Sprint(n)), bytes.Repeat([]byte{'v'}, n)))
			}
			e.must(tx.Commit(e.ctx()))
			for _, n := range sizes {
				if v, err := e.snapshot().Get(e.ctx(), e.key(fmt.Sprint(n))); err != nil || len(v) != n {
					e.Fatal(n, len(v), err)
				}
			}
		}},
		{name: "assertions", run: func(e *env) {
			e.put("there=1")
			for _, x := range []struct {
				key    string
				assert kv.FlagsOp
				level  kvrpcpb.AssertionLevel
				fails  bool
			}{
				{"there", kv.SetAssertExist, kvrpcpb.AssertionLevel_Strict, false},
				{"there", kv.SetAssertNotExist, kvrpcpb.AssertionLevel_Strict, true},
				{"absent1", kv.SetAssertExist, kvrpcpb.AssertionLevel_Strict, true},
				{"absent2", kv.SetAssertNotExist, kvrpcpb.AssertionLevel_Strict, false},
				{"absent3", kv.SetAssertExist, kvrpcpb.AssertionLevel_Off, false},
				// Fast checks where the newest record is read anyhow, as it is here for conflicts.
				{"absent4", kv.SetAssertExist, kvrpcpb.AssertionLevel_Fast, true},
			} {
				tx := e.begin()
				tx.SetAssertionLevel(x.level)
				e.set(tx, x.key+"=2")
				tx.GetMemBuffer().UpdateFlags(e.key(x.key), x.assert)
				err := tx.Commit(e.ctx())
				var failed *tikverr.ErrAssertionFailed
				if errors.As(err, &failed) != x.fails || !x.fails && err != nil {
					e.Fatalf("%+v: %v", x, err)
				}
				if x.fails && (failed.StartTs != tx.StartTS() || !bytes.HasSuffix(failed.Key, e.key(x.key))) {
					e.Fatalf("%+v: %+v", x, failed)
				}
			}
		}},
		{name: "a commit timestamp that is refused", run: func(e *env) {
			tx := e.begin()
			e.set(tx, "a=1")
			var asked uint64
			tx.SetCommitTSUpperBoundCheck(func(ts uint64) bool { asked = ts; return false })
			if err := tx.Commit(e.ctx()); err == nil || asked <= tx.StartTS() {
				e.Fatal(err, asked, tx.StartTS())
			}
			cleaned(tx)
			e.same("locks", len(e.locks()), 0)
			e.want(nil, "a")
			e.same("history", e.history("a"), "Rollback")
		}},
		{name: "meets a lock and does not resolve it", run: func(e *env) {
			holder := e.begin()
			holder.SetPessimistic(true)
			e.must(holder.LockKeys(e.ctx(), kv.NewLockCtx(e.now(), kv.LockNoWait, time.Now()), e.key("a")))
			tx := e.begin()
			tx.SetPrewriteEncounterLockPolicy(transaction.NoResolvePolicy)
			e.set(tx, "a=1")
			var conflict *tikverr.ErrWriteConflict
			if err := tx.Commit(e.ctx()); !errors.As(err, &conflict) || conflict.ConflictTs != holder.StartTS() {
				e.Fatal(err)
			}
		}},
		{name: "waits for a live lock", run: func(e *env) {
			_, finish := e.prewritten("a=1")
			two := e.begin()
			e.set(two, "a=2")
			looks := e.c.calls(e.T, "KvCheckTxnStatus")
			other := async(func() error { return two.Commit(e.Context()) })
			// Then the first look was answered, and has pushed the commit behind the start.
			e.eventually("a second look at the lock", func() bool { return e.c.calls(e.T, "KvCheckTxnStatus") > looks+1 })
			e.must(finish())
			// Its start was before the commit that it waited for.
			if err := <-other; !tikverr.IsErrWriteConflict(err) {
				e.Fatal(err)
			}
			e.want(nil, "a=1")
		}},
		{name: "a read pushes a commit ahead", run: func(e *env) {
			e.put("a=0")
			tx, finish := e.prewritten("a=1", "b=1")
			at := e.now()
			e.want(e.txn.GetSnapshot(at), "a=0", "b")
			e.must(finish())
			if tx.CommitTS() <= at {
				e.Fatalf("read at %d saw nothing, committed at %d", at, tx.CommitTS())
			}
			e.want(e.txn.GetSnapshot(at), "a=0")
			e.want(nil, "a=1", "b=1")
		}},
		{name: "a lost answer to the primary's commit", run: func(e *env) {
			tx := e.begin()
			e.set(tx, "a=1")
			lost := e.fault(map[string]any{"method": "KvCommit", "start_ts": tx.StartTS(), "drop_answer": true, "times": 1, "disconnect": true})
			e.must(tx.Commit(e.ctx()))
			e.same("hits", lost.hits(), 1)
			e.want(e.txn.GetSnapshot(tx.CommitTS()), "a=1")
			e.same("history", e.history("a"), "Put")
		}},
		{name: "a lost answer to prewrite", run: func(e *env) {
			tx := e.begin()
			e.set(tx, "a=1", "b=1")
			lost := e.fault(map[string]any{"method": "KvPrewrite", "start_ts": tx.StartTS(), "times": 1, "disconnect": true})
			e.must(tx.Commit(e.ctx()))
			e.same("hits", lost.hits(), 1)
			e.same("scan", e.scan(e.snapshot()), "a=1 b=1")
		}},
		{name: "prewrite and commit that come twice", run: func(e *env) {
			tx := e.begin()
			e.set(tx, "a=1")
			prewrite := e.fault(map[string]any{"method": "KvPrewrite", "start_ts": tx.StartTS(), "duplicate": true, "times": 1})
			commit := e.fault(map[string]any{"method": "KvCommit", "start_ts": tx.StartTS(), "duplicate": true, "times": 1})
			e.must(tx.Commit(e.ctx()))
			e.same("hits", []int{prewrite.hits(), commit.hits()}, []int{1, 1})
			e.same("history", e.history("a"), "Put")
			e.want(nil, "a=1")
		}},
		{name: "from an old timestamp", run: func(e *env) {
			at, next := e.now(), e.now()
			e.put("a=1")
			tx := e.begin(tikv.WithStartTS(at))
			e.want(tx, "a")
			e.set(tx, "b=1")
			e.must(tx.Commit(e.ctx()))
			late := e.begin(tikv.WithStartTS(next))
			e.set(late, "a=2")
			if err := late.Commit(e.ctx()); !tikverr.IsErrWriteConflict(err) {
				e.Fatal(err)
			}
		}},
		{name: "who reads nothing and writes nothing", run: func(e *env) {
			before := e.c.calls(e.T, "KvPrewrite")
			e.must(e.begin().Commit(e.ctx()))
			e.same("prewrites", e.c.calls(e.T, "KvPrewrite"), before)
		}},
		{name: "the life of a large transaction's lock", run: func(e *env) {
			for mib, least := range map[int]uint64{0: 3000, 4: 12_000} { // 6 s for the root of each MiB
				tx := e.begin()
				e.set(tx, fmt.Sprintf("k%d=v", mib))
				for i := range mib * 4 {
					e.must(tx.Set(e.key(fmt.Sprintf("k%d-%d", mib, i)), bytes.Repeat([]byte{'v'}, 1<<18)))
				}
				committer, err := transaction.TxnProbe{KVTxn: tx}.NewCommitter(1)
				e.must(err)
				e.must(committer.PrewriteAllMutations(e.ctx()))
				committer.CloseTTLManager()
				for _, l := range e.locks() {
					if l.TTL < least || l.TxnSize == 0 {
						e.Fatalf("%d MiB: %+v", mib, l)
					}
				}
				e.must(committer.CleanupMutations(e.ctx()))
			}
		}},
	}
}

// diskCases fill disks, which only V1's area has for itself.
func diskCases() []kase {
	disk := func(e *env, state string) {
		for store := range 3 {
			e.post("set-store", map[string]any{"store": store + 1, "disk": state})
		}
	}
	// refused commits what full disks do not take: once they are well, or never, since the
	// official client gives up at some time.
	refused := func(e *env, tx *transaction.KVTxn) {
		asked := e.c.calls(e.T, "KvPrewrite")
		done := async(func() error { return tx.Commit(e.Context()) })
		e.eventually("it asks again", func() bool { return e.c.calls(e.T, "KvPrewrite") > asked+1 || len(done) > 0 })
		if len(done) > 0 {
			if err := <-done; err == nil {
				e.Fatal("committed on a full disk")
			}
			return
		}
		disk(e, "ok")
		if <-done == nil {
			e.want(nil, "a=2")
		}
	}
	return []kase{
		{name: "disks almost full", alone: true, run: func(e *env) {
			disk(e, "almost full")
			tx := e.begin()
			tx.SetDiskFullOpt(kvrpcpb.DiskFullOpt_AllowedOnAlmostFull)
			e.set(tx, "a=1")
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=1")
			full := e.begin()
			e.set(full, "a=2")
			refused(e, full)
		}},
		{name: "disks already full", alone: true, run: func(e *env) {
			e.put("a=1")
			disk(e, "already full")
			e.want(nil, "a=1")
			tx := e.begin()
			tx.SetDiskFullOpt(kvrpcpb.DiskFullOpt_AllowedOnAlmostFull)
			e.set(tx, "a=2")
			refused(e, tx)
		}},
	}
}
