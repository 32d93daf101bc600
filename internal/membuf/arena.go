package membuf

import "encoding/binary"

// arena keeps records, each a key and a value in one piece, in blocks: many small ones
// cost one allocation, and the collector finds nothing to look at in them.
type arena struct {
	blocks blocks
	open   uint32 // the block that is being filled
	tail   []byte // what is filled of it
	size   int    // bytes of all blocks
}

// blocks are an arena's memory. The ones that a view keeps are never taken away or
// written where the view can see.
type blocks [][]byte

// place is where a record begins, in units: four bytes with the length of its key, four
// with that of its value, the key, the value.
type place struct {
	block uint32
	at    uint16
}

const (
	header   = 8
	unit     = 4
	minBlock = 256
	doubled  = 8 << 10    // until where the memory doubles with each block
	maxBlock = unit << 16 // what a place can tell
	// maxRecord is the longest record that shares a block.
	maxRecord = maxBlock / 4
)

// add copies a key and a value.
func (a *arena) add(key, value []byte) place {
	n := (header + len(key) + len(value) + unit - 1) / unit * unit
	var (
		at place
		r  []byte
	)
	if n > maxRecord {
		at.block = uint32(len(a.blocks))
		r = a.grow(n)[:0]
	} else {
		if n > cap(a.tail)-len(a.tail) {
			a.open = uint32(len(a.blocks))
			a.tail = a.grow(max(n, a.next()))[:0]
		}
		at = place{a.open, uint16(len(a.tail) / unit)}
		r = a.tail
		a.tail = a.tail[:len(r)+n]
	}
	r = binary.LittleEndian.AppendUint32(r, uint32(len(key)))
	r = binary.LittleEndian.AppendUint32(r, uint32(len(value)))
	r = append(r, key...)
	_ = append(r, value...)
	return at
}

// next is the size of the next block: while there is little as much as all so far, then a
// quarter of it, so that little stays unused.
func (a *arena) next() int {
	n := a.size
	if n >= doubled {
		n /= 4
	}
	return min(max(n, minBlock), maxBlock)
}

func (a *arena) grow(n int) []byte {
	block := make([]byte, n)
	a.blocks = append(a.blocks, block)
	a.size += n
	return block
}

// record returns the key and the value at p.
func (b blocks) record(p place) (key, value []byte) {
	r := b[p.block][int(p.at)*unit:]
	lens := binary.LittleEndian.Uint64(r)
	k := header + int(uint32(lens))
	v := k + int(lens>>32)
	return r[header:k:k], r[k:v:v]
}

func (b blocks) key(p place) []byte {
	r := b[p.block][int(p.at)*unit:]
	return r[header : header+int(binary.LittleEndian.Uint32(r))]
}

// mark is a moment in the life of an arena.
type mark struct {
	blocks int
	open   uint32
	tail   []byte
	size   int
}

func (a *arena) mark() mark { return mark{len(a.blocks), a.open, a.tail, a.size} }

// before reports whether m is an earlier moment than o, of the same arena.
func (m mark) before(o mark) bool {
	return m.blocks < o.blocks || m.blocks == o.blocks && len(m.tail) < len(o.tail)
}

// holds reports whether the record at p was there at the moment m.
func (m mark) holds(p place) bool {
	return p.block < uint32(m.blocks) && (p.block != m.open || m.tail == nil || int(p.at)*unit < len(m.tail))
}

// cut forgets what was added since m.
func (a *arena) cut(m mark) {
	clear(a.blocks[m.blocks:])
	a.blocks, a.open, a.tail, a.size = a.blocks[:m.blocks], m.open, m.tail, m.size
}
