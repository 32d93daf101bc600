package region

import (
	"bytes"
	"encoding/binary"
	"sort"

	"github.com/tikv-go/tikv/internal/keys"
)

// index is an immutable set of regions that do not overlap, in key order: a tree of nodes
// that know the lower keys of what is below them. A search within a node goes over
// integers: the eight bytes behind what the node's keys have in common.
type index struct {
	root *node // nil: empty
	n    int   // regions
}

// node has either regions or nodes below it, at least one and at most nodeSize.
type node struct {
	skip    int       // bytes that all lower keys have in common
	heads   []uint64  // the bytes behind them, of each lower key
	regions []*Region // of a leaf
	// What a lookup that finds something does not need.
	kids  []*node
	low   []byte // the first lower key
	owner *token // of the edit that may still change the node
	_     [16]byte
}

const nodeSize = 128

// head is the first eight bytes of a key as a number of the same order.
func head(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

func (n *node) len() int { return len(n.heads) }

// lower is the lower key of what is at i.
func (n *node) lower(i int) []byte {
	if n.kids != nil {
		return n.kids[i].low
	}
	return n.regions[i].Range.Start
}

// rank counts the lower keys that are below key, or equal to it unless strict says
// otherwise.
func (n *node) rank(key []byte, strict bool) int {
	if len(key) < n.skip {
		if bytes.Compare(key, n.low[:n.skip]) < 0 {
			return 0
		}
		return n.len()
	}
	if c := bytes.Compare(key[:n.skip], n.low[:n.skip]); c < 0 {
		return 0
	} else if c > 0 {
		return n.len()
	}
	h := head(key[n.skip:])
	lo, hi := 0, len(n.heads)
	for lo < hi {
		if m := int(uint(lo+hi) >> 1); n.heads[m] < h {
			lo = m + 1
		} else {
			hi = m
		}
	}
	end := lo
	for end < len(n.heads) && n.heads[end] == h {
		end++
	}
	if lo == end {
		return lo
	}
	return lo + sort.Search(end-lo, func(i int) bool {
		c := bytes.Compare(n.lower(lo+i), key)
		return c > 0 || c == 0 && strict
	})
}

// find returns the region that holds key, or nil.
func (x *index) find(key []byte) *Region {
	if r := x.guess(key); r != nil && r.Contains(key) {
		return r
	}
	r := x.last(key, false)
	if r == nil || len(r.Range.End) > 0 && bytes.Compare(key, r.Range.End) >= 0 {
		return nil
	}
	return r
}

// guess goes by the heads alone, as if what they leave out did not matter. Mostly that is
// so, and a region that holds the key is what is looked for, however it was found.
func (x *index) guess(key []byte) *Region {
	n := x.root
	for n != nil && len(key) >= n.skip {
		h := head(key[n.skip:])
		lo, hi := 0, len(n.heads)
		for lo < hi {
			if m := int(uint(lo+hi) >> 1); n.heads[m] <= h {
				lo = m + 1
			} else {
				hi = m
			}
		}
		if lo == 0 {
			return nil
		}
		if n.kids == nil {
			return n.regions[lo-1]
		}
		n = n.kids[lo-1]
	}
	return nil
}

// findEnd returns the region that holds the keys just before key, or nil; the empty
// key is the end of all keys.
func (x *index) findEnd(key []byte) *Region {
	if len(key) == 0 {
		return x.lastOfAll()
	}
	if r := x.last(key, true); r != nil && keys.CompareEnds(key, r.Range.End) <= 0 {
		return r
	}
	return nil
}

// last returns the last region that starts at key or below it; strictly below, if strict.
func (x *index) last(key []byte, strict bool) *Region {
	n := x.root
	for n != nil {
		i := n.rank(key, strict)
		if i == 0 {
			return nil
		}
		if n.kids == nil {
			return n.regions[i-1]
		}
		n = n.kids[i-1]
	}
	return nil
}

func (x *index) lastOfAll() *Region {
	n := x.root
	for n != nil && n.kids != nil {
		n = n.kids[len(n.kids)-1]
	}
	if n == nil {
		return nil
	}
	if r := n.regions[len(n.regions)-1]; len(r.Range.End) == 0 {
		return r
	}
	return nil
}

// overlapping returns the regions that share a key with r, in order.
func (x *index) overlapping(r keys.Range) (out []*Region) {
	x.walk(r.Start, func(c *Region) bool {
		if len(r.End) > 0 && bytes.Compare(c.Range.Start, r.End) >= 0 {
			return false
		}
		if len(c.Range.End) == 0 || bytes.Compare(c.Range.End, r.Start) > 0 {
			out = append(out, c)
		}
		return true
	})
	return out
}

// walk visits the regions in order, from the last that starts at or below the key on,
// until visit reports false.
func (x *index) walk(from []byte, visit func(*Region) bool) {
	if x.root != nil {
		x.root.walk(from, visit)
	}
}

func (n *node) walk(from []byte, visit func(*Region) bool) bool {
	i := max(n.rank(from, false)-1, 0)
	if n.kids == nil {
		for _, r := range n.regions[i:] {
			if !visit(r) {
				return false
			}
		}
		return true
	}
	for _, kid := range n.kids[i:] {
		if !kid.walk(from, visit) {
			return false
		}
	}
	return true
}

// all returns every region, in order.
func (x *index) all() (out []*Region) {
	x.walk(nil, func(r *Region) bool { out = append(out, r); return true })
	return out
}
