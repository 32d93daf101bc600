package playground

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

func (c *testCluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *testCluster) epoch(id uint64) (version, conf uint64) {
	e := c.topo.ByID(id).Meta.RegionEpoch
	return e.Version, e.ConfVer
}

// A merge in either direction: the epoch, the keys, what old requests hear.
func TestMerge(t *testing.T) {
	for _, intoRight := range []bool{false, true} {
		t.Run(fmt.Sprint(intoRight), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t, WithStores(5))
				for _, k := range []string{"g", "p", "t"} {
					if _, err := c.Split(KeyRaw, []byte(k)); err != nil {
						t.Fatal(err)
					}
				}
				c.rawPut("h", "1")
				c.rawPut("q", "2")
				regions := c.Regions(KeyRaw)
				source, target := regions[2].ID, regions[1].ID
				if intoRight {
					source, target = target, source
				}
				sv, _ := c.epoch(source)
				tv, conf := c.epoch(target)
				old := c.topo.ByID(source)
				expect(t, c.Merge(regions[0].ID, regions[2].ID), "no neighbours")
				expect(t, c.Merge(target, target), "no neighbours")
				expect(t, c.Merge(99999, target), "no region")
				c.must(c.Merge(source, target))
				if v, cv := c.epoch(target); v != max(sv+1, tv)+1 || cv != conf {
					t.Fatalf("epoch %d %d, source was %d, target %d", v, cv, sv, tv)
				}
				now := c.Regions(KeyRaw)
				if len(now) != 3 || string(now[1].Start) != "g" || string(now[1].End) != "t" || now[1].ID != target || c.Counts().Merges != 1 {
					t.Fatal(now, c.Counts().Merges)
				}
				for _, k := range []string{"h", "q"} {
					if _, ok := c.rawGet(k); !ok {
						t.Fatal("lost", k)
					}
				}
				resp, err := c.tikv(old.LeaderStore()).RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: c.context(old.Meta, old.Leader), Key: []byte("h")})
				if err != nil || resp.RegionError.GetRegionNotFound() == nil {
					t.Fatal(resp, err)
				}
				byID, err := c.pdc().GetRegionByID(t.Context(), &pdpb.GetRegionByIDRequest{Header: c.header(), RegionId: source})
				if err != nil || byID.Region != nil {
					t.Fatal(byID, err)
				}
			})
		})
	}
}

// Each change of a region's peers, and by how much the conf version grows.
func TestPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(4))
		at, _ := c.at(KeyRaw, "k")
		id, leader := at.RegionId, at.Peer.StoreId
		region := c.topo.ByID(id)
		other := uint64(slices.IndexFunc([]uint64{1, 2, 3, 4}, func(s uint64) bool { return region.Peer(s) == nil }) + 1)
		v, conf := c.epoch(id)
		step := func(what string, err error, grows uint64) {
			t.Helper()
			nv, ncv := c.epoch(id)
			if err != nil || nv != v || ncv != conf+grows {
				t.Fatal(what, err, nv, v, ncv, conf, grows)
			}
			conf = ncv
		}
		step("learner", c.AddPeer(id, other, Learner), 1)
		if p := c.topo.ByID(id).Peer(other); p.Role != metapb.PeerRole_Learner || p.IsWitness {
			t.Fatal(p)
		}
		expect(t, c.TransferLeader(id, other), "cannot lead")
		step("again", c.AddPeer(id, other, Learner), 0)
		step("promoted", c.AddPeer(id, other, Voter), 1)
		c.must(c.TransferLeader(id, other))
		step("demoted leader", c.AddPeer(id, other, Learner), 2)
		if l := c.topo.ByID(id).LeaderStore(); l == other || l == 0 {
			t.Fatal("led by", l)
		}
		expect(t, c.AddPeer(id, other, Witness), "does not become")
		step("removed", c.RemovePeer(id, other), 1)
		expect(t, c.RemovePeer(id, other), "no peer")
		step("witness", c.AddPeer(id, other, Witness), 2)
		expect(t, c.TransferLeader(id, other), "cannot lead")
		p := c.topo.ByID(id).Peer(other)
		ctx := c.context(c.topo.ByID(id).Meta, p)
		ctx.ReplicaRead = true
		resp, err := c.tikv(other).RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: ctx, Key: []byte("k")})
		if err != nil || resp.RegionError.GetIsWitness().GetRegionId() != id {
			t.Fatal(resp, err)
		}
		got, err := c.pdc().GetRegionByID(t.Context(), &pdpb.GetRegionByIDRequest{Header: c.header(), RegionId: id})
		if err != nil || !slices.ContainsFunc(got.Region.Peers, func(p *metapb.Peer) bool { return p.IsWitness && p.StoreId == other }) {
			t.Fatal(got, err)
		}
		step("witness to voter", c.AddPeer(id, other, Voter), 1)
		c.must(c.TransferLeader(id, leader))
		step("removed leader", c.RemovePeer(id, leader), 1)
		if c.topo.ByID(id).LeaderStore() == leader || c.topo.ByID(id).Peer(leader) != nil {
			t.Fatal(c.topo.ByID(id).Meta)
		}
		c.must(c.AddPeer(id, leader, Learner))
		if _, err := c.Split(KeyRaw, []byte("s")); err != nil {
			t.Fatal(err)
		}
		if p := c.topo.ByKey([]byte("a")).Peer(leader); p == nil || p.Role != metapb.PeerRole_Learner {
			t.Fatal("a split forgot a role:", p)
		}
		expect(t, c.AddPeer(id, 9, Voter), "no store 9")
		expect(t, c.AddPeer(9999, other, Voter), "no region")
		// A request with an older conf version is taken: only versions are compared.
		c.at(KeyRaw, "k")
		now := c.topo.ByKey([]byte("k"))
		ctx = c.context(now.Meta, now.Leader)
		ctx.RegionEpoch = &metapb.RegionEpoch{Version: now.Meta.RegionEpoch.Version, ConfVer: 1}
		resp, err = c.tikv(now.LeaderStore()).RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: ctx, Key: []byte("k")})
		if err != nil || resp.RegionError != nil {
			t.Fatal(resp, err)
		}
	})
}

// A change that would leave no majority that runs is refused.
func TestPeersNeedAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		at, _ := c.at(KeyRaw, "k")
		leader := at.Peer.StoreId
		c.must(c.Stop(Store(leader%3 + 1)))
		expect(t, c.RemovePeer(at.RegionId, (leader+1)%3+1), "no live majority")
		c.must(c.RemovePeer(at.RegionId, leader%3+1))
		expect(t, c.AddPeer(at.RegionId, leader%3+1, Voter), "does not run")
		c.must(c.Stop(Store((leader+1)%3 + 1)))
		expect(t, c.RemovePeer(at.RegionId, (leader+1)%3+1), "no majority")
	})
}

// Stores come and go; PD tells of tombstones unless asked not to; a directory remembers.
func TestStoresComeAndGo(t *testing.T) {
	dir := t.TempDir()
	stores := func(c *testCluster, exclude bool) string {
		t.Helper()
		resp, err := c.pdc().GetAllStores(t.Context(), &pdpb.GetAllStoresRequest{Header: c.header(), ExcludeTombstoneStores: exclude})
		if err != nil {
			t.Fatal(err)
		}
		var text string
		for _, s := range resp.Stores {
			text += fmt.Sprint(s.State, "/", s.NodeState, s.Labels, " ")
		}
		return text
	}
	var want, wantUp, wantRegion string
	t.Run("first", func(t *testing.T) {
		c := start(t, WithDir(dir, false), WithLabels(2, map[string]string{"zone": "b", "host": "h"}))
		expect(t, c.RemoveStore(1), "would be 2 while need 3")
		c.rawPut("k", "v")
		id, err := c.AddStore(map[string]string{"zone": "c"})
		c.must(err)
		before := c.topo.ByKey([]byte("k"))
		_, conf := c.epoch(before.ID())
		c.must(c.RemoveStore(before.LeaderStore()))
		now := c.topo.ByKey([]byte("k"))
		if _, cv := c.epoch(now.ID()); now.Peer(before.LeaderStore()) != nil || now.Peer(id) == nil || cv != conf+6 || now.Leader == nil {
			t.Fatal(now.Meta)
		}
		if _, ok := c.rawGet("k"); !ok {
			t.Fatal("lost")
		}
		expect(t, c.RemoveStore(before.LeaderStore()), "no store")
		expect(t, c.Cluster.Start(Store(before.LeaderStore())), "was removed")
		c.must(c.AddPeer(now.ID(), now.LeaderStore(), Voter))
		c.must(c.TransferLeader(now.ID(), id))
		if _, ok := c.rawGet("k"); !ok {
			t.Fatal("the new store does not serve")
		}
		want, wantUp, wantRegion = stores(c, false), stores(c, true), now.Meta.String()
		if want != `Tombstone/Removed [] Up/Serving [key:"host" value:"h"  key:"zone" value:"b" ] Up/Serving [] Up/Serving [key:"zone" value:"c" ] ` {
			t.Fatal(want)
		}
		if len(wantUp) >= len(want) {
			t.Fatal(wantUp)
		}
	})
	t.Run("reopened", func(t *testing.T) {
		c := start(t, WithDir(dir, false))
		if got := stores(c, false); got != want || stores(c, true) != wantUp || c.topo.ByKey([]byte("k")).Meta.String() != wantRegion {
			t.Fatal(got, c.topo.ByKey([]byte("k")).Meta)
		}
		if _, ok := c.rawGet("k"); !ok {
			t.Fatal("lost")
		}
	})
	if _, err := Start(t.Context(), WithLabels(7, nil)); err == nil {
		t.Fatal("labels for a store that is not there")
	}
}

// What PD says of a region that it forgot (PD pkg/core/region.go, scanRegion).
func TestHideRegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyRaw, []byte("f"), []byte("p")))
		c.rawPut("g", "v")
		regions := c.Regions(KeyRaw)
		hidden := c.topo.ByID(regions[1].ID)
		c.must(c.HideRegion(hidden.ID(), true))
		expect(t, c.HideRegion(9999, true), "no region")
		pd, ctx := c.pdc(), t.Context()
		none := func(r *pdpb.GetRegionResponse, err error) {
			t.Helper()
			if err != nil || r.Region != nil || r.Header.Error != nil {
				t.Fatal(r, err)
			}
		}
		none(pd.GetRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), RegionKey: []byte("g")}))
		none(pd.GetRegionByID(ctx, &pdpb.GetRegionByIDRequest{Header: c.header(), RegionId: hidden.ID()}))
		none(pd.GetPrevRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), RegionKey: []byte("q")}))
		none(pd.GetPrevRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), RegionKey: []byte("g")}))
		for _, test := range []struct {
			start, end string
			limit      int32
			all        bool
			want       int
			refused    bool
		}{
			{"", "", 0, false, 2, false},
			{"", "", 0, true, 0, true},
			{"", "", 1, true, 1, false},
			{"a", "c", 0, true, 1, false},
			{"a", "g", 0, true, 0, true},
			{"a", "g", 1, true, 1, false},
			{"g", "h", 0, false, 0, false},
			{"g", "h", 0, true, 0, true},
			{"g", "q", 0, true, 0, true},
			{"p", "", 0, true, 1, false},
		} {
			resp, err := pd.BatchScanRegions(ctx, &pdpb.BatchScanRegionsRequest{
				Header: c.header(), Limit: test.limit, ContainAllKeyRange: test.all,
				Ranges: []*pdpb.KeyRange{{StartKey: []byte(test.start), EndKey: []byte(test.end)}},
			})
			refused := resp.GetHeader().GetError().GetType() == pdpb.ErrorType_REGIONS_NOT_CONTAIN_ALL_KEY_RANGE
			if err != nil || len(resp.Regions) != test.want || refused != test.refused {
				t.Errorf("%+v: %d regions, %v, %v", test, len(resp.Regions), resp.Header, err)
			}
		}
		resp, err := c.tikv(hidden.LeaderStore()).RawGet(ctx, &kvrpcpb.RawGetRequest{Context: c.context(hidden.Meta, hidden.Leader), Key: []byte("g")})
		if err != nil || string(resp.Value) != "v" {
			t.Fatal("its store does not serve it:", resp, err)
		}
		c.must(c.HideRegion(hidden.ID(), false))
		if _, ok := c.rawGet("g"); !ok {
			t.Fatal("not found again")
		}
	})
}

// Regions split by themselves, into parts of two thirds, raw and transactional ones.
func TestRegionBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithRegionBytes(3000))
		value := string(make([]byte, 95))
		for i := range 300 {
			c.rawPut(fmt.Sprintf("k%04d", i), value) // 100 bytes each
		}
		regions := c.Regions(KeyRaw)
		if n := len(regions); n < 12 || n > 16 {
			t.Fatal(n, "regions of 2000 to 3000 bytes, for 30000")
		}
		for _, r := range regions[1:] {
			var n int
			if _, err := fmt.Sscanf(string(r.Start), "k%04d", &n); err != nil || n%20 != 0 {
				t.Fatal("a bound", string(r.Start), err)
			}
		}
		if c.Counts().Splits != len(regions)-1 {
			t.Fatal(c.Counts().Splits)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithRegionBytes(3000))
		for i := range 100 {
			key := fmt.Sprintf("k%04d", i)
			ts := c.timestamp()
			if e := c.prewrite(ts, key, string(make([]byte, 300))); len(e.Errors) > 0 {
				t.Fatal(e)
			}
			c.commit(ts, c.timestamp(), key)
		}
		regions := c.Regions(KeyTxn)
		if len(regions) < 8 {
			t.Fatal(len(regions))
		}
		for _, r := range regions[1:] {
			if m := c.topo.ByID(r.ID).Meta; string(m.StartKey) != string(keys.Encode(r.Start)) || len(r.Start) != 5 {
				t.Fatalf("a bound %q", m.StartKey)
			}
		}
	})
	if _, err := Start(t.Context(), WithRegionBytes(1)); err == nil {
		t.Fatal("regions of one byte")
	}
}

// Writes that were acknowledged are there after merges, splits, and changes of peers
// under them.
func TestWritesDuringTopologyChanges(t *testing.T) {
	c := start(t, WithStores(5))
	for _, k := range []string{"k3", "k6"} {
		if _, err := c.Split(KeyRaw, []byte(k)); err != nil {
			t.Fatal(err)
		}
	}
	c.tikv(1) // the map of connections is not for many goroutines
	for _, id := range c.topo.Stores() {
		c.tikv(id)
	}
	c.pdc()
	const workers, writes = 4, 150
	tasks := task.New(t.Context())
	acknowledged := make([][]string, workers)
	for w := range workers {
		tasks.Go("writer", func(ctx context.Context) {
			for i := range writes {
				key := fmt.Sprintf("k%d-%d-%d", i%10, w, i)
				if c.putOnce(ctx, key) == nil {
					acknowledged[w] = append(acknowledged[w], key)
				}
			}
		})
	}
	for i := range 60 {
		regions := c.Regions(KeyRaw)
		r := regions[i%len(regions)]
		var err error
		switch i % 6 {
		case 0:
			if len(regions) > 1 {
				err = c.Merge(regions[1].ID, regions[0].ID)
			}
		case 1:
			_, err = c.Split(KeyRaw, fmt.Appendf(nil, "k%d", i%10))
		case 2, 3:
			err = c.AddPeer(r.ID, uint64(i%5)+1, PeerRole(i%3))
		case 4:
			if len(r.Stores) > 3 {
				err = c.RemovePeer(r.ID, r.Leader)
			}
		case 5:
			_ = c.TransferLeader(r.ID, r.Stores[i%len(r.Stores)])
		}
		if err != nil {
			t.Log(i, err) // a change may be refused, as by a role that does not become another
		}
	}
	c.must(tasks.Wait(t.Context()))
	tasks.Close(nil)
	n := 0
	for _, all := range acknowledged {
		for _, key := range all {
			n++
			if _, ok := c.rawGet(key); !ok {
				t.Error("an acknowledged write is lost:", key)
			}
		}
	}
	if n < workers*writes/10 {
		t.Fatal("only", n, "writes were acknowledged")
	}
}

// putOnce writes a key where the topology says, without retries.
func (c *testCluster) putOnce(ctx context.Context, key string) error {
	r := c.topo.ByKey([]byte(key))
	if r.Leader == nil {
		return errors.New("no leader")
	}
	resp, err := c.tikv(r.LeaderStore()).RawPut(ctx, &kvrpcpb.RawPutRequest{Context: c.context(r.Meta, r.Leader), Key: []byte(key), Value: []byte("v")})
	if err == nil && resp.RegionError != nil {
		err = errors.New(resp.RegionError.Message)
	}
	return err
}
