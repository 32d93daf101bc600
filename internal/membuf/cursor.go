package membuf

import (
	"bytes"

	"github.com/tikv-go/tikv/internal/keys"
)

// Cursor walks the entries of a view in key order, or against it.
type Cursor struct {
	blocks  blocks
	bound   []byte // where to end, if anywhere
	reverse bool

	// The entries of node from i on come next, as far as end; in reverse those below i.
	node   *node
	i, end int
	// Then all that is below a node, if there is one, and then the rest of path.
	below *node
	path  []step
}

// step is an inner node, and the index of its entry that comes next, or, in reverse, one
// more than that.
type step struct {
	node *node
	i    int
}

// Scan returns a cursor before the first entry of r, or, in reverse, behind its last.
func (v View) Scan(r keys.Range, reverse bool) *Cursor {
	c := &Cursor{blocks: v.blocks, bound: r.End, reverse: reverse}
	from, side := r.Start, -1
	if reverse {
		c.bound, from, side = r.Start, r.End, 1
	}
	if len(from) > 0 {
		side = v.side(from)
	}
	for n := v.root; n != nil; {
		i := 0
		switch side {
		case 0:
			i, _ = n.find(v.blocks, from)
		case 1:
			i = int(n.n)
		}
		if n.leaf() {
			c.enter(n, i)
			break
		}
		c.path = append(c.path, step{n, i})
		n = n.kids[i]
	}
	return c
}

// side tells whether key comes before all keys of the view, behind them, or, 0, neither
// is known: a search must not be asked for keys that do not begin as all do.
func (v View) side(key []byte) int {
	if bytes.HasPrefix(key, v.prefix) {
		return 0
	}
	return bytes.Compare(key, v.prefix)
}

// Next returns the next entry, or false when there is none in the range.
func (c *Cursor) Next() (e Entry, ok bool) {
	if c.i == c.end && !c.fill() {
		return e, false
	}
	i := c.i
	if c.reverse {
		i--
		c.i = i
	} else {
		c.i++
	}
	c.blocks.read(&c.node.entries[i].slot, &e)
	if len(c.bound) > 0 && (bytes.Compare(e.Key, c.bound) < 0) == c.reverse {
		c.i, c.end, c.below, c.path = 0, 0, nil, nil
		return Entry{}, false
	}
	return e, true
}

// fill finds the entries that come when those of a node are done: those of the next
// leaf, or, between two leaves, one of an inner node.
func (c *Cursor) fill() bool {
	for {
		switch {
		case c.below != nil:
			c.descend()
		case len(c.path) > 0:
			c.ascend()
		default:
			return false
		}
		if c.i != c.end {
			return true
		}
	}
}

func (c *Cursor) descend() {
	n := c.below
	c.below = nil
	for ; !n.leaf(); n = n.kids[c.first(n)] {
		c.path = append(c.path, step{n, c.first(n)})
	}
	c.enter(n, c.first(n))
}

// first is where a walk through n begins.
func (c *Cursor) first(n *node) int {
	if c.reverse {
		return int(n.n)
	}
	return 0
}

// enter makes the entries of a leaf come next, beginning at i.
func (c *Cursor) enter(leaf *node, i int) {
	c.node, c.i, c.end = leaf, i, int(leaf.n)
	if c.reverse {
		c.end = 0
	}
}

// ascend makes the next entry of the inner node at the end of the path come next, and
// then what is below it, or, in an inner node that is done, leaves it.
func (c *Cursor) ascend() {
	top := &c.path[len(c.path)-1]
	c.node, c.i, c.end = top.node, top.i, top.i
	switch {
	case c.reverse && top.i > 0:
		top.i--
		c.end, c.below = top.i, c.node.kids[top.i]
	case !c.reverse && top.i < int(c.node.n):
		top.i++
		c.end, c.below = top.i, c.node.kids[top.i]
	default:
		c.path = c.path[:len(c.path)-1]
	}
}
