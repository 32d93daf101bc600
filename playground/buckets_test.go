package playground

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/metadata"
)

func bucketText(b *metapb.Buckets) string {
	if b == nil {
		return "none"
	}
	return string(bytes.Join(b.Keys, []byte(" ")))
}

// PD's leader tells of buckets in every lookup that asks for them, with the region's
// borders; their versions grow, and begin anew with each term (PD: server/
// grpc_service.go; TiKV raftstore/src/store/util.rs, gen_bucket_version).
func TestBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3), WithSplitKeys(KeyRaw, []byte("b"), []byte("m")))
		r := c.Regions(KeyRaw)[1]
		set := func(keys ...string) error {
			var all [][]byte
			for _, k := range keys {
				all = append(all, []byte(k))
			}
			return c.SetBuckets(r.ID, KeyRaw, all...)
		}
		lookups := func() (all []*metapb.Buckets) {
			t.Helper()
			ctx, h, key := t.Context(), c.header(), []byte("c")
			for _, need := range []bool{true, false} {
				one, err := c.pdc().GetRegion(ctx, &pdpb.GetRegionRequest{Header: h, RegionKey: key, NeedBuckets: need})
				if err != nil {
					t.Fatal(err)
				}
				byID, err := c.pdc().GetRegionByID(ctx, &pdpb.GetRegionByIDRequest{Header: h, RegionId: r.ID, NeedBuckets: need})
				if err != nil {
					t.Fatal(err)
				}
				prev, err := c.pdc().GetPrevRegion(ctx, &pdpb.GetRegionRequest{Header: h, RegionKey: []byte("z"), NeedBuckets: need})
				if err != nil {
					t.Fatal(err)
				}
				scan, err := c.pdc().BatchScanRegions(ctx, &pdpb.BatchScanRegionsRequest{Header: h, NeedBuckets: need,
					Ranges: []*pdpb.KeyRange{{StartKey: key, EndKey: []byte("d")}}})
				if err != nil {
					t.Fatal(err)
				}
				query, err := c.pdc().QueryRegion(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := query.Send(&pdpb.QueryRegionRequest{Header: h, Keys: [][]byte{key}, NeedBuckets: need}); err != nil {
					t.Fatal(err)
				}
				found, err := query.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if err := query.CloseSend(); err != nil {
					t.Fatal(err)
				}
				got := []*metapb.Buckets{one.Buckets, byID.Buckets, prev.Buckets, scan.Regions[0].Buckets, found.RegionsById[r.ID].Buckets}
				if need {
					all = got
					continue
				}
				for i, b := range got {
					if b != nil {
						t.Errorf("lookup %d tells of buckets unasked", i)
					}
				}
			}
			return all
		}
		expect := func(want string, version uint64) {
			t.Helper()
			for i, b := range lookups() {
				if bucketText(b) != want || b.GetVersion() != version || b != nil && b.RegionId != r.ID {
					t.Errorf("lookup %d: %v, want %q at %x", i, b, want, version)
				}
			}
		}
		expect("none", 0)
		for i, bad := range [][]string{{"a"}, {"b"}, {"m"}, {"e", "d"}, {"d", "d"}} {
			if set(bad...) == nil {
				t.Errorf("%d: taken", i)
			}
		}
		if c.SetBuckets(999, KeyRaw, []byte("c")) == nil || c.SetBuckets(r.ID, 9, []byte("c")) == nil {
			t.Error("taken")
		}
		for i, keys := range [][]string{{"c", "d"}, {"d"}, {}, {"e"}} {
			if err := set(keys...); err != nil {
				t.Fatal(err)
			}
			want, version := "none", uint64(0)
			if len(keys) > 0 {
				want, version = "b "+strings.Join(keys, " ")+" m", uint64(6<<32+min(i, 2))
			}
			expect(want, version)
		}
		// A follower has none.
		ctx := metadata.AppendToOutgoingContext(t.Context(), "pd-allow-follower-handle", "true")
		f, err := pdpb.NewPDClient(c.conn(c.PD()[1])).GetRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), RegionKey: []byte("c"), NeedBuckets: true})
		if err != nil || f.Region.GetId() != r.ID || f.Buckets != nil {
			t.Error(f, err)
		}
		if err := c.TransferLeader(r.ID, r.Leader%3+1); err != nil {
			t.Fatal(err)
		}
		if err := set("f"); err != nil {
			t.Fatal(err)
		}
		expect("b f m", 7<<32)
		// A split: PD has them still for the part with the id, the stores do not.
		if _, err := c.Split(KeyRaw, []byte("c")); err != nil {
			t.Fatal(err)
		}
		expect("b f m", 7<<32)
		if b := c.topo.StoreBuckets(c.topo.ByID(r.ID)); b != nil {
			t.Error(b)
		}
	})
}

// A coprocessor request that names an older version of its region's buckets is told the
// present ones (TiKV src/coprocessor/endpoint.rs).
func TestBucketsOfACoprocessorRequest(t *testing.T) {
	c := start(t, WithStores(1), WithCoprocessor(103, listing))
	now := c.putTxn("a", "b")
	region := c.Regions(KeyTxn)[0]
	if err := c.SetBuckets(region.ID, KeyTxn, []byte("b")); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[uint64]bool{0: false, 1: true, 6 << 32: false} {
		q := &coprocessor.Request{Tp: 103, Data: []byte("p"), StartTs: now, Ranges: ranges("a", "z")}
		kv := c.copContext(q)
		q.Context.BucketsVersion = version
		r, err := kv.Coprocessor(t.Context(), q)
		if err != nil || (r.RegionError != nil) != want {
			t.Fatal(version, r, err)
		}
		if b := r.RegionError.GetBucketVersionNotMatch(); want && (b.GetVersion() != 6<<32 || len(b.Keys) != 3 || !bytes.Equal(b.Keys[1], c.api.regionKey(KeyTxn, []byte("b")))) {
			t.Error(b)
		}
		if told := r.LatestBucketsVersion; !want && told != 6<<32 {
			t.Errorf("told of version %x", told)
		}
	}
}
