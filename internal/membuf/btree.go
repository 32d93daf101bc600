package membuf

import (
	"bytes"
	"slices"
)

// maxEntries is how many entries a node holds before it is split in two around its
// middle one.
const maxEntries = 31

// node is a node of the B-tree: an inner one has one child more than entries. A node is
// changed in place only in the epoch in which it was made.
type node struct {
	epoch    uint64
	entries  []Entry
	children []*node
}

func (n *node) leaf() bool { return len(n.children) == 0 }

// find returns the index of key, or of the first entry above it.
func (n *node) find(key []byte) (int, bool) {
	low, high := 0, len(n.entries)
	for low < high {
		mid := (low + high) / 2
		switch c := bytes.Compare(n.entries[mid].Key, key); {
		case c == 0:
			return mid, true
		case c < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return low, false
}

// own returns n itself, or a copy if a view may see n.
func (n *node) own(epoch uint64) *node {
	if n.epoch == epoch {
		return n
	}
	return &node{epoch, grown(n.entries), grown(n.children)}
}

// grown copies s with room for one more element and then some.
func grown[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return append(make([]T, 0, min(len(s)+len(s)/2+1, maxEntries+1)), s...)
}

// split cuts a full node in two: it keeps the lower half, and returns the middle entry
// and a node of the upper half.
func (n *node) split() (Entry, *node) {
	mid := len(n.entries) / 2
	up := n.entries[mid]
	right := &node{epoch: n.epoch, entries: grown(n.entries[mid+1:])}
	clear(n.entries[mid:])
	n.entries = n.entries[:mid]
	if !n.leaf() {
		right.children = grown(n.children[mid+1:])
		clear(n.children[mid+1:])
		n.children = n.children[:mid+1]
	}
	return up, right
}

// entry returns the place of key's entry for writing, having made it if there was none.
// Full nodes are split on the way down, so that there is room wherever it ends.
func (b *Buffer) entry(key []byte) *Entry {
	epoch := b.epoch.Load()
	if b.root == nil {
		b.root = &node{epoch: epoch}
	}
	b.root = b.root.own(epoch)
	if len(b.root.entries) == maxEntries {
		up, right := b.root.split()
		b.root = &node{epoch, []Entry{up}, []*node{b.root, right}}
	}
	for n := b.root; ; {
		i, found := n.find(key)
		if found {
			return &n.entries[i]
		}
		if n.leaf() {
			return b.insert(n, i, key)
		}
		child := n.children[i].own(epoch)
		n.children[i] = child
		if len(child.entries) < maxEntries {
			n = child
			continue
		}
		up, right := child.split()
		n.entries = slices.Insert(n.entries, i, up)
		n.children = slices.Insert(n.children, i+1, right)
		switch c := bytes.Compare(key, up.Key); {
		case c == 0:
			return &n.entries[i]
		case c > 0:
			n = right
		default:
			n = child
		}
	}
}

func (b *Buffer) insert(leaf *node, i int, key []byte) *Entry {
	leaf.entries = slices.Insert(leaf.entries, i, Entry{Key: b.arena.copy(key)})
	b.len++
	b.size += len(key)
	return &leaf.entries[i]
}
