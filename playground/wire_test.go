package playground

import (
	"testing"
	"testing/synctest"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// What no client of this repository calls, over the wire.

func TestRangesGoOverTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyTxn, []byte("m")))
		for _, key := range []string{"a", "b", "c", "d", "n"} {
			ts := c.timestamp()
			c.prewrite(ts, key, "v")
			c.commit(ts, c.timestamp(), key)
		}
		ctx, kv := c.at(KeyTxn, "a")
		d, err := kv.KvDeleteRange(t.Context(), &kvrpcpb.DeleteRangeRequest{Context: ctx, StartKey: []byte("b"), EndKey: []byte("c")})
		if err != nil || d.RegionError != nil || d.Error != "" {
			t.Fatal(d, err)
		}
		d, err = kv.KvDeleteRange(t.Context(), &kvrpcpb.DeleteRangeRequest{Context: ctx, StartKey: []byte("b"), EndKey: []byte("z")})
		if err != nil || d.RegionError.GetKeyNotInRegion() == nil {
			t.Fatal(d, err)
		}
		u, err := kv.UnsafeDestroyRange(t.Context(), &kvrpcpb.UnsafeDestroyRangeRequest{Context: ctx, StartKey: []byte("c"), EndKey: []byte("d")})
		if err != nil || u.RegionError != nil || u.Error != "" {
			t.Fatal(u, err)
		}
		for key, found := range map[string]bool{"a": true, "b": false, "c": false, "d": true, "n": true} {
			v, err := c.Versions([]byte(key))
			if err != nil || len(v) > 0 != found {
				t.Errorf("%s: %v, %v", key, v, err)
			}
		}
	})
}

func TestVersionsOverTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		s := c.timestamp()
		c.prewrite(s, "k", "v")
		e := c.timestamp()
		c.commit(s, e, "k")
		ctx, kv := c.at(KeyTxn, "k")
		byKey, err := kv.MvccGetByKey(t.Context(), &kvrpcpb.MvccGetByKeyRequest{Context: ctx, Key: []byte("k")})
		if err != nil || len(byKey.Info.GetWrites()) != 1 || byKey.Info.Writes[0].StartTs != s || byKey.Info.Writes[0].CommitTs != e ||
			string(byKey.Info.Writes[0].ShortValue) != "v" {
			t.Fatal(byKey, err)
		}
		byTS, err := kv.MvccGetByStartTs(t.Context(), &kvrpcpb.MvccGetByStartTsRequest{Context: ctx, StartTs: s})
		if err != nil || string(byTS.Key) != "k" || len(byTS.Info.GetWrites()) != 1 {
			t.Fatal(byTS, err)
		}
	})
}

func TestPessimisticRollbackOverTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		s := c.timestamp()
		ctx, kv := c.at(KeyTxn, "k")
		p, err := kv.KvPessimisticLock(t.Context(), &kvrpcpb.PessimisticLockRequest{
			Context: ctx, StartVersion: s, ForUpdateTs: s, PrimaryLock: []byte("k"), LockTtl: 3000,
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: []byte("k")}},
		})
		if err != nil || p.RegionError != nil || len(p.Errors) > 0 || len(c.Locks(nil, nil)) != 1 {
			t.Fatal(p, err, c.Locks(nil, nil))
		}
		r, err := kv.KVPessimisticRollback(t.Context(), &kvrpcpb.PessimisticRollbackRequest{
			Context: ctx, StartVersion: s, ForUpdateTs: s, Keys: [][]byte{[]byte("k")}})
		if err != nil || r.RegionError != nil || len(r.Errors) > 0 || len(c.Locks(nil, nil)) != 0 {
			t.Fatal(r, err, c.Locks(nil, nil))
		}
	})
}

func TestKeyspaceByID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithAPIVersion(APIV2), WithKeyspaces("ks"))
		ks := keyspacepb.NewKeyspaceClient(c.conn(c.PD()[0]))
		byName, err := ks.LoadKeyspace(t.Context(), &keyspacepb.LoadKeyspaceRequest{Header: c.header(), Name: "ks"})
		if err != nil || byName.Header.Error != nil {
			t.Fatal(byName, err)
		}
		byID, err := ks.LoadKeyspaceByID(t.Context(), &keyspacepb.LoadKeyspaceByIDRequest{Header: c.header(), Keyspace: &keyspacepb.LoadKeyspaceByIDRequest_Id{Id: byName.Keyspace.GetId()}})
		if err != nil || byID.Keyspace.GetName() != "ks" || byID.Keyspace.State != keyspacepb.KeyspaceState_ENABLED {
			t.Fatal(byID, err)
		}
	})
}

func TestHealthIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		l, err := grpc_health_v1.NewHealthClient(c.conn(c.PD()[0])).List(t.Context(), &grpc_health_v1.HealthListRequest{})
		if err != nil || l.Statuses[""].GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Fatal(l, err)
		}
	})
}

// A barrier for all keyspaces holds each one's transaction safe point back; the old call
// reads the garbage collection's (PD server/gc_service.go).
func TestGlobalBarriers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		set, err := c.pdc().SetGlobalGCBarrier(t.Context(), &pdpb.SetGlobalGCBarrierRequest{Header: c.header(), BarrierId: "all", BarrierTs: 10, TtlSeconds: 60})
		if err != nil || set.Header.Error != nil {
			t.Fatal(set, err)
		}
		advance := func(want uint64) {
			t.Helper()
			r, err := c.pdc().AdvanceTxnSafePoint(t.Context(), &pdpb.AdvanceTxnSafePointRequest{Header: c.header(), Target: 20})
			if err != nil || r.NewTxnSafePoint != want {
				t.Fatal(r, err)
			}
		}
		advance(10)
		gone, err := c.pdc().DeleteGlobalGCBarrier(t.Context(), &pdpb.DeleteGlobalGCBarrierRequest{Header: c.header(), BarrierId: "all"})
		if err != nil || gone.Header.Error != nil {
			t.Fatal(gone, err)
		}
		advance(20)
		if r, err := c.pdc().AdvanceGCSafePoint(t.Context(), &pdpb.AdvanceGCSafePointRequest{Header: c.header(), Target: 15}); err != nil || r.Header.Error != nil {
			t.Fatal(r, err)
		}
		p, err := c.pdc().GetGCSafePoint(t.Context(), &pdpb.GetGCSafePointRequest{Header: c.header()})
		if err != nil || p.SafePoint != 15 {
			t.Fatal(p, err)
		}
	})
}
