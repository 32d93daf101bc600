package membuf

import (
	"bytes"

	"github.com/tikv-go/tikv/internal/keys"
)

// Cursor walks the entries of a view in key order, or against it.
type Cursor struct {
	blocks  blocks
	limit   keys.Range
	reverse bool
	path    []step // from the root; the top one is where the next entry comes from
}

// step is a node and the index of its entry that is next, the child beside it (below
// it, or above it in reverse) being done.
type step struct {
	node *node
	i    int
}

// side tells whether key comes before all keys of the view, behind them, or, 0, neither
// is known: a search must not be asked for keys that do not begin as all do.
func (v View) side(key []byte) int {
	if bytes.HasPrefix(key, v.prefix) {
		return 0
	}
	return bytes.Compare(key, v.prefix)
}

func (n *node) seek(b blocks, key []byte, side int) (int, bool) {
	switch side {
	case 0:
		return n.find(b, key)
	case 1:
		return len(n.slots), false
	}
	return 0, false
}

func (c *Cursor) seek(v View, start []byte) {
	side := v.side(start)
	for n := v.root; n != nil; {
		i, found := n.seek(v.blocks, start, side)
		c.path = append(c.path, step{n, i})
		if found || n.leaf() {
			return
		}
		n = n.kids[i]
	}
}

func (c *Cursor) seekBelow(v View, end []byte) {
	side := 1
	if len(end) > 0 {
		side = v.side(end)
	}
	for n := v.root; n != nil; {
		i, _ := n.seek(v.blocks, end, side)
		c.path = append(c.path, step{n, i - 1})
		if n.leaf() {
			return
		}
		n = n.kids[i]
	}
}

// Next returns the next entry, or false when there is none in the range.
func (c *Cursor) Next() (Entry, bool) {
	for len(c.path) > 0 {
		top := &c.path[len(c.path)-1]
		n, i := top.node, top.i
		if i < 0 || i >= len(n.slots) {
			c.path = c.path[:len(c.path)-1]
			continue
		}
		e := c.blocks.entry(&n.slots[i])
		if c.reverse {
			if bytes.Compare(e.Key, c.limit.Start) < 0 {
				break
			}
			top.i--
			c.descend(n, i)
		} else {
			if len(c.limit.End) > 0 && bytes.Compare(e.Key, c.limit.End) >= 0 {
				break
			}
			top.i++
			c.descend(n, i+1)
		}
		return e, true
	}
	c.path = nil
	return Entry{}, false
}

// descend goes to the nearest entry below the i-th child of n.
func (c *Cursor) descend(n *node, i int) {
	for !n.leaf() {
		n = n.kids[i]
		if c.reverse {
			i = len(n.slots)
			c.path = append(c.path, step{n, i - 1})
		} else {
			i = 0
			c.path = append(c.path, step{n, 0})
		}
	}
}
