package playground

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/serve"
)

func TestMembersAndInfoNeedNoClusterID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		m, err := c.pdc().GetMembers(t.Context(), &pdpb.GetMembersRequest{})
		if err != nil || m.Header.ClusterId != c.ID() || c.ID() == 0 || m.Leader.GetClientUrls()[0] != "http://"+c.PD()[0] {
			t.Fatal(m, err)
		}
		i, err := c.pdc().GetClusterInfo(t.Context(), &pdpb.GetClusterInfoRequest{})
		if err != nil || len(i.ServiceModes) != 1 || i.ServiceModes[0] != pdpb.ServiceMode_PD_SVC_MODE {
			t.Fatal(i, err)
		}
	})
}

func TestClusterIDIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		for _, h := range []*pdpb.RequestHeader{nil, {ClusterId: 1}} {
			_, err := c.pdc().GetRegion(t.Context(), &pdpb.GetRegionRequest{Header: h})
			if status.Code(err) != codes.FailedPrecondition {
				t.Fatal(err)
			}
			expect(t, err, "mismatch cluster id")
			tso, err := c.pdc().Tso(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := tso.Send(&pdpb.TsoRequest{Header: h, Count: 1}); err != nil {
				t.Fatal(err)
			}
			if _, err := tso.Recv(); status.Code(err) != codes.FailedPrecondition {
				t.Fatal(err)
			}
			query, err := c.pdc().QueryRegion(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := query.Send(&pdpb.QueryRegionRequest{Header: h}); err != nil {
				t.Fatal(err)
			}
			if _, err := query.Recv(); status.Code(err) != codes.FailedPrecondition {
				t.Fatal(err)
			}
		}
	})
}

func TestBootstrapAndIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		is, err := c.pdc().IsBootstrapped(t.Context(), &pdpb.IsBootstrappedRequest{Header: c.header()})
		if err != nil || !is.Bootstrapped {
			t.Fatal(is, err)
		}
		b, err := c.pdc().Bootstrap(t.Context(), &pdpb.BootstrapRequest{Header: c.header(), Store: &metapb.Store{Id: 9}})
		if err != nil || b.Header.GetError().GetType() != pdpb.ErrorType_ALREADY_BOOTSTRAPPED {
			t.Fatal(b, err)
		}
		last := uint64(0)
		for _, n := range []uint32{0, 1, 5, 2000, 1} {
			r, err := c.pdc().AllocID(t.Context(), &pdpb.AllocIDRequest{Header: c.header(), Count: n})
			if err != nil || r.Id < last+uint64(max(1, n)) || n > 1 && r.Count != n {
				t.Fatal(last, r, err)
			}
			last = r.Id
		}
	})
}

func TestStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(5))
		all, err := c.pdc().GetAllStores(t.Context(), &pdpb.GetAllStoresRequest{Header: c.header(), ExcludeTombstoneStores: true})
		if err != nil || len(all.Stores) != 5 {
			t.Fatal(all, err)
		}
		for i, s := range all.Stores {
			one, err := c.pdc().GetStore(t.Context(), &pdpb.GetStoreRequest{Header: c.header(), StoreId: s.Id})
			if err != nil || one.Store.Address != s.Address || s.Id != uint64(i+1) || s.State != metapb.StoreState_Up || s.NodeState != metapb.NodeState_Serving {
				t.Fatal(s, one, err)
			}
		}
		unknown, err := c.pdc().GetStore(t.Context(), &pdpb.GetStoreRequest{Header: c.header(), StoreId: 77})
		if e := unknown.GetHeader().GetError(); err != nil || e.GetType() != pdpb.ErrorType_UNKNOWN || e.GetMessage() != "invalid store ID 77, not found" {
			t.Fatal(unknown, err)
		}
	})
}

func TestRegionLookups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyRaw, []byte("b"), []byte("d"), []byte("f")))
		pd := c.pdc()
		for key, want := range map[string]struct{ start, prev string }{
			"": {"", "-"}, "a": {"", "-"}, "b": {"b", ""}, "c": {"b", ""}, "d": {"d", "b"}, "z": {"f", "d"},
		} {
			r, err := pd.GetRegion(t.Context(), &pdpb.GetRegionRequest{Header: c.header(), RegionKey: []byte(key)})
			if err != nil || string(r.Region.StartKey) != want.start || r.Leader == nil || len(r.Region.Peers) != 3 {
				t.Fatal(key, r, err)
			}
			byID, err := pd.GetRegionByID(t.Context(), &pdpb.GetRegionByIDRequest{Header: c.header(), RegionId: r.Region.Id})
			if err != nil || byID.Region.String() != r.Region.String() {
				t.Fatal(byID, err)
			}
			p, err := pd.GetPrevRegion(t.Context(), &pdpb.GetRegionRequest{Header: c.header(), RegionKey: []byte(key)})
			switch {
			case err != nil || p.Header.Error != nil:
				t.Fatal(p, err)
			case want.prev == "-" && p.Region != nil, want.prev != "-" && string(p.Region.GetStartKey()) != want.prev:
				t.Fatal(key, p)
			}
		}
		none, err := pd.GetRegionByID(t.Context(), &pdpb.GetRegionByIDRequest{Header: c.header(), RegionId: 4711})
		if err != nil || none.Header.Error != nil || none.Region != nil {
			t.Fatal(none, err)
		}
	})
}

// Followers answer lookups when asked to, with an error for what they do not know.
func TestFollowerLookups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		follower := pdpb.NewPDClient(c.conn(c.PD()[1]))
		allowed := metadata.AppendToOutgoingContext(t.Context(), "pd-allow-follower-handle", "true")
		r, err := follower.GetRegion(allowed, &pdpb.GetRegionRequest{Header: c.header()})
		if err != nil || r.Region == nil {
			t.Fatal(r, err)
		}
		none, err := follower.GetRegionByID(allowed, &pdpb.GetRegionByIDRequest{Header: c.header(), RegionId: 4711})
		if err != nil || none.Header.Error.GetType() != pdpb.ErrorType_REGION_NOT_FOUND {
			t.Fatal(none, err)
		}
		if _, err := follower.GetStore(allowed, &pdpb.GetStoreRequest{Header: c.header(), StoreId: 1}); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	})
}

func TestQueryRegion(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, append(opts, WithSplitKeys(KeyRaw, []byte("b"), []byte("d")))...)
		stream, err := c.pdc().QueryRegion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var ids []uint64
		for _, r := range c.Regions(KeyRaw) {
			ids = append(ids, r.ID)
		}
		ask := func(req *pdpb.QueryRegionRequest) *pdpb.QueryRegionResponse {
			req.Header = c.header()
			if err := stream.Send(req); err != nil {
				t.Fatal(err)
			}
			resp, err := stream.Recv()
			if err != nil || resp.Header.Error != nil {
				t.Fatal(resp, err)
			}
			return resp
		}
		k := func(s ...string) (b [][]byte) {
			for _, s := range s {
				b = append(b, []byte(s))
			}
			return b
		}
		resp := ask(&pdpb.QueryRegionRequest{Keys: k("a", "z", "c", "a"), PrevKeys: k("a", "c"), Ids: []uint64{ids[0], 4711, 0}})
		if !slices.Equal(resp.KeyIdMap, []uint64{ids[0], ids[2], ids[1], ids[0]}) || !slices.Equal(resp.PrevKeyIdMap, []uint64{0, ids[0]}) {
			t.Fatal(resp)
		}
		for _, id := range ids {
			if r := resp.RegionsById[id]; r.GetRegion().GetId() != id || r.Leader == nil {
				t.Fatal(id, resp)
			}
		}
		// An unknown id has an entry without a region.
		if r, ok := resp.RegionsById[4711]; !ok || r.GetRegion() != nil || len(resp.RegionsById) != 4 {
			t.Fatal(resp)
		}
		if resp = ask(&pdpb.QueryRegionRequest{}); len(resp.KeyIdMap)+len(resp.PrevKeyIdMap)+len(resp.RegionsById) != 0 {
			t.Fatal(resp)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}

func TestScanRegions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyRaw, []byte("b"), []byte("d"), []byte("f"), []byte("h")))
		// kr makes ranges of "start-end".
		kr := func(s ...string) (all []*pdpb.KeyRange) {
			for _, s := range s {
				i := slices.Index([]byte(s), '-')
				all = append(all, &pdpb.KeyRange{StartKey: []byte(s[:i]), EndKey: []byte(s[i+1:])})
			}
			return all
		}
		for _, test := range []struct {
			name   string
			ranges []*pdpb.KeyRange
			limit  int32
			want   string // first letters of the regions' starts
			refuse string
		}{
			{"all", kr("-"), 0, "-bdfh", ""},
			{"limited", kr("-"), 2, "-b", ""},
			{"inside one", kr("b-c"), 0, "b", ""},
			{"up to a bound", kr("b-d"), 0, "b", ""},
			{"just over", kr("b-da"), 0, "bd", ""},
			{"one region of two ranges comes once", kr("b-ba", "bb-d"), 0, "b", ""},
			{"adjacent", kr("a-c", "c-e"), 0, "-bd", ""},
			{"apart", kr("a-b", "g-h"), 0, "-f", ""},
			{"limit over all", kr("a-c", "e-z"), 3, "-bd", ""},
			{"limit at a shared region", kr("a-c", "ca-e"), 2, "-b", ""},
			{"limit after a shared region", kr("a-c", "ca-e"), 3, "-bd", ""},
			{"none", nil, 0, "", ""},
			{"overlapping", kr("a-e", "d-z"), 0, "", "invalid key range, ranges overlapped"},
			{"out of order", kr("g-h", "a-b"), 0, "", "invalid key range, ranges overlapped"},
			{"inverted", kr("z-a"), 0, "", "invalid key range, start key > end key"},
		} {
			resp, err := c.pdc().BatchScanRegions(t.Context(), &pdpb.BatchScanRegionsRequest{
				Header: c.header(), Ranges: test.ranges, Limit: test.limit, ContainAllKeyRange: true,
			})
			if err != nil || resp.Header.GetError().GetMessage() != test.refuse {
				t.Errorf("%s: %v %v", test.name, resp, err)
				continue
			}
			got := ""
			for _, r := range resp.Regions {
				got += string(append(r.Region.StartKey, '-')[0])
			}
			if got != test.want {
				t.Errorf("%s: %q, want %q", test.name, got, test.want)
			}
		}
		//lint:ignore SA1019 PD still serves it
		old, err := c.pdc().ScanRegions(t.Context(), &pdpb.ScanRegionsRequest{Header: c.header(), StartKey: []byte("c"), EndKey: []byte("g"), Limit: 2})
		if err != nil || len(old.Regions) != 2 || len(old.RegionMetas) != 2 || len(old.Leaders) != 2 || string(old.Regions[0].Region.StartKey) != "b" {
			t.Fatal(old, err)
		}
	})
}

// tsoAsk sends a request on a stream and returns its first and last timestamp.
func tsoAsk(t *testing.T, c *testCluster, stream pdpb.PD_TsoClient, count uint32) (first, last uint64) {
	t.Helper()
	if err := stream.Send(&pdpb.TsoRequest{Header: c.header(), Count: count}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil || resp.Count != count || resp.Timestamp.Logical < int64(count) || resp.Timestamp.Logical >= 1<<18 {
		t.Fatal(resp, err)
	}
	last = uint64(resp.Timestamp.Physical)<<18 | uint64(resp.Timestamp.Logical)
	return last - uint64(count) + 1, last
}

func TestTimestamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		var streams []pdpb.PD_TsoClient
		for range 3 {
			s, err := c.pdc().Tso(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, s)
		}
		last := uint64(0)
		next := func(i int, count uint32) {
			t.Helper()
			first, l := tsoAsk(t, c, streams[i%3], count)
			if first <= last {
				t.Fatalf("%d after %d", first, last)
			}
			last = l
		}
		for i := range 300 {
			next(i, uint32(1+i*37%9000)) // more than one millisecond holds, while the clock stands still
		}
		c.Advance(-time.Hour)
		for i := range 10 {
			next(i, 10000)
		}
		c.Advance(2 * time.Hour)
		next(0, 1)
		if ahead := int64(last>>18) - c.Now().UnixMilli(); ahead != 0 {
			t.Fatalf("timestamps are %d ms ahead of the clock", ahead)
		}
		for _, bad := range []uint32{0, 1 << 18} {
			s, err := c.pdc().Tso(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(&pdpb.TsoRequest{Header: c.header(), Count: bad}); err != nil {
				t.Fatal(err)
			}
			if resp, err := s.Recv(); err == nil {
				t.Fatal(bad, resp)
			}
		}
		next(1, 1)
	})
}

func TestGCStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithAPIVersion(APIV2), WithKeyspaces("ks"))
		pd := c.pdc()
		state := func() *pdpb.GCState {
			r, err := pd.GetGCState(t.Context(), &pdpb.GetGCStateRequest{Header: c.header()})
			if err != nil || r.Header.Error != nil {
				t.Fatal(r, err)
			}
			return r.GcState
		}
		advance := func(target uint64) (*pdpb.AdvanceTxnSafePointResponse, string) {
			r, err := pd.AdvanceTxnSafePoint(t.Context(), &pdpb.AdvanceTxnSafePointRequest{Header: c.header(), Target: target})
			if err != nil {
				t.Fatal(err)
			}
			return r, r.Header.GetError().GetMessage()
		}
		set := func(id string, ts uint64, ttl int64) (*pdpb.GCBarrierInfo, string) {
			r, err := pd.SetGCBarrier(t.Context(), &pdpb.SetGCBarrierRequest{Header: c.header(), BarrierId: id, BarrierTs: ts, TtlSeconds: ttl})
			if err != nil {
				t.Fatal(err)
			}
			return r.NewBarrierInfo, r.Header.GetError().GetMessage()
		}
		if s := state(); s.TxnSafePoint != 0 || s.GcSafePoint != 0 || s.IsKeyspaceLevelGc || s.KeyspaceScope.GetKeyspaceId() != 0xffffffff {
			t.Fatal(s)
		}
		if r, bad := advance(100); bad != "" || r.NewTxnSafePoint != 100 || r.OldTxnSafePoint != 0 || r.BlockerDescription != "" {
			t.Fatal(r, bad)
		}
		if _, bad := advance(99); bad == "" {
			t.Fatal("the txn safe point went back")
		}
		if b, bad := set("backup", 150, 60); bad != "" || b.TtlSeconds != 60 || b.BarrierTs != 150 {
			t.Fatal(b, bad)
		}
		if b, bad := set("forever", 170, math.MaxInt64); bad != "" || b.TtlSeconds != math.MaxInt64 {
			t.Fatal(b, bad)
		}
		for _, refuse := range []struct {
			id  string
			ts  uint64
			ttl int64
		}{{"", 150, 1}, {"gc_worker", 150, 1}, {"x", 150, 0}, {"x", 150, -1}, {"x", 99, 1}} {
			if _, bad := set(refuse.id, refuse.ts, refuse.ttl); bad == "" {
				t.Error("accepted", refuse)
			}
		}
		if r, bad := advance(200); bad != "" || r.NewTxnSafePoint != 150 || r.BlockerDescription == "" {
			t.Fatal(r, bad)
		}
		if s := state(); len(s.GcBarriers) != 2 || s.TxnSafePoint != 150 {
			t.Fatal(s)
		}
		<-time.After(61 * time.Second) // "backup" expires
		if r, bad := advance(200); bad != "" || r.NewTxnSafePoint != 170 || len(state().GcBarriers) != 1 {
			t.Fatal(r, bad, state())
		}
		del, err := pd.DeleteGCBarrier(t.Context(), &pdpb.DeleteGCBarrierRequest{Header: c.header(), BarrierId: "forever"})
		if err != nil || del.DeletedBarrierInfo.GetBarrierTs() != 170 {
			t.Fatal(del, err)
		}
		del, err = pd.DeleteGCBarrier(t.Context(), &pdpb.DeleteGCBarrierRequest{Header: c.header(), BarrierId: "forever"})
		if err != nil || del.Header.Error != nil || del.DeletedBarrierInfo != nil {
			t.Fatal(del, err)
		}
		for target, ok := range map[uint64]bool{171: false, 120: true} {
			r, err := pd.AdvanceGCSafePoint(t.Context(), &pdpb.AdvanceGCSafePointRequest{Header: c.header(), Target: target})
			if err != nil || (r.Header.Error == nil) != ok {
				t.Fatal(target, r, err)
			}
		}
		r, err := pd.AdvanceGCSafePoint(t.Context(), &pdpb.AdvanceGCSafePointRequest{Header: c.header(), Target: 119})
		if err != nil || r.Header.Error == nil {
			t.Fatal("the GC safe point went back:", r, err)
		}
		old, err := pd.UpdateGCSafePoint(t.Context(), &pdpb.UpdateGCSafePointRequest{Header: c.header(), SafePoint: 7})
		if err != nil || old.NewSafePoint != 120 {
			t.Fatal(old, err)
		}
		if _, err := pd.UpdateGCSafePoint(t.Context(), &pdpb.UpdateGCSafePointRequest{Header: c.header(), SafePoint: 999}); err == nil {
			t.Fatal("a GC safe point above the txn safe point")
		}
		// A keyspace whose GC is not its own shows the null keyspace's state, and runs none.
		scope := &pdpb.KeyspaceScope{Keyspace: &pdpb.KeyspaceScope_KeyspaceId{KeyspaceId: 1}}
		ks, err := pd.GetGCState(t.Context(), &pdpb.GetGCStateRequest{Header: c.header(), KeyspaceScope: scope})
		if err != nil || ks.GcState.GetTxnSafePoint() != 170 || ks.GcState.KeyspaceScope.GetKeyspaceId() != 0xffffffff {
			t.Fatal(ks, err)
		}
		run, err := pd.AdvanceTxnSafePoint(t.Context(), &pdpb.AdvanceTxnSafePointRequest{Header: c.header(), KeyspaceScope: scope, Target: 180})
		if err != nil || run.Header.Error == nil {
			t.Fatal(run, err)
		}
		scope.Keyspace = &pdpb.KeyspaceScope_KeyspaceId{KeyspaceId: 12345}
		ks, err = pd.GetGCState(t.Context(), &pdpb.GetGCStateRequest{Header: c.header(), KeyspaceScope: scope})
		if err != nil || ks.Header.Error == nil {
			t.Fatal(ks, err)
		}
	})
}

func TestKeyspaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithAPIVersion(APIV2), WithKeyspaces("one", "two"))
		ks := keyspacepb.NewKeyspaceClient(c.conn(c.PD()[0]))
		for id, name := range []string{"DEFAULT", "one", "two"} {
			r, err := ks.LoadKeyspace(t.Context(), &keyspacepb.LoadKeyspaceRequest{Header: c.header(), Name: name})
			if err != nil || r.Keyspace.GetId() != uint32(id) || r.Keyspace.Name != name || r.Keyspace.State != keyspacepb.KeyspaceState_ENABLED {
				t.Fatal(r, err)
			}
			for _, mode := range []byte("rx") {
				for next := range byte(2) {
					at := keys.Encode([]byte{mode, 0, 0, byte(id) + next})
					if r := c.topo.ByKey(at); string(r.Meta.StartKey) != string(at) {
						t.Fatalf("no region begins at %x", at)
					}
				}
			}
		}
		r, err := ks.LoadKeyspace(t.Context(), &keyspacepb.LoadKeyspaceRequest{Header: c.header(), Name: "three"})
		if err != nil || r.Header.GetError().GetType() != pdpb.ErrorType_ENTRY_NOT_FOUND {
			t.Fatal(r, err)
		}
		all, err := ks.GetAllKeyspaces(t.Context(), &keyspacepb.GetAllKeyspacesRequest{Header: c.header(), StartKeyspace: &keyspacepb.GetAllKeyspacesRequest_StartId{StartId: 1}})
		if err != nil || len(all.Keyspaces) != 2 {
			t.Fatal(all, err)
		}
		// Users see the keyspace DEFAULT, raw and transactional.
		for _, mode := range []KeyMode{KeyRaw, KeyTxn} {
			if _, err := c.Split(mode, []byte("m")); err != nil {
				t.Fatal(err)
			}
			if r := c.Regions(mode); len(r) != 2 || string(r[0].End) != "m" || len(r[0].Start)+len(r[1].End) != 0 {
				t.Fatal(mode, r)
			}
		}
	})
	// In V1 nothing is split off for the keyspace, so it cannot be loaded.
	c := start(t)
	r, err := keyspacepb.NewKeyspaceClient(c.conn(c.PD()[0])).LoadKeyspace(t.Context(), &keyspacepb.LoadKeyspaceRequest{Header: c.header(), Name: "DEFAULT"})
	if err != nil || r.Header.GetError().GetType() != pdpb.ErrorType_ENTRY_NOT_FOUND {
		t.Fatal(r, err)
	}
}

func TestMetaStorageIsEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		m := meta_storagepb.NewMetaStorageClient(c.conn(c.PD()[0]))
		r, err := m.Get(t.Context(), &meta_storagepb.GetRequest{Key: []byte("/ms/"), RangeEnd: []byte("/ms0")})
		if err != nil || len(r.Kvs) != 0 || r.Header.ClusterId != c.ID() {
			t.Fatal(r, err)
		}
		w, err := m.Watch(t.Context(), &meta_storagepb.WatchRequest{Key: []byte("/ms/")})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(Member(0)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Recv(); err == nil {
			t.Fatal("the watch found something")
		}
	})
}

// Official clients ask PD's address for etcd's member list and for the saved safe point,
// in messages that are read and written by hand.
func TestEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		call := func(method string, req serve.Raw) serve.Raw {
			t.Helper()
			var resp serve.Raw
			if err := c.conn(c.PD()[0]).Invoke(t.Context(), method, &req, &resp); err != nil {
				t.Fatal(err)
			}
			return resp
		}
		list := call("/etcdserverpb.Cluster/MemberList", nil)
		for _, addr := range c.PD() {
			if bytes.Count(list, []byte("http://"+addr)) != 2 { // for peers and for clients
				t.Fatalf("%q lacks %s", list, addr)
			}
		}
		saved := []byte("/tidb/store/gcworker/saved_safe_point")
		get := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), saved)
		if r := call("/etcdserverpb.KV/Range", get); bytes.Contains(r, saved) {
			t.Fatalf("%q", r)
		}
		if _, err := c.pdc().AdvanceTxnSafePoint(t.Context(), &pdpb.AdvanceTxnSafePointRequest{Header: c.header(), Target: 4321}); err != nil {
			t.Fatal(err)
		}
		if r := call("/etcdserverpb.KV/Range", get); !bytes.Contains(r, saved) || !bytes.Contains(r, []byte("4321")) {
			t.Fatalf("%q", r)
		}
		bad, resp := serve.Raw{0x0a, 0xff}, serve.Raw(nil)
		if err := c.conn(c.PD()[0]).Invoke(t.Context(), "/etcdserverpb.KV/Range", &bad, &resp); status.Code(err) != codes.InvalidArgument {
			t.Fatal(err)
		}
		if err := c.conn(c.PD()[0]).Invoke(t.Context(), "/etcdserverpb.KV/Put", &bad, &resp); status.Code(err) != codes.Unimplemented {
			t.Fatal(err)
		}
	})
}
