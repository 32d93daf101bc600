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
	Keys  [][]byte
	Value []byte
}

// NewData makes n keys of keySize bytes and a value.
func NewData(n, keySize, valueSize int) Data {
	d := Data{make([][]byte, n), Value(valueSize)}
	for i := range d.Keys {
		d.Keys[i] = Key(i, keySize)
	}
	return d
}

// At is the key of a caller's i-th operation: cheap to find, spread over all keys, the same
// in every run.
func (d Data) At(caller, i int) []byte { return d.Keys[d.index(caller, i)] }

// Batch fills batch with the keys of a caller's i-th operation.
func (d Data) Batch(batch [][]byte, caller, i int) [][]byte {
	for j := range batch {
		batch[j] = d.At(caller, i*len(batch)+j)
	}
	return batch
}

// Spread calls f with n keys at equal distances, from that of a caller's i-th operation.
func (d Data) Spread(n, caller, i int, f func(key []byte) error) error {
	at, stride := d.index(caller, i), max(1, len(d.Keys)/n)
	for range n {
		if err := f(d.Keys[at]); err != nil {
			return err
		}
		at = (at + stride) % len(d.Keys)
	}
	return nil
}

func (d Data) index(caller, i int) int {
	x := uint64(caller)*0x9e3779b97f4a7c15 + uint64(i)*0xbf58476d1ce4e5b9
	x ^= x >> 29
	return int(x % uint64(len(d.Keys)))
}
