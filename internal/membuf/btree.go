package membuf

import (
	"bytes"
	"encoding/binary"
)

const (
	// maxKeys is how many keys a node holds before it is split: it is nine lines of
	// memory with them, half of them heads.
	maxKeys = 34
	// lastInLine is the head that ends the first line of a node, perLine how many follow
	// in each of the others.
	lastInLine, perLine = 4, 8
	// gain is by how many bytes the keys of a half must agree more than those of the
	// whole, for their heads to be made anew.
	gain = 4
)

// node is a node of the B-tree: an inner one has one child more than keys. It is changed
// in place only in the epoch in which it was made.
//
// All keys that are, or may come to be, below a node agree in their first skip bytes:
// those that its neighbours in the nodes above agree in, or, at the edge of the tree, all
// keys of the buffer. The head of a key is what follows, eight bytes, zeros where there
// are less.
type node struct {
	epoch uint64
	skip  int32
	n     int32
	kids  *[maxKeys + 1]*node // nil in a leaf
	heads [maxKeys]uint64
	slots [maxKeys]slot
}

// slot is where the record of a key is, and what is to be done to the key.
type slot struct {
	block uint32
	at    uint16
	state state
}

func (s *slot) place() place { return place{s.block, s.at} }

const (
	nodeSize = 24 + maxKeys*(8+8)
	kidsSize = (maxKeys + 1) * 8
	// maxBlanks is how many nodes are made at once, at most.
	maxBlanks = 32
)

func (n *node) leaf() bool { return n.kids == nil }
func (n *node) full() bool { return n.n == maxKeys }

// memory is the bytes that n takes.
func (n *node) memory() int {
	if n.leaf() {
		return nodeSize
	}
	return nodeSize + kidsSize
}

// head returns the eight bytes of key behind skip. Where the heads of two keys that agree
// in their first skip bytes differ, they say which one is smaller.
func head(key []byte, skip int) uint64 {
	if len(key) >= skip+8 {
		return binary.BigEndian.Uint64(key[skip:])
	}
	var rest [8]byte
	if len(key) > skip {
		copy(rest[:], key[skip:])
	}
	return binary.BigEndian.Uint64(rest[:])
}

// find returns the index of key, or of the first one above it. Of a key that does not
// agree with the node in its first skip bytes it only tells that it is not there.
func (n *node) find(b blocks, key []byte) (int, bool) {
	h, heads := head(key, int(n.skip)), n.heads[:n.n]
	i := 0
	for j := lastInLine; j < len(heads); j += perLine { // asks for all lines at once
		if heads[j] < h {
			i = j + 1
		}
	}
	for i < len(heads) && heads[i] < h {
		i++
	}
	if i == len(heads) || heads[i] != h {
		return i, false
	}
	return n.findSame(b, key, i)
}

// findSame finds key among those that have its head, the first of which is i.
func (n *node) findSame(b blocks, key []byte, i int) (int, bool) {
	h, end := n.heads[i], i+1
	for end < int(n.n) && n.heads[end] == h {
		end++
	}
	for i < end {
		mid := (i + end) / 2
		switch c := bytes.Compare(b.key(n.slots[mid].place()), key); {
		case c == 0:
			return mid, true
		case c < 0:
			i = mid + 1
		default:
			end = mid
		}
	}
	return i, false
}

// rehead makes the heads of n be what follows skip bytes.
func (n *node) rehead(b blocks, skip int) {
	n.skip = int32(skip)
	for i := range n.n {
		n.heads[i] = head(b.key(n.slots[i].place()), skip)
	}
}

// shared is the number of bytes that a and b begin with both.
func shared(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// tree is the part of a buffer that writing changes and an undo restores.
type tree struct {
	root   *node
	prefix []byte // what all keys begin with
	len    int    // keys
	size   int    // bytes of keys and values
	nodes  int    // bytes of the nodes
}

// own returns n itself, or a copy if others may see n.
func (b *Buffer) own(n *node) *node {
	if n.epoch == b.epoch {
		return n
	}
	c := b.blank()
	*c = *n
	c.epoch = b.epoch
	if !n.leaf() {
		c.kids = new([maxKeys + 1]*node)
		*c.kids = *n.kids
	}
	return c
}

// blank returns a node of those that are made at once: the more, the larger the tree is.
func (b *Buffer) blank() *node {
	if len(b.blanks) == 0 {
		b.blanks = make([]node, min(max(b.nodes/nodeSize/4, 1), maxBlanks))
	}
	n := &b.blanks[0]
	b.blanks = b.blanks[1:]
	return n
}

// made counts a new node.
func (b *Buffer) made(n *node) *node {
	b.nodes += n.memory()
	return n
}

// slot returns the place of key for writing; if there was none, it makes one, with a
// value, and tells so. Full nodes are split on the way down, so that there is room
// wherever it ends.
func (b *Buffer) slot(key, value []byte) (s *slot, isNew bool) {
	if b.root == nil {
		b.root = b.made(&node{epoch: b.epoch, skip: int32(len(key))})
		s = b.insert(b.root, 0, key, value)
		b.prefix = b.arena.blocks.key(s.place())
		return s, true
	}
	if !bytes.HasPrefix(key, b.prefix) {
		b.narrow(shared(b.prefix, key))
	}
	b.root = b.own(b.root)
	if b.root.full() {
		b.root = b.made(&node{epoch: b.epoch, skip: b.root.skip, kids: &[maxKeys + 1]*node{b.root}})
		b.split(b.root, 0, key, nil, nil)
	}
	var low, high *slot // the neighbours above of what is below n
	for n := b.root; ; {
		i, found := n.find(b.arena.blocks, key)
		if found {
			return &n.slots[i], false
		}
		if n.leaf() {
			return b.insert(n, i, key, value), true
		}
		n.kids[i] = b.own(n.kids[i])
		if n.kids[i].full() {
			b.split(n, i, key, low, high)
			if i, found = n.find(b.arena.blocks, key); found {
				return &n.slots[i], false
			}
		}
		low, high = n.around(i, low, high)
		n = n.kids[i]
	}
}

// around returns the neighbours of the i-th child of n, whose own are low and high.
func (n *node) around(i int, low, high *slot) (*slot, *slot) {
	if i > 0 {
		low = &n.slots[i-1]
	}
	if i < int(n.n) {
		high = &n.slots[i]
	}
	return low, high
}

func (b *Buffer) insert(leaf *node, i int, key, value []byte) *slot {
	at := b.arena.add(key, value)
	leaf.put(i, key, slot{block: at.block, at: at.at})
	b.len++
	b.size += len(key)
	return &leaf.slots[i]
}

// put makes room for key at i, and puts it there.
func (n *node) put(i int, key []byte, s slot) {
	n.n++
	heads, slots := n.heads[:n.n], n.slots[:n.n]
	copy(heads[i+1:], heads[i:])
	copy(slots[i+1:], slots[i:])
	heads[i], slots[i] = head(key, int(n.skip)), s
}

// split cuts the i-th child of n in two, around the key that goes up to n: its middle
// one, but where key comes last or first, as it does when keys are written in order, one
// that leaves the part full in which nothing will be written.
func (b *Buffer) split(n *node, i int, key []byte, low, high *slot) {
	left := n.kids[i]
	mid := int(left.n) / 2
	switch at, _ := left.find(b.arena.blocks, key); at {
	case int(left.n):
		mid = int(left.n) - 2
	case 0:
		mid = 1
	}
	up := left.slots[mid]
	right := b.blank()
	right.epoch, right.skip = b.epoch, left.skip
	right.n = int32(copy(right.slots[:], left.slots[mid+1:left.n]))
	copy(right.heads[:], left.heads[mid+1:left.n])
	if !left.leaf() {
		right.kids = new([maxKeys + 1]*node)
		copy(right.kids[:], left.kids[mid+1:left.n+1])
		clear(left.kids[mid+1:])
	}
	left.n = int32(mid)
	b.made(right)

	n.put(i, b.arena.blocks.key(up.place()), up)
	copy(n.kids[i+2:n.n+1], n.kids[i+1:n.n])
	n.kids[i+1] = right
	b.lengthen(left, i, n, low, high)
	b.lengthen(right, i+1, n, low, high)
}

// lengthen lets the heads of the i-th child of n, the neighbours of which are low and
// high, begin where its keys begin to differ, if that is worth it.
func (b *Buffer) lengthen(child *node, i int, n *node, low, high *slot) {
	low, high = n.around(i, low, high)
	if low == nil || high == nil {
		return
	}
	keys := b.arena.blocks
	if skip := shared(keys.key(low.place()), keys.key(high.place())); skip >= int(child.skip)+gain {
		child.rehead(keys, skip)
	}
}

// narrow notes that all keys agree in only n bytes: so do those at the edges of the tree.
func (b *Buffer) narrow(n int) {
	b.prefix = b.prefix[:n]
	b.root = b.own(b.root)
	for _, last := range []bool{false, true} {
		for at := b.root; ; {
			if int(at.skip) > n {
				at.rehead(b.arena.blocks, n)
			}
			if at.leaf() {
				break
			}
			i := 0
			if last {
				i = int(at.n)
			}
			at.kids[i] = b.own(at.kids[i])
			at = at.kids[i]
		}
	}
}
