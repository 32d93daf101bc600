package nullstore

import (
	"bytes"
	"testing"

	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/bench/internal/harness"
	"github.com/tikv-go/tikv/internal/keys"
)

// The regions cover every key, without a gap, and PD finds each by its keys, by its
// number, and by scans.
func TestLayout(t *testing.T) {
	for _, c := range []Config{
		{Regions: 1, Keys: 1000, KeySize: 24},
		{Regions: 100, Keys: 1000, KeySize: 24},
		{Regions: 33, Keys: 1000, KeySize: 24, Encoded: true},
		{Regions: 1000, Keys: 1000, KeySize: 16},
	} {
		l := newLayout(c, []string{"a", "b", "c"})
		if len(l.regions) != c.Regions || l.regions[0].StartKey != nil || l.regions[c.Regions-1].EndKey != nil {
			t.Fatalf("%+v: %v", c, l.regions)
		}
		count := make([]int, c.Regions)
		for i := range c.Keys {
			key := harness.Key(i, c.KeySize)
			if c.Encoded {
				key = keys.Encode(key)
			}
			at := l.at(key)
			if r := l.regions[at]; bytes.Compare(key, r.StartKey) < 0 || len(r.EndKey) > 0 && bytes.Compare(key, r.EndKey) >= 0 {
				t.Fatalf("%+v: key %d is not in region %v", c, i, r)
			}
			count[at]++
		}
		for i, r := range l.regions {
			if i > 0 && !bytes.Equal(r.StartKey, l.regions[i-1].EndKey) {
				t.Fatalf("%+v: a gap before region %d", c, i)
			}
			if n := c.Keys / c.Regions; count[i] < n || count[i] > n+1 {
				t.Fatalf("%+v: region %d has %d keys", c, i, count[i])
			}
			if at, ok := l.byID(r.Id); !ok || at != i || l.before(r.StartKey) != max(i-1, 0) {
				t.Fatalf("%+v: region %d is not found", c, i)
			}
			if s := r.Peers[0].StoreId; s < 1 || s > 3 {
				t.Fatalf("%+v: region %d is on store %d", c, i, s)
			}
		}
		for _, id := range []uint64{0, firstRegion - 1, firstRegion + uint64(c.Regions)} {
			if _, ok := l.byID(id); ok {
				t.Fatalf("%+v: there is a region %d", c, id)
			}
		}
	}
}

func TestScanRegions(t *testing.T) {
	l := newLayout(Config{Regions: 10, Keys: 1000, KeySize: 24}, []string{"a"})
	key := func(i int) []byte { return harness.Key(i, 24) }
	for _, c := range []struct {
		ranges []*pdpb.KeyRange
		limit  int32
		first  int
		n      int
	}{
		{[]*pdpb.KeyRange{{}}, 0, 0, 10},
		{[]*pdpb.KeyRange{{}}, 3, 0, 3},
		{[]*pdpb.KeyRange{{StartKey: key(250), EndKey: key(300)}}, 0, 2, 1},
		{[]*pdpb.KeyRange{{StartKey: key(250), EndKey: key(301)}}, 0, 2, 2},
		{[]*pdpb.KeyRange{{StartKey: key(950)}}, 0, 9, 1},
		{[]*pdpb.KeyRange{{StartKey: key(10), EndKey: key(20)}, {StartKey: key(30), EndKey: key(110)}, {StartKey: key(120), EndKey: key(130)}}, 0, 0, 2},
		{[]*pdpb.KeyRange{{StartKey: key(10), EndKey: key(20)}, {StartKey: key(110)}}, 4, 0, 4},
	} {
		got, err := l.BatchScanRegions(t.Context(), &pdpb.BatchScanRegionsRequest{Ranges: c.ranges, Limit: c.limit})
		if err != nil || len(got.Regions) != c.n {
			t.Fatalf("%v: %d regions, %v", c.ranges, len(got.Regions), err)
		}
		for i, r := range got.Regions {
			if r.Region != l.regions[c.first+i] || r.Leader != r.Region.Peers[0] {
				t.Fatalf("%v: %v", c.ranges, got.Regions)
			}
		}
		if len(c.ranges) > 1 {
			continue
		}
		one, err := l.ScanRegions(t.Context(), &pdpb.ScanRegionsRequest{StartKey: c.ranges[0].StartKey, EndKey: c.ranges[0].EndKey, Limit: c.limit})
		if err != nil || len(one.Regions) != c.n || len(one.RegionMetas) != c.n || one.Leaders[0] != l.regions[c.first].Peers[0] {
			t.Fatalf("%v: %v %v", c.ranges, one, err)
		}
	}
}
