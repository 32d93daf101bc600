package playground

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// heartbeat is what the leader of the region of a user key would report.
func (c *testCluster) heartbeat(key string) *pdpb.RegionHeartbeatRequest {
	r := c.topo.ByKey(c.api.regionKey(KeyRaw, []byte(key)))
	data, err := r.Meta.Marshal()
	meta := new(metapb.Region)
	if err == nil {
		err = meta.Unmarshal(data)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	leader := *r.Leader
	return &pdpb.RegionHeartbeatRequest{Header: c.header(), Region: meta, Leader: &leader, Term: r.Term}
}

func (c *testCluster) heartbeats(ctx context.Context, member int) pdpb.PD_RegionHeartbeatClient {
	c.t.Helper()
	s, err := c.member(member).RegionHeartbeat(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// PD accepts what agrees with what it knows in silence, and answers what is stale (PD:
// server/grpc_service.go, RegionHeartbeat; pkg/core/region.go, check).
func TestRegionHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(4), WithSplitKeys(KeyRaw, []byte("m")))
		exchange := func(h *pdpb.RegionHeartbeatRequest) (*pdpb.RegionHeartbeatResponse, error) {
			t.Helper()
			// Who hears nothing leaves. (A deadline would be the server's too, whose stream may
			// end by it before the client does, and tell of it in its own way.)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			defer time.AfterFunc(time.Second, cancel).Stop()
			s := c.heartbeats(ctx, 0)
			if err := s.Send(h); err != nil {
				t.Fatal(err)
			}
			return s.Recv()
		}
		for _, test := range []struct {
			name   string
			change func(*pdpb.RegionHeartbeatRequest)
			text   string
		}{
			{"no region", func(h *pdpb.RegionHeartbeatRequest) { h.Region = nil }, "invalid request region, "},
			{"no peers", func(h *pdpb.RegionHeartbeatRequest) { h.Region.Peers = nil }, "invalid region, zero region peer count: "},
			{"older version", func(h *pdpb.RegionHeartbeatRequest) { h.Region.RegionEpoch.Version-- }, "region is stale: region "},
			{"older conf version", func(h *pdpb.RegionHeartbeatRequest) { h.Region.RegionEpoch.ConfVer-- }, "region is stale: region "},
			{"older term", func(h *pdpb.RegionHeartbeatRequest) { h.Term-- }, "region is stale: region "},
			{"an invented split", func(h *pdpb.RegionHeartbeatRequest) { h.Region.RegionEpoch.Version++; h.Region.EndKey = []byte("c") }, "region is stale: region "},
			{"an invented region", func(h *pdpb.RegionHeartbeatRequest) { h.Region.Id = 12345 }, "region is stale: region "},
			{"an invented peer", func(h *pdpb.RegionHeartbeatRequest) { h.Region.Peers[1].StoreId = 4 }, "region is stale: region "},
			{"another leader", func(h *pdpb.RegionHeartbeatRequest) {
				at := 0
				for h.Region.Peers[at].Id == h.Leader.Id {
					at++
				}
				h.Leader = h.Region.Peers[at]
			}, "region is stale: region "},
		} {
			h, before := c.heartbeat("a"), c.topo.ByKey(c.api.regionKey(KeyRaw, []byte("a")))
			test.change(h)
			resp, err := exchange(h)
			if err != nil || resp.Header.Error.GetType() != pdpb.ErrorType_UNKNOWN || !strings.HasPrefix(resp.Header.Error.Message, test.text) ||
				resp.TargetPeer.GetId() != h.Leader.Id {
				t.Errorf("%s: %v, %v", test.name, resp, err)
			}
			if c.topo.ByID(before.ID()) != before || c.topo.Len() != 2 {
				t.Fatalf("%s has changed the regions", test.name)
			}
		}
		for _, test := range []struct {
			name   string
			change func(*pdpb.RegionHeartbeatRequest)
			code   codes.Code
			text   string
		}{
			{"another cluster", func(h *pdpb.RegionHeartbeatRequest) { h.Header = &pdpb.RequestHeader{ClusterId: 7} }, codes.FailedPrecondition, "mismatch cluster id"},
			{"no leader", func(h *pdpb.RegionHeartbeatRequest) { h.Leader = nil }, codes.Unknown, "invalid store ID 0, not found"},
			{"no store", func(h *pdpb.RegionHeartbeatRequest) { h.Leader.StoreId = 9 }, codes.Unknown, "invalid store ID 9, not found"},
			{"good", func(*pdpb.RegionHeartbeatRequest) {}, codes.Canceled, ""},
			{"a later term", func(h *pdpb.RegionHeartbeatRequest) { h.Term++ }, codes.Canceled, ""},
		} {
			h := c.heartbeat("a")
			test.change(h)
			if resp, err := exchange(h); status.Code(err) != test.code || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%s: %v, %v", test.name, resp, err)
			}
		}
		c.must(c.RemoveStore(4))
		h := c.heartbeat("a")
		h.Leader.StoreId = 4
		if resp, err := exchange(h); status.Code(err) != codes.Canceled {
			t.Fatal("a removed store is answered", resp, err)
		}
	})
}

// silent is a stream that no report comes on.
type silent struct {
	pdpb.PD_RegionHeartbeatServer
	ctx   context.Context
	ended chan struct{}
}

func (s silent) Context() context.Context { return s.ctx }

func (s silent) Recv() (*pdpb.RegionHeartbeatRequest, error) {
	<-s.ended
	return nil, io.EOF
}

// A stream whose time is up ends by that, as PD's does, whose Recv fails then: its client
// may hear of the end from PD before its own clock tells it.
func TestRegionHeartbeatDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := silent{ctx: ctx, ended: make(chan struct{})}
		defer close(s.ended)
		if err := c.pd.Members()[0].RegionHeartbeat(s); status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(err)
		}
	})
}

// What a good report says of peers, buckets and operators is known from then on, until the
// region changes.
func TestRegionHeartbeatKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(6))
		c.must(c.SetOperatorTime(time.Hour))
		h := c.heartbeat("a")
		for n := 0; !strings.Contains(c.operator(h.Region.Id), "RUNNING"); n++ {
			if resp := c.scatter(fmt.Sprint(n/10), h.Region.Id); resp.Header.Error != nil || n == 100 {
				t.Fatal(resp, c.operator(h.Region.Id))
			}
		}
		h = c.heartbeat("a")
		peer := h.Region.Peers[1]
		h.DownPeers, h.PendingPeers = []*pdpb.PeerStats{{Peer: peer, DownSeconds: 5}}, []*metapb.Peer{peer}
		h.BucketMeta = &metapb.BucketMeta{Version: 3, Keys: [][]byte{h.Region.StartKey, []byte("k"), h.Region.EndKey}}
		s := c.heartbeats(t.Context(), 0)
		if err := s.Send(h); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		get := func() *pdpb.GetRegionResponse {
			resp, err := c.pdc().GetRegionByID(t.Context(), &pdpb.GetRegionByIDRequest{Header: c.header(), RegionId: h.Region.Id, NeedBuckets: true})
			if err != nil || resp.Header.Error != nil {
				t.Fatal(resp, err)
			}
			return resp
		}
		if r := get(); len(r.DownPeers) != 1 || r.DownPeers[0].DownSeconds != 5 || len(r.PendingPeers) != 1 || r.PendingPeers[0].Id != peer.Id || r.Buckets.GetVersion() != 3 {
			t.Fatal(r)
		}
		if op := c.operator(h.Region.Id); !strings.Contains(op, "SUCCESS") {
			t.Fatal(op)
		}
		c.must(c.TransferLeader(h.Region.Id, peer.StoreId))
		if r := get(); len(r.DownPeers) != 0 || len(r.PendingPeers) != 0 {
			t.Fatal(r)
		}
	})
}

// A store's answers go to its last stream, which hears every minute that PD is there; one
// that reports to a follower is sent away, or passed on (PD: pkg/schedule/hbstream).
func TestRegionHeartbeatStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		follower := c.heartbeats(t.Context(), 1)
		if err := follower.Send(c.heartbeat("a")); err != nil {
			t.Fatal(err)
		}
		if resp, err := follower.Recv(); err != nil || resp.Header.Error.GetType() != pdpb.ErrorType_NOT_BOOTSTRAPPED {
			t.Fatal(resp, err)
		}
		if resp, err := follower.Recv(); !errors.Is(err, io.EOF) {
			t.Fatal(resp, err)
		}
		stale := c.heartbeat("a")
		stale.Region.RegionEpoch.Version--
		first, second := c.heartbeats(t.Context(), 0), c.heartbeats(c.forwardedTo(t.Context()), 2)
		if err := first.Send(c.heartbeat("a")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := second.Send(c.heartbeat("a")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := first.Send(stale); err != nil {
			t.Fatal(err)
		}
		if resp, err := second.Recv(); err != nil || !strings.HasPrefix(resp.Header.Error.GetMessage(), "region is stale") {
			t.Fatal(resp, err)
		}
		began := time.Now()
		resp, err := second.Recv()
		if waited := time.Since(began); err != nil || resp.Header.Error != nil || resp.RegionId != 0 || waited != time.Minute {
			t.Fatal(resp, err, waited)
		}
		<-time.After(time.Second)
		if err := first.Send(stale); err != nil { // bound again after a minute
			t.Fatal(err)
		}
		if resp, err := first.Recv(); err != nil || !strings.HasPrefix(resp.Header.Error.GetMessage(), "region is stale") {
			t.Fatal(resp, err)
		}
		// Faults meet each report, by its region.
		mangled := c.Inject(Fault{Method: "RegionHeartbeat", Region: stale.Region.Id, Times: 1, Mangle: func([]byte) []byte { return nil }})
		if err := first.Send(stale); err != nil {
			t.Fatal(err)
		}
		if resp, err := first.Recv(); err != nil || resp.Header != nil || mangled.Hits() != 1 {
			t.Fatal(resp, err, mangled.Hits())
		}
		if err := first.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := first.Recv(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}

// Newer buckets are taken over, and nothing is answered; the region's stores keep theirs
// (PD: server/grpc_service.go, ReportBuckets; pkg/core/region.go,
// CompareAndSetReportBuckets).
func TestReportBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(2))
		region := c.heartbeat("a").Region
		report := func(member int, ctx context.Context, b *metapb.Buckets) (*pdpb.ReportBucketsResponse, error) {
			t.Helper()
			s, err := c.member(member).ReportBuckets(ctx)
			if err == nil {
				err = s.Send(&pdpb.ReportBucketsRequest{Header: c.header(), Buckets: b, RegionEpoch: region.RegionEpoch})
			}
			if err != nil {
				t.Fatal(err)
			}
			return s.CloseAndRecv()
		}
		buckets := func(version uint64, keys ...string) *metapb.Buckets {
			b := &metapb.Buckets{RegionId: region.Id, Version: version}
			for _, k := range keys {
				b.Keys = append(b.Keys, []byte(k))
			}
			return b
		}
		for _, test := range []struct {
			name   string
			told   *metapb.Buckets
			want   string
			member int
		}{
			{"first", buckets(7, "", "c", ""), "7  c ", 0},
			{"same version", buckets(7, "", "d", ""), "7  c ", 0},
			{"older", buckets(6, "", "d", ""), "7  c ", 0},
			{"no keys", buckets(8), "7  c ", 0},
			{"no region", &metapb.Buckets{RegionId: 99, Version: 9, Keys: [][]byte{{}, {}}}, "7  c ", 0},
			{"newer", buckets(9, "", "e", ""), "9  e ", 0},
			{"passed on", buckets(10, "", "f", ""), "10  f ", 1},
		} {
			ctx := t.Context()
			if test.member > 0 {
				ctx = c.forwardedTo(ctx)
			}
			if resp, err := report(test.member, ctx, test.told); err == nil {
				t.Errorf("%s: answered %v", test.name, resp)
			}
			if b := c.topo.Buckets(region.Id); fmt.Sprintf("%d %s", b.GetVersion(), bucketText(b)) != test.want {
				t.Errorf("%s: %v", test.name, b)
			}
		}
		if b := c.topo.StoreBuckets(c.topo.ByID(region.Id)); b != nil {
			t.Fatal(b)
		}
		c.must(c.SetBuckets(region.Id, KeyRaw, []byte("x")))
		if b := c.topo.Buckets(region.Id); b.Version <= 10 || bucketText(b) != " x " {
			t.Fatal(b)
		}
		resp, err := report(1, t.Context(), buckets(1<<40, "", "y", ""))
		if err != nil || resp.Header.Error.GetType() != pdpb.ErrorType_NOT_BOOTSTRAPPED {
			t.Fatal(resp, err)
		}
	})
}

func (c *testCluster) sync(ctx context.Context, name string, from uint64) pdpb.PD_SyncRegionsClient {
	c.t.Helper()
	s, err := c.member(0).SyncRegions(ctx)
	if err == nil {
		err = s.Send(&pdpb.SyncRegionRequest{Header: c.header(), Member: &pdpb.Member{Name: name}, StartIndex: from})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// A leader tells of all regions, or of what became of them since an index, and of what
// becomes of them (PD: pkg/syncer/server.go).
func TestSyncRegions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(2), WithSplitKeys(KeyRaw, []byte("m")))
		recv := func(s pdpb.PD_SyncRegionsClient, index uint64, regions ...string) *pdpb.SyncRegionResponse {
			t.Helper()
			resp, err := s.Recv()
			if err != nil || resp.Header.Error != nil || resp.StartIndex != index || len(resp.Regions) != len(regions) ||
				len(resp.RegionLeaders) != len(regions) || len(resp.RegionStats) != len(regions) || len(resp.Buckets) != len(regions) {
				t.Fatal(resp, err)
			}
			for i, r := range resp.Regions {
				if text := string(r.StartKey) + "-" + string(r.EndKey); text != regions[i] {
					t.Fatal(text, "instead of", regions[i])
				}
			}
			return resp
		}
		s := c.sync(t.Context(), "a", 0)
		all := recv(s, 0, "-m", "m-")
		if all.RegionLeaders[0].GetStoreId() == 0 {
			t.Fatal(all)
		}
		recv(s, 0)
		if _, err := c.Split(KeyRaw, []byte("c")); err != nil {
			t.Fatal(err)
		}
		recv(s, 0, "-c", "c-m")
		last := c.heartbeat("z")
		for _, p := range last.Region.Peers {
			if p.Id != last.Leader.Id {
				c.must(c.TransferLeader(last.Region.Id, p.StoreId))
				if resp := recv(s, 2, "m-"); resp.RegionLeaders[0].Id != p.Id {
					t.Fatal(resp)
				}
				break
			}
		}
		began := time.Now()
		recv(s, 3)
		if waited := time.Since(began); waited <= 0 || waited > 10*time.Second {
			t.Fatal(waited)
		}
		h := c.heartbeat("z")
		h.BytesWritten, h.KeysRead = 77, 8
		hb := c.heartbeats(t.Context(), 0)
		if err := hb.Send(h); err != nil {
			t.Fatal(err)
		}
		if resp := recv(s, 3, "m-"); resp.RegionStats[0].BytesWritten != 77 || resp.RegionStats[0].KeysRead != 8 {
			t.Fatal(resp)
		}
		c.must(c.SetBuckets(h.Region.Id, KeyRaw, []byte("x")))
		if resp := recv(s, 4, "m-"); bucketText(resp.Buckets[0]) != "m x " {
			t.Fatal(resp)
		}
		since := c.sync(t.Context(), "b", 2)
		recv(since, 2, "m-", "m-", "m-")
		same := c.sync(t.Context(), "c", 5)
		recv(same, 5)
		ahead := c.sync(t.Context(), "d", 1000)
		recv(ahead, 0, "-c", "c-m", "m-")
		recv(ahead, 5)
		// Another stream of the same member takes the place of the first.
		again := c.sync(t.Context(), "a", 5)
		recv(again, 5)
		for {
			if _, err := s.Recv(); err != nil {
				if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "region syncer stream closed") {
					t.Fatal(err)
				}
				break
			}
		}
	})
}

// Only who leads tells, and only to who is of the cluster.
func TestSyncRegionsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		follower, err := c.member(1).SyncRegions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := follower.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "server not started") {
			t.Fatal(err)
		}
		foreign, err := c.member(0).SyncRegions(t.Context())
		if err == nil {
			err = foreign.Send(&pdpb.SyncRegionRequest{Header: &pdpb.RequestHeader{ClusterId: 7}})
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := foreign.Recv(); status.Code(err) != codes.FailedPrecondition {
			t.Fatal(err)
		}
		s := c.sync(t.Context(), "a", 0)
		for range 2 {
			if _, err := s.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		c.must(c.TransferPD(1))
		if resp, err := s.Recv(); err != nil || resp.Header.Error.GetMessage() != "server stopped, close the region syncer client" {
			t.Fatal(resp, err)
		}
		if _, err := s.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "region syncer stopped") {
			t.Fatal(err)
		}
	})
}
