package tikv

import (
	"strconv"

	"github.com/tikv-go/tikv/internal/keys"
)

// Pair is a key and its value. The bytes of one that a scan yields are the caller's.
type Pair struct{ Key, Value []byte }

// Range is the keys in [Start, End). An empty End means no upper bound, so the
// zero Range is every key.
type Range struct{ Start, End []byte }

// Prefix is the range of all keys that begin with prefix.
func Prefix(prefix []byte) Range {
	return Range{Start: append([]byte{}, prefix...), End: PrefixEnd(prefix)}
}

// Contains reports whether key lies in r.
func (r Range) Contains(key []byte) bool { return keys.Range(r).Contains(key) }

// NextKey returns the first key after key, in a new slice.
func NextKey(key []byte) []byte { return keys.Next(key) }

// PrefixEnd returns the first key after every key with the prefix, in a new slice, or
// nil where there is none.
func PrefixEnd(prefix []byte) []byte { return keys.PrefixEnd(prefix) }

// check returns what is wrong with a range that is scanned or destroyed.
func (r Range) check(op string) error {
	if len(r.End) > 0 && string(r.Start) > string(r.End) {
		return &ArgumentError{Op: op, Arg: "range", Reason: "ends before it starts"}
	}
	return nil
}

// empty reports whether no key lies in r.
func (r Range) empty() bool { return keys.Range(r).Empty() }

// KeyMode says which of TiKV's two key spaces a key belongs to. The zero value is none.
type KeyMode uint8

// The key modes.
const (
	KeyTxn KeyMode = iota + 1
	KeyRaw
)

// String is the mode in a word.
func (m KeyMode) String() string {
	switch m {
	case KeyTxn:
		return "txn"
	case KeyRaw:
		return "raw"
	}
	return "KeyMode(" + strconv.Itoa(int(m)) + ")"
}
