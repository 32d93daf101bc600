package membuf

// View is a buffer's entries at one moment. The zero View is empty.
type View struct {
	root   *node
	prefix []byte // what all keys begin with
	blocks blocks
}

// Get returns the entry of key.
func (v View) Get(key []byte) (e Entry, ok bool) {
	s := find(v.root, v.blocks, key)
	if s == nil {
		return e, false
	}
	v.blocks.read(s, &e)
	return e, true
}

// find returns the slot of key below n, if there is one.
func find(n *node, b blocks, key []byte) *slot {
	for n != nil {
		i, found := n.find(b, key)
		if found {
			return &n.entries[i].slot
		}
		if n.leaf() {
			break
		}
		n = n.kids[i]
	}
	return nil
}

// read makes e, which is zero, the entry of s. (An entry is too long to be returned by
// every function on the way: it would be copied at each.)
func (b blocks) read(s *slot, e *Entry) {
	key, value := b.record(s.place())
	e.Key, e.Op, e.Flags = key, s.state.op(), s.state.flags()
	if e.Op == Put {
		e.Value = value
	}
}
