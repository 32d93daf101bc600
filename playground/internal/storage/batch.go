package storage

import (
	"iter"

	"github.com/tikv-go/tikv/internal/keys"
)

// Batch is a list of writes that Apply makes visible together. A later write of the
// same key wins. The zero Batch is empty. It keeps the slices it is given.
type Batch struct {
	ops  []op
	size int

	onePC bool
}

type opKind uint8

const (
	opPut opKind = iota
	opDelete
	opDeleteRange
)

// op is one write; of opDeleteRange key and value are the bounds.
type op struct {
	kind       opKind
	cf         CF
	key, value []byte
}

// Put sets the value of key.
func (b *Batch) Put(cf CF, key, value []byte) { b.add(op{opPut, cf, key, value}) }

// Delete removes key, if it is there.
func (b *Batch) Delete(cf CF, key []byte) { b.add(op{opDelete, cf, key, nil}) }

// DeleteRange removes the keys in r that were there before the batch or are put by an
// earlier write of it.
func (b *Batch) DeleteRange(cf CF, r keys.Range) { b.add(op{opDeleteRange, cf, r.Start, r.End}) }

func (b *Batch) add(o op) {
	b.ops = append(b.ops, o)
	b.size += len(o.key) + len(o.value)
}

// Append adds the writes of o after those of b.
func (b *Batch) Append(o *Batch) {
	b.ops = append(b.ops, o.ops...)
	b.size += o.size
}

// MarkOnePC tells the watchers that the batch commits in one phase (TiKV components/
// txn_types/src/types.rs, WriteBatchFlags::ONE_PC).
func (b *Batch) MarkOnePC() { b.onePC = true }

// OnePC tells whether the batch was marked.
func (b *Batch) OnePC() bool { return b.onePC }

// Puts iterates over the writes that set values, in their order.
func (b *Batch) Puts() iter.Seq[Put] {
	return func(yield func(Put) bool) {
		for i := range b.ops {
			if o := &b.ops[i]; o.kind == opPut && !yield(Put{o.cf, o.key, o.value}) {
				return
			}
		}
	}
}

// Put is a write that sets a value.
type Put struct {
	CF         CF
	Key, Value []byte
}

// Len is the number of writes.
func (b *Batch) Len() int { return len(b.ops) }

// Size is the number of bytes in keys, values and bounds.
func (b *Batch) Size() int { return b.size }

// Meta reports whether the batch writes nothing but the cluster's own records.
func (b *Batch) Meta() bool {
	for i := range b.ops {
		if b.ops[i].cf != Meta {
			return false
		}
	}
	return true
}

// Span is the range from the first to the last of the batch's keys, of all families but
// Meta; the batch has such keys.
func (b *Batch) Span() keys.Range {
	var span keys.Range
	first := true
	for _, o := range b.ops {
		if o.cf == Meta {
			continue
		}
		r := keys.Range{Start: o.key, End: o.value}
		if o.kind != opDeleteRange {
			r.End = keys.Next(o.key)
		}
		if !first {
			r = span.Hull(r)
		}
		span, first = r, false
	}
	return span
}
