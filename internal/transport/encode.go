package transport

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"

	"github.com/tikv-go/tikv/internal/wire"
)

// buffers is a pool of the bytes of frames, those that grpc reads too: a mem.BufferPool
// that, unlike grpc's own, has all sizes and does not clear what it gives out. All of it
// is written before it is read.
type buffers struct {
	tiers [keptBits - newBits + 1]sync.Pool
} // of powers of two

// The sizes of a new buffer, at least, and of one that is kept, at most. grpc does not
// return buffers of 1 KiB or less.
const (
	newBits    = 12
	keptBits   = 22
	newBuffer  = 1 << newBits
	keptBuffer = 1 << keptBits
)

// Get returns a buffer of the length size.
func (p *buffers) Get(size int) *[]byte {
	if size > keptBuffer {
		b := make([]byte, size)
		return &b
	}
	tier := max(bits.Len(uint(max(size, 1)-1)), newBits) - newBits
	if b, _ := p.tiers[tier].Get().(*[]byte); b != nil {
		*b = (*b)[:size]
		return b
	}
	b := make([]byte, size, newBuffer<<tier)
	return &b
}

// Put takes a buffer back.
func (p *buffers) Put(b *[]byte) {
	if n := cap(*b); n >= newBuffer && n <= keptBuffer {
		p.tiers[bits.Len(uint(n))-1-newBits].Put(b)
	}
}

// assembly is a frame in the making: requests that are copied one behind the other,
// between those that are too big to copy.
type assembly struct {
	pool   *buffers
	hint   int // how much will be copied, about
	open   *[]byte
	parts  mem.BufferSlice
	size   int
	copied int // of that
}

// add takes the encoded request of c.
func (a *assembly) add(c *call) {
	if c.big == nil {
		a.reserve(len(c.small))
		*a.open = append(*a.open, c.small...)
		a.size += len(c.small)
		a.copied += len(c.small)
		return
	}
	a.end()
	a.size += len(*c.big)
	a.parts = append(a.parts, mem.NewBuffer(c.big, a.pool))
	c.big = nil
}

// reserve makes room for n bytes more, if it must in a larger buffer of the pool.
func (a *assembly) reserve(n int) {
	if a.open == nil {
		a.open = a.pool.Get(max(a.hint+a.hint/4, n))
		*a.open = (*a.open)[:0]
		return
	}
	full := *a.open
	if cap(full)-len(full) >= n {
		return
	}
	next := a.pool.Get(max(2*cap(full), len(full)+n))
	*next = append((*next)[:0], full...)
	a.pool.Put(a.open)
	a.open = next
}

func (a *assembly) end() {
	if a.open != nil {
		a.parts = append(a.parts, mem.NewBuffer(a.open, a.pool))
		a.open = nil
	}
}

// frame returns the frame of the requests with the ids.
func (a *assembly) frame(ids []uint64) *frame {
	a.reserve(wire.SizeIDs(ids))
	*a.open = wire.AppendIDs(*a.open, ids)
	a.end()
	return &frame{a.parts}
}
