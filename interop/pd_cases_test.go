package interop

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	rmpb "github.com/pingcap/kvproto/pkg/resource_manager"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/oracle"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/txnkv"
	pd "github.com/tikv/pd/client"
	"github.com/tikv/pd/client/opt"
	"github.com/tikv/pd/client/resource_group/controller"
)

func (e *env) pd() pd.Client { return e.txn.GetPDClient() }

func pdArea() area {
	return area{name: "pd", cases: []kase{
		{name: "timestamps of many at once are all different, and in order for each", run: func(e *env) {
			const clients, each = 8, 100
			var mu sync.Mutex
			seen := make(map[uint64]bool)
			var ends []<-chan error
			for range clients {
				ends = append(ends, async(func() error {
					last := uint64(0)
					for range each {
						physical, logical, err := e.pd().GetTS(e.Context())
						if err != nil {
							return err
						}
						ts := oracle.ComposeTS(physical, logical)
						mu.Lock()
						twice := seen[ts]
						seen[ts] = true
						mu.Unlock()
						if twice || ts <= last {
							return fmt.Errorf("%d after %d", ts, last)
						}
						last = ts
					}
					return nil
				}))
			}
			for _, end := range ends {
				e.must(<-end)
			}
			e.same("timestamps", len(seen), clients*each)
		}},
		{name: "asked for ahead", run: func(e *env) {
			one, two := e.pd().GetTSAsync(e.ctx()), e.pd().GetTSAsync(e.ctx())
			p1, l1, err := one.Wait()
			e.must(err)
			p2, l2, err := two.Wait()
			e.must(err)
			if oracle.ComposeTS(p1, l1) >= oracle.ComposeTS(p2, l2) {
				e.Fatal(p1, l1, p2, l2)
			}
		}},
		{name: "the least of all groups' timestamps", run: func(e *env) {
			before := e.now()
			p, l, err := e.pd().GetMinTS(e.ctx())
			e.must(err)
			if ts := oracle.ComposeTS(p, l); ts <= before || ts >= e.now() {
				e.Fatal(before, ts)
			}
		}},
		{name: "timestamps follow the clock", alone: true, run: func(e *env) {
			before := e.now()
			e.advance(time.Hour)
			if d := oracle.ExtractPhysical(e.now()) - oracle.ExtractPhysical(before); d < 3_600_000 || d > 3_660_000 {
				e.Fatalf("%d ms", d)
			}
		}},
		{name: "timestamps never go back", alone: true, run: func(e *env) {
			e.post("jump-tso", map[string]any{"by": "1h"})
			before := e.now()
			e.advance(-time.Hour)
			if after := e.now(); after <= before {
				e.Fatal(before, after)
			}
			e.post("stop", map[string]any{"member": 0})
			e.post("start", map[string]any{"member": 0})
			if after := e.now(); after <= before {
				e.Fatal(before, after)
			}
		}},
		{name: "timestamps that come late", alone: true, run: func(e *env) {
			e.post("stall-tso", map[string]any{"stalled": true})
			// The client's store, which asks again: PD's client alone gives up after 3 s.
			done := async(func() error { _, err := e.txn.GetTimestamp(e.Context()); return err })
			select {
			case err := <-done:
				e.Fatal(err)
			case <-time.After(50 * time.Millisecond):
			}
			e.post("stall-tso", map[string]any{"stalled": false})
			e.must(<-done)
		}},
		{name: "transactions go on after PD was away", alone: true, run: func(e *env) {
			e.put("a=1")
			e.post("stop", map[string]any{"member": 0})
			done := async(func() error {
				tx, err := e.txn.Begin()
				if err == nil {
					if err = tx.Set(e.key("a"), []byte("2")); err == nil {
						err = tx.Commit(e.Context())
					}
				}
				return err
			})
			<-time.After(50 * time.Millisecond)
			e.post("start", map[string]any{"member": 0})
			e.must(<-done)
			e.want(nil, "a=2")
		}},
		{name: "members and stores", run: func(e *env) {
			members, err := e.pd().GetAllMembers(e.ctx())
			if err != nil || len(members) != 1 || !slices.Contains(e.c.PD, strings.TrimPrefix(members[0].ClientUrls[0], "http://")) {
				e.Fatal(members, err)
			}
			e.same("cluster", e.pd().GetClusterID(e.ctx()), e.c.ID)
			stores, err := e.pd().GetAllStores(e.ctx(), opt.WithExcludeTombstone())
			e.must(err)
			e.same("stores", len(stores), 3)
			for _, s := range stores {
				one, err := e.pd().GetStore(e.ctx(), s.Id)
				if err != nil || one.Address != s.Address || one.Version == "" {
					e.Fatal(one, err)
				}
			}
		}},
		{name: "a store that was removed", alone: true, run: func(e *env) {
			id := e.post("add-store", map[string]any{"labels": map[string]string{"zone": "east"}})["store"]
			store := uint64(id.(float64))
			got, err := e.pd().GetStore(e.ctx(), store)
			if err != nil || len(got.Labels) != 1 || got.Labels[0].Value != "east" {
				e.Fatal(got, err)
			}
			e.post("remove-store", map[string]any{"store": id})
			all, err := e.pd().GetAllStores(e.ctx(), opt.WithExcludeTombstone())
			e.must(err)
			for _, s := range all {
				if s.Id == store {
					e.Fatal(s)
				}
			}
		}},
		{name: "the external timestamp goes forward, not ahead", run: func(e *env) {
			at := e.now()
			e.must(e.pd().SetExternalTimestamp(e.ctx(), at))
			got, err := e.pd().GetExternalTimestamp(e.ctx())
			e.must(err)
			e.same("timestamp", got, at)
			if err := e.pd().SetExternalTimestamp(e.ctx(), at-1); err == nil {
				e.Fatal("it went back")
			}
			if err := e.pd().SetExternalTimestamp(e.ctx(), at+1<<40); err == nil {
				e.Fatal("it went ahead of time")
			}
		}},
		{name: "global configuration", run: func(e *env) {
			items := []pd.GlobalConfigItem{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}
			e.must(e.pd().StoreGlobalConfig(e.ctx(), "/global/config/interop", items))
			got, _, err := e.pd().LoadGlobalConfig(e.ctx(), []string{"a", "b"}, "/global/config/interop")
			if err != nil || len(got) != 2 || got[1].Value != "2" && string(got[1].PayLoad) != "2" {
				e.Fatal(got, err)
			}
			got, revision, err := e.pd().LoadGlobalConfig(e.ctx(), nil, "/global/config/interop") // names have no revision
			e.must(err)
			e.same("items", len(got), 2)
			ctx, cancel := context.WithCancel(e.ctx())
			defer cancel()
			// The official client ends its own watch as it returns it.
			stream, err := pdpb.NewPDClient(e.dial(e.c.PD[0])).WatchGlobalConfig(ctx, &pdpb.WatchGlobalConfigRequest{
				ConfigPath: "/global/config/interop", Revision: revision + 1,
			})
			e.must(err)
			e.must(e.pd().StoreGlobalConfig(e.ctx(), "/global/config/interop", []pd.GlobalConfigItem{{Name: "a", Value: "3"}}))
			change, err := stream.Recv()
			if err != nil || len(change.Changes) != 1 || !strings.HasSuffix(change.Changes[0].Name, "/a") || string(change.Changes[0].Payload) != "3" {
				e.Fatal(change, err)
			}
		}},
		{name: "resource groups: made, changed, listed, deleted", run: func(e *env) {
			group := func(rate uint64) *rmpb.ResourceGroup {
				return &rmpb.ResourceGroup{Name: "interop", Mode: rmpb.GroupMode_RUMode, Priority: 8, RUSettings: &rmpb.GroupRequestUnitSettings{
					RU: &rmpb.TokenBucket{Settings: &rmpb.TokenLimitSettings{FillRate: rate, BurstLimit: int64(rate)}},
				}}
			}
			_, err := e.pd().AddResourceGroup(e.ctx(), group(1000))
			e.must(err)
			got, err := e.pd().GetResourceGroup(e.ctx(), "interop")
			if err != nil || got.RUSettings.RU.Settings.FillRate != 1000 || got.Priority != 8 {
				e.Fatal(got, err)
			}
			_, err = e.pd().ModifyResourceGroup(e.ctx(), group(2000))
			e.must(err)
			all, err := e.pd().ListResourceGroups(e.ctx())
			e.must(err)
			rates := make(map[string]uint64)
			for _, g := range all {
				rates[g.Name] = g.RUSettings.RU.Settings.FillRate
			}
			if rates["interop"] != 2000 || rates["default"] == 0 {
				e.Fatal(rates)
			}
			_, err = e.pd().DeleteResourceGroup(e.ctx(), "interop")
			e.must(err)
			if got, err := e.pd().GetResourceGroup(e.ctx(), "interop"); err == nil {
				e.Fatal(got)
			}
		}},
		{name: "resource groups: the default one stays", run: func(e *env) {
			if _, err := e.pd().DeleteResourceGroup(e.ctx(), "default"); err == nil {
				e.Fatal("deleted")
			}
			got, err := e.pd().GetResourceGroup(e.ctx(), "default")
			if err != nil || got.Name != "default" {
				e.Fatal(got, err)
			}
		}},
		{name: "resource groups: tokens are given as they are filled", run: func(e *env) {
			_, err := e.pd().AddResourceGroup(e.ctx(), &rmpb.ResourceGroup{Name: "tokens", Mode: rmpb.GroupMode_RUMode, RUSettings: &rmpb.GroupRequestUnitSettings{
				RU: &rmpb.TokenBucket{Settings: &rmpb.TokenLimitSettings{FillRate: 100, BurstLimit: 100}},
			}})
			e.must(err)
			got, err := e.pd().AcquireTokenBuckets(e.ctx(), &rmpb.TokenBucketsRequest{
				ClientUniqueId: 7, TargetRequestPeriodMs: 5000,
				Requests: []*rmpb.TokenBucketRequest{{ResourceGroupName: "tokens", Request: &rmpb.TokenBucketRequest_RuItems{RuItems: &rmpb.TokenBucketRequest_RequestRU{
					RequestRU: []*rmpb.RequestUnitItem{{Type: rmpb.RequestUnitType_RU, Value: 50}},
				}}}},
			})
			if err != nil || len(got) != 1 || got[0].ResourceGroupName != "tokens" || len(got[0].GrantedRUTokens) != 1 {
				e.Fatal(got, err)
			}
			if tokens := got[0].GrantedRUTokens[0].GrantedTokens.Tokens; tokens <= 0 || tokens > 1000 {
				e.Fatal(got)
			}
		}},
		{name: "resource groups: a transaction under control", run: func(e *env) {
			_, err := e.pd().AddResourceGroup(e.ctx(), &rmpb.ResourceGroup{Name: "control", Mode: rmpb.GroupMode_RUMode, RUSettings: &rmpb.GroupRequestUnitSettings{
				RU: &rmpb.TokenBucket{Settings: &rmpb.TokenLimitSettings{FillRate: 100_000, BurstLimit: 100_000}},
			}})
			e.must(err)
			control, err := controller.NewResourceGroupController(e.ctx(), 1, e.pd(), nil)
			e.must(err)
			control.Start(e.ctx())
			tikv.EnableResourceControl()
			tikv.SetResourceControlInterceptor(control)
			e.Cleanup(func() {
				tikv.DisableResourceControl()
				tikv.UnsetResourceControlInterceptor()
				control.Stop()
			})
			tx := e.begin()
			tx.SetResourceGroupName("control")
			e.set(tx, "a=1")
			e.must(tx.Commit(e.ctx()))
			e.want(nil, "a=1")
			nobody := e.begin()
			nobody.SetResourceGroupName("nobody")
			e.set(nobody, "a=2")
			if err := nobody.Commit(e.ctx()); err == nil {
				e.Fatal("a group that does not exist wrote")
			}
			e.want(nil, "a=1")
		}},
	}}
}

func keyspaceArea() area {
	open := func(e *env, name string) (*txnkv.Client, error) {
		return txnkv.NewClient(e.c.PD, append(slices.Clone(tenant[:1]), txnkv.WithKeyspace(name))...)
	}
	return area{name: "keyspaces", args: []string{"--keyspace", "tenant,other"}, txn: tenant, cases: []kase{
		{name: "loaded by name", run: func(e *env) {
			one, err := e.pd().LoadKeyspace(e.ctx(), "tenant")
			e.must(err)
			other, err := e.pd().LoadKeyspace(e.ctx(), "other")
			if err != nil || one.Id == other.Id || one.State != keyspacepb.KeyspaceState_ENABLED || one.Name != "tenant" {
				e.Fatal(one, other, err)
			}
			if got, err := e.pd().LoadKeyspace(e.ctx(), "nobody"); err == nil {
				e.Fatal(got)
			}
		}},
		{name: "listed by id", run: func(e *env) {
			all, err := e.pd().GetAllKeyspaces(e.ctx(), 0, 100)
			e.must(err)
			var names []string
			for i, k := range all {
				names = append(names, k.Name)
				if i > 0 && k.Id <= all[i-1].Id {
					e.Fatal(all)
				}
			}
			for _, name := range []string{"DEFAULT", "tenant", "other"} {
				if !slices.Contains(names, name) {
					e.Fatal(names)
				}
			}
			rest, err := e.pd().GetAllKeyspaces(e.ctx(), all[1].Id, 1)
			if err != nil || len(rest) != 1 || rest[0].Id != all[1].Id {
				e.Fatal(rest, err)
			}
		}},
		{name: "are apart", run: func(e *env) {
			other, err := open(e, "other")
			e.must(err)
			e.Cleanup(func() { other.Close() })
			e.put("a=tenant")
			there := *e
			there.txn = other
			there.put("a=other", "b=other")
			e.same("tenant", e.scan(e.snapshot()), "a=tenant")
			there.same("other", there.scan(there.snapshot()), "a=other b=other")
			if _, err := other.GetSnapshot(e.now()).Get(e.ctx(), []byte("nothing")); !tikverr.IsErrNotFound(err) {
				e.Fatal(err)
			}
		}},
		{name: "disabled and enabled again", alone: true, run: func(e *env) {
			meta, err := e.pd().LoadKeyspace(e.ctx(), "other")
			e.must(err)
			meta, err = e.pd().UpdateKeyspaceState(e.ctx(), meta.Id, keyspacepb.KeyspaceState_DISABLED)
			if err != nil || meta.State != keyspacepb.KeyspaceState_DISABLED {
				e.Fatal(meta, err)
			}
			// The official client does not look at the state; what PD says is all there is.
			meta, err = e.pd().LoadKeyspace(e.ctx(), "other")
			if err != nil || meta.State != keyspacepb.KeyspaceState_DISABLED {
				e.Fatal(meta, err)
			}
			_, err = e.pd().UpdateKeyspaceState(e.ctx(), meta.Id, keyspacepb.KeyspaceState_ENABLED)
			e.must(err)
			client, err := open(e, "other")
			e.must(err)
			client.Close()
		}},
		{name: "states in their order only", alone: true, run: func(e *env) {
			meta, err := e.pd().LoadKeyspace(e.ctx(), "other")
			e.must(err)
			if got, err := e.pd().UpdateKeyspaceState(e.ctx(), meta.Id, keyspacepb.KeyspaceState_TOMBSTONE); err == nil {
				e.Fatal("from enabled to gone", got)
			}
			for _, s := range []keyspacepb.KeyspaceState{keyspacepb.KeyspaceState_DISABLED, keyspacepb.KeyspaceState_ARCHIVED, keyspacepb.KeyspaceState_TOMBSTONE} {
				got, err := e.pd().UpdateKeyspaceState(e.ctx(), meta.Id, s)
				if err != nil || got.State != s {
					e.Fatal(s, got, err)
				}
			}
			if got, err := e.pd().UpdateKeyspaceState(e.ctx(), meta.Id, keyspacepb.KeyspaceState_ENABLED); err == nil {
				e.Fatal("back from the dead", got)
			}
		}},
		{name: "watched", alone: true, run: func(e *env) {
			ctx, cancel := context.WithCancel(e.ctx())
			defer cancel()
			// The official client answers "unimplemented" itself.
			service := keyspacepb.NewKeyspaceClient(e.dial(e.c.PD[0]))
			stream, err := service.WatchKeyspaces(ctx, &keyspacepb.WatchKeyspacesRequest{Header: &pdpb.RequestHeader{ClusterId: e.c.ID}})
			e.must(err)
			meta, err := e.pd().LoadKeyspace(e.ctx(), "other")
			e.must(err)
			for first := true; ; first = false {
				some, err := stream.Recv()
				e.must(err)
				if first { // the state of now
					_, err := e.pd().UpdateKeyspaceState(e.ctx(), meta.Id, keyspacepb.KeyspaceState_DISABLED)
					e.must(err)
				}
				if slices.ContainsFunc(some.Keyspaces, func(k *keyspacepb.KeyspaceMeta) bool {
					return k.Id == meta.Id && k.State == keyspacepb.KeyspaceState_DISABLED
				}) {
					return
				}
			}
		}},
	}}
}
