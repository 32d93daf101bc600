package playground

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A scan of regions ends before the first that begins at or after its end, even if that
// is the first of all (PD: pkg/core/region.go, ScanRegions and scanRegion).
func TestScanOfNoKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyRaw, []byte("b"), []byte("d")))
		for _, test := range []struct {
			start, end string
			want       int
		}{
			{"b", "b", 0}, {"d", "b", 0}, {"bb", "bb", 1}, {"c", "bb", 1}, {"c", "a", 0}, {"", "", 3},
		} {
			//lint:ignore SA1019 PD still serves it
			old, err := c.pdc().ScanRegions(t.Context(), &pdpb.ScanRegionsRequest{
				Header: c.header(), StartKey: []byte(test.start), EndKey: []byte(test.end)})
			if err != nil || len(old.Regions) != test.want {
				t.Errorf("%q to %q: %v %v", test.start, test.end, old.GetRegions(), err)
			}
			if test.start > test.end {
				continue // refused
			}
			resp, err := c.pdc().BatchScanRegions(t.Context(), &pdpb.BatchScanRegionsRequest{Header: c.header(),
				Ranges: []*pdpb.KeyRange{{StartKey: []byte(test.start), EndKey: []byte(test.end)}}})
			if err != nil || resp.Header.Error != nil || len(resp.Regions) != test.want {
				t.Errorf("batch, %q to %q: %v %v", test.start, test.end, resp, err)
			}
		}
	})
}

// A barrier holds up to the second that its TTL ends in, and is told in whole seconds
// (PD: pkg/storage/endpoint/gc_states.go, NewGCBarrier and IsExpired; server/gc_service.go,
// gcBarrierToProto).
func TestBarrierEndsWithItsSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.Advance(300 * time.Millisecond) // the fake clock begins on a whole second
		set, err := c.pdc().SetGCBarrier(t.Context(), &pdpb.SetGCBarrierRequest{Header: c.header(), BarrierId: "x", BarrierTs: 10, TtlSeconds: 60})
		if err != nil || set.NewBarrierInfo.GetTtlSeconds() != 60 {
			t.Fatal(set, err)
		}
		state := func() int64 {
			s, err := c.pdc().GetGCState(t.Context(), &pdpb.GetGCStateRequest{Header: c.header()})
			if err != nil || len(s.GcState.GetGcBarriers()) != 1 {
				t.Fatal(s, err)
			}
			return s.GcState.GcBarriers[0].TtlSeconds
		}
		advance := func() uint64 {
			r, err := c.pdc().AdvanceTxnSafePoint(t.Context(), &pdpb.AdvanceTxnSafePointRequest{Header: c.header(), Target: 20})
			if err != nil || r.Header.Error != nil {
				t.Fatal(r, err)
			}
			return r.NewTxnSafePoint
		}
		c.Advance(800 * time.Millisecond) // to 1.1 s of 61
		if ttl := state(); ttl != 59 {
			t.Fatal(ttl)
		}
		c.Advance(59900 * time.Millisecond) // to 61 s
		if ttl, ts := state(), advance(); ttl != 0 || ts != 10 {
			t.Fatal("the barrier is gone at the end of its second:", ttl, ts)
		}
		c.Advance(time.Millisecond)
		if ts := advance(); ts != 20 {
			t.Fatal("the barrier holds on:", ts)
		}
	})
}

// The states of all keyspaces tell which of them manage their GC by themselves; those
// that do not show nothing of their own (PD: pkg/gc/gc_state_manager.go,
// iterateAllKeyspacesGCStates).
func TestAllGCStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithAPIVersion(APIV2), WithKeyspaces("ks"))
		if _, err := c.pdc().AdvanceTxnSafePoint(t.Context(), &pdpb.AdvanceTxnSafePointRequest{Header: c.header(), Target: 100}); err != nil {
			t.Fatal(err)
		}
		resp, err := c.pdc().GetAllKeyspacesGCStates(t.Context(), &pdpb.GetAllKeyspacesGCStatesRequest{Header: c.header()})
		if err != nil || len(resp.GcStates) != 3 {
			t.Fatal(resp, err)
		}
		i := slices.IndexFunc(resp.GcStates, func(s *pdpb.GCState) bool { return s.KeyspaceScope.GetKeyspaceId() == 0xffffffff })
		for j, s := range resp.GcStates {
			if s.IsKeyspaceLevelGc || (s.TxnSafePoint == 100) != (i == j) {
				t.Error(s)
			}
		}
	})
}

// A follower refuses timestamps in PD's words, by which clients know to look for the
// leader; a foreign request is told so first, whoever leads (PD: server/grpc_service.go,
// Tso; pkg/tso/allocator.go, GenerateTSO).
func TestTimestampsOfAFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		for _, test := range []struct {
			id   uint64
			code codes.Code
			text string
		}{{c.ID(), codes.Unknown, "requested pd is not leader of cluster"}, {7, codes.FailedPrecondition, "mismatch cluster id"}} {
			s, err := pdpb.NewPDClient(c.conn(c.PD()[1])).Tso(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(&pdpb.TsoRequest{Header: &pdpb.RequestHeader{ClusterId: test.id}, Count: 1}); err != nil {
				t.Fatal(err)
			}
			_, err = s.Recv()
			if status.Code(err) != test.code {
				t.Error(err)
			}
			expect(t, err, test.text)
		}
	})
}
