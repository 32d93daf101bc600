package membuf

import (
	"bytes"
	"encoding/binary"
	"slices"
)

const (
	// maxSlots is how many keys a node holds before it is split.
	maxSlots = 32
	// stride is how many of them lie between two that a search looks at first: these are
	// independent of each other, so that the memory is asked for them at once.
	stride = 4
	// gain is by how many bytes the keys of a half must agree more than those of the
	// whole, for their heads to be made anew.
	gain = 4
)

// node is a node of the B-tree: an inner one has one child more than keys. It is changed
// in place only in the epoch in which it was made.
//
// All keys that are, or may come to be, below a node agree in their first skip bytes:
// those that its neighbours in the nodes above agree in, or, at the edge of the tree, all
// keys of the buffer.
type node struct {
	epoch uint64
	skip  int
	slots []slot
	kids  []*node
}

// slot is a key of a node.
type slot struct {
	head uint64 // the eight bytes of the key behind the node's skip, zeros if there are less
	place
	state state
}

const (
	nodeSize = 8 + 8 + 24 + 24
	slotSize = 8 + 4 + 2 + 2
	kidSize  = 8
)

func (n *node) leaf() bool { return len(n.kids) == 0 }

// memory is the bytes that n takes.
func (n *node) memory() int { return nodeSize + slotSize*cap(n.slots) + kidSize*cap(n.kids) }

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
	h, s := head(key, n.skip), n.slots
	i := 0
	for j := stride; j <= len(s); j += stride {
		if s[j-1].head < h {
			i = j
		}
	}
	for i < len(s) && s[i].head < h {
		i++
	}
	if i == len(s) || s[i].head != h {
		return i, false
	}
	return n.findSame(b, key, i)
}

// findSame finds key among the slots that have its head, the first of which is i.
func (n *node) findSame(b blocks, key []byte, i int) (int, bool) {
	h, end := n.slots[i].head, i+1
	for end < len(n.slots) && n.slots[end].head == h {
		end++
	}
	for i < end {
		mid := (i + end) / 2
		switch c := bytes.Compare(b.key(n.slots[mid].place), key); {
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
	n.skip = skip
	for i := range n.slots {
		s := &n.slots[i]
		s.head = head(b.key(s.place), skip)
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

// grown copies s with room for one more element and then some.
func grown[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return append(make([]T, 0, min(len(s)+len(s)/2+1, maxSlots+1)), s...)
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
	c := &node{b.epoch, n.skip, grown(n.slots), grown(n.kids)}
	b.nodes += c.memory() - n.memory()
	return c
}

// slot returns the place of key for writing; if there was none, it makes one, with a
// value, and tells so. Full nodes are split on the way down, so that there is room
// wherever it ends.
func (b *Buffer) slot(key, value []byte) (s *slot, made bool) {
	if b.root == nil {
		b.root = &node{epoch: b.epoch, skip: len(key), slots: make([]slot, 0, 4)}
		b.nodes += b.root.memory()
		s = b.insert(b.root, 0, key, value)
		b.prefix = b.arena.blocks.key(s.place)
		return s, true
	}
	if n := shared(b.prefix, key); n < len(b.prefix) {
		b.narrow(n)
	}
	b.root = b.own(b.root)
	if len(b.root.slots) == maxSlots {
		top := &node{epoch: b.epoch, skip: b.root.skip, kids: []*node{b.root}}
		b.nodes += top.memory()
		b.root = top
		b.split(top, 0, key, nil, nil)
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
		child := b.own(n.kids[i])
		n.kids[i] = child
		if len(child.slots) == maxSlots {
			b.split(n, i, key, low, high)
			if i, found = n.find(b.arena.blocks, key); found {
				return &n.slots[i], false
			}
			child = n.kids[i]
		}
		if i > 0 {
			low = &n.slots[i-1]
		}
		if i < len(n.slots) {
			high = &n.slots[i]
		}
		n = child
	}
}

func (b *Buffer) insert(leaf *node, i int, key, value []byte) *slot {
	at := b.arena.add(key, value)
	before := cap(leaf.slots)
	leaf.slots = slices.Insert(leaf.slots, i, slot{head: head(key, leaf.skip), place: at})
	b.nodes += slotSize * (cap(leaf.slots) - before)
	b.len++
	b.size += len(key)
	return &leaf.slots[i]
}

// split cuts the i-th child of n in two, around the key that goes up to n: its middle
// one, but where key comes last or first, as it does when keys are written in order, one
// that leaves the part full in which nothing will be written.
func (b *Buffer) split(n *node, i int, key []byte, low, high *slot) {
	left := n.kids[i]
	mid := len(left.slots) / 2
	switch at, _ := left.find(b.arena.blocks, key); at {
	case len(left.slots):
		mid = len(left.slots) - 2
	case 0:
		mid = 1
	}
	before := left.memory() + cap(n.slots)*slotSize + cap(n.kids)*kidSize
	up := left.slots[mid]
	right := &node{epoch: b.epoch, skip: left.skip, slots: append(make([]slot, 0, maxSlots), left.slots[mid+1:]...)}
	left.slots = left.slots[:mid]
	if !left.leaf() {
		right.kids = append(make([]*node, 0, maxSlots+1), left.kids[mid+1:]...)
		clear(left.kids[mid+1:])
		left.kids = left.kids[:mid+1]
	}
	up.head = head(b.arena.blocks.key(up.place), n.skip)
	n.slots = slices.Insert(n.slots, i, up)
	n.kids = slices.Insert(n.kids, i+1, right)
	b.nodes += left.memory() + right.memory() + cap(n.slots)*slotSize + cap(n.kids)*kidSize - before

	if i > 0 {
		low = &n.slots[i-1]
	}
	if i+2 < len(n.kids) {
		high = &n.slots[i+1]
	}
	b.lengthen(left, low, &up)
	b.lengthen(right, &up, high)
}

// lengthen lets the heads of n begin where the keys between low and high begin to
// differ, if that is worth it.
func (b *Buffer) lengthen(n *node, low, high *slot) {
	if low == nil || high == nil {
		return
	}
	if skip := shared(b.arena.blocks.key(low.place), b.arena.blocks.key(high.place)); skip >= n.skip+gain {
		n.rehead(b.arena.blocks, skip)
	}
}

// narrow notes that all keys agree in only n bytes: so do those at the edges of the tree.
func (b *Buffer) narrow(n int) {
	b.prefix = b.prefix[:n]
	b.root = b.own(b.root)
	for _, last := range []bool{false, true} {
		for at := b.root; ; {
			if at.skip > n {
				at.rehead(b.arena.blocks, n)
			}
			if at.leaf() {
				break
			}
			i := 0
			if last {
				i = len(at.slots)
			}
			at.kids[i] = b.own(at.kids[i])
			at = at.kids[i]
		}
	}
}
