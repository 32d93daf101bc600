package txn

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/router"
)

// TestPresplit: a region is split before it gets very many bytes in very many keys, and the
// runs are then those of the new regions.
func TestPresplit(t *testing.T) {
	for _, c := range []struct {
		keys, value int
		regions     int
	}{
		{presplitKeys - 1, 700, 1}, // few keys
		{presplitKeys, 100, 1},     // few bytes
		{presplitKeys, 700, 3},     // 70 MB
	} {
		t.Run(fmt.Sprintf("%d keys of %d bytes", c.keys, c.value), func(t *testing.T) {
			f := &fake{}
			e, _ := newEngine(t, f)
			m := &kvrpcpb.Mutation{Value: make([]byte, c.value)}
			big := &commit{e: e}
			for i := range c.keys {
				big.muts.keys = append(big.muts.keys, fmt.Appendf(nil, "k%06d", i))
				big.muts.all = append(big.muts.all, m)
			}
			call := e.call(t.Context(), "Op", CallOptions{})
			before, err := e.router.Runs(t.Context(), call, big.muts.keys, nil)
			if err != nil || len(before) != 1 {
				t.Fatal(before, err)
			}
			after, err := big.presplit(t.Context(), call, slices.Clone(before))
			if err != nil || len(after) != c.regions || len(f.splits) != c.regions-1 {
				t.Fatalf("%d runs, %d splits, %v", len(after), len(f.splits), err)
			}
			next := 0
			for _, r := range after {
				if r.From != next || r.To <= r.From || len(after) > 1 && size(big, r) > presplitBytes+2*(c.value+7) {
					t.Errorf("a run from %d to %d after %d", r.From, r.To, next)
				}
				next = r.To
			}
			if next != c.keys {
				t.Errorf("the runs end at %d of %d keys", next, c.keys)
			}
		})
	}
}

func size(c *commit, r router.Run) (sum int) {
	for i := r.From; i < r.To; i++ {
		sum += c.muts.size(i)
	}
	return sum
}
