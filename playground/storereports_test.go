package playground

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func (c *testCluster) getStore(id uint64) *pdpb.GetStoreResponse {
	c.t.Helper()
	resp, err := c.pdc().GetStore(c.t.Context(), &pdpb.GetStoreRequest{Header: c.header(), StoreId: id})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

func (c *testCluster) putStore(s *metapb.Store) *pdpb.Error {
	c.t.Helper()
	resp, err := c.pdc().PutStore(c.t.Context(), &pdpb.PutStoreRequest{Header: c.header(), Store: s})
	if err != nil {
		c.t.Fatal(err)
	}
	if (resp.Header.Error == nil) != (resp.ReplicationStatus != nil) {
		c.t.Fatal(resp)
	}
	return resp.Header.Error
}

func labelText(s *metapb.Store) string {
	var all []string
	for _, l := range s.Labels {
		all = append(all, l.Key+"="+l.Value)
	}
	return strings.Join(all, ",")
}

// PD: server/grpc_service.go, PutStore; server/cluster/cluster.go, putStoreImpl and
// checkStoreVersion; pkg/core/store.go, MergeLabels and ValidateStoreEngineKey.
func TestPutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(4), WithLabels(1, map[string]string{"zone": "a", "rack": "1"}))
		second := c.getStore(2).Store
		if err := c.RemoveStore(4); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			name string
			put  *metapb.Store
			kind pdpb.ErrorType
			text string
		}{
			{"none", nil, pdpb.ErrorType_UNKNOWN, "invalid put store"},
			{"a tombstone", &metapb.Store{Id: 4, Address: "a:1", Version: "9.0.0"}, pdpb.ErrorType_STORE_TOMBSTONE, "store is tombstone"},
			{"no engine", &metapb.Store{Id: 1, Address: "a:1", Version: "9.0.0", Labels: []*metapb.StoreLabel{{Key: "engine", Value: "innodb"}}},
				pdpb.ErrorType_INVALID_VALUE, `invalid store engine label value: "innodb", valid values are "tikv", "tiflash", "tiflash_compute" or empty`},
			{"old", &metapb.Store{Id: 1, Address: "a:1", Version: "8.5.1"}, pdpb.ErrorType_UNKNOWN, "version should compatible with version  9.0.0, got 8.5.1"},
			{"without a version", &metapb.Store{Id: 1, Address: "a:1"}, pdpb.ErrorType_UNKNOWN, "version should compatible with version  9.0.0, got 1.0.0"},
			{"no version", &metapb.Store{Id: 1, Address: "a:1", Version: "new"}, pdpb.ErrorType_UNKNOWN, "new is not in dotted-tri format"},
			{"another's address", &metapb.Store{Id: 1, Address: second.Address, Version: "9.0.0"}, pdpb.ErrorType_UNKNOWN, "duplicated store address:"},
			{"another's as peer address", &metapb.Store{Id: 1, Address: "a:1", PeerAddress: second.Address, Version: "9.0.0"},
				pdpb.ErrorType_UNKNOWN, "duplicated store peer address:"},
		} {
			if e := c.putStore(test.put); e.GetType() != test.kind || !strings.Contains(e.GetMessage(), test.text) {
				t.Errorf("%s: %v", test.name, e)
			}
		}
		if s := c.getStore(1).Store; s.Address == "a:1" || labelText(s) != "rack=1,zone=a" {
			t.Fatal("a refusal has changed", s)
		}
		put := &metapb.Store{
			Id: 1, Address: "a:1", StatusAddress: "a:2", PeerAddress: "a:3", Version: "v9.0.1-alpha", GitHash: "1234", StartTimestamp: 7, DeployPath: "/d",
			State: metapb.StoreState_Offline, NodeState: metapb.NodeState_Removing,
			Labels: []*metapb.StoreLabel{{Key: "Zone", Value: "b"}, {Key: "rack"}, {Key: "disk", Value: "ssd"}},
		}
		if e := c.putStore(put); e != nil {
			t.Fatal(e)
		}
		s := c.getStore(1).Store
		if s.Address != "a:1" || s.StatusAddress != "a:2" || s.PeerAddress != "a:3" || s.Version != "v9.0.1-alpha" || s.GitHash != "1234" ||
			s.StartTimestamp != 7 || s.DeployPath != "/d" || s.NodeState != metapb.NodeState_Serving || labelText(s) != "disk=ssd,zone=b" {
			t.Fatal(s)
		}
		if e := c.putStore(&metapb.Store{Id: 2, Address: "a:3", Version: "9.0.0"}); !strings.Contains(e.GetMessage(), "duplicated store address") {
			t.Fatal(e)
		}
		c.rawPut("k", "v") // its server is where it was
		// A store that starts puts itself; labels are merged, and stay.
		c.must(c.Stop(Store(1)))
		c.must(c.Cluster.Start(Store(1)))
		if s := c.getStore(1).Store; s.Address == "a:1" || s.Version != "9.0.0" || labelText(s) != "disk=ssd,zone=b" {
			t.Fatal(s)
		}
	})
}

// A store that the cluster has no process for is known to PD, in all lists, and kept in the
// directory; and no region is placed on it (PD: server/cluster/cluster.go, putStoreImpl and
// checkStore).
func TestPutStrangeStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := start(t, WithDir(dir, false))
		put := &metapb.Store{Id: 77, Address: "far:1", Version: "9.1.0", NodeState: metapb.NodeState_Preparing,
			Labels: []*metapb.StoreLabel{{Key: "zone", Value: "z"}}}
		if e := c.putStore(put); e != nil {
			t.Fatal(e)
		}
		if s := c.getStore(77).Store; s.NodeState != metapb.NodeState_Preparing || s.Address != "far:1" {
			t.Fatal(s)
		}
		<-time.After(11 * time.Second)
		if s := c.getStore(77).Store; s.NodeState != metapb.NodeState_Serving {
			t.Fatal(s)
		}
		all, err := c.pdc().GetAllStores(t.Context(), &pdpb.GetAllStoresRequest{Header: c.header()})
		if err != nil || len(all.Stores) != 4 || all.Stores[3].Id != 77 {
			t.Fatal(all, err)
		}
		for range 20 {
			for _, r := range c.Regions(KeyRaw) {
				c.scatter("g", r.ID)
			}
		}
		for _, r := range c.Regions(KeyRaw) {
			for _, s := range c.storesOf(r.ID) {
				if s == 77 {
					t.Fatal("a peer on a store without a process")
				}
			}
		}
		if e := c.putStore(&metapb.Store{Id: 78, Address: "far:1", Version: "9.1.0"}); !strings.Contains(e.GetMessage(), "duplicated store address") {
			t.Fatal(e)
		}
		if e := c.putStore(&metapb.Store{Id: 77, Address: "near:1", Version: "9.1.0"}); e != nil {
			t.Fatal(e)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = start(t, WithDir(dir, false))
		if s := c.getStore(77).Store; s.GetAddress() != "near:1" || labelText(s) != "zone=z" || s.NodeState != metapb.NodeState_Serving {
			t.Fatal(s)
		}
		if n := len(c.stores); n != 3 {
			t.Fatal(n, "stores in the cluster")
		}
		c.must(c.RemoveStore(77))
		if s := c.getStore(77).Store; s.NodeState != metapb.NodeState_Removed || s.State != metapb.StoreState_Tombstone {
			t.Fatal(s)
		}
		if err := c.RemoveStore(77); err == nil {
			t.Fatal("removed twice")
		}
		if e := c.putStore(&metapb.Store{Id: 77, Address: "near:1", Version: "9.1.0"}); e.GetType() != pdpb.ErrorType_STORE_TOMBSTONE {
			t.Fatal(e)
		}
	})
}

// PD: server/grpc_service.go, StoreHeartbeat; server/cluster/cluster.go,
// HandleStoreHeartbeat and NeedAwakenAllRegionsInStore.
func TestStoreHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(5), WithMembers(3))
		c.must(c.RemoveStore(5))
		c.must(c.SetLeaving(4, true))
		beat := func(i int, stats *pdpb.StoreStats) (*pdpb.StoreHeartbeatResponse, error) {
			return c.member(i).StoreHeartbeat(t.Context(), &pdpb.StoreHeartbeatRequest{Header: c.header(), Stats: stats})
		}
		must := func(stats *pdpb.StoreStats) *pdpb.StoreHeartbeatResponse {
			t.Helper()
			resp, err := beat(0, stats)
			if err != nil || resp.Header.Error != nil || resp.ClusterVersion != "9.0.0" || resp.ReplicationStatus == nil {
				t.Fatal(resp, err)
			}
			return resp
		}
		if _, err := beat(0, nil); status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "invalid store heartbeat command") {
			t.Fatal(err)
		}
		if _, err := beat(1, &pdpb.StoreStats{StoreId: 1}); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		for id, want := range map[uint64]*pdpb.Error{
			5: {Type: pdpb.ErrorType_STORE_TOMBSTONE, Message: "store is tombstone"},
			9: {Type: pdpb.ErrorType_UNKNOWN, Message: "store 9 not found"},
		} {
			if resp, err := beat(0, &pdpb.StoreStats{StoreId: id}); err != nil || resp.Header.Error.String() != want.String() {
				t.Fatal(resp, err)
			}
		}
		if s := c.getStore(1); s.Stats == nil || s.Stats.Capacity != 0 || s.Store.LastHeartbeat != 0 {
			t.Fatal(s)
		}
		if resp := must(&pdpb.StoreStats{StoreId: 1, Capacity: 100, Available: 40, RegionCount: 3}); resp.State != metapb.NodeState_Serving || resp.AwakenRegions != nil {
			t.Fatal(resp)
		}
		if s := c.getStore(1); s.Stats.Capacity != 100 || s.Stats.Available != 40 || s.Store.LastHeartbeat != c.Now().UnixNano() {
			t.Fatal(s)
		}
		if resp := must(&pdpb.StoreStats{StoreId: 4}); resp.State != metapb.NodeState_Removing {
			t.Fatal(resp)
		}
		// While a store is slow the others are told, each once in ten minutes.
		must(&pdpb.StoreStats{StoreId: 2, SlowScore: 80})
		told := func(id uint64) bool {
			a := must(&pdpb.StoreStats{StoreId: id, Available: 1}).AwakenRegions
			return a != nil && len(a.AbnormalStores) == 1 && a.AbnormalStores[0] == 2
		}
		if !told(3) || told(3) || !told(1) {
			t.Fatal("a slow store is not told of once")
		}
		<-time.After(10*time.Minute + time.Second)
		must(&pdpb.StoreStats{StoreId: 2, SlowScore: 80})
		if told(3) || !told(3) { // by the heartbeat before
			t.Fatal("a slow store is not told of again")
		}
		// A report that belongs to a recovery leaves the statistics.
		resp, err := c.pdc().StoreHeartbeat(t.Context(), &pdpb.StoreHeartbeatRequest{Header: c.header(),
			Stats: &pdpb.StoreStats{StoreId: 3, Available: 9}, StoreReport: &pdpb.StoreReport{}})
		if err != nil || resp.Header.Error != nil || resp.ClusterVersion != "9.0.0" || c.getStore(3).Stats.Available != 1 {
			t.Fatal(resp, err)
		}
	})
}

// What is reported of a store that does not run stays; one that runs reports itself every
// second (PD: server/cluster/cluster.go, SetMinResolvedTS).
func TestReportMinResolvedTS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyRaw, []byte("b"), []byte("m")))
		report := func(id, ts uint64) error {
			resp, err := c.pdc().ReportMinResolvedTS(t.Context(), &pdpb.ReportMinResolvedTsRequest{Header: c.header(), StoreId: id, MinResolvedTs: ts})
			if err == nil && resp.Header.Error != nil {
				t.Fatal(resp)
			}
			return err
		}
		if err := report(9, 1); status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "[PD:core:ErrStoreNotFound]store 9 not found") {
			t.Fatal(err)
		}
		c.must(report(1, 42))
		resolved := func() (a resolvedAnswer) {
			resp, err := c.http().Get("http://" + c.PD()[0] + "/pd/api/v1/min-resolved-ts?scope=1")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
				t.Fatal(err)
			}
			return a
		}
		if a := resolved(); a.TS != 42 || a.Stores[1] != 42 {
			t.Fatal(a)
		}
		<-time.After(time.Second)
		if a := resolved(); a.TS <= 42 || a.TS == math.MaxUint64 {
			t.Fatal(a)
		}
	})
}

// PD: server/cluster/cluster_worker.go, HandleAskBatchSplit; pkg/core/region.go,
// ValidRegion.
func TestAskBatchSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(2), WithSplitKeys(KeyRaw, []byte("m")))
		r := c.topo.ByKey(c.api.regionKey(KeyRaw, []byte("a"))).Meta
		ask := func(i int, region *metapb.Region, n uint32) *pdpb.AskBatchSplitResponse {
			t.Helper()
			resp, err := c.member(i).AskBatchSplit(t.Context(), &pdpb.AskBatchSplitRequest{Header: c.header(), Region: region, SplitCount: n})
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		stale, hidden := *r, c.topo.ByKey(c.api.regionKey(KeyRaw, []byte("z"))).Meta
		stale.RegionEpoch = &metapb.RegionEpoch{Version: r.RegionEpoch.Version - 1, ConfVer: r.RegionEpoch.ConfVer}
		c.must(c.HideRegion(hidden.Id, true))
		for _, test := range []struct {
			name   string
			member int
			region *metapb.Region
			n      uint32
			kind   pdpb.ErrorType
			text   string
		}{
			{"follower", 1, r, 1, pdpb.ErrorType_NOT_BOOTSTRAPPED, "cluster is not bootstrapped"},
			{"none", 0, nil, 1, pdpb.ErrorType_REGION_NOT_FOUND, "missing region for split"},
			{"unknown", 0, hidden, 1, pdpb.ErrorType_UNKNOWN, "region not found, request region:"},
			{"stale", 0, &stale, 1, pdpb.ErrorType_UNKNOWN, "invalid region epoch, request:"},
			{"too many", 0, r, math.MaxUint32, pdpb.ErrorType_UNKNOWN, "a split cannot have"},
		} {
			resp := ask(test.member, test.region, test.n)
			if e := resp.Header.Error; e.GetType() != test.kind || !strings.Contains(e.GetMessage(), test.text) || resp.Ids != nil {
				t.Errorf("%s: %v", test.name, resp)
			}
		}
		resp, seen := ask(0, r, 3), make(map[uint64]bool)
		if len(resp.Ids) != 3 {
			t.Fatal(resp)
		}
		for _, id := range resp.Ids {
			if len(id.NewPeerIds) != len(r.Peers) {
				t.Fatal(resp)
			}
			for _, n := range append(id.NewPeerIds, id.NewRegionId) {
				if seen[n] || n == 0 {
					t.Fatal("id", n, "twice")
				}
				seen[n] = true
			}
		}
		if next := ask(0, r, 1).Ids[0]; seen[next.NewRegionId] {
			t.Fatal(next)
		}
		if n := c.topo.Len(); n != 2 || c.topo.ByID(r.Id).Meta != r {
			t.Fatal("the regions have changed")
		}
	})
}

// PD: server/cluster/cluster_worker.go, checkSplitRegions.
func TestReportBatchSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		region := func(start, end string) *metapb.Region {
			return &metapb.Region{Id: 9, StartKey: []byte(start), EndKey: []byte(end)}
		}
		for _, test := range []struct {
			name  string
			parts []*metapb.Region
			ok    bool
		}{
			{"none", nil, false},
			{"one", []*metapb.Region{region("", "")}, false},
			{"two", []*metapb.Region{region("", "m"), region("m", "")}, true},
			{"three", []*metapb.Region{region("a", "m"), region("m", "n"), region("n", "p")}, true},
			{"a hole", []*metapb.Region{region("a", "m"), region("n", "p")}, false},
			{"backwards", []*metapb.Region{region("p", "m"), region("m", "n")}, false},
		} {
			resp, err := c.pdc().ReportBatchSplit(t.Context(), &pdpb.ReportBatchSplitRequest{Header: c.header(), Regions: test.parts})
			if err != nil || (resp.Header.Error == nil) != test.ok || !test.ok && resp.Header.Error.Message != "invalid split region" {
				t.Errorf("%s: %v, %v", test.name, resp, err)
			}
		}
		if c.topo.Len() != 1 {
			t.Fatal("the regions have changed")
		}
	})
}

// forwardedTo is a context by whose metadata a member passes a call on to the first one.
func (c *testCluster) forwardedTo(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "pd-forwarded-host", "http://"+c.PD()[0])
}
