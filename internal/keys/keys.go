// Package keys has the order of keys, ranges of them, and the memcomparable encoding.
package keys

import (
	"bytes"
	"errors"
	"slices"
)

// Range is the keys in [Start, End). An empty End means no upper bound.
type Range struct{ Start, End []byte }

// Contains reports whether key lies in r.
func (r Range) Contains(key []byte) bool {
	return bytes.Compare(key, r.Start) >= 0 && (len(r.End) == 0 || bytes.Compare(key, r.End) < 0)
}

// Covers reports whether all of o lies in r.
func (r Range) Covers(o Range) bool {
	return bytes.Compare(o.Start, r.Start) >= 0 && CompareEnds(o.End, r.End) <= 0
}

// Empty reports whether r has no key at all.
func (r Range) Empty() bool { return len(r.End) > 0 && bytes.Compare(r.Start, r.End) >= 0 }

// Hull returns the least range that covers both.
func (r Range) Hull(o Range) Range {
	if bytes.Compare(o.Start, r.Start) < 0 {
		r.Start = o.Start
	}
	if CompareEnds(o.End, r.End) > 0 {
		r.End = o.End
	}
	return r
}

// Intersect returns the keys that are in both; the result may be Empty.
func (r Range) Intersect(o Range) Range {
	if bytes.Compare(o.Start, r.Start) > 0 {
		r.Start = o.Start
	}
	if CompareEnds(o.End, r.End) < 0 {
		r.End = o.End
	}
	return r
}

// CompareEnds orders upper bounds: the empty one is above all others.
func CompareEnds(a, b []byte) int {
	switch {
	case len(a) == 0 && len(b) == 0:
		return 0
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return bytes.Compare(a, b)
}

// Next returns the first key after key, in a new slice.
func Next(key []byte) []byte {
	next := make([]byte, len(key)+1)
	copy(next, key)
	return next
}

// Common returns the number of bytes that a and b begin with both.
func Common(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// PrefixEnd returns the first key after every key with the prefix, in a new slice, or
// nil where there is none (a prefix that is empty or all 0xff).
func PrefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := slices.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

// The memcomparable encoding cuts a key into groups of 8 bytes, pads the last with
// zeros, and writes after each group 0xff minus the number of pad bytes; a key whose
// length is a multiple of 8 ends in a group of padding alone (TiKV
// components/codec/src/byte.rs, MemComparableByteCodec).
const (
	groupSize = 8
	marker    = 0xff
)

// EncodedLen is the length of the encoding of a key of n bytes.
func EncodedLen(n int) int { return (n/groupSize + 1) * (groupSize + 1) }

// AppendEncoded appends the memcomparable encoding of key to dst.
func AppendEncoded(dst, key []byte) []byte {
	dst = slices.Grow(dst, EncodedLen(len(key)))
	for len(key) >= groupSize {
		dst = append(dst, key[:groupSize]...)
		dst = append(dst, marker)
		key = key[groupSize:]
	}
	pad := groupSize - len(key)
	dst = append(dst, key...)
	for range pad {
		dst = append(dst, 0)
	}
	return append(dst, byte(marker-pad))
}

// Encode returns the memcomparable encoding of key in a new slice.
func Encode(key []byte) []byte { return AppendEncoded(nil, key) }

// ErrEncoding is input that no key encodes to.
var ErrEncoding = errors.New("keys: not a memcomparable encoding")

// Decode returns the key that the head of enc encodes, in a new slice, and what
// follows it.
func Decode(enc []byte) (key, rest []byte, err error) {
	for {
		if len(enc) < groupSize+1 {
			return nil, nil, ErrEncoding
		}
		group, mark := enc[:groupSize], enc[groupSize]
		enc = enc[groupSize+1:]
		pad := marker - int(mark)
		if pad > groupSize {
			return nil, nil, ErrEncoding
		}
		key = append(key, group[:groupSize-pad]...)
		if pad == 0 {
			continue
		}
		for _, b := range group[groupSize-pad:] {
			if b != 0 {
				return nil, nil, ErrEncoding
			}
		}
		if key == nil {
			key = []byte{}
		}
		return key, enc, nil
	}
}
