package transport

// table is the calls of a stream that are being written or wait for an answer, by their
// ids. A call's place is its id modulo the size; an id whose place is taken is left out.
type table struct {
	places []*call // a power of two, at most half full; nil at first
	n      int
	last   uint64 // id given out
}

const tableSize = 64 // at first

// add gives c an id and a place.
func (t *table) add(c *call) {
	if 2*(t.n+1) > len(t.places) {
		t.grow()
	}
	mask := uint64(len(t.places) - 1)
	for t.last++; t.places[t.last&mask] != nil; t.last++ {
	}
	c.id = t.last
	t.places[c.id&mask] = c
	t.n++
}

// grow doubles the table. Ids whose places differ modulo the old size do so modulo the
// new one.
func (t *table) grow() {
	old := t.places
	t.places = make([]*call, max(2*len(old), tableSize))
	mask := uint64(len(t.places) - 1)
	for _, c := range old {
		if c != nil {
			t.places[c.id&mask] = c
		}
	}
}

// find returns the call with the id, or nil.
func (t *table) find(id uint64) *call {
	if t.n == 0 {
		return nil
	}
	if c := t.places[id&uint64(len(t.places)-1)]; c != nil && c.id == id {
		return c
	}
	return nil
}

// remove takes out a call that is in the table.
func (t *table) remove(c *call) {
	t.places[c.id&uint64(len(t.places)-1)] = nil
	t.n--
}
