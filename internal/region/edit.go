package region

import (
	"slices"

	"github.com/tikv-go/tikv/internal/keys"
)

// edit makes a new index out of one, with any number of changes: nodes are copied when they
// are first changed. Its result shares with the old index what was not.
type edit struct {
	index // as it is so far
	token *token
}

type token struct{ _ byte }

func (x *index) edit() *edit { return &edit{index: *x, token: &token{}} }

// done returns the result. The edit must not be used any more.
func (e *edit) done() *index {
	x := e.index
	return &x
}

// add puts r in; no region may start where r does.
func (e *edit) add(r *Region) {
	e.n++
	if e.root == nil {
		e.root = &node{regions: []*Region{r}, owner: e.token}
		e.root.reset()
		return
	}
	left, right := e.insert(e.root, r)
	if e.root = left; right != nil {
		e.root = &node{kids: []*node{left, right}, owner: e.token}
		e.root.reset()
	}
}

// drop takes r out, which must be in.
func (e *edit) drop(r *Region) {
	e.n--
	e.root = e.remove(e.root, r.Range.Start)
	for e.root != nil && len(e.root.kids) == 1 {
		e.root = e.root.kids[0]
	}
}

// own returns n, or a copy of it with some room, that the edit may change.
func (e *edit) own(n *node, room int) *node {
	if n.owner == e.token {
		return n
	}
	c := &node{low: n.low, skip: n.skip, owner: e.token, heads: roomy(n.heads, room)}
	if n.kids != nil {
		c.kids = roomy(n.kids, room)
	} else {
		c.regions = roomy(n.regions, room)
	}
	return c
}

func roomy[T any](s []T, room int) []T {
	c := make([]T, len(s), len(s)+room)
	copy(c, s)
	return c
}

// moreRoom is how much a slice grows by when it is changed several times: nodes live long
// and have little to spare.
const moreRoom = 16

func insertAt[T any](s []T, i int, v T) []T {
	if len(s) == cap(s) {
		s = roomy(s, moreRoom)
	}
	s = s[:len(s)+1]
	copy(s[i+1:], s[i:])
	s[i] = v
	return s
}

// insert puts r below n. A node that has become too large is cut in two.
func (e *edit) insert(n *node, r *Region) (left, right *node) {
	n = e.own(n, 1)
	i := n.rank(r.Range.Start, false)
	if n.kids == nil {
		n.regions, n.heads = insertAt(n.regions, i, r), insertAt(n.heads, i, 0)
		n.note(i)
	} else {
		i = max(i-1, 0)
		kid, more := e.insert(n.kids[i], r)
		n.kids[i] = kid
		n.note(i)
		if more != nil {
			n.kids, n.heads = insertAt(n.kids, i+1, more), insertAt(n.heads, i+1, 0)
			n.note(i + 1)
		}
	}
	if n.len() <= nodeSize {
		return n, nil
	}
	half := n.len() / 2
	right = &node{owner: e.token}
	if n.kids == nil {
		n.regions, right.regions = roomy(n.regions[:half], 1), roomy(n.regions[half:], 1)
	} else {
		n.kids, right.kids = roomy(n.kids[:half], 1), roomy(n.kids[half:], 1)
	}
	n.reset()
	right.reset()
	return n, right
}

// remove takes the region that starts at key from below n, and returns what is left, nil
// for nothing.
func (e *edit) remove(n *node, key []byte) *node {
	n = e.own(n, 0)
	i := n.rank(key, false) - 1
	if n.kids == nil {
		n.regions = slices.Delete(n.regions, i, i+1)
		n.heads = slices.Delete(n.heads, i, i+1)
	} else if kid := e.remove(n.kids[i], key); kid == nil {
		n.cut(i)
	} else {
		n.kids[i] = kid
		n.note(i)
		if kid.len() < nodeSize/4 {
			e.join(n, i)
		}
	}
	if n.len() == 0 {
		return nil
	}
	n.low = n.lower(0)
	return n
}

// cut takes the node at i from below n.
func (n *node) cut(i int) {
	n.kids = slices.Delete(n.kids, i, i+1)
	n.heads = slices.Delete(n.heads, i, i+1)
}

// join makes the small node at i and a neighbour one, if that leaves room in it.
func (e *edit) join(n *node, i int) {
	if i == n.len()-1 {
		i--
	}
	if i < 0 || n.kids[i].len()+n.kids[i+1].len() > nodeSize*3/4 {
		return
	}
	left, right := n.kids[i], n.kids[i+1]
	both := &node{owner: e.token}
	if left.kids == nil {
		both.regions = slices.Concat(left.regions, right.regions)
	} else {
		both.kids = slices.Concat(left.kids, right.kids)
	}
	both.reset()
	n.kids[i] = both
	n.cut(i + 1)
}

// note takes over the lower key at i.
func (n *node) note(i int) {
	if i == 0 {
		n.low = n.lower(0)
	}
	if i == 0 || i == n.len()-1 {
		if keys.Common(n.low, n.lower(n.len()-1)) < n.skip {
			n.reset()
			return
		}
	}
	n.heads[i] = head(n.lower(i)[n.skip:])
}

// reset takes over all lower keys.
func (n *node) reset() {
	count := max(len(n.regions), len(n.kids))
	if n.heads = n.heads[:min(len(n.heads), count)]; cap(n.heads) < count || cap(n.heads) > count+moreRoom {
		n.heads = make([]uint64, count, max(cap(n.regions), cap(n.kids)))
	}
	n.heads = n.heads[:count]
	n.low = n.lower(0)
	n.skip = keys.Common(n.low, n.lower(count-1))
	for i := range n.heads {
		n.heads[i] = head(n.lower(i)[n.skip:])
	}
}
