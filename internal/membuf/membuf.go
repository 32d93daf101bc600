// Package membuf holds what a transaction has written and not yet committed: an
// ordered map from key to entry, with views that stay as they are while writing goes
// on, and savepoints to go back to.
//
// The map is a B-tree. Keys and values lie in an arena; a node holds, of each key, eight
// bytes from where the keys of the node begin to differ, less a gap in which they agree
// again, so that a search looks at a whole key once, when it has found it. Nodes are
// copied when a view or a savepoint may still see them: Freeze and Savepoint cost nothing
// by themselves, a write after them copies one path, and going back is to take the old
// root. Nothing is ever removed: a deleted key is an entry that says so.
package membuf

import "sync/atomic"

// Op is what an entry does to its key.
type Op uint8

// The operations. None is a key that is not written: its flags alone count.
const (
	None Op = iota
	Put
	Delete
)

// state is an operation and flags.
type state uint16

const opBits = 2

func (s state) op() Op       { return Op(s & (1<<opBits - 1)) }
func (s state) flags() Flags { return Flags(s >> opBits) }

func stateOf(op Op, f Flags) state { return state(op) | state(f)<<opBits }

// Entry is a key of a buffer. Its slices are the buffer's and must not be changed. An
// entry of a view never changes; one of a buffer is good until the next write or undo.
type Entry struct {
	Key, Value []byte
	Op         Op
	Flags      Flags
}

// Buffer is an ordered set of entries. It may be read and frozen concurrently; anything
// else may be concurrent only with the use of views. The zero Buffer is empty and has no
// limits.
type Buffer struct {
	tree
	blanks []node // made, but not used yet
	arena  arena
	limits Limits
	epoch  uint64 // nodes of an earlier one may be seen by others
	frozen atomic.Bool
	kept   mark // a view or a savepoint may see what was there: it is not overwritten
	seen   mark // a view may see it: it is not forgotten either
	undo
	handOver
}

// Len is the number of keys.
func (b *Buffer) Len() int { return b.len }

// Size is the bytes of all keys and values, without what the limits do not count.
func (b *Buffer) Size() int { return b.size - b.len*b.limits.Prefix }

// Memory is the bytes that the buffer has taken for its entries, those that are still
// free in its blocks included. What only views and savepoints hold does not count.
func (b *Buffer) Memory() int { return b.arena.size + b.nodes + len(b.blanks)*nodeSize }

// Get returns the entry of key.
func (b *Buffer) Get(key []byte) (e Entry, ok bool) {
	if s := find(b.root, b.arena.blocks, key); s != nil {
		b.arena.blocks.read(s, &e)
		ok = true
	}
	if e.Op == None && b.under.root != nil {
		return b.getUnder(key, e, ok)
	}
	return e, ok
}

// Put writes value, which is copied as key is, and adds flags to those of key.
func (b *Buffer) Put(key, value []byte, add Flags) error { return b.write(key, value, Put, add) }

// Delete writes that key has no value, and adds flags to those of key.
func (b *Buffer) Delete(key []byte, add Flags) error { return b.write(key, nil, Delete, add) }

func (b *Buffer) write(key, value []byte, op Op, add Flags) error {
	if err := b.allows(key, len(value)); err != nil {
		return err
	}
	b.settle()
	s, isNew := b.slot(key, value)
	if !isNew {
		_, old := b.arena.blocks.record(s.place())
		if s.state.op() == Put {
			b.size -= len(old)
		}
		switch {
		case op == Delete:
		case len(old) != len(value), len(old) > 0 && b.kept.holds(s.place()):
			at := b.arena.add(key, value)
			s.block, s.at = at.block, at.at
		default:
			copy(old, value)
		}
	}
	b.size += len(value)
	b.set(s, op, s.state.flags()&^ConflictUnchecked|add)
	return nil
}

// Mark changes the flags of key without writing it: those of drop go, then those of add
// come.
func (b *Buffer) Mark(key []byte, add, drop Flags) error {
	if err := b.allows(key, 0); err != nil {
		return err
	}
	b.mark(key, add, drop)
	return nil
}

func (b *Buffer) mark(key []byte, add, drop Flags) {
	b.settle()
	s, _ := b.slot(key, nil)
	b.set(s, s.state.op(), s.state.flags()&^drop|add)
}

func (b *Buffer) set(s *slot, op Op, f Flags) {
	if len(b.alive) > 0 && (s.state.flags()^f)&Lasting != 0 {
		b.lasting = append(b.lasting, s.place())
	}
	s.state = stateOf(op, f)
}

// Freeze returns the buffer as it is now. What is written later does not show in it,
// and it may be used while that happens.
func (b *Buffer) Freeze() View {
	b.frozen.Store(true)
	return b.view()
}

// settle keeps from changing what has been frozen since it was last called.
func (b *Buffer) settle() {
	if b.frozen.Load() {
		b.frozen.Store(false)
		b.epoch++
		b.kept = b.arena.mark()
		b.seen = b.kept
	}
}

func (b *Buffer) view() View { return View{b.root, b.prefix, b.arena.blocks} }
