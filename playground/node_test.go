package playground

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestStopAndStart(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, append(opts, WithSplitKeys(KeyRaw, []byte("f"), []byte("p")))...)
		c.rawPut("g", "1")
		led := c.Regions(KeyRaw)[1].Leader
		addr := c.store(led).Server().Addr()
		if err := c.Stop(Store(led)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.DialContext(t.Context(), addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		for _, r := range c.Regions(KeyRaw) {
			if r.Leader == led || r.Leader == 0 {
				t.Fatal(r)
			}
		}
		if v, _ := c.rawGet("g"); v != "1" {
			t.Fatal(v)
		}
		c.rawPut("g", "2")
		c.parted(addr)
		if err := c.Cluster.Start(Store(led)); err != nil {
			t.Fatal(err)
		}
		if c.store(led).Server().Addr() != addr {
			t.Fatal("the store has another address")
		}
		if err := c.TransferLeader(c.Regions(KeyRaw)[1].ID, led); err != nil {
			t.Fatal(err)
		}
		if v, _ := c.rawGet("g"); v != "2" {
			t.Fatal(v)
		}
		if n := c.Counts(); n.Starts != 1 || n.LeaderMoves < 2 {
			t.Fatalf("%+v", n)
		}
	})
}

// Without a majority of live peers a region has no leader, and those that are left
// know none.
func TestNoMajorityNoLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		ctx, _ := c.at(KeyRaw, "a")
		r := c.topo.ByID(ctx.RegionId)
		left := r.LeaderStore()
		for store := uint64(1); store <= 3; store++ {
			if store != left {
				if err := c.Stop(Store(store)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if l := c.Regions(KeyRaw)[0].Leader; l != 0 {
			t.Fatal(l)
		}
		e := askPut("a", 1)(t, c.tikv(left), ctx)
		if e.GetNotLeader() == nil || e.NotLeader.Leader != nil {
			t.Fatal(e)
		}
		// A replica has no leader to ask how far it must have read (TiKV raftstore/src/
		// store/peer.rs, read_index); a stale read asks nobody.
		replica := *ctx
		replica.ReplicaRead = true
		if e := askGet("a")(t, c.tikv(left), &replica); e.GetNotLeader() == nil || e.NotLeader.Leader != nil {
			t.Error("a replica read without a leader:", e)
		}
		stale := *ctx
		stale.StaleRead = true
		if e := askGet("a")(t, c.tikv(left), &stale); e != nil {
			t.Error(e)
		}
		resp, err := c.pdc().GetRegion(t.Context(), &pdpb.GetRegionRequest{Header: c.header(), RegionKey: []byte("a")})
		if err != nil || resp.Leader != nil || len(resp.DownPeers) != 0 {
			t.Fatal(resp, err)
		}
		// A peer is down once nothing was heard of it for ten minutes (TiKV raftstore's
		// max-peer-down-duration).
		c.Advance(10 * time.Minute)
		resp, err = c.pdc().GetRegion(t.Context(), &pdpb.GetRegionRequest{Header: c.header(), RegionKey: []byte("a")})
		if err != nil || len(resp.DownPeers) != 2 || resp.DownPeers[0].DownSeconds != 600 {
			t.Fatal(resp, err)
		}
		//lint:ignore SA1019 PD still serves it
		scan, err := c.pdc().ScanRegions(t.Context(), &pdpb.ScanRegionsRequest{Header: c.header()})
		if err != nil || scan.Regions[0].Leader == nil || scan.Regions[0].Leader.Id != 0 {
			t.Fatal(scan, err)
		}
		expect(t, c.TransferLeader(r.ID(), left), "has no majority")
		if err := c.Cluster.Start(Store(left%3 + 1)); err != nil {
			t.Fatal(err)
		}
		c.rawPut("a", "1")
	})
}

// A paused store keeps its connections and answers nothing; what was sent meanwhile is
// answered afterwards.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.rawPut("a", "1")
		ctx, kv := c.at(KeyRaw, "a")
		store := ctx.Peer.StoreId
		if err := c.Pause(Store(store)); err != nil {
			t.Fatal(err)
		}
		if l := c.Regions(KeyRaw)[0].Leader; l == store || l == 0 {
			t.Fatal(l)
		}
		short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := kv.RawGet(short, &kvrpcpb.RawGetRequest{Context: ctx, Key: []byte("a")})
		if status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(err)
		}
		conn, err := c.DialContext(t.Context(), c.store(store).Server().Addr())
		if err != nil {
			t.Fatal("a paused store's socket is open:", err)
		}
		defer conn.Close()
		// The server's own timers do not show: a process that is suspended closes nothing.
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Minute))
		if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(n, err)
		}
		if err := c.Cluster.Start(Store(store)); err != nil {
			t.Fatal(err)
		}
		resp, err := kv.RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: ctx, Key: []byte("a")})
		if err != nil || resp.RegionError.GetNotLeader() == nil {
			t.Fatal(resp, err)
		}
	})
}

// A paused node can be stopped, whoever connects to it meanwhile.
func TestStopWhilePaused(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, opts...)
		if err := c.Pause(Store(1)); err != nil {
			t.Fatal(err)
		}
		silent, err := c.DialContext(t.Context(), c.store(1).Server().Addr()) // and says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = c.tikv(1).RawGet(ctx, &kvrpcpb.RawGetRequest{Key: []byte("k")})
		refused(t, err, codes.DeadlineExceeded, "")
		if err := c.Stop(Store(1)); err != nil {
			t.Fatal(err)
		}
		if err := c.Cluster.Start(Store(1)); err != nil {
			t.Fatal(err)
		}
	})
}

// A client's keepalive notices a paused store.
func TestPauseIsNoticedByKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		ctx, kv := c.at(KeyRaw, "a")
		if _, err := kv.RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: ctx, Key: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		if err := c.Pause(Store(ctx.Peer.StoreId)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err := kv.RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: ctx, Key: []byte("a")})
		if took := time.Since(began); status.Code(err) != codes.Unavailable || took > 13*time.Second {
			t.Fatal(err, took)
		}
	})
}

func TestUnknownNodes(t *testing.T) {
	c := start(t)
	expect(t, c.Stop(Store(4)), "no store 4")
	expect(t, c.Pause(Store(0)), "no store 0")
	expect(t, c.Cluster.Start(Member(1)), "no member 1")
	expect(t, c.TransferPD(-1), "no member")
	expect(t, c.Stop(Node{}), "no any node")
	expect(t, c.TransferLeader(1, 9), "no region 1")
	expect(t, c.TransferLeader(c.Regions(KeyRaw)[0].ID, 9), "has no peer on store 9")
	if _, err := c.Split(7, nil); err == nil {
		t.Fatal("split in mode 7")
	}
	if _, err := c.Split(KeyRaw, nil); err != nil {
		t.Fatal("the first region begins at the empty key:", err)
	}
	if err := c.Stop(Store(1)); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(Store(1)); err != nil {
		t.Fatal("stopping twice:", err)
	}
	expect(t, c.Pause(Store(1)), "does not run")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, c.Cluster.Start(Store(1)), "closed")
	if err := c.Close(); err != nil {
		t.Fatal("closing twice:", err)
	}
}

func TestMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		member := func(i int) pdpb.PDClient { return pdpb.NewPDClient(c.conn(c.PD()[i])) }
		leader := func(i int) string {
			resp, err := member(i).GetMembers(t.Context(), &pdpb.GetMembersRequest{})
			if err != nil || len(resp.Members) != 3 || resp.Header.ClusterId != c.ID() {
				t.Fatal(resp, err)
			}
			return resp.Leader.GetName()
		}
		if leader(0) != "pd-0" || leader(2) != "pd-0" {
			t.Fatal(leader(0), leader(2))
		}
		region := &pdpb.GetRegionRequest{Header: c.header(), RegionKey: []byte("a")}
		if _, err := member(1).GetRegion(t.Context(), region); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		} else {
			expect(t, err, "not leader")
		}
		before := c.timestamp()
		if err := c.TransferPD(1); err != nil {
			t.Fatal(err)
		}
		if resp, err := member(1).GetRegion(t.Context(), region); err != nil || resp.Region == nil {
			t.Fatal(resp, err)
		}
		if _, err := member(0).GetMinTS(t.Context(), &pdpb.GetMinTSRequest{Header: c.header()}); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		resp, err := member(1).GetMinTS(t.Context(), &pdpb.GetMinTSRequest{Header: c.header()})
		if err != nil || uint64(resp.Timestamp.Physical)<<18|uint64(resp.Timestamp.Logical) <= before {
			t.Fatal(resp, err)
		}
		if err := c.Stop(Member(1)); err != nil {
			t.Fatal(err)
		}
		if l := leader(2); l != "pd-0" {
			t.Fatal(l)
		}
		if err := c.Stop(Member(0)); err != nil {
			t.Fatal(err)
		}
		if l := leader(2); l != "" {
			t.Fatal("one of three members leads:", l)
		}
		if err := c.Cluster.Start(Member(0)); err != nil {
			t.Fatal(err)
		}
		if leader(2) == "" {
			t.Fatal("two of three members have no leader")
		}
	})
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		for _, addr := range append(c.PD(), c.store(1).Server().Addr(), c.store(3).Server().Addr()) {
			resp, err := grpc_health_v1.NewHealthClient(c.conn(addr)).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			if err != nil || resp.Status != grpc_health_v1.HealthCheckResponse_SERVING {
				t.Fatal(addr, resp, err)
			}
		}
	})
}
