// Package membuf holds what a transaction has written and not yet committed: an
// ordered map from key to entry, with views that stay as they are while writing goes
// on.
//
// The map is a B-tree whose nodes are copied when a view may still see them, so that
// Freeze costs nothing by itself and a write after it copies one path. Nothing is ever
// removed: a deleted key is an entry that says so.
package membuf

import (
	"sync/atomic"

	"github.com/tikv-go/tikv/internal/keys"
)

// Op is what an entry does to its key.
type Op uint8

// The operations. None is a key that is not written: its flags alone count.
const (
	None Op = iota
	Put
	Delete
)

// Flags are what a transaction claims or wants of a key besides writing it.
type Flags uint8

const (
	// Absent claims that the cluster has no value for the key when it commits.
	Absent Flags = 1 << iota
	// Locked wants the key locked at commit, written or not.
	Locked
)

// Entry is a key of a buffer. Its slices are the buffer's: they never change, and must
// not be changed.
type Entry struct {
	Key, Value []byte
	Op         Op
	Flags      Flags
}

// Buffer is an ordered set of entries. It may be read and frozen concurrently; a write
// may be concurrent only with the use of views. The zero Buffer is empty.
type Buffer struct {
	root  *node
	epoch atomic.Uint64 // nodes of an earlier epoch may be part of a view
	arena arena
	len   int
	size  int
}

// Len is the number of keys.
func (b *Buffer) Len() int { return b.len }

// Size is the bytes of all keys and values.
func (b *Buffer) Size() int { return b.size }

// Get returns the entry of key.
func (b *Buffer) Get(key []byte) (Entry, bool) { return View{b.root}.Get(key) }

// Put writes value, which is copied as key is, and adds flags to those of key.
func (b *Buffer) Put(key, value []byte, add Flags) {
	b.write(key, b.arena.copy(value), Put, add)
}

// Delete writes that key has no value.
func (b *Buffer) Delete(key []byte) { b.write(key, nil, Delete, 0) }

func (b *Buffer) write(key, value []byte, op Op, add Flags) {
	e := b.entry(key)
	b.size += len(value) - len(e.Value)
	e.Value, e.Op = value, op
	e.Flags |= add
}

// Mark adds flags to key without writing it.
func (b *Buffer) Mark(key []byte, add Flags) { b.entry(key).Flags |= add }

// Freeze returns the buffer as it is now. What is written later does not show in it,
// and it may be used while that happens.
func (b *Buffer) Freeze() View {
	b.epoch.Add(1)
	return View{b.root}
}

// View is a buffer's entries at one moment. The zero View is empty.
type View struct{ root *node }

// Get returns the entry of key.
func (v View) Get(key []byte) (Entry, bool) {
	for n := v.root; n != nil; {
		i, found := n.find(key)
		switch {
		case found:
			return n.entries[i], true
		case n.leaf():
			return Entry{}, false
		}
		n = n.children[i]
	}
	return Entry{}, false
}

// Scan returns a cursor before the first entry of r, or, in reverse, behind its last.
func (v View) Scan(r keys.Range, reverse bool) *Cursor {
	c := &Cursor{limit: r, reverse: reverse}
	if reverse {
		c.seekBelow(v.root, r.End)
	} else {
		c.seek(v.root, r.Start)
	}
	return c
}
