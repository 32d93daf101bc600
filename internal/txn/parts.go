package txn

import (
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
)

// part is a piece of sorted keys that one request is about: those of one region from from
// to before to.
type part struct {
	region   *region.Region
	from, to int
	inRegion uint64 // how many of the keys the region has in all
}

// window is how many requests of one transaction are under way at a time.
const window = 256

// batches cuts runs of keys where the weights of the keys of a piece reach batchBytes.
// offset is the place of the runs' first key, from which the parts and weight count.
func batches(runs []router.Run, offset int, weight func(i int) int, parts []part) []part {
	for _, r := range runs {
		from, sum := r.From, 0
		for i := r.From; i < r.To; i++ {
			if sum += weight(offset + i); sum >= batchBytes || i == r.To-1 {
				parts = append(parts, part{r.Region, offset + from, offset + i + 1, uint64(r.To - r.From)})
				from, sum = i+1, 0
			}
		}
	}
	return parts
}

// cut splits groups into pieces of the same regions: a piece is full when the weights
// of its elements reach limit.
func cut(groups []router.Group, limit int, weight func(i int) int) []router.Group {
	var parts []router.Group
	for _, g := range groups {
		start, sum := 0, 0
		for at, i := range g.Index {
			if sum += weight(i); sum >= limit {
				parts = append(parts, router.Group{Region: g.Region, Index: g.Index[start : at+1]})
				start, sum = at+1, 0
			}
		}
		if start < len(g.Index) {
			parts = append(parts, router.Group{Region: g.Region, Index: g.Index[start:]})
		}
	}
	return parts
}

// pick returns the elements of from at the given indices.
func pick[T any](from []T, index []int) []T {
	out := make([]T, len(index))
	for i, j := range index {
		out[i] = from[j]
	}
	return out
}
