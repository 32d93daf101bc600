package membuf

import (
	"bytes"

	"github.com/tikv-go/tikv/internal/keys"
)

// Cursor walks the entries of a view in key order, or against it.
type Cursor struct {
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

func (c *Cursor) seek(n *node, start []byte) {
	for n != nil {
		i, found := n.find(start)
		c.path = append(c.path, step{n, i})
		if found || n.leaf() {
			return
		}
		n = n.children[i]
	}
}

func (c *Cursor) seekBelow(n *node, end []byte) {
	for n != nil {
		i := len(n.entries)
		if len(end) > 0 {
			i, _ = n.find(end)
		}
		c.path = append(c.path, step{n, i - 1})
		if n.leaf() {
			return
		}
		n = n.children[i]
	}
}

// Next returns the next entry, or false when there is none in the range.
func (c *Cursor) Next() (Entry, bool) {
	for len(c.path) > 0 {
		top := &c.path[len(c.path)-1]
		n, i := top.node, top.i
		if i < 0 || i >= len(n.entries) {
			c.path = c.path[:len(c.path)-1]
			continue
		}
		e := n.entries[i]
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
		n = n.children[i]
		if c.reverse {
			i = len(n.entries)
			c.path = append(c.path, step{n, i - 1})
		} else {
			i = 0
			c.path = append(c.path, step{n, 0})
		}
	}
}
