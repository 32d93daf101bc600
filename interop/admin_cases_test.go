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

	"github.com/pingcap/kvproto/pkg/pdpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/txnkv/rangetask"
	"github.com/tikv/pd/client/clients/router"
)

// gcArea is about old versions and the points that guard them. Each case has its cluster:
// safe points only go forward.
func gcArea() area {
	alone := func(name string, run func(*env)) kase { return kase{name: name, run: run, alone: true} }
	service := func(e *env, id string, ttl int64, at uint64) uint64 {
		e.Helper()
		least, err := e.txn.GetPDClient().UpdateServiceGCSafePoint(e.ctx(), id, ttl, at)
		e.must(err)
		return least
	}
	return area{name: "garbage collection and safe points", cases: []kase{
		alone("moves the safe point, keeps what is seen", func(e *env) {
			e.put("a=1")
			e.put("a=2")
			at := e.now()
			e.put("a=3")
			e.collect(at)
			e.want(e.txn.GetSnapshot(at), "a=2")
			e.want(nil, "a=3")
			got, err := e.txn.GetPDClient().UpdateGCSafePoint(e.ctx(), 0)
			e.must(err)
			e.same("safe point", got, at)
		}),
		alone("never moves back", func(e *env) {
			early, late := e.now(), e.now()
			e.collect(late)
			got, err := e.txn.GetPDClient().UpdateGCSafePoint(e.ctx(), early)
			e.must(err)
			e.same("safe point", got, late)
		}),
		alone("not above what transactions read", func(e *env) {
			if got, err := e.txn.GC(e.ctx(), e.now()); err == nil || !strings.Contains(err.Error(), "txn safe point") {
				e.Fatal(got, err)
			}
		}),
		alone("ends a transaction that is under way", func(e *env) {
			e.put("a=1")
			_, finish := e.prewritten("a=2", "b=2")
			e.collect(e.now())
			e.same("locks", len(e.locks()), 0)
			if err := finish(); err == nil {
				e.Fatal("committed what was rolled back")
			}
			e.same("scan", e.scan(e.snapshot()), "a=1")
		}),
		alone("leaves alone who began later", func(e *env) {
			at := e.now()
			_, finish := e.prewritten("a=2")
			e.collect(at)
			e.same("locks", len(e.locks()), 1)
			e.must(finish())
			e.want(nil, "a=2")
		}),
		alone("over many regions, one at a time", func(e *env) {
			e.split("b", "c", "d", "e")
			_, finish := e.prewritten("a=1", "b=1", "c=1", "d=1", "e=1")
			at := e.now()
			service(e, "gc_worker", math.MaxInt64, at)
			_, err := e.txn.GC(e.ctx(), at, tikv.WithConcurrency(1))
			e.must(err)
			e.same("locks", len(e.locks()), 0)
			if err := finish(); err == nil {
				e.Fatal("committed what was rolled back")
			}
		}),
		alone("a service holds the safe point", func(e *env) {
			low, high := e.now(), e.now()
			e.same("least", service(e, "backup", 3600, low), 0) // the collector's own
			e.same("least", service(e, "gc_worker", math.MaxInt64, high), low)
			if got, err := e.txn.GC(e.ctx(), high); err == nil {
				e.Fatal("collected what a service holds", got)
			}
			e.same("least", service(e, "backup", 0, low), low)
			e.collect(high)
		}),
		alone("a service's hold ends with its life", func(e *env) {
			low, high := e.now(), e.now()
			service(e, "backup", 3600, low)
			e.same("least", service(e, "gc_worker", math.MaxInt64, high), low)
			e.advance(2 * time.Hour)
			e.same("least", service(e, "gc_worker", math.MaxInt64, high), high)
			e.collect(high)
		}),
		alone("a service cannot hold what is gone", func(e *env) {
			low, high := e.now(), e.now()
			service(e, "gc_worker", math.MaxInt64, high)
			e.same("least", service(e, "late", 3600, low), high)
		}),
		alone("too early a read is refused", func(e *env) {
			e.put("a=1")
			at := e.now()
			safe := e.now()
			probe := tikv.StoreProbe{KVStore: e.txn.KVStore}
			service(e, "gc_worker", math.MaxInt64, safe)
			got, err := probe.LoadSafePoint() // from PD's etcd
			e.must(err)
			e.same("safe point", got, safe)
			e.txn.UpdateSPCache(got, time.Now())
			_, err = e.txn.GetSnapshot(at).Get(e.ctx(), e.key("a"))
			if early := new(tikverr.ErrGCTooEarly); !errors.As(err, &early) {
				e.Fatal(err)
			}
			e.want(nil, "a=1")
		}),
	}}
}

func regionArea() area {
	borders := func(e *env) (all []string) {
		e.Helper()
		regions, err := e.txn.GetPDClient().ScanRegions(e.ctx(), e.key(""), e.end(), 100)
		e.must(err)
		for i, r := range regions {
			if r.Leader == nil || len(r.Meta.Peers) != 3 {
				e.Fatalf("%+v", r)
			}
			if i > 0 {
				all = append(all, e.bare(r.Meta.StartKey))
				if !bytes.Equal(r.Meta.StartKey, regions[i-1].Meta.EndKey) {
					e.Fatalf("a gap before %q", r.Meta.StartKey)
				}
			}
		}
		return all
	}
	fill := func(e *env) {
		e.numbers(30)
		e.split("10", "20")
	}
	return area{name: "regions and ranges", cases: []kase{
		{name: "split: the regions are there", run: func(e *env) {
			ids := e.split("b", "d", "c")
			e.same("regions made", len(ids), 3)
			e.same("borders", borders(e), "[b c d]")
			for _, id := range ids {
				r, err := e.txn.GetPDClient().GetRegionByID(e.ctx(), id)
				if err != nil || r == nil || r.Meta.Id != id {
					e.Fatal(r, err)
				}
			}
		}},
		{name: "split where a region begins already", run: func(e *env) {
			e.split("b", "d")
			e.split("b", "c")
			e.same("borders", borders(e), "[b c d]")
		}},
		{name: "split a hundred times at once", run: func(e *env) {
			var keys []string
			for i := range 100 {
				keys = append(keys, fmt.Sprintf("%03d", i))
			}
			e.split(keys...)
			e.put("0005=x", "050=y", "0995=z")
			e.same("scan", e.scan(e.snapshot()), "0005=x 050=y 0995=z")
		}},
		{name: "split and scatter", run: func(e *env) {
			ids, err := e.txn.SplitRegions(e.ctx(), e.keys("b", "c"), true, nil)
			e.must(err)
			for _, id := range ids {
				e.must(e.txn.WaitScatterRegionFinish(e.ctx(), id, 5000))
				scattering, err := e.txn.CheckRegionInScattering(id)
				if err != nil || scattering {
					e.Fatal(scattering, err)
				}
			}
			e.put("a=1", "b=2", "c=3")
			e.same("scan", e.scan(e.snapshot()), "a=1 b=2 c=3")
		}},
		{name: "scatter by PD", run: func(e *env) {
			ids := e.split("b", "c")
			e.must(e.txn.GetPDClient().ScatterRegion(e.ctx(), ids[0]))
			resp, err := e.txn.GetPDClient().ScatterRegions(e.ctx(), ids)
			if err != nil || resp.FinishedPercentage != 100 {
				e.Fatal(resp, err)
			}
			op, err := e.txn.GetPDClient().GetOperator(e.ctx(), ids[0])
			// Where all is well there is nothing to do, but not for ever: the next goes elsewhere.
			for range 10 {
				if err != nil || op.GetHeader().GetError() == nil {
					break
				}
				e.must(e.txn.GetPDClient().ScatterRegion(e.ctx(), ids[0]))
				op, err = e.txn.GetPDClient().GetOperator(e.ctx(), ids[0])
			}
			if err != nil || op.RegionId != ids[0] || !strings.HasPrefix(string(op.Desc), "scatter") {
				e.Fatal(op, err)
			}
			if op.Status != pdpb.OperatorStatus_RUNNING && op.Status != pdpb.OperatorStatus_SUCCESS {
				e.Fatal(op)
			}
		}},
		{name: "split by PD", run: func(e *env) {
			resp, err := e.txn.GetPDClient().SplitRegions(e.ctx(), e.keys("b", "c"))
			if err != nil || resp.FinishedPercentage != 100 || len(resp.RegionsId) == 0 {
				e.Fatal(resp, err)
			}
		}},
		{name: "lookups by key, before a key, by range", run: func(e *env) {
			e.split("b", "d")
			pd := e.txn.GetPDClient()
			at, err := pd.GetRegion(e.ctx(), e.key("c"))
			e.must(err)
			before, err := pd.GetPrevRegion(e.ctx(), e.key("c"))
			e.must(err)
			e.same("border", e.bare(at.Meta.StartKey), "b")
			e.same("border", e.bare(before.Meta.EndKey), "b")
			e.same("at a border", borderOf(pd.GetRegion(e.ctx(), e.key("d"))), string(e.key("d")))
			some, err := pd.BatchScanRegions(e.ctx(), []router.KeyRange{{StartKey: e.key("a"), EndKey: e.key("a1")}, {StartKey: e.key("d"), EndKey: e.end()}}, 100)
			e.must(err)
			e.same("borders", fmt.Sprintf("%s %s", e.bare(some[0].Meta.EndKey), e.bare(some[1].Meta.StartKey)), "b d")
		}},
		{name: "merge: what was there is there", alone: true, run: func(e *env) {
			e.numbers(30)
			ids := e.split("10", "20")
			e.want(nil, "05=5", "15=15", "25=25")
			e.post("merge", map[string]any{"region": ids[1], "into": ids[0]})
			e.same("regions", len(borders(e)), 1)
			e.want(nil, "05=5", "15=15", "25=25")
			e.put("25=new", "15=new")
			e.want(nil, "15=new", "25=new")
		}},
		{name: "delete a range", run: func(e *env) {
			fill(e)
			done, err := e.txn.DeleteRange(e.ctx(), e.key("05"), e.key("25"), 2)
			e.must(err)
			e.same("regions", done, 3)
			e.same("scan", e.scan(e.snapshot()), "00=0 01=1 02=2 03=3 04=4 25=25 26=26 27=27 28=28 29=29")
			e.same("history", e.history("15"), "") // with all versions
		}},
		{name: "delete a range: told, not done", run: func(e *env) {
			fill(e)
			before := e.c.calls(e.T, "KvDeleteRange")
			e.must(rangetask.NewNotifyDeleteRangeTask(e.txn, e.key("05"), e.key("25"), 2).Execute(e.ctx()))
			if e.c.calls(e.T, "KvDeleteRange") == before {
				e.Fatal("nobody was told")
			}
			e.want(nil, "05=5", "15=15", "24=24")
		}},
		{name: "delete a range while it splits", run: func(e *env) {
			e.numbers(30)
			e.want(nil, "00=0")
			e.splitTxn("10", "15", "20") // the client does not know
			_, err := e.txn.DeleteRange(e.ctx(), e.key("05"), e.key("25"), 1)
			e.must(err)
			e.same("scan", e.scan(e.snapshot()), "00=0 01=1 02=2 03=3 04=4 25=25 26=26 27=27 28=28 29=29")
		}},
		{name: "destroy a range, locks and all", run: func(e *env) {
			fill(e)
			_, finish := e.prewritten("12=locked")
			e.must(e.txn.UnsafeDestroyRange(e.ctx(), e.key("05"), e.key("25")))
			e.same("locks", len(e.locks()), 0)
			e.same("scan", e.scan(e.snapshot()), "00=0 01=1 02=2 03=3 04=4 25=25 26=26 27=27 28=28 29=29")
			finish() // its lock is not there any more: whatever it says
		}},
		{name: "a task over a range sees each region once", run: func(e *env) {
			e.split("b", "c", "d")
			var mu sync.Mutex
			var seen []string
			runner := rangetask.NewRangeTaskRunner("parts", e.txn, 3, func(_ context.Context, r kv.KeyRange) (rangetask.TaskStat, error) {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, e.bare(r.StartKey)+"-"+e.bare(r.EndKey))
				return rangetask.TaskStat{CompletedRegions: 1}, nil
			})
			runner.SetRegionsPerTask(1)
			e.must(runner.RunOnRange(e.ctx(), e.key("a"), e.key("z")))
			slices.Sort(seen)
			e.same("parts", seen, "[a-b b-c c-d d-z]")
		}},
		{name: "a peer more, a peer less", alone: true, run: func(e *env) {
			e.put("a=1")
			r := e.home()
			store := e.post("add-store", map[string]any{})["store"]
			e.post("add-peer", map[string]any{"region": r.ID, "store": store, "role": "voter"})
			e.put("a=2")
			e.post("transfer-leader", map[string]any{"region": r.ID, "store": store})
			e.want(nil, "a=2")
			e.post("remove-peer", map[string]any{"region": r.ID, "store": r.Leader})
			e.put("a=3")
			e.want(nil, "a=3")
			e.same("leader", e.locate(e.wire("a")).Leader.StoreId, store)
		}},
		{name: "a region that PD does not know for a while", alone: true, run: func(e *env) {
			e.put("a=1")
			r := e.home()
			e.post("hide-region", map[string]any{"region": r.ID, "hidden": true})
			fresh := e.c.officialTxn(e.T)
			at := e.now()
			done := async(func() error {
				_, err := fresh.GetSnapshot(at).Get(e.Context(), e.key("a"))
				return err
			})
			e.eventually("a lookup", func() bool { return e.c.calls(e.T, "GetRegion") > 0 || e.c.calls(e.T, "BatchScanRegions") > 0 })
			e.post("hide-region", map[string]any{"region": r.ID, "hidden": false})
			e.must(<-done)
		}},
	}}
}

func borderOf(r *router.Region, err error) string {
	if err != nil {
		return err.Error()
	}
	return string(r.Meta.StartKey)
}
