package interop

import (
	"fmt"
	"strings"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
)

// closing is a flashback of the case's region to a version; its start timestamp closed it.
type closing struct {
	*env
	startTS, version uint64
}

func (e *env) closeRegion(version uint64) *closing {
	e.Helper()
	c := &closing{e, e.now(), version}
	store, at := e.at(e.wire("a"))
	p, err := store.KvPrepareFlashbackToVersion(e.ctx(), &kvrpcpb.PrepareFlashbackToVersionRequest{
		Context: at, StartKey: e.wire(""), EndKey: append(e.space(), e.end()...), StartTs: c.startTS, Version: version,
	})
	if err != nil || p.RegionError != nil || p.Error != "" {
		e.Fatal(p, err)
	}
	return c
}

func (c *closing) open() uint64 {
	c.Helper()
	store, at := c.at(c.wire("a"))
	commitTS := c.now()
	p, err := store.KvFlashbackToVersion(c.ctx(), &kvrpcpb.FlashbackToVersionRequest{
		Context: at, StartKey: c.wire(""), EndKey: append(c.space(), c.end()...), StartTs: c.startTS, CommitTs: commitTS, Version: c.version,
	})
	if err != nil || p.RegionError != nil || p.Error != "" {
		c.Fatal(p, err)
	}
	return commitTS
}

// refuses looks for the official client's words for a region in flashback.
func (c *closing) refuses(err error) {
	c.Helper()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("is in flashback progress, FlashbackStartTS is %d", c.startTS)) {
		c.Fatal(err)
	}
}

// corner makes the case's keys a region of their own, on both sides.
func (e *env) corner() region {
	e.Helper()
	e.post("split", map[string]any{"mode": "txn", "key": e.end()})
	return e.home()
}

func flashbackArea() area {
	return area{name: "flashback", cases: []kase{
		{name: "reads and writes are refused at once, their neighbours not", run: func(e *env) {
			e.corner()
			e.splitTxn("m")
			version := e.put("a=1", "z=1").CommitTS()
			store, at := e.at(e.wire("a"))
			start := e.now()
			p, err := store.KvPrepareFlashbackToVersion(e.ctx(), &kvrpcpb.PrepareFlashbackToVersionRequest{
				Context: at, StartKey: e.wire(""), EndKey: e.wire("m"), StartTs: start, Version: version,
			})
			if err != nil || p.RegionError != nil || p.Error != "" {
				e.Fatal(p, err)
			}
			c := &closing{e, start, version}
			_, err = e.snapshot().Get(e.ctx(), e.key("a"))
			c.refuses(err)
			_, err = e.snapshot().Iter(e.key("a"), e.key("b"))
			c.refuses(err)
			tx := e.begin()
			e.set(tx, "a=2")
			c.refuses(tx.Commit(e.ctx()))
			locking := e.begin()
			locking.SetPessimistic(true)
			_, err = e.lockCtx(locking, kv.LockNoWait, func(*kv.LockCtx) {}, "a")
			c.refuses(err)
			e.put("z=2")
			e.want(nil, "z=2")
			f, err := store.KvFlashbackToVersion(e.ctx(), &kvrpcpb.FlashbackToVersionRequest{
				Context: at, StartKey: e.wire(""), EndKey: e.wire("m"), StartTs: start, CommitTs: e.now(), Version: version,
			})
			if err != nil || f.RegionError != nil || f.Error != "" {
				e.Fatal(f, err)
			}
			e.want(nil, "a=1", "z=2")
		}},
		{name: "older reads go on", run: func(e *env) {
			e.corner()
			old := e.put("a=1").CommitTS()
			e.put("a=2")
			before := e.now()
			c := e.closeRegion(old)
			e.want(e.txn.GetSnapshot(before), "a=2")
			e.want(e.txn.GetSnapshot(old), "a=1")
			c.open()
		}},
		{name: "afterwards all is as it was, and history is kept", run: func(e *env) {
			e.corner()
			version := e.put("a=1", "b=1").CommitTS()
			tx := e.begin()
			e.set(tx, "a=2", "c=2")
			e.del(tx, "b")
			e.must(tx.Commit(e.ctx()))
			c := e.closeRegion(version)
			at := c.open()
			e.same("before", e.scan(e.txn.GetSnapshot(at-1)), "a=2 c=2")
			e.same("at", e.scan(e.txn.GetSnapshot(at)), "a=1 b=1")
			e.same("history", e.history("c"), "Del Put")
			e.put("a=3")
			e.same("then", e.scan(e.snapshot()), "a=3 b=1")
		}},
		{name: "who began before it conflicts with it", run: func(e *env) {
			e.corner()
			version := e.put("a=1").CommitTS()
			e.put("a=2")
			tx := e.begin()
			e.want(tx, "a=2")
			e.set(tx, "a=3")
			e.closeRegion(version).open()
			if err := tx.Commit(e.ctx()); !tikverr.IsErrWriteConflict(err) {
				e.Fatal(err)
			}
			e.want(nil, "a=1")
		}},
		{name: "locks are gone, their owner finds out", run: func(e *env) {
			e.corner()
			version := e.put("a=1").CommitTS()
			tx, finish := e.prewritten("a=2")
			e.closeRegion(version).open()
			e.same("locks", len(e.locks()), 0)
			if err := finish(); err == nil {
				e.Fatalf("%d is committed", tx.StartTS())
			}
			e.want(nil, "a=1")
		}},
		{name: "a change feed tells what it wrote", run: func(e *env) {
			e.corner()
			version := e.put("a=1", "b=1").CommitTS()
			e.put("a=2", "b=2")
			f := e.changes()
			c := e.closeRegion(version)
			f.tells(nil, fmt.Sprintf("PREWRITE PUT a=1 was 2 %d", c.startTS))
			at := c.open()
			f.tells(nil, fmt.Sprintf("COMMITTED PUT b=1 was 2 %d %d", c.startTS, at), fmt.Sprintf("COMMIT PUT a=1 %d %d", c.startTS, at))
			f.await(at)
		}},
	}}
}

// Ops of shared locks, which the official client's kvproto has no names of.
const (
	opSharedLock            = kvrpcpb.Op(7)
	opSharedPessimisticLock = kvrpcpb.Op(8)
)

// share locks a key of the case in share mode, for a primary of the case.
func (e *env) share(start uint64, primary, key string) {
	e.Helper()
	store, at := e.at(e.wire(key))
	p, err := store.KvPessimisticLock(e.ctx(), &kvrpcpb.PessimisticLockRequest{
		Context: at, PrimaryLock: e.wire(primary), StartVersion: start, ForUpdateTs: start, LockTtl: 20_000, WaitTimeout: kv.LockNoWait,
		Mutations: []*kvrpcpb.Mutation{{Op: opSharedPessimisticLock, Key: e.wire(key)}},
	})
	if err != nil || p.RegionError != nil || len(p.Errors) > 0 {
		e.Fatal(p, err)
	}
}

func (e *env) unshare(start uint64, key string) {
	e.Helper()
	store, at := e.at(e.wire(key))
	p, err := store.KVPessimisticRollback(e.ctx(), &kvrpcpb.PessimisticRollbackRequest{
		Context: at, StartVersion: start, ForUpdateTs: start, Keys: [][]byte{e.wire(key)},
	})
	if err != nil || p.RegionError != nil || len(p.Errors) > 0 {
		e.Fatal(p, err)
	}
}

func sharedArea() area {
	return area{name: "shared locks", cases: []kase{
		{name: "reads do not see them", run: func(e *env) {
			e.put("a=1")
			one, two := e.now(), e.now()
			e.share(one, "p", "a")
			e.share(two, "p", "a")
			before := e.c.calls(e.T, "KvCheckTxnStatus")
			e.want(nil, "a=1")
			e.same("scan", e.scan(e.snapshot()), "a=1")
			e.same("looks at transactions", e.c.calls(e.T, "KvCheckTxnStatus"), before)
			e.unshare(one, "a")
			e.unshare(two, "a")
			e.put("a=2")
			e.want(nil, "a=2")
		}},
		{name: "prewritten, reads do not see them either", run: func(e *env) {
			e.put("a=1")
			start := e.now()
			e.share(start, "p", "a")
			store, at := e.at(e.wire("a"))
			p, err := store.KvPrewrite(e.ctx(), &kvrpcpb.PrewriteRequest{
				Context: at, PrimaryLock: e.wire("p"), StartVersion: start, ForUpdateTs: start, LockTtl: 20_000,
				Mutations:          []*kvrpcpb.Mutation{{Op: opSharedLock, Key: e.wire("a")}},
				PessimisticActions: []kvrpcpb.PrewriteRequest_PessimisticAction{kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK},
			})
			if err != nil || p.RegionError != nil || len(p.Errors) > 0 {
				e.Fatal(p, err)
			}
			e.want(nil, "a=1")
			e.same("scan", e.scan(e.snapshot()), "a=1")
			commit := e.now()
			c, err := store.KvCommit(e.ctx(), &kvrpcpb.CommitRequest{Context: at, StartVersion: start, CommitVersion: commit, Keys: [][]byte{e.wire("a")}})
			if err != nil || c.RegionError != nil || c.Error != nil {
				e.Fatal(c, err)
			}
			e.want(nil, "a=1")
			e.same("history", e.history("a"), "Lock Put")
			e.put("a=2")
		}},
		{name: "a pessimistic lock without waiting is refused, then had", run: func(e *env) {
			e.put("a=1")
			start := e.now()
			e.share(start, "p", "a")
			tx := e.begin()
			tx.SetPessimistic(true)
			store, at := e.at(e.wire("a"))
			q := &kvrpcpb.PessimisticLockRequest{
				Context: at, PrimaryLock: e.wire("a"), StartVersion: tx.StartTS(), ForUpdateTs: tx.StartTS(), LockTtl: 3000, WaitTimeout: kv.LockNoWait,
				Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: e.wire("a")}},
			}
			p, err := store.KvPessimisticLock(e.ctx(), q)
			if err != nil || p.RegionError != nil || len(p.Errors) != 1 || p.Errors[0].Locked.GetLockType() != opSharedLock {
				e.Fatal(p, err)
			}
			e.unshare(start, "a")
			_, err = e.lockCtx(tx, kv.LockNoWait, func(*kv.LockCtx) {}, "a")
			e.must(err)
			e.set(tx, "a=2")
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=2")
		}},
	}}
}

// busyArea is what reads do about stores that are busy, and about time that is over.
func busyArea() area {
	// The client counts what a store says down as time goes by: busy is for longer than a test.
	busy := func(e *env, store uint64, wait string) {
		e.Helper()
		e.post("set-store", map[string]any{"store": store, "read_wait": wait})
	}
	read := func(e *env, threshold time.Duration) (store uint64, how string, asked int) {
		e.Helper()
		snap := e.c.officialTxn(e.T).GetSnapshot(e.now())
		snap.SetLoadBasedReplicaReadThreshold(threshold)
		seen := watch(snap)
		e.want(snap, "a=1")
		store, how = e.last(seen)
		return store, how, len(seen.all)
	}
	return area{name: "busy stores and deadlines", cases: []kase{
		{name: "a busy leader: a follower answers", alone: true, run: func(e *env) {
			e.put("a=1")
			r := e.home()
			busy(e, r.Leader, "1h")
			store, how, asked := read(e, 50*time.Millisecond)
			if store == r.Leader || how != "replica" || asked != 2 {
				e.Fatal(store, how, asked)
			}
		}},
		{name: "not busier than the threshold: the leader", alone: true, run: func(e *env) {
			e.put("a=1")
			r := e.home()
			busy(e, r.Leader, "50ms")
			store, how, asked := read(e, 50*time.Millisecond)
			if store != r.Leader || how != "leader" || asked != 1 {
				e.Fatal(store, how, asked)
			}
		}},
		{name: "all busy: the leader, without a threshold", alone: true, run: func(e *env) {
			e.put("a=1")
			r := e.home()
			for _, s := range r.Stores {
				busy(e, s, "1h")
			}
			store, how, asked := read(e, 50*time.Millisecond)
			if store != r.Leader || how != "leader" || asked != 4 {
				e.Fatal(store, how, asked)
			}
		}},
		{name: "no threshold: the leader", alone: true, run: func(e *env) {
			e.put("a=1")
			r := e.home()
			busy(e, r.Leader, "1h")
			store, how, asked := read(e, 0)
			if store != r.Leader || how != "leader" || asked != 1 {
				e.Fatal(store, how, asked)
			}
		}},
		{name: "batch get and scan of a busy leader", alone: true, run: func(e *env) {
			e.put("a=1", "b=2")
			r := e.home()
			busy(e, r.Leader, "1h")
			snap := e.snapshot()
			snap.SetLoadBasedReplicaReadThreshold(50 * time.Millisecond)
			seen := watch(snap)
			got, err := snap.BatchGet(e.ctx(), e.keys("a", "b"))
			e.must(err)
			e.same("values", len(got), 2)
			if store, how := e.last(seen); store == r.Leader || how != "replica" {
				e.Fatal(store, how)
			}
			e.same("scan", e.scan(snap), "a=1 b=2")
		}},
		{name: "a read with a short time asks another", alone: true, run: func(e *env) {
			e.put("a=1")
			r := e.home()
			held := e.fault(map[string]any{"method": "KvGet", "node": map[string]any{"store": r.Leader}, "hold": true})
			snap := e.snapshot()
			snap.SetKVReadTimeout(time.Second) // more than an answer takes
			seen := watch(snap)
			e.want(snap, "a=1")
			if store, how := e.last(seen); store == r.Leader || how != "replica" {
				e.Fatal(store, how)
			}
			if held.hits() == 0 {
				e.Fatal("the leader was not asked")
			}
		}},
	}}
}
