package playground

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// operator is a region's, in words; "" for none.
func (c *testCluster) operator(region uint64) string {
	c.t.Helper()
	r, err := c.pdc().GetOperator(c.t.Context(), &pdpb.GetOperatorRequest{Header: c.header(), RegionId: region})
	if err != nil {
		c.t.Fatal(err)
	}
	if e := r.Header.GetError(); e != nil {
		if e.Type != pdpb.ErrorType_REGION_NOT_FOUND || e.Message != "Not Found" {
			c.t.Fatal(e)
		}
		return ""
	}
	return fmt.Sprintf("%s %s %v", r.Desc, r.Kind, r.Status)
}

func (c *testCluster) scatter(group string, regions ...uint64) *pdpb.ScatterRegionResponse {
	c.t.Helper()
	r, err := c.pdc().ScatterRegion(c.t.Context(), &pdpb.ScatterRegionRequest{Header: c.header(), RegionsId: regions, Group: group})
	if err != nil || r.Header.Error != nil {
		c.t.Fatal(r, err)
	}
	return r
}

// Scattered regions of a group have their leaders and peers spread evenly, whatever was
// there before, and their epochs tell of the moves (PD: pkg/schedule/scatter/
// region_scatterer.go). The same seed moves the same.
func TestScatter(t *testing.T) {
	var keys [][]byte
	for i := range 11 {
		keys = append(keys, fmt.Appendf(nil, "k%02d", i))
	}
	scattered := func(seed uint64) string {
		var layout string
		synctest.Test(t, func(t *testing.T) {
			c := start(t, WithStores(4), WithSplitKeys(KeyRaw, keys...), WithSeed(seed))
			var ids []uint64
			before := make(map[uint64]Region)
			for _, r := range c.Regions(KeyRaw) {
				ids = append(ids, r.ID)
				before[r.ID] = r
				if slices.Contains(r.Stores, 1) {
					if err := c.TransferLeader(r.ID, 1); err != nil {
						t.Fatal(err)
					}
				}
			}
			if r := c.scatter("g", ids...); r.FinishedPercentage != 100 || len(r.FailedRegionsId) != 0 {
				t.Fatal(r)
			}
			leaders, peers := make(map[uint64]int), make(map[uint64]int)
			for _, r := range c.Regions(KeyRaw) {
				leaders[r.Leader]++
				moved := 0
				for _, s := range r.Stores {
					peers[s]++
					if !slices.Contains(before[r.ID].Stores, s) {
						moved++
					}
				}
				if len(r.Stores) != 3 || r.ConfVersion != before[r.ID].ConfVersion+6*uint64(moved) {
					t.Errorf("%v, before %v", r, before[r.ID])
				}
				if op := c.operator(r.ID); op != "" && op != "scatter-region admin,region,leader SUCCESS" &&
					op != "scatter-region admin,leader SUCCESS" && op != "scatter-region admin,region SUCCESS" {
					t.Error(op)
				}
			}
			for s := range uint64(4) {
				if leaders[s+1] != 3 || peers[s+1] != 9 {
					t.Errorf("leaders %v, peers %v", leaders, peers)
				}
			}
			layout = fmt.Sprint(c.Regions(KeyRaw))
		})
		return layout
	}
	if a, b := scattered(1), scattered(1); a != b {
		t.Errorf("the same seed moved differently:\n%s\n%s", a, b)
	}
	if a, b, c := scattered(1), scattered(3), scattered(4); a == b && b == c {
		t.Error("the seed does not matter")
	}
}

// What cannot be scattered is told: regions that PD does not know, that have too few or
// other peers, or no leader; a region alone that is unknown is an error (PD:
// server/grpc_service.go, ScatterRegion).
func TestScatterRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(4), WithSplitKeys(KeyRaw, []byte("b"), []byte("c"), []byte("d")))
		all := c.Regions(KeyRaw)
		well, thin, hidden := all[0].ID, all[1].ID, all[2].ID
		if err := c.RemovePeer(thin, all[1].Stores[0]); err != nil {
			t.Fatal(err)
		}
		if err := c.HideRegion(hidden, true); err != nil {
			t.Fatal(err)
		}
		r, err := c.pdc().ScatterRegion(t.Context(), &pdpb.ScatterRegionRequest{
			Header: c.header(), RegionsId: []uint64{well, thin, hidden, 999}, RetryLimit: 2})
		if err != nil || r.FinishedPercentage != 25 || !slices.Equal(r.FailedRegionsId, []uint64{thin, hidden, 999}) {
			t.Error(r, err)
		}
		for i, test := range []struct {
			req  pdpb.ScatterRegionRequest
			want string
		}{
			{pdpb.ScatterRegionRequest{RegionsId: []uint64{999}}, "[PD:region:ErrRegionNotFound]region 999 not found"},
			{pdpb.ScatterRegionRequest{RegionsId: []uint64{998, 999}}, "[PD:scatter:ErrEmptyRegion]empty region"},
			{pdpb.ScatterRegionRequest{RegionId: thin}, fmt.Sprintf("region %d is not fully replicated", thin)},
		} {
			test.req.Header = c.header()
			if _, err := c.pdc().ScatterRegion(t.Context(), &test.req); status.Code(err) != codes.Unknown || status.Convert(err).Message() != test.want {
				t.Errorf("%d: %v", i, err)
			}
		}
		old, err := c.pdc().ScatterRegion(t.Context(), &pdpb.ScatterRegionRequest{Header: c.header(), RegionId: 999})
		if err != nil || old.Header.GetError().GetType() != pdpb.ErrorType_REGION_NOT_FOUND {
			t.Error(old, err)
		}
		if old, err = c.pdc().ScatterRegion(t.Context(), &pdpb.ScatterRegionRequest{Header: c.header(), RegionId: well}); err != nil || old.FinishedPercentage != 100 {
			t.Error(old, err)
		}
		for _, s := range all[3].Stores[:2] {
			if err := c.Stop(Store(s)); err != nil {
				t.Fatal(err)
			}
		}
		if r := c.scatter("", all[3].ID); r.FinishedPercentage != 0 || !slices.Equal(r.FailedRegionsId, []uint64{all[3].ID}) {
			t.Error(r)
		}
	})
}

// An operator runs for as long as operators are said to take, by the cluster's clock; it
// refuses others, ends early where another change overtakes it, and is forgotten ten
// minutes after its end (PD: pkg/schedule/operator/operator_controller.go).
func TestOperators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(4), WithSplitKeys(KeyRaw, []byte("b")))
		r := c.Regions(KeyRaw)[0]
		if err := c.SetOperatorTime(-1); err == nil {
			t.Error("a negative time")
		}
		if err := c.SetOperatorTime(time.Minute); err != nil {
			t.Fatal(err)
		}
		// Scattered until it moves: the first region of a group stays where it is if the
		// shuffle says so.
		groups := 0
		move := func() {
			t.Helper()
			for c.operator(r.ID) == "" || groups == 0 {
				groups++
				if groups > 50 {
					t.Fatal("it never moves")
				}
				c.scatter(fmt.Sprint(groups), r.ID)
			}
		}
		move()
		running := c.operator(r.ID)
		if !slices.Contains([]string{"scatter-region admin,region,leader RUNNING", "scatter-region admin,leader RUNNING", "scatter-region admin,region RUNNING"}, running) {
			t.Fatal(running)
		}
		if r := c.scatter("another", r.ID); r.FinishedPercentage != 0 {
			t.Error(r)
		}
		split, err := c.pdc().SplitRegions(t.Context(), &pdpb.SplitRegionsRequest{Header: c.header(), SplitKeys: [][]byte{[]byte("a")}})
		if err != nil || split.FinishedPercentage != 0 || len(split.RegionsId) != 0 {
			t.Error(split, err)
		}
		c.Advance(59 * time.Second)
		if op := c.operator(r.ID); op != running {
			t.Error(op)
		}
		c.Advance(time.Second)
		if op := c.operator(r.ID); op != running[:len(running)-len("RUNNING")]+"SUCCESS" {
			t.Error(op)
		}
		c.Advance(10*time.Minute - time.Second)
		if c.operator(r.ID) == "" {
			t.Error("forgotten early")
		}
		c.Advance(time.Second)
		if op := c.operator(r.ID); op != "" {
			t.Error(op)
		}
		move()
		if err := c.AddPeer(r.ID, absent(c.storesOf(r.ID), 4), Learner); err != nil {
			t.Fatal(err)
		}
		if op := c.operator(r.ID); op[len(op)-len("CANCEL"):] != "CANCEL" {
			t.Error(op)
		}
	})
}

// absent is the first of n stores that is not among some.
func absent(stores []uint64, n uint64) uint64 {
	for s := range n {
		if !slices.Contains(stores, s+1) {
			return s + 1
		}
	}
	return 0
}

// Split at keys where no region begins; what begins there is told, the last part with the
// region's old id (PD: pkg/schedule/splitter/region_splitter.go).
func TestSplitRegions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyRaw, []byte("m")))
		low, high := c.Regions(KeyRaw)[0].ID, c.Regions(KeyRaw)[1].ID
		split := func(keys ...string) (uint64, []uint64) {
			t.Helper()
			req := &pdpb.SplitRegionsRequest{Header: c.header(), RetryLimit: 1}
			for _, k := range keys {
				req.SplitKeys = append(req.SplitKeys, []byte(k))
			}
			r, err := c.pdc().SplitRegions(t.Context(), req)
			if err != nil || r.Header.Error != nil {
				t.Fatal(r, err)
			}
			return r.FinishedPercentage, r.RegionsId
		}
		percent, ids := split("x", "c", "f", "c", "m") // at m one begins already
		starts := make(map[uint64]string)
		for _, r := range c.Regions(KeyRaw) {
			starts[r.ID] = string(r.Start)
		}
		if percent != 80 || len(ids) != 3 || starts[low] != "f" || starts[high] != "x" {
			t.Fatal(percent, ids, starts)
		}
		for _, id := range ids {
			if starts[id] != "x" && starts[id] != "c" && starts[id] != "f" {
				t.Error(id, starts)
			}
		}
		if op := c.operator(low); op != "region-splitter split SUCCESS" {
			t.Error(op)
		}
		if percent, ids := split(); percent != 0 || ids != nil {
			t.Error(percent, ids)
		}
		if percent, ids := split("c"); percent != 0 || ids != nil {
			t.Error(percent, ids)
		}
		both, err := c.pdc().SplitAndScatterRegions(t.Context(), &pdpb.SplitAndScatterRegionsRequest{
			Header: c.header(), SplitKeys: [][]byte{[]byte("d"), []byte("e")}, Group: "g"})
		if err != nil || both.SplitFinishedPercentage != 100 || both.ScatterFinishedPercentage != 100 || len(both.RegionsId) != 2 {
			t.Error(both, err)
		}
		if _, err := c.pdc().SplitAndScatterRegions(t.Context(), &pdpb.SplitAndScatterRegionsRequest{
			Header: c.header(), SplitKeys: [][]byte{[]byte("d")}}); status.Code(err) != codes.Unknown {
			t.Error(err)
		}
	})
}

func (c *testCluster) storesOf(region uint64) []uint64 {
	for _, r := range c.Regions(KeyRaw) {
		if r.ID == region {
			return r.Stores
		}
	}
	return nil
}

// A store that leaves is Offline, serves, and gets no more peers; a removed one is a
// tombstone (PD: pkg/core/store_option.go, SetStoreState).
func TestLeavingStore(t *testing.T) {
	dir := t.TempDir()
	c := start(t, WithDir(dir, false), WithStores(5), WithLabels(4, map[string]string{"zone": "z"}), WithSplitKeys(KeyRaw, []byte("b"), []byte("c")))
	state := func(id uint64) string {
		t.Helper()
		one, err := c.pdc().GetStore(t.Context(), &pdpb.GetStoreRequest{Header: c.header(), StoreId: id})
		if err != nil || one.Header.Error != nil {
			t.Fatal(one, err)
		}
		return fmt.Sprint(one.Store.State, " ", one.Store.NodeState, " ", len(one.Store.Labels))
	}
	if err := c.SetLeaving(4, true); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveStore(5); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{c.SetLeaving(1, true), c.SetLeaving(5, true), c.SetLeaving(9, true), c.RemoveStore(1)} {
		if err == nil {
			t.Error("taken")
		}
	}
	all, err := c.pdc().GetAllStores(t.Context(), &pdpb.GetAllStoresRequest{Header: c.header(), ExcludeTombstoneStores: true})
	if err != nil || len(all.Stores) != 4 {
		t.Error(all, err)
	}
	if a, b, d := state(1), state(4), state(5); a != "Up Serving 0" || b != "Offline Removing 1" || d != "Tombstone Removed 0" {
		t.Errorf("%q %q %q", a, b, d)
	}
	peers := func() (n int) {
		for _, r := range c.Regions(KeyRaw) {
			if slices.Contains(r.Stores, 4) {
				n++
			}
		}
		return n
	}
	before := peers()
	for i := range 5 {
		var ids []uint64
		for _, r := range c.Regions(KeyRaw) {
			ids = append(ids, r.ID)
		}
		if r := c.scatter(fmt.Sprint(i), ids...); r.FinishedPercentage != 100 {
			t.Error(r)
		}
	}
	if after := peers(); after > before {
		t.Errorf("it has %d peers, it had %d", after, before)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = start(t, WithDir(dir, false))
	if s := state(4); s != "Offline Removing 1" {
		t.Error(s)
	}
	if err := c.SetLeaving(4, false); err != nil || state(4) != "Up Serving 1" {
		t.Error(err, state(4))
	}
}

// What is done to keyspaces, buckets, operators and leaving stores is in the journal, and is
// done again by its verbs.
func TestReplayOfPDsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := []Option{WithAPIVersion(APIV2), WithKeyspaces("ks"), WithStores(4)}
		first := start(t, options...)
		region := first.Regions(KeyTxn)[0].ID
		for i, err := range []error{
			first.SetKeyspaceState("ks", KeyspaceDisabled), first.SetKeyspaceConfig("ks", "a", "b"), first.SetLeaving(4, true),
			first.SetBuckets(region, KeyTxn, []byte("k")), first.SetOperatorTime(time.Minute),
		} {
			if err != nil {
				t.Fatal(i, err)
			}
		}
		second := start(t, options...)
		if err := second.Replay(first.Journal()); err != nil {
			t.Fatal(err)
		}
		k := second.pd.Keyspaces()[1]
		b := second.topo.Buckets(region)
		if fmt.Sprint(k.State, k.Config) != "DISABLED map[a:b]" || !second.topo.Leaving(4) || b == nil || len(b.Keys) != 3 {
			t.Error(k, second.topo.Leaving(4), b)
		}
		if string(first.Journal()) != string(second.Journal()) {
			t.Errorf("%s, replayed: %s", first.Journal(), second.Journal())
		}
		if err := second.Replay([]byte(`{"at":0,"do":"set-keyspace-state","keyspace":"ks","state":"asleep"}`)); err != nil {
			t.Error(err) // a change that fails is logged
		}
	})
}
