package transport

import (
	"sync"

	"google.golang.org/grpc/mem"

	"github.com/tikv-go/tikv/internal/wire"
)

// buffers is a pool of the bytes of frames. It is a mem.BufferPool that does not clear
// what it gives out: all of it is written before it is read.
type buffers struct{ free sync.Pool }

// The sizes of a new buffer, at least, and of one that is kept, at most. grpc does not
// return buffers of 1 KiB or less.
const (
	newBuffer  = 4 << 10
	keptBuffer = 256 << 10
)

// Get returns a buffer with the capacity, and length size.
func (p *buffers) Get(size int) *[]byte {
	if size <= keptBuffer {
		if b, _ := p.free.Get().(*[]byte); b != nil && cap(*b) >= size {
			*b = (*b)[:size]
			return b
		}
	}
	b := make([]byte, size, max(size, newBuffer))
	return &b
}

// Put takes a buffer back.
func (p *buffers) Put(b *[]byte) {
	if cap(*b) <= keptBuffer {
		p.free.Put(b)
	}
}

// assembly is a frame in the making: requests that are copied one behind the other,
// between those that are too big to copy.
type assembly struct {
	pool  *buffers
	open  *[]byte
	parts mem.BufferSlice
	size  int
}

// add takes the encoded request of c.
func (a *assembly) add(c *call) {
	if c.big == nil {
		a.begin()
		*a.open = append(*a.open, c.small...)
		a.size += len(c.small)
		return
	}
	a.end()
	a.size += len(*c.big)
	a.parts = append(a.parts, mem.NewBuffer(c.big, a.pool))
	c.big = nil
}

func (a *assembly) begin() {
	if a.open == nil {
		a.open = a.pool.Get(newBuffer)
		*a.open = (*a.open)[:0]
	}
}

func (a *assembly) end() {
	if a.open != nil {
		a.parts = append(a.parts, mem.NewBuffer(a.open, a.pool))
		a.open = nil
	}
}

// frame returns the frame of the requests with the ids.
func (a *assembly) frame(ids []uint64) *frame {
	a.begin()
	*a.open = wire.AppendIDs(*a.open, ids)
	a.end()
	return &frame{a.parts}
}
