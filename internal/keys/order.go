package keys

import (
	"hash/maphash"
	"slices"
)

// Order finds the keys of a batch again in its answer, which has some of them, in their
// order. It compares hashes: by the time that an answer comes the caller's keys have left
// the processor's caches, and to read them takes longer than all else that is done with
// the answer. Two different keys have the same hash once in 2^64 times, and nobody can
// choose such, for the seed is random.
type Order struct {
	seed maphash.Seed
	sums []uint64 // in few or in many
	next int      // of sums, that may be found

	few  [4]uint64
	many []uint64
}

// Begin takes note of keys that are about to be sent.
func (o *Order) Begin(keys [][]byte) {
	if o.seed == (maphash.Seed{}) {
		o.seed = maphash.MakeSeed()
	}
	o.next = 0
	if o.sums = o.few[:0]; len(keys) > len(o.few) {
		o.sums = slices.Grow(o.many[:0], len(keys))
		o.many = o.sums
	}
	for _, key := range keys {
		o.sums = append(o.sums, maphash.Bytes(o.seed, key))
	}
}

// Find returns the index of key, which comes after that found before. It is -1 if there
// is none.
func (o *Order) Find(key []byte) int {
	sum := maphash.Bytes(o.seed, key)
	for i, s := range o.sums[o.next:] {
		if s == sum {
			o.next += i + 1
			return o.next - 1
		}
	}
	return -1
}

// Again lets all keys be found once more.
func (o *Order) Again() { o.next = 0 }

// Reset forgets the keys, and keeps the memory.
func (o *Order) Reset() { o.sums, o.next = nil, 0 }
