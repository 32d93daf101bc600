package playground

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// asked is a request that can be answered with a region error, sent to a store.
type asked func(t *testing.T, kv tikvpb.TikvClient, ctx *kvrpcpb.Context) *errorpb.Error

func askGet(key string) asked {
	return func(t *testing.T, kv tikvpb.TikvClient, ctx *kvrpcpb.Context) *errorpb.Error {
		resp, err := kv.RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: ctx, Key: []byte(key)})
		if err != nil {
			t.Fatal(err)
		}
		return resp.RegionError
	}
}

func askPut(key string, size int) asked {
	return func(t *testing.T, kv tikvpb.TikvClient, ctx *kvrpcpb.Context) *errorpb.Error {
		resp, err := kv.RawPut(t.Context(), &kvrpcpb.RawPutRequest{Context: ctx, Key: []byte(key), Value: make([]byte, size)})
		if err != nil {
			t.Fatal(err)
		}
		return resp.RegionError
	}
}

func askScan(start string, reverse bool) asked {
	return func(t *testing.T, kv tikvpb.TikvClient, ctx *kvrpcpb.Context) *errorpb.Error {
		resp, err := kv.RawScan(t.Context(), &kvrpcpb.RawScanRequest{Context: ctx, StartKey: []byte(start), Limit: 10, Reverse: reverse})
		if err != nil {
			t.Fatal(err)
		}
		return resp.RegionError
	}
}

// askBatched sends the get on a BatchCommands stream.
func askBatched(key string) asked {
	return func(t *testing.T, kv tikvpb.TikvClient, ctx *kvrpcpb.Context) *errorpb.Error {
		stream, err := kv.BatchCommands(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = stream.Send(&tikvpb.BatchCommandsRequest{RequestIds: []uint64{7}, Requests: []*tikvpb.BatchCommandsRequest_Request{{
			Cmd: &tikvpb.BatchCommandsRequest_Request_RawGet{RawGet: &kvrpcpb.RawGetRequest{Context: ctx, Key: []byte(key)}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil || len(resp.RequestIds) != 1 || resp.RequestIds[0] != 7 {
			t.Fatal(resp, err)
		}
		_ = stream.CloseSend()
		return resp.Responses[0].GetRawGet().GetRegionError()
	}
}

// Each check of a request against its region, and which comes first when several fail
// (TiKV raftstore/src/store/worker/read.rs, fsm/peer.rs).
func TestRegionChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyRaw, []byte("f"), []byte("p")))
		good, kv := c.at(KeyRaw, "g")
		region := c.topo.ByID(good.RegionId)
		leader := region.LeaderStore()
		follower := leader%3 + 1
		followerAt := func(ctx *kvrpcpb.Context) { ctx.Peer = region.Peer(follower) }
		for _, test := range []struct {
			name   string
			change func(*kvrpcpb.Context)
			store  uint64 // 0: the leader
			ask    asked
			want   string
		}{
			{"good", nil, 0, askGet("g"), ""},
			{"store", func(ctx *kvrpcpb.Context) { ctx.Peer = &metapb.Peer{Id: ctx.Peer.Id, StoreId: 77} }, 0, askGet("g"), "StoreNotMatch"},
			{"no context", func(ctx *kvrpcpb.Context) { *ctx = kvrpcpb.Context{} }, 0, askGet("g"), "StoreNotMatch"},
			{"store before region, in a read", func(ctx *kvrpcpb.Context) { ctx.RegionId, ctx.Peer = 999, &metapb.Peer{StoreId: 77} }, 0, askGet("g"), "StoreNotMatch"},
			{"region before store, in a write", func(ctx *kvrpcpb.Context) { ctx.RegionId, ctx.Peer = 999, &metapb.Peer{StoreId: 77} }, 0, askPut("g", 1), "RegionNotFound"},
			{"region", func(ctx *kvrpcpb.Context) { ctx.RegionId = 999 }, 0, askGet("g"), "RegionNotFound"},
			{"peer", func(ctx *kvrpcpb.Context) { ctx.Peer = &metapb.Peer{Id: 5, StoreId: leader} }, 0, askGet("g"), "MismatchPeerID"},
			{"peer before leader", func(ctx *kvrpcpb.Context) { ctx.Peer = &metapb.Peer{Id: 5, StoreId: follower} }, follower, askGet("g"), "MismatchPeerID"},
			{"leader", followerAt, follower, askGet("g"), "NotLeader"},
			{"leader before epoch", func(ctx *kvrpcpb.Context) { followerAt(ctx); ctx.RegionEpoch = &metapb.RegionEpoch{} }, follower, askGet("g"), "NotLeader"},
			{"leader, batched", followerAt, follower, askBatched("g"), "NotLeader"},
			{"replica read", func(ctx *kvrpcpb.Context) { followerAt(ctx); ctx.ReplicaRead = true }, follower, askGet("g"), ""},
			{"replica write", func(ctx *kvrpcpb.Context) { followerAt(ctx); ctx.ReplicaRead = true }, follower, askPut("g", 1), "NotLeader"},
			{"term", func(ctx *kvrpcpb.Context) { ctx.Term = 1 }, 0, askGet("g"), "StaleCommand"},
			{"term one behind", func(ctx *kvrpcpb.Context) { ctx.Term = region.Term - 1 }, 0, askGet("g"), ""},
			{"term before epoch", func(ctx *kvrpcpb.Context) { ctx.Term, ctx.RegionEpoch = 1, &metapb.RegionEpoch{} }, 0, askGet("g"), "StaleCommand"},
			{"older epoch", func(ctx *kvrpcpb.Context) { ctx.RegionEpoch = &metapb.RegionEpoch{ConfVer: 3, Version: 2} }, 0, askGet("g"), "EpochNotMatch"},
			{"newer epoch", func(ctx *kvrpcpb.Context) { ctx.RegionEpoch = &metapb.RegionEpoch{ConfVer: 3, Version: 9} }, 0, askGet("g"), "EpochNotMatch"},
			{"other members", func(ctx *kvrpcpb.Context) { ctx.RegionEpoch = &metapb.RegionEpoch{ConfVer: 77, Version: 3} }, 0, askGet("g"), ""},
			{"epoch before key", func(ctx *kvrpcpb.Context) { ctx.RegionEpoch = &metapb.RegionEpoch{Version: 9} }, 0, askGet("z"), "EpochNotMatch"},
			{"key below", nil, 0, askGet("a"), "KeyNotInRegion"},
			{"key at the end", nil, 0, askGet("p"), "KeyNotInRegion"},
			{"key, batched", nil, 0, askBatched("p"), "KeyNotInRegion"},
			{"scan from the end", nil, 0, askScan("p", false), ""},
			{"scan from above", nil, 0, askScan("q", false), "KeyNotInRegion"},
			{"scan from below", nil, 0, askScan("a", false), "KeyNotInRegion"},
			{"reverse scan from the end", nil, 0, askScan("p", true), ""},
			{"reverse scan from above", nil, 0, askScan("q", true), "KeyNotInRegion"},
			{"large write", nil, 0, askPut("g", 7<<20), ""},
			{"too large write", nil, 0, askPut("g", 8<<20), "RaftEntryTooLarge"},
		} {
			ctx := *good
			if test.change != nil {
				test.change(&ctx)
			}
			to := kv
			if test.store != 0 {
				to = c.tikv(test.store)
			}
			e := test.ask(t, to, &ctx)
			if got := faultOf(e); got != test.want || (e != nil && e.Message == "") {
				t.Errorf("%s: %q (%v), want %q", test.name, got, e, test.want)
			}
		}
	})
}

// faultOf names the kind of a region error, "" for none.
func faultOf(e *errorpb.Error) string {
	if e == nil {
		return ""
	}
	return kindOf(e).String()
}

func TestRegionErrorsSayWhatTheyMust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyRaw, []byte("f")))
		good, kv := c.at(KeyRaw, "g")
		r := c.topo.ByID(good.RegionId)
		follower := r.LeaderStore()%3 + 1

		ctx := *good
		ctx.Peer = r.Peer(follower)
		if e := askGet("g")(t, c.tikv(follower), &ctx); e.NotLeader.RegionId != r.ID() || e.NotLeader.Leader.String() != r.Leader.String() {
			t.Error(e)
		}
		if e := askGet("a")(t, kv, good); string(e.KeyNotInRegion.Key) != "a" || string(e.KeyNotInRegion.StartKey) != "f" || len(e.KeyNotInRegion.EndKey) != 0 || e.KeyNotInRegion.RegionId != r.ID() {
			t.Error(e)
		}
		ctx = *good
		ctx.Peer = &metapb.Peer{Id: 5, StoreId: good.Peer.StoreId}
		if e := askGet("g")(t, kv, &ctx); e.MismatchPeerId.RequestPeerId != 5 || e.MismatchPeerId.StorePeerId != good.Peer.Id {
			t.Error(e)
		}
		ctx.Peer = &metapb.Peer{Id: 5, StoreId: 9}
		if e := askGet("g")(t, kv, &ctx); e.StoreNotMatch.RequestStoreId != 9 || e.StoreNotMatch.ActualStoreId != good.Peer.StoreId {
			t.Error(e)
		}
		// Two splits later the region keeps its id and its right end; the error names it
		// first, then the parts that were split off to its left, to one who is behind.
		for _, k := range []string{"t", "w"} {
			if id, err := c.Split(KeyRaw, []byte(k)); err != nil || id != r.ID() {
				t.Fatal(id, err)
			}
		}
		e := askGet("g")(t, kv, good)
		var starts []string
		for _, r := range e.GetEpochNotMatch().GetCurrentRegions() {
			starts = append(starts, string(r.StartKey))
		}
		if len(starts) != 3 || starts[0] != "w" || starts[1] != "t" || starts[2] != "f" {
			t.Error(starts, e)
		}
		ctx = *good
		ctx.RegionEpoch = &metapb.RegionEpoch{ConfVer: 3, Version: 50}
		if e := askGet("x")(t, kv, &ctx); len(e.EpochNotMatch.CurrentRegions) != 1 {
			t.Error(e)
		}
	})
}

// A request for another cluster fails as a call, and on a stream ends all of it.
func TestForeignCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		ctx, kv := c.at(KeyRaw, "a")
		foreign := *ctx
		foreign.ClusterId = 42
		_, err := kv.RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: &foreign, Key: []byte("a")})
		if status.Code(err) != codes.InvalidArgument {
			t.Fatal(err)
		}
		expect(t, err, "cluster of request=42 does not match TiKV cluster id=")
		stream, err := kv.BatchCommands(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		get := func(ctx *kvrpcpb.Context) *tikvpb.BatchCommandsRequest_Request {
			return &tikvpb.BatchCommandsRequest_Request{Cmd: &tikvpb.BatchCommandsRequest_Request_RawGet{RawGet: &kvrpcpb.RawGetRequest{Context: ctx, Key: []byte("a")}}}
		}
		unnamed := *ctx
		unnamed.ClusterId = 0
		if err := stream.Send(&tikvpb.BatchCommandsRequest{RequestIds: []uint64{1}, Requests: []*tikvpb.BatchCommandsRequest_Request{get(&unnamed)}}); err != nil {
			t.Fatal(err)
		}
		if resp, err := stream.Recv(); err != nil || !resp.Responses[0].GetRawGet().GetNotFound() {
			t.Fatal(resp, err)
		}
		if err := stream.Send(&tikvpb.BatchCommandsRequest{RequestIds: []uint64{2, 3}, Requests: []*tikvpb.BatchCommandsRequest_Request{get(&foreign), get(ctx)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Fatal(err)
		}
	})
}

// Data stays where it is, whatever is split.
func TestSplitsKeepData(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, opts...)
		for b := byte('a'); b <= 'z'; b++ {
			c.rawPut(string(b), "v"+string(b))
		}
		for b := byte('b'); b <= 'z'; b += 3 {
			if _, err := c.Split(KeyRaw, []byte{b}); err != nil {
				t.Fatal(err)
			}
			if b%2 == 0 {
				r := c.Regions(KeyRaw)[0]
				if err := c.TransferLeader(r.ID, r.Leader%3+1); err != nil {
					t.Fatal(err)
				}
			}
		}
		for b := byte('a'); b <= 'z'; b++ {
			if v, ok := c.rawGet(string(b)); !ok || v != "v"+string(b) {
				t.Fatal(string(b), v, ok)
			}
		}
		if n := c.Counts(); n.Splits != 9 || n.LeaderMoves == 0 || len(c.Regions(KeyRaw)) != 10 {
			t.Fatalf("%+v", n)
		}
		var before []byte
		for i, r := range c.Regions(KeyRaw) {
			if !bytes.Equal(r.Start, before) || len(r.Stores) != 3 || r.Leader == 0 {
				t.Fatal(i, r)
			}
			before = r.End
		}
		if len(before) != 0 {
			t.Fatalf("the last region ends at %q", before)
		}
	})
}

// An EpochNotMatch names as many neighbours as were split off since, those that were
// split off from neighbours among them, and only those that are on the store (TiKV
// raftstore/src/store/fsm/peer.rs, collect_sibling_region).
func TestSiblings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		old, kv := c.at(KeyRaw, "x")
		for _, k := range []string{"m", "f", "c"} { // m off the region, f off that part, c off that one
			if _, err := c.Split(KeyRaw, []byte(k)); err != nil {
				t.Fatal(err)
			}
		}
		var starts []string
		for _, r := range askGet("x")(t, kv, old).GetEpochNotMatch().GetCurrentRegions() {
			starts = append(starts, string(r.StartKey))
		}
		if !slices.Equal(starts, []string{"m", "f", "c", ""}) {
			t.Errorf("%q", starts)
		}
		// Of one that has been split once since then, one is named, though there are more.
		if _, err := c.Split(KeyRaw, []byte("t")); err != nil {
			t.Fatal(err)
		}
		now, kv := c.at(KeyRaw, "x")
		now.RegionEpoch = &metapb.RegionEpoch{ConfVer: now.RegionEpoch.ConfVer, Version: now.RegionEpoch.Version - 1}
		if e := askGet("x")(t, kv, now).GetEpochNotMatch(); len(e.GetCurrentRegions()) < 2 || string(e.CurrentRegions[1].StartKey) != "m" {
			t.Error(e)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var bounds [][]byte
		for b := byte('a'); b <= 'j'; b++ {
			bounds = append(bounds, []byte{b})
		}
		c := start(t, WithStores(5), WithSplitKeys(KeyRaw, bounds...))
		ctx, kv := c.at(KeyRaw, "x")
		ctx.RegionEpoch = &metapb.RegionEpoch{}
		regions := askGet("x")(t, kv, ctx).GetEpochNotMatch().GetCurrentRegions()
		for _, r := range regions {
			if !slices.ContainsFunc(r.Peers, func(p *metapb.Peer) bool { return p.StoreId == ctx.Peer.StoreId }) {
				t.Errorf("store %d knows of %v", ctx.Peer.StoreId, r)
			}
		}
		if len(regions) < 5 {
			t.Error(regions)
		}
	})
}

// A scan of locks is no replica read, whatever its context says (TiKV src/storage/
// mod.rs, scan_lock).
func TestLocksAreTheLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		ctx, _ := c.at(KeyTxn, "a")
		follower := ctx.Peer.StoreId%3 + 1
		ctx.Peer, ctx.ReplicaRead = c.topo.ByID(ctx.RegionId).Peer(follower), true
		get, err := c.tikv(follower).KvGet(t.Context(), &kvrpcpb.GetRequest{Context: ctx, Key: []byte("a"), Version: 5})
		if err != nil || get.RegionError != nil {
			t.Fatal(get, err)
		}
		scan, err := c.tikv(follower).KvScanLock(t.Context(), &kvrpcpb.ScanLockRequest{Context: ctx, MaxVersion: 5})
		if err != nil || scan.RegionError.GetNotLeader() == nil {
			t.Fatal(scan, err)
		}
	})
}

// What SplitRegion refuses, and in which words (TiKV raftstore/src/store/util.rs,
// validate_split_region): the version of the epoch counts, the members do not.
func TestSplitRegionRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyTxn, []byte("g")))
		good, kv := c.at(KeyTxn, "m")
		follower := good.Peer.StoreId%3 + 1
		for _, test := range []struct {
			name string
			to   tikvpb.TikvClient
			ctx  func(*kvrpcpb.Context)
			at   string
			want string // a kind, or words
		}{
			{"unknown region", kv, func(ctx *kvrpcpb.Context) { ctx.RegionId = 999 }, "p", "RegionNotFound"},
			{"follower", c.tikv(follower), nil, "p", "NotLeader"},
			{"follower before epoch", c.tikv(follower), func(ctx *kvrpcpb.Context) { ctx.RegionEpoch = nil }, "p", "NotLeader"},
			{"no keys", kv, nil, "", "no split key is specified"},
			{"epoch before keys", kv, func(ctx *kvrpcpb.Context) { ctx.RegionEpoch = nil }, "a", "EpochNotMatch"},
			{"outside", kv, nil, "a", "KeyNotInRegion"},
			{"at the start", kv, nil, "g", "is no key to split"},
			{"members", kv, func(ctx *kvrpcpb.Context) { ctx.RegionEpoch = &metapb.RegionEpoch{ConfVer: 99, Version: 2} }, "p", ""},
		} {
			ctx := *good
			if test.ctx != nil {
				test.ctx(&ctx)
			}
			req := &kvrpcpb.SplitRegionRequest{Context: &ctx}
			if test.at != "" {
				req.SplitKeys = [][]byte{[]byte(test.at)}
			}
			resp, err := test.to.SplitRegion(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			e := resp.RegionError
			if got := faultOf(e); (got != test.want || test.want == "" && e != nil) && (test.want == "" || !strings.Contains(e.GetMessage(), test.want)) {
				t.Errorf("%s: %v, want %q", test.name, e, test.want)
			}
			if n := len(e.GetEpochNotMatch().GetCurrentRegions()); e.GetEpochNotMatch() != nil && n != 1 {
				t.Errorf("%s: names %d regions", test.name, n)
			}
		}
	})
}

func TestSplitRegionRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		ctx, kv := c.at(KeyTxn, "g")
		resp, err := kv.SplitRegion(t.Context(), &kvrpcpb.SplitRegionRequest{Context: ctx, SplitKeys: [][]byte{[]byte("p"), []byte("d")}})
		if err != nil || resp.RegionError != nil || len(resp.Regions) != 3 || resp.Regions[2].Id != ctx.RegionId {
			t.Fatal(resp, err)
		}
		if r := c.Regions(KeyTxn); len(r) != 3 || string(r[1].Start) != "d" || string(r[1].End) != "p" {
			t.Fatal(r)
		}
		resp, err = kv.SplitRegion(t.Context(), &kvrpcpb.SplitRegionRequest{Context: ctx, SplitKeys: [][]byte{[]byte("x")}})
		if err != nil || resp.RegionError.GetEpochNotMatch() == nil {
			t.Fatal(resp, err)
		}
	})
}
