package router

import (
	"context"
	"sort"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/region"
)

// Run is a stretch of sorted keys that one region holds: those from From to before To.
type Run struct {
	Region   *region.Region
	From, To int
}

// Runs cuts wire keys that ascend where regions meet, and appends the pieces to runs. It
// costs a look-up for each region, not for each key.
func (r *Router) Runs(ctx context.Context, call *Call, wireKeys [][]byte, runs []Run) ([]Run, error) {
	kept := len(runs)
	for from := 0; from < len(wireKeys); {
		reg := r.lookup(call.Codec, wireKeys[from])
		if reg == nil {
			return r.loadRuns(ctx, call, wireKeys, runs[:kept])
		}
		to := from + heldBy(reg, call.Codec, wireKeys[from:])
		runs = append(runs, Run{reg, from, to})
		from = to
	}
	return runs, nil
}

// heldBy counts the keys, of which the first is the region's, that the region holds.
func heldBy(reg *region.Region, cd codec.Codec, wireKeys [][]byte) int {
	n := len(wireKeys)
	if len(reg.Range.End) == 0 || holds(reg, cd, wireKeys[n-1]) {
		return n
	}
	return 1 + sort.Search(n-1, func(i int) bool { return !holds(reg, cd, wireKeys[1+i]) })
}

// loadRuns is Runs where regions are missing: it loads them together.
func (r *Router) loadRuns(ctx context.Context, call *Call, wireKeys [][]byte, runs []Run) ([]Run, error) {
	groups, err := r.Group(ctx, call, wireKeys)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		// A region that changed meanwhile can be there twice: what it holds may not be one
		// stretch.
		for i, at := range g.Index {
			if n := len(runs); i > 0 && runs[n-1].To == at {
				runs[n-1].To++
				continue
			}
			runs = append(runs, Run{g.Region, at, at + 1})
		}
	}
	sort.Slice(runs, func(i, j int) bool { return runs[i].From < runs[j].From })
	return runs, nil
}
