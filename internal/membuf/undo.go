package membuf

import "bytes"

// Savepoint is a state of a buffer that it can go back to. It holds the memory that only
// this state needs, and nothing else does: one that is not used any more need not be
// given back.
type Savepoint struct {
	tree    tree
	arena   mark
	lasting int
	depth   int // how many savepoints, itself included, had been made and not undone
	id      uint64
}

// undo is what a buffer knows of its savepoints.
type undo struct {
	alive   []uint64 // the ids of those that it can go back to, in order
	last    uint64
	lasting []place // keys whose Lasting flags have changed since the first of them
}

// Savepoint returns the state of now.
func (b *Buffer) Savepoint() Savepoint {
	b.settle()
	b.epoch++
	b.kept = b.arena.mark()
	b.last++
	b.alive = append(b.alive, b.last)
	return Savepoint{b.tree, b.kept, len(b.lasting), len(b.alive), b.last}
}

// Undo goes back to sp, but for the flags in Lasting, and ends the savepoints that were
// made after sp, while sp itself can be used again. It reports false, and does nothing,
// if sp has ended, which it never does by itself, or is another buffer's.
//
// It takes the old root; only the keys whose Lasting flags have changed since are
// touched. The memory taken since is used again, unless a view was frozen meanwhile.
func (b *Buffer) Undo(sp Savepoint) bool {
	if sp.depth == 0 || sp.depth > len(b.alive) || b.alive[sp.depth-1] != sp.id {
		return false
	}
	b.settle()
	last := b.lastingSince(sp)
	b.alive, b.lasting = b.alive[:sp.depth], b.lasting[:sp.lasting]
	b.tree = sp.tree
	to := sp.arena
	if to.before(b.seen) {
		to = b.seen
	}
	b.arena.cut(to)
	b.kept = b.arena.mark()
	for _, l := range last {
		if _, ok := b.view().Get(l.key); ok || l.flags != 0 {
			b.mark(l.key, l.flags, Lasting)
		}
	}
	return true
}

// lasting is a key and those of its flags that last.
type lasting struct {
	key   []byte
	flags Flags
}

func (b *Buffer) lastingSince(sp Savepoint) []lasting {
	var out []lasting
	for _, at := range b.lasting[sp.lasting:] {
		e, _ := b.view().Get(b.arena.blocks.key(at))
		out = append(out, lasting{bytes.Clone(e.Key), e.Flags & Lasting})
	}
	return out
}
