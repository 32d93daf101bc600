package txn

import "github.com/tikv-go/tikv/internal/router"

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
