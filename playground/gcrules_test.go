package playground

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What holds a txn safe point back is told in PD's words: the lowest of barriers, of
// what old TiDB servers write to etcd, and of global barriers, in that order where equal
// (PD: pkg/gc/gc_state_manager.go, advanceTxnSafePointImpl).
func TestBlockers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		advance := func(target, want uint64, blocker string) {
			t.Helper()
			r, err := c.pdc().AdvanceTxnSafePoint(t.Context(), &pdpb.AdvanceTxnSafePointRequest{Header: c.header(), Target: target})
			if err != nil || r.Header.Error != nil || r.NewTxnSafePoint != want || r.BlockerDescription != blocker {
				t.Error(r, err)
			}
		}
		barrier := func(name string, ts uint64, ttl int64) {
			t.Helper()
			r, err := c.pdc().SetGCBarrier(t.Context(), &pdpb.SetGCBarrierRequest{Header: c.header(), BarrierId: name, BarrierTs: ts, TtlSeconds: ttl})
			if err != nil || r.Header.Error != nil {
				t.Fatal(r, err)
			}
		}
		advance(10, 10, "")
		barrier("b", 60, math.MaxInt64)
		advance(70, 60, `GCBarrier { BarrierID: "b", BarrierTS: 60, ExpirationTime: "<nil>" }`)
		barrier("b", 80, 10)
		c.Advance(11 * time.Second)
		if _, err := c.metaStorage(0).Put(t.Context(), &meta_storagepb.PutRequest{Key: []byte("/tidb/server/minstartts/s1"), Value: []byte("75")}); err != nil {
			t.Fatal(err)
		}
		advance(90, 75, `TiDBMinStartTS { Key: "s1", MinStartTS: 75 }`)
		g, err := c.pdc().SetGlobalGCBarrier(t.Context(), &pdpb.SetGlobalGCBarrierRequest{
			Header: c.header(), BarrierId: "gc_worker", BarrierTs: 75, TtlSeconds: math.MaxInt64})
		if err != nil || g.Header.Error != nil || g.NewBarrierInfo.TtlSeconds != math.MaxInt64 {
			t.Fatal(g, err)
		}
		advance(90, 75, `TiDBMinStartTS { Key: "s1", MinStartTS: 75 }`)
		if _, err := c.metaStorage(0).Delete(t.Context(), &meta_storagepb.DeleteRequest{Key: []byte("/tidb/server/minstartts/s1")}); err != nil {
			t.Fatal(err)
		}
		advance(90, 75, `GlobalGCBarrier { BarrierID: "gc_worker", BarrierTS: 75, ExpirationTime: "<nil>" }`)
		// Clients that do not know these calls look at etcd.
		r, err := c.metaStorage(0).Get(t.Context(), &meta_storagepb.GetRequest{Key: []byte("/tidb/store/gcworker/saved_safe_point")})
		if err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "75" {
			t.Fatal(r, err)
		}
	})
}

// Refusals of the GC calls carry PD's words (PD: pkg/errs/errno.go).
func TestGCRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithAPIVersion(APIV2), WithKeyspaces("ks"))
		h, ctx := c.header(), t.Context()
		ks := &pdpb.KeyspaceScope{Keyspace: &pdpb.KeyspaceScope_KeyspaceId{KeyspaceId: 1}}
		none := &pdpb.KeyspaceScope{Keyspace: &pdpb.KeyspaceScope_KeyspaceId{KeyspaceId: 9}}
		if _, err := c.pdc().AdvanceTxnSafePoint(ctx, &pdpb.AdvanceTxnSafePointRequest{Header: h, Target: 50}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.pdc().AdvanceGCSafePoint(ctx, &pdpb.AdvanceGCSafePointRequest{Header: h, Target: 40}); err != nil {
			t.Fatal(err)
		}
		for want, call := range map[string]func() (interface{ GetHeader() *pdpb.ResponseHeader }, error){
			"[PD:gc:ErrDecreasingTxnSafePoint]trying to update txn safe point to a smaller value, current value: 50, given: 49": func() (interface{ GetHeader() *pdpb.ResponseHeader }, error) {
				return c.pdc().AdvanceTxnSafePoint(ctx, &pdpb.AdvanceTxnSafePointRequest{Header: h, Target: 49})
			},
			"[PD:gc:ErrDecreasingGCSafePoint]trying to update GC safe point to a smaller value, current value: 40, given: 39": func() (interface{ GetHeader() *pdpb.ResponseHeader }, error) {
				return c.pdc().AdvanceGCSafePoint(ctx, &pdpb.AdvanceGCSafePointRequest{Header: h, Target: 39})
			},
			"[PD:gc:ErrGCSafePointExceedsTxnSafePoint]trying to update GC safe point to a too large value that exceeds the txn safe point, current value: 40, given: 51, current txn safe point: 50": func() (interface{ GetHeader() *pdpb.ResponseHeader }, error) {
				return c.pdc().AdvanceGCSafePoint(ctx, &pdpb.AdvanceGCSafePointRequest{Header: h, Target: 51})
			},
			"[PD:gc:ErrGCOnInvalidKeyspace]trying to manage GC in keyspace ks (id: 1) where keyspace level GC is not enabled": func() (interface{ GetHeader() *pdpb.ResponseHeader }, error) {
				return c.pdc().AdvanceGCSafePoint(ctx, &pdpb.AdvanceGCSafePointRequest{Header: h, KeyspaceScope: ks, Target: 41})
			},
			"[PD:keyspace:ErrKeyspaceNotFound]keyspace does not exist": func() (interface{ GetHeader() *pdpb.ResponseHeader }, error) {
				return c.pdc().GetGCState(ctx, &pdpb.GetGCStateRequest{Header: h, KeyspaceScope: none})
			},
			"[PD:gc:ErrGCBarrierTSBehindTxnSafePoint]trying to set a GC barrier on ts 49 which is already behind the txn safe point 50": func() (interface{ GetHeader() *pdpb.ResponseHeader }, error) {
				return c.pdc().SetGCBarrier(ctx, &pdpb.SetGCBarrierRequest{Header: h, KeyspaceScope: ks, BarrierId: "b", BarrierTs: 49, TtlSeconds: 1})
			},
			"[PD:gc:ErrReservedGCBarrierID]trying to set a GC barrier with a barrier ID that is reserved: gc_worker": func() (interface{ GetHeader() *pdpb.ResponseHeader }, error) {
				return c.pdc().DeleteGCBarrier(ctx, &pdpb.DeleteGCBarrierRequest{Header: h, BarrierId: "gc_worker"})
			},
			"[PD:common:ErrInvalidArgument]invalid argument for ttl: 0s": func() (interface{ GetHeader() *pdpb.ResponseHeader }, error) {
				return c.pdc().SetGCBarrier(ctx, &pdpb.SetGCBarrierRequest{Header: h, KeyspaceScope: none, BarrierId: "b", BarrierTs: 60, TtlSeconds: -1})
			},
			"[PD:common:ErrInvalidArgument]invalid argument for barrierID: ": func() (interface{ GetHeader() *pdpb.ResponseHeader }, error) {
				return c.pdc().DeleteGlobalGCBarrier(ctx, &pdpb.DeleteGlobalGCBarrierRequest{Header: h})
			},
			"[PD:gc:ErrGlobalGCBarrierTSBehindTxnSafePoint]trying to set a global GC barrier on ts 49 which is already behind the txn safe point 50 of keyspace <null_keyspace>": func() (interface{ GetHeader() *pdpb.ResponseHeader }, error) {
				return c.pdc().SetGlobalGCBarrier(ctx, &pdpb.SetGlobalGCBarrierRequest{Header: h, BarrierId: "b", BarrierTs: 49, TtlSeconds: 1})
			},
		} {
			r, err := call()
			if err != nil || r.GetHeader().GetError().GetType() != pdpb.ErrorType_UNKNOWN || r.GetHeader().GetError().GetMessage() != want {
				t.Errorf("%v %v, want %q", r, err, want)
			}
		}
	})
}

// The old call for service safe points goes by PD's timestamps, that of today by the clock
// (PD: server/gc_service.go, UpdateServiceGCSafePoint and SetGCBarrier); so the old one
// needs timestamps.
func TestServiceSafePointsByTimestamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.JumpTSO(time.Hour)
		call := func(ctx context.Context) (*pdpb.UpdateServiceGCSafePointResponse, error) {
			return c.pdc().UpdateServiceGCSafePoint(ctx, &pdpb.UpdateServiceGCSafePointRequest{
				Header: c.header(), ServiceId: []byte("br"), SafePoint: 5, TTL: 60})
		}
		r, err := call(t.Context())
		if want := math.MaxInt64 - c.Now().Add(time.Hour).Unix(); err != nil || r.TTL < want-1 || r.TTL > want {
			t.Fatal(r, err, want)
		}
		s, err := c.pdc().GetGCState(t.Context(), &pdpb.GetGCStateRequest{Header: c.header()})
		if err != nil || len(s.GcState.GcBarriers) != 1 || s.GcState.GcBarriers[0].TtlSeconds < 3659 {
			t.Fatal(s, err)
		}
		c.StallTSO(true)
		defer c.StallTSO(false)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if r, err := call(ctx); status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(r, err)
		}
	})
}

// The old call for service safe points is made of the new ones (PD:
// pkg/gc/gc_state_manager.go, CompatibleUpdateServiceGCSafePoint).
func TestServiceSafePoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		for i, step := range []struct {
			service string
			ts      uint64
			ttl     int64
			of      string
			lowest  uint64
			refused bool
		}{
			{"gc_worker", 10, math.MaxInt64, "gc_worker", 10, false},
			{"gc_worker", 10, 60, "", 0, true},
			{"gc_worker", 9, math.MaxInt64, "", 0, true},
			{"br", 20, 60, "gc_worker", 10, false},
			{"br", 5, 60, "gc_worker", 10, false}, // behind: not set, and no error
			{"gc_worker", 30, math.MaxInt64, "br", 20, false},
			{"br", 0, 0, "gc_worker", 20, false}, // deleted
			{"native_br", 25, 60, "gc_worker", 20, false},
			{"gc_worker", 30, math.MaxInt64, "native_br", 25, false},
			{"native_br", 0, -1, "gc_worker", 25, false},
			{"gc_worker", 30, math.MaxInt64, "gc_worker", 30, false},
			{"", 40, 60, "", 0, true},
		} {
			r, err := c.pdc().UpdateServiceGCSafePoint(t.Context(), &pdpb.UpdateServiceGCSafePointRequest{
				Header: c.header(), ServiceId: []byte(step.service), SafePoint: step.ts, TTL: step.ttl})
			if step.refused {
				if status.Code(err) != codes.Unknown {
					t.Error(i, r, err)
				}
				continue
			}
			if err != nil || string(r.ServiceId) != step.of || r.MinSafePoint != step.lowest || r.TTL != math.MaxInt64-c.Now().Unix() {
				t.Error(i, r, err)
			}
		}
	})
}
