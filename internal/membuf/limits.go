package membuf

import (
	"fmt"
	"math"
)

// Limits bound a buffer; 0 is no limit.
type Limits struct {
	Entry  int // bytes of a key and its value
	Keys   int
	Bytes  int // of all keys and values
	Prefix int // bytes of each key that do not count
}

// TooLarge is a write beyond a limit. It changed nothing.
type TooLarge struct {
	What        string // "bytes in an entry", "keys" or "bytes"
	Size, Limit int
}

// Error names size and limit.
func (e *TooLarge) Error() string {
	return fmt.Sprintf("membuf: %d %s, the limit is %d", e.Size, e.What, e.Limit)
}

// maxEntry is what a record can hold.
const maxEntry = math.MaxInt32

// Limit sets the limits of what is written from now on.
func (b *Buffer) Limit(l Limits) { b.limits = l }

// Fits reports, by a TooLarge, if the buffer may not have so many more keys and so many
// more bytes in keys and values.
func (b *Buffer) Fits(keys, bytes int) error {
	l := &b.limits
	switch {
	case l.Keys > 0 && keys > 0 && b.len+keys > l.Keys:
		return &TooLarge{What: "keys", Size: b.len + keys, Limit: l.Keys}
	case l.Bytes > 0 && bytes > 0 && b.Size()+bytes > l.Bytes:
		return &TooLarge{What: "bytes", Size: b.Size() + bytes, Limit: l.Bytes}
	}
	return nil
}

// allows checks the limits for a key that gets a value of size bytes, or none.
func (b *Buffer) allows(key []byte, size int) error {
	n := len(key) - b.limits.Prefix + size
	limit := maxEntry
	if b.limits.Entry > 0 {
		limit = min(limit, b.limits.Entry)
	}
	if n > limit {
		return &TooLarge{What: "bytes in an entry", Size: n, Limit: limit}
	}
	if b.Fits(1, n) == nil {
		return nil
	}
	e, ok := b.view().Get(key) // it may be there already
	if ok {
		return b.Fits(0, size-len(e.Value))
	}
	return b.Fits(1, n)
}
