package membuf

import (
	"bytes"
	"math/bits"

	"github.com/tikv-go/tikv/internal/keys"
)

// node is a node of the B-tree: an inner one has one child more than keys. It is changed
// in place only in the epoch in which it was made.
//
// All keys that are, or may come to be, below a node agree in their first skip bytes:
// those that its neighbours in the nodes above agree in, or, at the edge of the tree, all
// keys of the buffer. The head of a key is the eight bytes that follow, zeros where it has
// ended; or, where front is less than eight, front bytes, and the rest from behind a gap
// of eight bytes in which all keys in the node agree. (Rows of two tables differ in the
// number of the table, agree in what follows, and differ in the ends of their handles.)
type node struct {
	epoch   uint64
	kids    *[maxKeys + 1]*node // nil in a leaf
	gap     uint64              // what is in the gap
	skip    int32
	front   uint16
	n       int16
	entries [maxKeys]entry
}

// whole is the front of a node whose heads have no gap.
const whole = 8

// entry is the head of a key, and its slot. They lie together, so that the search for a
// head brings the slot into the cache.
type entry struct {
	head uint64
	slot
}

// slot is where the record of a key is, and what is to be done to the key.
type slot struct {
	block uint32
	at    uint16
	state state
}

func (s *slot) place() place { return place{s.block, s.at} }

const (
	// maxKeys is how many keys a node holds before it is split: it is nine lines of
	// memory with them, the first of which has inFirst, each of the others inLine.
	maxKeys         = 34
	inFirst, inLine = 2, 4

	nodeSize = 32 + maxKeys*(8+8)
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

// find returns the index of key, or of the first one above it. Of a key that does not
// agree with the node in its first skip bytes it only tells that it is not there.
func (n *node) find(b blocks, key []byte) (int, bool) {
	h := word(key, int(n.skip))
	if n.front != whole {
		h, _ = n.around(key, h)
	}
	i := n.below(h)
	if i == int(n.n) || n.entries[i].head != h {
		return i, false
	}
	return n.findSame(b, key, i)
}

// below is the number of heads below h. It asks for all lines of memory at once, and has
// no branch that depends on what it finds there.
func (n *node) below(h uint64) int {
	entries := n.entries[:n.n]
	lines := 0
	for j := inFirst - 1; j < len(entries); j += inLine {
		_, less := bits.Sub64(entries[j].head, h, 0)
		lines += int(less)
	}
	i := max(lines*inLine-inLine+inFirst, 0)
	for _, e := range entries[i:min(i+inLine, len(entries))] {
		_, less := bits.Sub64(e.head, h, 0)
		i += int(less)
	}
	return i
}

// findSame finds key among those that have its head, the first of which is i.
func (n *node) findSame(b blocks, key []byte, i int) (int, bool) {
	h, end := n.entries[i].head, i+1
	for end < int(n.n) && n.entries[end].head == h {
		end++
	}
	for i < end {
		mid := (i + end) / 2
		switch c := bytes.Compare(b.key(n.entries[mid].place()), key); {
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

// put makes room for key at i, and puts it there.
func (n *node) put(b blocks, i int, key []byte, s slot) {
	n.n++
	entries := n.entries[:n.n]
	copy(entries[i+1:], entries[i:])
	h, fits := n.head(key)
	entries[i] = entry{h, s}
	if !fits {
		n.rehead(b, n.skip)
	}
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
	c := b.blank(n.leaf())
	kids := c.kids
	*c = *n
	c.epoch, c.kids = b.epoch, kids
	if !n.leaf() {
		*kids = *n.kids
	}
	return c
}

// inner is an inner node and its kids, in one piece.
type inner struct {
	node
	below [maxKeys + 1]*node
}

func newInner() *node {
	n := new(inner)
	n.kids = &n.below
	return &n.node
}

// blank returns a node; leaves are made several at once: the more, the larger the tree is.
func (b *Buffer) blank(leaf bool) *node {
	if !leaf {
		return newInner()
	}
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
		b.root = b.made(&node{epoch: b.epoch, skip: int32(len(key)), front: whole})
		s = b.insert(b.root, 0, key, value)
		b.prefix = b.arena.blocks.key(s.place())
		return s, true
	}
	if !bytes.HasPrefix(key, b.prefix) {
		b.narrow(keys.Common(b.prefix, key))
	}
	b.root = b.own(b.root)
	if b.root.full() {
		top := newInner()
		top.epoch, top.skip, top.front = b.epoch, b.root.skip, whole
		top.kids[0] = b.root
		b.root = b.made(top)
		b.split(top, 0, key, nil, nil)
	}
	var low, high *slot // the neighbours above of what is below n
	for n := b.root; ; {
		i, found := n.find(b.arena.blocks, key)
		if found {
			return &n.entries[i].slot, false
		}
		if n.leaf() {
			return b.insert(n, i, key, value), true
		}
		if n.kids[i].epoch != b.epoch {
			n.kids[i] = b.own(n.kids[i])
		}
		if n.kids[i].full() {
			b.split(n, i, key, low, high)
			if i, found = n.find(b.arena.blocks, key); found {
				return &n.entries[i].slot, false
			}
		}
		low, high = n.neighbours(i, low, high)
		n = n.kids[i]
	}
}

// neighbours returns the neighbours of the i-th child of n, whose own are low and high.
func (n *node) neighbours(i int, low, high *slot) (*slot, *slot) {
	if i > 0 {
		low = &n.entries[i-1].slot
	}
	if i < int(n.n) {
		high = &n.entries[i].slot
	}
	return low, high
}

func (b *Buffer) insert(leaf *node, i int, key, value []byte) *slot {
	at := b.arena.add(key, value)
	leaf.put(b.arena.blocks, i, key, slot{block: at.block, at: at.at})
	b.len++
	b.size += len(key)
	return &leaf.entries[i].slot
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
	up := left.entries[mid].slot
	right := b.blank(left.leaf())
	right.epoch, right.gap, right.skip, right.front = b.epoch, left.gap, left.skip, left.front
	right.n = int16(copy(right.entries[:], left.entries[mid+1:left.n]))
	if !left.leaf() {
		copy(right.kids[:], left.kids[mid+1:left.n+1])
		clear(left.kids[mid+1:])
	}
	left.n = int16(mid)
	b.made(right)

	blocks := b.arena.blocks
	n.put(blocks, i, blocks.key(up.place()), up)
	copy(n.kids[i+2:n.n+1], n.kids[i+1:n.n])
	n.kids[i+1] = right
	b.sharpen(left, i, n, low, high)
	b.sharpen(right, i+1, n, low, high)
}

// sharpen makes the heads of the i-th child of n, the neighbours of which are low and
// high, anew if they tell its keys apart badly.
func (b *Buffer) sharpen(child *node, i int, n *node, low, high *slot) {
	if !child.blurred() {
		return
	}
	blocks, skip := b.arena.blocks, child.skip
	if low, high = n.neighbours(i, low, high); low != nil && high != nil {
		skip = int32(keys.Common(blocks.key(low.place()), blocks.key(high.place())))
	}
	child.rehead(blocks, skip)
}

// narrow notes that all keys agree in only n bytes: so do those at the edges of the tree.
func (b *Buffer) narrow(n int) {
	b.prefix = b.prefix[:n]
	b.root = b.own(b.root)
	for _, last := range []bool{false, true} {
		for at := b.root; ; {
			if int(at.skip) > n {
				at.rehead(b.arena.blocks, int32(n))
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
