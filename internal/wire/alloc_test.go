//go:build !race

package wire

import (
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// TestAnswerAllocations: one for a value, and one for the block of many. Under the race
// detector pools lose some of what they are given.
func TestAnswerAllocations(t *testing.T) {
	get := encoded(t, &kvrpcpb.GetResponse{Value: make([]byte, 100), ExecDetailsV2: &kvrpcpb.ExecDetailsV2{TimeDetail: &kvrpcpb.TimeDetail{}}})
	scan := &kvrpcpb.ScanResponse{}
	for range 100 {
		scan.Pairs = append(scan.Pairs, &kvrpcpb.KvPair{Key: make([]byte, 24), Value: make([]byte, 100)})
	}
	page := encoded(t, scan)
	var v Value
	p := Pairs{Pool: &PairPool{}}
	for name, c := range map[string]struct {
		do   func() error
		want float64
	}{
		"get":  {func() error { v.Reset(); return v.Unmarshal(get) }, 1},
		"scan": {func() error { p.Reset(); return p.Unmarshal(page) }, 1},
	} {
		if n := testing.AllocsPerRun(100, func() {
			if err := c.do(); err != nil {
				t.Fatal(err)
			}
		}); n != c.want {
			t.Errorf("%s: %v allocations, want %v", name, n, c.want)
		}
	}
}
