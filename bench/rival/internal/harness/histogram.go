package harness

import "math/bits"

// histogram counts latencies in nanoseconds in buckets about 3 % wide: 32 to each power of
// two. It belongs to one caller.
type histogram [64 * 32]uint32

func (h *histogram) add(ns int64) {
	v := uint64(max(ns, 0))
	if v < 32 {
		h[v]++
		return
	}
	e := bits.Len64(v) - 6
	h[(e+1)*32+int(v>>e)-32]++
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o {
		h[i] += n
	}
}

// quantile is in microseconds: the middle of the bucket it falls into.
func (h *histogram) quantile(q float64) float64 {
	var total, seen uint64
	for _, n := range h {
		total += uint64(n)
	}
	want := uint64(q * float64(total))
	for i, n := range h {
		if seen += uint64(n); n > 0 && seen > want {
			if i < 32 {
				return float64(i) / 1e3
			}
			e := i/32 - 1
			return float64(uint64(i%32+32)<<e+uint64(1)<<e/2) / 1e3
		}
	}
	return 0
}
