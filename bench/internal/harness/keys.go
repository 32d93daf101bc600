package harness

import "fmt"

// prefix begins every key, so that a cluster that holds other data keeps it.
const prefix = "bench/"

// Key is the i-th key of a key space whose keys have size bytes, at least 16.
func Key(i, size int) []byte { return fmt.Appendf(nil, "%s%0*d", prefix, size-len(prefix), i) }

// Value is what every key holds: size bytes.
func Value(size int) []byte {
	v := make([]byte, size)
	for i := range v {
		v[i] = 'a' + byte(i%26)
	}
	return v
}

// Data is the keys and the value of a run, made before it begins.
type Data struct {
	Keys    [][]byte
	Value   []byte
	callers int
}

// NewData makes what s says.
func NewData(s Spec) Data { return MakeData(s.Keys, s.KeySize, s.ValueSize, s.Callers) }

// MakeData makes n keys of keySize bytes and a value, for a number of callers.
func MakeData(n, keySize, valueSize, callers int) Data {
	d := Data{make([][]byte, n), Value(valueSize), callers}
	for i := range d.Keys {
		d.Keys[i] = Key(i, keySize)
	}
	return d
}

// At is the key of a caller's i-th operation: cheap to find, spread over all keys, the same
// in every run.
func (d Data) At(caller, i int) []byte { return d.Keys[d.index(caller, i)] }

// From is the first key of a caller's i-th scan: n keys follow from it.
func (d Data) From(n, caller, i int) []byte { return d.Keys[min(d.index(caller, i), len(d.Keys)-n)] }

// Batch fills batch with the keys of a caller's i-th operation.
func (d Data) Batch(batch [][]byte, caller, i int) [][]byte {
	for j := range batch {
		batch[j] = d.At(caller, i*len(batch)+j)
	}
	return batch
}

// Spread calls f with n keys at equal distances, beginning anywhere. They are the caller's
// own where there are enough keys for that, so that transactions do not conflict.
func (d Data) Spread(n, caller, i int, f func(key []byte) error) error {
	first, step, mine := caller, d.callers, len(d.Keys)/d.callers
	if n > mine {
		first, step, mine = 0, 1, len(d.Keys)
	}
	at, stride := d.index(caller, i)%mine, max(1, mine/n)
	for range n {
		if err := f(d.Keys[first+at*step]); err != nil {
			return err
		}
		at = (at + stride) % mine
	}
	return nil
}

func (d Data) index(caller, i int) int {
	x := uint64(caller)*0x9e3779b97f4a7c15 + uint64(i)*0xbf58476d1ce4e5b9
	x ^= x >> 29
	return int(x % uint64(len(d.Keys)))
}
