package storage

import (
	"context"
	"hash/maphash"
	"slices"
)

// Latches orders the writers that read before they write: who holds a key's latch
// applies its batch before another reads the key. Keys are hashed onto a fixed number
// of slots, taken in ascending order, so that holders of several never wait for each
// other in a circle (TiKV src/storage/txn/latch.rs).
type Latches struct {
	seed  maphash.Seed
	slots []chan struct{}
}

const latchSlots = 512

// NewLatches returns latches that nobody holds.
func NewLatches() *Latches {
	l := &Latches{maphash.MakeSeed(), make([]chan struct{}, latchSlots)}
	for i := range l.slots {
		l.slots[i] = make(chan struct{}, 1)
	}
	return l
}

// Acquire waits for the latches of all keys and returns what gives them back, or
// context.Cause(ctx), holding none, if ctx ends first.
func (l *Latches) Acquire(ctx context.Context, keys ...[]byte) (release func(), err error) {
	need := make([]uint16, len(keys))
	for i, key := range keys {
		need[i] = uint16(maphash.Bytes(l.seed, key) % latchSlots)
	}
	slices.Sort(need)
	need = slices.Compact(need)
	for i, slot := range need {
		select {
		case l.slots[slot] <- struct{}{}:
		default:
			select {
			case l.slots[slot] <- struct{}{}:
			case <-ctx.Done():
				l.release(need[:i])
				Miss(ctx)
				return nil, context.Cause(ctx)
			}
		}
	}
	return func() { l.release(need) }, nil
}

func (l *Latches) release(slots []uint16) {
	for _, slot := range slots {
		<-l.slots[slot]
	}
}
