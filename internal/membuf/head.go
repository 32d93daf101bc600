package membuf

import "encoding/binary"

// head returns the head of key. Where those of two keys that agree in their first skip
// bytes differ, they say which one is smaller. It reports false if the key differs in the
// gap: then its head only says where it is among the keys that agree there.
func (n *node) head(key []byte) (h uint64, fits bool) {
	h = word(key, int(n.skip))
	if n.front == whole {
		return h, true
	}
	return n.around(key, h)
}

// around is head of a node with a gap; h are the eight bytes behind skip.
func (n *node) around(key []byte, h uint64) (uint64, bool) {
	next := word(key, int(n.skip)+8)
	gap := n.between(h, next)
	tail := ^uint64(0) >> (8 * n.front)
	h &^= tail
	switch {
	case gap == n.gap:
		return h | next&tail, true
	case gap > n.gap:
		return h | tail, false
	default:
		return h, false
	}
}

// word returns the eight bytes of key from i on, zeros where it has ended.
func word(key []byte, i int) uint64 {
	if len(key) >= i+8 {
		return binary.BigEndian.Uint64(key[i:])
	}
	return ending(key, i)
}

// ending is word where key ends within it.
func ending(key []byte, i int) uint64 {
	var rest [8]byte
	if len(key) > i {
		copy(rest[:], key[i:])
	}
	return binary.BigEndian.Uint64(rest[:])
}

// between returns what is in the gap, of the sixteen bytes behind skip.
func (n *node) between(first, second uint64) uint64 {
	return first<<(8*n.front) | second>>(8*(whole-n.front))
}

// rehead makes the heads of n be what follows skip bytes, with a gap if they tell the
// keys apart badly without one.
func (n *node) rehead(b blocks, skip int32) {
	n.skip, n.front = skip, whole
	n.readHeads(b)
	if n.blurred() && n.findGap(b) {
		n.readHeads(b)
	}
}

func (n *node) readHeads(b blocks) {
	for i := range n.entries[:n.n] {
		e := &n.entries[i]
		e.head, _ = n.head(b.key(e.place()))
	}
}

// blurred reports whether many keys of n have the heads of others.
func (n *node) blurred() bool {
	entries, same := n.entries[:n.n], 0
	for i := 1; i < len(entries); i++ {
		if entries[i-1].head == entries[i].head {
			same++
		}
	}
	return 4*same > len(entries)
}

// findGap leaves a gap in the heads of n, the first one that there can be.
func (n *node) findGap(b blocks) bool {
	first := n.entries[0].head
	second := word(b.key(n.entries[0].place()), int(n.skip)+8)
	var differ, differ2 uint64 // the bits that are not the same in all keys
	for _, e := range n.entries[:n.n] {
		differ |= e.head ^ first
		differ2 |= word(b.key(e.place()), int(n.skip)+8) ^ second
	}
	for n.front = range uint16(whole) {
		if n.between(differ, differ2) == 0 {
			n.gap = n.between(first, second)
			return true
		}
	}
	n.front = whole
	return false
}
