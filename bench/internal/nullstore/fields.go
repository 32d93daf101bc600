package nullstore

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

var errMalformed = errors.New("null store: malformed message")

// field is one field of a message: value for a varint, data for bytes.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	value uint64
	data  []byte
}

// next takes the field at the head of b. It reports false at the end of b, and where b is
// malformed, which fields tells apart.
func next(b []byte) (f field, rest []byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return f, b, false
	}
	f.num, f.typ = num, typ
	head := n
	switch typ {
	case protowire.VarintType:
		f.value, n = protowire.ConsumeVarint(b[head:])
	case protowire.BytesType:
		f.data, n = protowire.ConsumeBytes(b[head:])
	default:
		n = protowire.ConsumeFieldValue(num, typ, b[head:])
	}
	if n < 0 {
		return f, b, false
	}
	return f, b[head+n:], true
}

// fields calls f with each field of b.
func fields(b []byte, f func(field)) error {
	for {
		x, rest, ok := next(b)
		if !ok {
			if len(b) > 0 {
				return errMalformed
			}
			return nil
		}
		b = rest
		f(x)
	}
}

func appendBytes(b []byte, num protowire.Number, data []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), data)
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// bytesSize is the size of a field of n bytes whose number is below 16.
func bytesSize(n int) int { return 1 + protowire.SizeBytes(n) }
