package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/oracle"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/tikvrpc"
	"github.com/tikv/client-go/v2/tikvrpc/interceptor"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"github.com/tikv/client-go/v2/txnkv/txnsnapshot"
	"github.com/tikv/client-go/v2/txnkv/txnutil"
)

// numbers commits n keys, "00=0", "01=1", ….
func (e *env) numbers(n int) (all []string) {
	e.Helper()
	for i := range n {
		all = append(all, fmt.Sprintf("%02d=%d", i, i))
	}
	e.put(all...)
	return all
}

// prewritten is a transaction whose locks are there and whose commit does not come until
// it is told to; it then says what became of it. The locks do not expire meanwhile.
func (e *env) prewritten(pairs ...string) (tx *transaction.KVTxn, finish func() error) {
	e.Helper()
	tx = e.begin()
	e.set(tx, pairs...)
	held := e.fault(map[string]any{"method": "KvCommit", "start_ts": tx.StartTS(), "hold": true})
	done := async(func() error { return tx.Commit(e.Context()) })
	held.await(1)
	primary, _, _ := strings.Cut(slices.Min(pairs), "=")
	life := uint64(2 * patience.Milliseconds())
	e.must(e.beat(tikv.StoreProbe{KVStore: e.txn.KVStore}, primary, tx.StartTS(), life, life))
	return tx, func() error {
		held.remove()
		return <-done
	}
}

func readArea() area {
	return area{name: "reads", cases: []kase{
		{name: "batch get over regions", run: func(e *env) {
			e.numbers(50)
			e.splitTxn("10", "20", "40")
			got, err := e.snapshot().BatchGet(e.ctx(), e.keys("01", "15", "absent", "25", "49"))
			e.must(err)
			e.same("values", got, map[string][]byte{
				string(e.key("01")): []byte("1"), string(e.key("15")): []byte("15"), string(e.key("25")): []byte("25"), string(e.key("49")): []byte("49"),
			})
		}},
		{name: "scan by pages over regions", run: func(e *env) {
			all := e.numbers(40)
			e.splitTxn("10", "11", "30")
			for _, size := range []int{2, 3, 10, 256} {
				snap := e.snapshot()
				snap.SetScanBatchSize(size)
				e.same("scan", e.list(snap.Iter(e.key("05"), e.key("35"))), strings.Join(all[5:35], " "))
			}
		}},
		{name: "scan by who knows the regions of before", run: func(e *env) {
			all := strings.Join(e.numbers(40), " ")
			e.same("scan", e.list(e.snapshot().Iter(e.key("0"), e.key("4"))), all)
			e.splitTxn("10", "20")
			e.same("scan", e.list(e.snapshot().Iter(e.key("0"), e.key("4"))), all)
		}},
		{name: "scan backwards by pages over regions", run: func(e *env) {
			all := e.numbers(40)
			e.splitTxn("10", "11", "30")
			slices.Reverse(all)
			for _, size := range []int{2, 3, 10, 256} {
				snap := e.snapshot()
				snap.SetScanBatchSize(size)
				e.same("scan", e.list(snap.IterReverse(e.key("35"), e.key("05"))), strings.Join(all[5:35], " "))
			}
		}},
		{name: "unbounded, both ways", alone: true, run: func(e *env) {
			e.put("a=1", "b=2")
			e.splitTxn("b")
			e.same("scan", e.list(e.snapshot().Iter(nil, nil)), "a=1 b=2")
			e.same("backwards", e.list(e.snapshot().IterReverse([]byte{0xff}, nil)), "b=2 a=1")
			// TiKV takes an empty upper bound for the smallest key.
			e.same("backwards from no bound", e.list(e.snapshot().IterReverse(nil, nil)), "")
		}},
		{name: "keys only", run: func(e *env) {
			e.put("a=1", "b="+strings.Repeat("long", 1000))
			snap := e.snapshot()
			snap.SetKeyOnly(true)
			e.same("scan", e.scan(snap), "a= b=")
			e.same("backwards", e.list(snap.IterReverse(e.end(), e.key(""))), "b= a=")
		}},
		{name: "every third", run: func(e *env) {
			e.numbers(10)
			snap := e.snapshot()
			snap.SetSampleStep(3)
			e.same("scan", e.scan(snap), "00=0 03=3 06=6 09=9")
		}},
		{name: "each version at its time", run: func(e *env) {
			var at []uint64
			for i := range 5 {
				at = append(at, e.put(fmt.Sprintf("a=%d", i)).CommitTS())
			}
			tx := e.begin()
			e.del(tx, "a")
			e.must(tx.Commit(e.ctx()))
			for i, ts := range at {
				e.want(e.txn.GetSnapshot(ts), fmt.Sprintf("a=%d", i))
				e.same("scan", e.scan(e.txn.GetSnapshot(ts)), fmt.Sprintf("a=%d", i))
			}
			e.want(e.txn.GetSnapshot(tx.CommitTS()), "a")
			e.want(e.txn.GetSnapshot(at[0]-1), "a")
		}},
		{name: "a snapshot moved to another time", run: func(e *env) {
			first := e.put("a=1").CommitTS()
			snap := e.snapshot()
			e.put("a=2")
			e.want(snap, "a=1")
			snap.SetSnapshotTS(e.now())
			e.want(snap, "a=2")
			snap.SetSnapshotTS(first)
			e.want(snap, "a=1")
		}},
		{name: "the latest, at the largest timestamp", run: func(e *env) {
			e.put("a=1")
			e.put("a=2")
			e.want(e.txn.GetSnapshot(math.MaxUint64), "a=2", "absent")
		}},
		{name: "the latest does not wait for a lock on its primary", run: func(e *env) {
			e.put("a=1")
			_, finish := e.prewritten("a=2")
			e.want(e.txn.GetSnapshot(math.MaxUint64), "a=1")
			e.must(finish())
			e.want(e.txn.GetSnapshot(math.MaxUint64), "a=2")
		}},
		{name: "a read passes live locks of who comes later", run: func(e *env) {
			e.put("a=1", "b=1")
			before := e.snapshot()
			tx, finish := e.prewritten("a=2", "b=2")
			if before.Get(e.ctx(), nil); len(e.locks()) != 2 {
				e.Fatal(e.locks())
			}
			e.want(before, "a=1", "b=1")
			e.same("scan", e.scan(before), "a=1 b=1")
			e.must(finish())
			e.want(before, "a=1")
			e.want(e.txn.GetSnapshot(tx.CommitTS()), "a=2", "b=2")
		}},
		{name: "scan and batch get push live locks", run: func(e *env) {
			e.put("a=1", "b=1", "c=1")
			tx, finish := e.prewritten("a=2", "b=2")
			at := e.now()
			e.same("scan", e.scan(e.txn.GetSnapshot(at)), "a=1 b=1 c=1")
			got, err := e.txn.GetSnapshot(at).BatchGet(e.ctx(), e.keys("a", "b", "c"))
			e.must(err)
			e.same("batch", got, map[string][]byte{string(e.key("a")): []byte("1"), string(e.key("b")): []byte("1"), string(e.key("c")): []byte("1")})
			e.must(finish())
			if tx.CommitTS() <= at {
				e.Fatal(tx.CommitTS(), at)
			}
		}},
		{name: "reads do not see locks that only lock", run: func(e *env) {
			e.put("a=1")
			tx := e.begin()
			tx.SetPessimistic(true)
			e.must(tx.LockKeys(e.ctx(), kv.NewLockCtx(e.now(), kv.LockNoWait, time.Now()), e.key("a")))
			before := e.c.calls(e.T, "KvCheckTxnStatus")
			e.want(nil, "a=1")
			e.same("scan", e.scan(e.snapshot()), "a=1")
			e.same("looks at the transaction", e.c.calls(e.T, "KvCheckTxnStatus"), before)
		}},
		{name: "read committed passes locks", run: func(e *env) {
			e.put("a=1")
			_, finish := e.prewritten("a=2")
			before := e.c.calls(e.T, "KvCheckTxnStatus")
			snap := e.snapshot()
			snap.SetIsolationLevel(txnsnapshot.RC)
			e.want(snap, "a=1")
			e.same("scan", e.scan(snap), "a=1")
			e.same("looks at the transaction", e.c.calls(e.T, "KvCheckTxnStatus"), before)
			e.must(finish())
		}},
		{name: "read committed that checks timestamps", run: func(e *env) {
			e.put("a=1", "b=1")
			at := e.now()
			newer := e.put("a=2")
			snap := e.txn.GetSnapshot(at)
			snap.SetIsolationLevel(txnsnapshot.RCCheckTS)
			e.want(snap, "b=1")
			_, err := snap.Get(e.ctx(), e.key("a"))
			var conflict *tikverr.ErrWriteConflict
			if !errors.As(err, &conflict) || conflict.Reason != kvrpcpb.WriteConflict_RcCheckTs || conflict.ConflictCommitTs != newer.CommitTS() || conflict.StartTs != at {
				e.Fatal(err)
			}
		}},
		{name: "a snapshot asks once", run: func(e *env) {
			e.put("a=1")
			snap := e.snapshot()
			e.want(snap, "a=1", "absent")
			before := e.c.calls(e.T, "KvGet")
			e.want(snap, "a=1", "absent")
			e.same("requests", e.c.calls(e.T, "KvGet"), before)
			snap.CleanCache(e.keys("a"))
			e.want(snap, "a=1", "absent")
			e.same("requests", e.c.calls(e.T, "KvGet"), before+1)
		}},
		{name: "a time that is not yet", run: func(e *env) {
			e.put("a=1")
			at := oracle.ComposeTS(oracle.ExtractPhysical(e.now())+3_600_000, 0)
			if v, err := e.txn.GetSnapshot(at).Get(e.ctx(), e.key("a")); err == nil {
				e.Fatalf("%q", v)
			}
		}},
		{name: "with every option that is to change nothing", run: func(e *env) {
			e.put("a=1", "b=2")
			snap := e.snapshot()
			snap.SetPriority(txnutil.PriorityHigh)
			snap.SetNotFillCache(true)
			snap.SetTaskID(42)
			snap.SetResourceGroupTag([]byte("tag"))
			snap.SetLoadBasedReplicaReadThreshold(time.Second)
			snap.SetKVReadTimeout(10 * time.Second)
			e.want(snap, "a=1", "absent")
			e.same("scan", e.scan(snap), "a=1 b=2")
		}},
		{name: "bytes of any value", run: func(e *env) {
			tx := e.begin()
			var want [][]byte
			for _, k := range []string{"", "\x00", "\x00\xff", "a\x00", "a\x00\x00", "\xff", "\xff\xff\xff\xff\xff\xff\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
				e.must(tx.Set(e.key(k), []byte("\x00"+k)))
				want = append(want, e.key(k))
			}
			e.must(tx.Commit(e.ctx()))
			it, err := e.snapshot().Iter(e.key(""), e.end())
			e.must(err)
			var got [][]byte
			for ; it.Valid(); e.must(it.Next()) {
				if !bytes.Equal(it.Value(), append([]byte{0}, it.Key()[len(e.prefix):]...)) {
					e.Fatalf("%q=%q", it.Key(), it.Value())
				}
				got = append(got, bytes.Clone(it.Key()))
			}
			slices.SortFunc(want, bytes.Compare)
			e.same("keys", fmt.Sprintf("%q", got), fmt.Sprintf("%q", want))
		}},
	}}
}

// targets records where a snapshot's requests go.
type targets struct {
	sync.Mutex
	all []string // "127.0.0.1:5 replica", "… stale", "… leader"
}

func watch(snap *txnsnapshot.KVSnapshot) *targets {
	seen := new(targets)
	snap.SetRPCInterceptor(interceptor.NewRPCInterceptor("watch", func(next interceptor.RPCInterceptorFunc) interceptor.RPCInterceptorFunc {
		return func(target string, req *tikvrpc.Request) (*tikvrpc.Response, error) {
			how := "leader"
			if req.StaleRead {
				how = "stale"
			} else if req.ReplicaRead {
				how = "replica"
			}
			resp, err := next(target, req)
			if err == nil {
				if e, _ := resp.GetRegionError(); e != nil {
					how += " refused"
				}
			}
			seen.Lock()
			defer seen.Unlock()
			seen.all = append(seen.all, target+" "+how)
			return resp, err
		}
	}))
	return seen
}

// last is the last request's store and kind.
func (e *env) last(seen *targets) (store uint64, how string) {
	e.Helper()
	seen.Lock()
	defer seen.Unlock()
	if len(seen.all) == 0 {
		e.Fatal("no request was sent")
	}
	addr, how, _ := strings.Cut(seen.all[len(seen.all)-1], " ")
	stores, err := e.txn.GetPDClient().GetAllStores(e.ctx())
	e.must(err)
	for _, s := range stores {
		if s.Address == addr {
			return s.Id, how
		}
	}
	e.Fatalf("no store is at %s", addr)
	return 0, ""
}

// home is the region of the case's keys, which begin a region of their own.
func (e *env) home() region {
	e.Helper()
	e.splitTxn("")
	e.split("")
	id := e.locate(e.wire("a")).Meta.Id
	for _, r := range e.c.regions(e.T, "txn") {
		if r.ID == id {
			return r
		}
	}
	e.Fatal("the region of the case's keys is not there")
	return region{}
}

func replicaArea() area {
	read := func(kind kv.ReplicaReadType, check func(leader, store uint64, how string) bool) func(*env) {
		return func(e *env) {
			r := e.home()
			for i := range 12 {
				e.put(fmt.Sprintf("a=%d", i))
				snap := e.snapshot()
				snap.SetReplicaRead(kind)
				seen := watch(snap)
				e.want(snap, fmt.Sprintf("a=%d", i)) // what was committed just now: by read index
				if store, how := e.last(seen); !check(r.Leader, store, how) {
					e.Fatalf("store %d answers as %s; %d leads", store, how, r.Leader)
				}
			}
		}
	}
	// fourth adds a store with a label and a peer of the case's region there.
	fourth := func(e *env, role string) uint64 {
		r := e.home()
		store := e.post("add-store", map[string]any{"labels": map[string]string{"zone": "east"}})["store"]
		e.post("add-peer", map[string]any{"region": r.ID, "store": store, "role": role})
		return uint64(store.(float64))
	}
	east := []*metapb.StoreLabel{{Key: "zone", Value: "east"}}
	return area{name: "replica and stale reads", cases: []kase{
		{name: "leader", run: read(kv.ReplicaReadLeader, func(leader, store uint64, how string) bool { return store == leader && how == "leader" })},
		{name: "follower", run: read(kv.ReplicaReadFollower, func(leader, store uint64, how string) bool { return store != leader && how == "replica" })},
		{name: "mixed", run: read(kv.ReplicaReadMixed, func(_, _ uint64, how string) bool { return how == "replica" })},
		{name: "prefer leader", run: read(kv.ReplicaReadPreferLeader, func(leader, store uint64, _ string) bool { return store == leader })},
		{name: "learner", alone: true, run: func(e *env) {
			e.put("a=1")
			store := fourth(e, "learner")
			fresh := e.c.officialTxn(e.T)
			snap := fresh.GetSnapshot(e.now())
			snap.SetReplicaRead(kv.ReplicaReadLearner)
			seen := watch(snap)
			e.want(snap, "a=1")
			if at, how := e.last(seen); at != store || how != "replica" {
				e.Fatal(at, how)
			}
		}},
		{name: "the store with a label", alone: true, run: func(e *env) {
			e.put("a=1")
			store := fourth(e, "voter")
			fresh := e.c.officialTxn(e.T)
			for range 8 {
				snap := fresh.GetSnapshot(e.now())
				snap.SetReplicaRead(kv.ReplicaReadMixed)
				snap.SetMatchStoreLabels(east)
				seen := watch(snap)
				e.want(snap, "a=1")
				if at, how := e.last(seen); at != store || how != "replica" {
					e.Fatal(at, how)
				}
			}
		}},
		{name: "scan and batch get at followers", run: func(e *env) {
			r := e.home()
			e.put("a=1", "b=2")
			snap := e.snapshot()
			snap.SetReplicaRead(kv.ReplicaReadFollower)
			seen := watch(snap)
			e.same("scan", e.scan(snap), "a=1 b=2")
			if store, how := e.last(seen); store == r.Leader || how != "replica" {
				e.Fatal(store, how)
			}
			got, err := snap.BatchGet(e.ctx(), e.keys("a", "b"))
			e.must(err)
			e.same("batch", len(got), 2)
			if store, how := e.last(seen); store == r.Leader || how != "replica" {
				e.Fatal(store, how)
			}
		}},
		{name: "a follower has the locks too", run: func(e *env) {
			e.home()
			e.put("a=1")
			tx, finish := e.prewritten("a=2")
			at := e.now()
			snap := e.txn.GetSnapshot(at)
			snap.SetReplicaRead(kv.ReplicaReadFollower)
			e.want(snap, "a=1")
			e.must(finish())
			if tx.CommitTS() <= at {
				e.Fatal(tx.CommitTS(), at)
			}
		}},
		{name: "a follower's read raises what commits must be above", run: func(e *env) {
			e.home()
			e.put("a=1")
			tx := e.begin()
			tx.SetEnable1PC(true)
			e.set(tx, "a=2")
			at := e.now()
			snap := e.txn.GetSnapshot(at)
			snap.SetReplicaRead(kv.ReplicaReadFollower)
			e.want(snap, "a=1")
			e.must(tx.Commit(e.ctx()))
			if tx.CommitTS() <= at {
				e.Fatalf("committed at %d below a read at %d", tx.CommitTS(), at)
			}
		}},
		{name: "a follower that lags waits until it has what was committed", alone: true, run: func(e *env) {
			e.home()
			e.put("a=1")
			for store := range 3 {
				e.post("set-store", map[string]any{"store": store + 1, "apply_lag": "1h"})
			}
			e.put("a=2")
			snap := e.snapshot()
			snap.SetReplicaRead(kv.ReplicaReadFollower)
			asked := e.c.calls(e.T, "KvGet")
			done := async(func() error {
				v, err := snap.Get(e.Context(), e.key("a"))
				if err == nil && string(v) != "2" {
					err = fmt.Errorf("a is %q", v)
				}
				return err
			})
			e.eventually("a read", func() bool { return e.c.calls(e.T, "KvGet") > asked })
			select {
			case err := <-done:
				e.Fatal("a follower has answered without what it lacks: ", err)
			case <-time.After(100 * time.Millisecond): // while it is asked
			}
			e.advance(2 * time.Hour)
			e.must(<-done)
		}},
		{name: "a stopped follower is passed over", alone: true, run: func(e *env) {
			r := e.home()
			e.put("a=1")
			for _, store := range r.Stores {
				if store == r.Leader {
					continue
				}
				e.post("stop", map[string]any{"store": store})
				snap := e.snapshot()
				snap.SetReplicaRead(kv.ReplicaReadFollower)
				e.want(snap, "a=1")
				e.post("start", map[string]any{"store": store})
			}
		}},
		{name: "stale: what was then", run: func(e *env) {
			e.home()
			old := e.put("a=1").CommitTS()
			e.put("a=2", "b=2")
			e.advance(time.Minute)
			stores := make(map[uint64]bool)
			for range 20 {
				snap := e.txn.GetSnapshot(old)
				snap.SetIsStalenessReadOnly(true)
				seen := watch(snap)
				e.want(snap, "a=1", "b")
				store, _ := e.last(seen)
				stores[store] = true
			}
			if len(stores) < 2 {
				e.Fatal("all were answered by one store", stores)
			}
		}},
		{name: "stale: scan and batch get", run: func(e *env) {
			e.home()
			old := e.put("a=1", "b=1").CommitTS()
			e.put("a=2", "c=2")
			e.advance(time.Minute)
			snap := e.txn.GetSnapshot(old)
			snap.SetIsStalenessReadOnly(true)
			e.same("scan", e.scan(snap), "a=1 b=1")
			got, err := snap.BatchGet(e.ctx(), e.keys("a", "b", "c"))
			e.must(err)
			e.same("batch", len(got), 2)
		}},
		{name: "stale: as of now comes from the leader at worst", run: func(e *env) {
			e.home()
			for i := range 10 {
				tx := e.put(fmt.Sprintf("a=%d", i))
				snap := e.txn.GetSnapshot(tx.CommitTS())
				snap.SetIsStalenessReadOnly(true)
				e.want(snap, fmt.Sprintf("a=%d", i))
			}
		}},
		{name: "stale: while the leader is frozen", alone: true, run: func(e *env) {
			r := e.home()
			old := e.put("a=1").CommitTS()
			e.advance(time.Minute)
			e.want(nil, "a=1")
			followers := slices.DeleteFunc(slices.Clone(r.Stores), func(s uint64) bool { return s == r.Leader })
			e.fault(map[string]any{"method": "KvGet", "node": map[string]any{"store": r.Leader}, "drop_request": true})
			for range 5 {
				snap := e.txn.GetSnapshot(old)
				snap.SetIsStalenessReadOnly(true)
				snap.SetKVReadTimeout(time.Second) // more than an answer takes
				seen := watch(snap)
				e.want(snap, "a=1")
				if store, _ := e.last(seen); !slices.Contains(followers, store) {
					e.Fatalf("store %d answered, which is frozen", store)
				}
			}
		}},
		{name: "stale: a lock of then is respected", run: func(e *env) {
			e.home()
			e.put("a=1")
			tx, finish := e.prewritten("a=2")
			at := e.now() // above the lock's start
			done := async(func() error {
				snap := e.txn.GetSnapshot(at)
				snap.SetIsStalenessReadOnly(true)
				v, err := snap.Get(context.Background(), e.key("a"))
				if err == nil && string(v) != "1" {
					err = fmt.Errorf("a is %q", v)
				}
				return err
			})
			e.must(<-done)
			e.must(finish())
			if tx.CommitTS() <= at {
				e.Fatalf("read %d without it, committed at %d", at, tx.CommitTS())
			}
		}},
		{name: "stale: a store that lags says so, and another is asked", alone: true, run: func(e *env) {
			e.home()
			for store := range 3 {
				e.post("set-store", map[string]any{"store": store + 1, "resolved_lag": "1h"})
			}
			old := e.put("a=1").CommitTS()
			e.put("a=2")
			refused := false
			for i := 0; i < 100 && !refused; i++ { // who is asked first is drawn
				snap := e.txn.GetSnapshot(old)
				snap.SetIsStalenessReadOnly(true)
				seen := watch(snap)
				e.want(snap, "a=1")
				refused = refused || slices.ContainsFunc(seen.all, func(s string) bool { return strings.HasSuffix(s, "refused") })
			}
			if !refused {
				e.Fatal("nobody said that its data are not ready")
			}
		}},
		{name: "safe timestamps of the stores go forward, below now", run: func(e *env) {
			stores, err := e.txn.GetPDClient().GetAllStores(e.ctx())
			e.must(err)
			for _, s := range stores {
				ask := func() uint64 {
					req := tikvrpc.NewRequest(tikvrpc.CmdStoreSafeTS, &kvrpcpb.StoreSafeTSRequest{KeyRange: &kvrpcpb.KeyRange{}})
					resp, err := e.txn.GetTiKVClient().SendRequest(e.ctx(), s.Address, req, patience)
					e.must(err)
					return resp.Resp.(*kvrpcpb.StoreSafeTSResponse).SafeTs
				}
				first := ask()
				e.advance(10 * time.Second)
				second, now := ask(), e.now()
				if first == 0 || second <= first || second > now {
					e.Fatalf("store %d: %d, then %d; now is %d", s.Id, first, second, now)
				}
			}
		}},
	}}
}
