package region

import (
	"bytes"
	"slices"
	"sort"
	"time"

	"github.com/tikv-go/tikv/internal/keys"
)

// index is an immutable set of regions that do not overlap, in key order, cut into
// chunks so that a change copies one chunk and the list of chunks.
type index struct {
	chunks [][]*Region // none is empty
}

const chunkSize = 256

// before returns the number of chunks that begin at or before key.
func (x *index) before(key []byte) int {
	return sort.Search(len(x.chunks), func(i int) bool {
		return bytes.Compare(x.chunks[i][0].Range.Start, key) > 0
	})
}

// find returns the region that holds key, or nil.
func (x *index) find(key []byte) *Region {
	i := x.before(key)
	if i == 0 {
		return nil
	}
	chunk := x.chunks[i-1]
	j := sort.Search(len(chunk), func(j int) bool { return bytes.Compare(chunk[j].Range.Start, key) > 0 })
	if r := chunk[j-1]; r.Contains(key) {
		return r
	}
	return nil
}

// findEnd returns the region that holds the keys just before key, or nil; the empty
// key is the end of all keys.
func (x *index) findEnd(key []byte) *Region {
	i := len(x.chunks)
	if len(key) > 0 {
		i = sort.Search(len(x.chunks), func(i int) bool {
			return bytes.Compare(x.chunks[i][0].Range.Start, key) >= 0
		})
	}
	if i == 0 {
		return nil
	}
	chunk := x.chunks[i-1]
	j := len(chunk)
	if len(key) > 0 {
		j = sort.Search(len(chunk), func(j int) bool { return bytes.Compare(chunk[j].Range.Start, key) >= 0 })
	}
	if r := chunk[j-1]; r.ContainsEnd(key) {
		return r
	}
	return nil
}

// overlapping returns the regions that share a key with r, in order.
func (x *index) overlapping(r keys.Range) []*Region {
	var out []*Region
	for i := max(0, x.before(r.Start)-1); i < len(x.chunks); i++ {
		for _, c := range x.chunks[i] {
			if len(r.End) > 0 && bytes.Compare(c.Range.Start, r.End) >= 0 {
				return out
			}
			if len(c.Range.End) == 0 || bytes.Compare(c.Range.End, r.Start) > 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

// replace returns the index without the regions of out (which are in it, in order and
// adjacent) and with in, if not nil, in their place.
func (x *index) replace(out []*Region, in *Region) *index {
	var at []byte
	switch {
	case in != nil && (len(out) == 0 || bytes.Compare(in.Range.Start, out[0].Range.Start) < 0):
		at = in.Range.Start
	case len(out) > 0:
		at = out[0].Range.Start
	default:
		return x
	}
	first := max(0, x.before(at)-1)
	last := first // chunks [first, last) are rewritten
	var merged []*Region
	for left := len(out); last < len(x.chunks) && (left > 0 || last == first); last++ {
		for _, c := range x.chunks[last] {
			if left > 0 && c == out[len(out)-left] {
				left--
				continue
			}
			merged = append(merged, c)
		}
	}
	if in != nil {
		i := sort.Search(len(merged), func(i int) bool {
			return bytes.Compare(merged[i].Range.Start, in.Range.Start) > 0
		})
		merged = slices.Insert(merged, i, in)
	}
	chunks := make([][]*Region, 0, len(x.chunks)+1)
	chunks = append(chunks, x.chunks[:first]...)
	switch {
	case len(merged) > chunkSize:
		half := len(merged) / 2
		chunks = append(chunks, slices.Clone(merged[:half]), slices.Clone(merged[half:]))
	case len(merged) > 0:
		chunks = append(chunks, merged)
	}
	return &index{chunks: append(chunks, x.chunks[last:]...)}
}

// all returns every region, in order.
func (x *index) all() []*Region { return slices.Concat(x.chunks...) }

// live returns the index without the entries that have expired.
func (x *index) live(now time.Duration) *index {
	n := &index{}
	for _, chunk := range x.chunks {
		kept := slices.DeleteFunc(slices.Clone(chunk), func(r *Region) bool { return r.expired(now) })
		if len(kept) > 0 {
			n.chunks = append(n.chunks, kept)
		}
	}
	return n
}
