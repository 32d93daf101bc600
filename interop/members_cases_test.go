package interop

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/tikv/client-go/v2/oracle"
	"github.com/tikv/client-go/v2/tikv"
	pd "github.com/tikv/pd/client"
	"github.com/tikv/pd/client/opt"
	"github.com/tikv/pd/client/pkg/caller"
)

// pdLeader is the member that leads PD.
func (e *env) pdLeader() int {
	e.Helper()
	var all struct {
		Members []struct {
			Index  int
			Leader bool
		}
	}
	e.c.look(e.T, "members", &all)
	for _, m := range all.Members {
		if m.Leader {
			return m.Index
		}
	}
	e.Fatal("PD has no leader")
	return 0
}

func (e *env) transferPD(to int) {
	e.Helper()
	e.post("transfer-pd", map[string]any{"member": to})
	e.same("leader", e.pdLeader(), to)
}

// counts adds to a counter again and again while something is done, and looks for all
// that was added.
func (e *env) whileCounting(do func()) {
	e.Helper()
	e.put("n=0")
	stop, done := make(chan struct{}), make(chan error, 1)
	rounds := 0
	go func() {
		for {
			if err := e.count("n", rounds%2 == 0); err != nil {
				done <- fmt.Errorf("round %d: %w", rounds, err)
				return
			}
			rounds++
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	do()
	close(stop)
	e.must(<-done)
	e.want(nil, fmt.Sprintf("n=%d", rounds))
}

func memberCases() []kase {
	return []kase{
		{name: "all are told, one leads", run: func(e *env) {
			all, err := e.pd().GetAllMembers(e.ctx())
			e.must(err)
			var urls []string
			for _, m := range all {
				urls = append(urls, strings.TrimPrefix(m.ClientUrls[0], "http://"))
			}
			e.same("members", urls, e.c.PD)
			e.same("leader", strings.TrimPrefix(e.pd().GetLeaderURL(), "http://"), e.c.PD[e.pdLeader()])
		}},
		{name: "the leader is handed on while transactions run", alone: true, run: func(e *env) {
			e.whileCounting(func() {
				for _, to := range []int{1, 2, 0} {
					before := e.now()
					e.transferPD(to)
					if after := e.now(); after <= before {
						e.Fatal(before, after)
					}
				}
			})
		}},
		{name: "the leader stops while transactions run", alone: true, run: func(e *env) {
			e.whileCounting(func() {
				old := e.pdLeader()
				before := e.now()
				e.post("stop", map[string]any{"member": old})
				if after := e.now(); after <= before {
					e.Fatal(before, after)
				}
				if e.pdLeader() == old {
					e.Fatal("who stopped leads")
				}
				e.post("start", map[string]any{"member": old})
			})
		}},
		{name: "what PD keeps is there with the next leader", alone: true, run: func(e *env) {
			at := e.now()
			e.must(e.pd().SetExternalTimestamp(e.ctx(), at))
			safe, err := e.pd().UpdateServiceGCSafePoint(e.ctx(), "gc_worker", math.MaxInt64, at)
			e.must(err)
			e.transferPD(1)
			got := uint64(0)
			e.eventually("the client finds the new leader", func() bool {
				got, err = e.pd().GetExternalTimestamp(e.ctx())
				return err == nil
			})
			e.same("external timestamp", got, at)
			again, err := e.pd().UpdateServiceGCSafePoint(e.ctx(), "gc_worker", math.MaxInt64, at)
			e.must(err)
			e.same("service safe point", again, safe)
		}},
	}
}

func memberAreas() []area {
	three := []string{"--members", "3"}
	follower := func(e *env, nodes map[string]int) bool {
		leader := e.pdLeader()
		for n := range nodes {
			if strings.HasSuffix(n, fmt.Sprint(leader)) {
				delete(nodes, n)
			}
		}
		return len(nodes) > 0
	}
	return []area{
		{name: "pd members", args: three, cases: append(memberCases(), []kase{
			{name: "timestamps by a follower are in order with the leader's", alone: true, run: func(e *env) {
				plain := e.c.officialTxn(e.T)
				e.must(e.pd().UpdateOption(opt.EnableTSOFollowerProxy, true))
				last := uint64(0)
				e.eventually("timestamps go by a follower", func() bool {
					trace := e.trace()
					for range 50 {
						one := e.now()
						two, err := plain.GetTimestamp(e.ctx())
						e.must(err)
						if one <= last || two <= one {
							e.Fatal(last, one, two)
						}
						last = two
					}
					return follower(e, trace.nodes("Tso"))
				})
				e.put("a=1")
				e.want(nil, "a=1")
			}},
			{name: "lookups by a follower", alone: true, run: func(e *env) {
				e.splitTxn("m")
				want := e.locate(e.wire("n"))
				e.must(e.pd().UpdateOption(opt.EnableFollowerHandle, true))
				e.eventually("lookups go to a follower", func() bool {
					trace := e.trace()
					for range 10 {
						r, err := e.pd().GetRegion(e.ctx(), e.key("n"), opt.WithAllowFollowerHandle())
						e.must(err)
						e.same("region", r.Meta, want.Meta)
						e.same("leader", r.Leader, want.Leader)
					}
					return follower(e, trace.nodes("GetRegion"))
				})
			}},
			{name: "a follower refuses who does not allow it", run: func(e *env) {
				client := pdpb.NewPDClient(e.dial(e.c.PD[(e.pdLeader()+1)%3]))
				resp, err := client.GetRegion(e.ctx(), &pdpb.GetRegionRequest{Header: &pdpb.RequestHeader{ClusterId: e.c.ID}, RegionKey: []byte("a")})
				if err == nil && resp.Header.GetError() == nil {
					e.Fatal(resp)
				}
			}},
			{name: "by a follower to a leader that cannot be reached", alone: true, run: func(e *env) {
				client, err := pd.NewClient(caller.Component("interop"), e.c.PD, pd.SecurityOption{}, opt.WithForwardingOption(true))
				e.must(err)
				defer client.Close()
				_, _, err = client.GetTS(e.ctx())
				e.must(err)
				leader := e.pdLeader()
				e.post("cut", map[string]any{"from": map[string]any{"client": true}, "to": map[string]any{"member": leader}})
				e.eventually("stores and timestamps come by a follower", func() bool {
					all, err := client.GetAllStores(within(e.T))
					if err != nil {
						return false
					}
					e.same("stores", len(all), 3)
					_, _, err = client.GetTS(within(e.T))
					return err == nil
				})
				e.same("leader", e.pdLeader(), leader)
				e.post("heal", nil)
			}},
		}...)},
		{name: "pd services", args: append(three, "--services"), cases: append(memberCases(), []kase{
			{name: "timestamps come from the service", run: func(e *env) {
				if e.c.calls(e.T, "FindGroupByKeyspaceID") == 0 {
					e.Fatal("the client did not ask for its group")
				}
				if err := e.pd().UpdateOption(opt.EnableTSOFollowerProxy, true); err == nil {
					e.Fatal("there is no follower that gives out timestamps")
				}
				before := e.now()
				if after := e.now(); after <= before {
					e.Fatal(before, after)
				}
			}},
			{name: "the least of all groups' timestamps", run: func(e *env) {
				asked := e.c.calls(e.T, "GetMinTS")
				for range 5 {
					before := e.now()
					p, l, err := e.pd().GetMinTS(e.ctx())
					e.must(err)
					if ts := oracle.ComposeTS(p, l); ts < before || ts >= e.now() {
						e.Fatal(before, ts)
					}
				}
				if e.c.calls(e.T, "GetMinTS") < asked+5 {
					e.Fatal("PD was not asked")
				}
				ts, err := e.txn.CurrentAllTSOKeyspaceGroupMinTs()
				if err != nil || ts == 0 || ts >= e.now() {
					e.Fatal(ts, err)
				}
			}},
		}...)},
		{name: "safe timestamps", cases: safeCases()},
	}
}

// safeStore is a client that asks PD's HTTP interface for the stores' safe timestamps.
func (e *env) safeStore() *tikv.KVStore {
	e.Helper()
	raw, err := tikv.NewPDClient(e.c.PD)
	e.must(err)
	codec := tikv.NewCodecPDClient(tikv.ModeTxn, raw)
	points, err := tikv.NewEtcdSafePointKV(e.c.PD, nil)
	e.must(err)
	store, err := tikv.NewKVStore(e.Name(), codec, points, tikv.NewRPCClient(tikv.WithCodec(codec.GetCodec())), tikv.WithPDHTTPClient("interop", e.c.PD))
	e.must(err)
	e.Cleanup(func() { store.Close() })
	return store
}

func safeCases() []kase {
	lag := func(e *env, store uint64) {
		e.post("set-store", map[string]any{"store": store, "resolved_lag": "1m"})
	}
	return []kase{
		{name: "PD's HTTP interface: of the cluster and of stores", alone: true, run: func(e *env) {
			e.put("a=1")
			client := e.safeStore().GetPDHTTPClient()
			first, none, err := client.GetMinResolvedTSByStoresIDs(e.ctx(), nil)
			if err != nil || first == 0 || first >= e.now() || none != nil {
				e.Fatal(first, none, err)
			}
			e.advance(time.Hour)
			lag(e, 2)
			least, stores, err := client.GetMinResolvedTSByStoresIDs(e.ctx(), []uint64{1, 2, 3})
			e.must(err)
			if len(stores) != 3 || least != min(stores[1], stores[2], stores[3]) || least <= first || least >= e.now() {
				e.Fatal(first, least, stores)
			}
		}},
		{name: "the client's cache goes forward, below now", alone: true, run: func(e *env) {
			e.put("a=1")
			store := e.safeStore()
			read := func() uint64 { return store.GetMinSafeTS(oracle.GlobalTxnScope) }
			e.eventually("a safe timestamp", func() bool { return read() > 0 })
			first := read()
			e.advance(time.Hour)
			e.eventually("a later one", func() bool { return oracle.ExtractPhysical(read()) > oracle.ExtractPhysical(first)+3_500_000 })
			if got, now := read(), e.now(); got >= now {
				e.Fatal(got, now)
			}
			snap := store.GetSnapshot(read())
			snap.SetIsStalenessReadOnly(true)
			e.want(snap, "a=1")
		}},
		{name: "without PD's, the stores'", alone: true, run: func(e *env) {
			e.put("a=1")
			e.want(nil, "a=1") // the client knows stores
			e.eventually("a safe timestamp", func() bool { return e.txn.GetMinSafeTS(oracle.GlobalTxnScope) > 0 })
			if got, now := e.txn.GetMinSafeTS(oracle.GlobalTxnScope), e.now(); got >= now {
				e.Fatal(got, now)
			}
			if e.c.calls(e.T, "GetStoreSafeTS") == 0 || e.c.calls(e.T, "MinResolvedTS") != 0 {
				e.Fatal(errors.New("who was asked?"))
			}
		}},
	}
}
