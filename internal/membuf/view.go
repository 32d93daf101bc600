package membuf

import "github.com/tikv-go/tikv/internal/keys"

// View is a buffer's entries at one moment. The zero View is empty.
type View struct {
	root   *node
	prefix []byte // what all keys begin with
	blocks blocks
}

// Get returns the entry of key.
func (v View) Get(key []byte) (Entry, bool) {
	for n := v.root; n != nil; {
		i, found := n.find(v.blocks, key)
		switch {
		case found:
			return v.blocks.entry(&n.slots[i]), true
		case n.leaf():
			return Entry{}, false
		}
		n = n.kids[i]
	}
	return Entry{}, false
}

func (b blocks) entry(s *slot) Entry {
	key, value := b.record(s.place)
	e := Entry{Key: key, Op: s.state.op(), Flags: s.state.flags()}
	if e.Op == Put {
		e.Value = value
	}
	return e
}

// Scan returns a cursor before the first entry of r, or, in reverse, behind its last.
func (v View) Scan(r keys.Range, reverse bool) *Cursor {
	c := &Cursor{blocks: v.blocks, limit: r, reverse: reverse}
	if reverse {
		c.seekBelow(v, r.End)
	} else {
		c.seek(v, r.Start)
	}
	return c
}
