package membuf

// handOver is what a buffer that is written out while it is filled knows of what it gave
// away.
type handOver struct {
	under View // the generation that is being written out
	given Given
}

// Given is what a buffer has handed over. A key counts in each generation that has it.
type Given struct{ Generations, Keys, Bytes int }

// HandOver takes all entries out of the buffer, to be written out as the generation whose
// number is that of Given afterwards: 1, 2 and so on. The buffer goes on, empty and
// without its savepoints. Get goes on to find what was handed over, until Drop: what is
// written out can be read where it went. HandOver reports false, and does nothing, if
// there is nothing, or if the generation before has not been dropped.
//
// (client-go internal/unionstore/pipelined_memdb.go, Flush.)
func (b *Buffer) HandOver() (View, bool) {
	if b.root == nil || b.under.root != nil {
		return View{}, false
	}
	b.under = b.view()
	b.given.Generations++
	b.given.Keys += b.Len()
	b.given.Bytes += b.Size()
	b.tree, b.arena, b.kept, b.seen = tree{}, arena{}, mark{}, mark{}
	b.frozen.Store(false)
	b.alive, b.lasting = nil, nil
	return b.under, true
}

// Drop forgets the generation that was handed over.
func (b *Buffer) Drop() { b.under = View{} }

// Given returns what has been handed over so far.
func (b *Buffer) Given() Given { return b.given }

// getUnder is Get of a key that is not written in the buffer itself: e, if ok, are its
// flags there, which are newer than those of what was handed over.
func (b *Buffer) getUnder(key []byte, e Entry, ok bool) (Entry, bool) {
	under, found := b.under.Get(key)
	switch {
	case !found:
		return e, ok
	case ok:
		under.Flags = e.Flags
	}
	return under, true
}
