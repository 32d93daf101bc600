package wire

import (
	"bytes"
	"sync"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// Value is decoded from a kvrpcpb.GetResponse. It leaves out what the server says about
// its work (exec_details_v2).
type Value struct {
	RegionError *errorpb.Error
	Error       *kvrpcpb.KeyError
	Value       []byte // the caller's for good
	NotFound    bool
	CommitTS    uint64
}

// Reset empties v.
func (v *Value) Reset() { *v = Value{} }

// GetRegionError is as kvproto's.
func (v *Value) GetRegionError() *errorpb.Error { return v.RegionError }

// Unmarshal decodes a GetResponse (kvproto kvrpcpb.proto).
func (v *Value) Unmarshal(data []byte) error {
	for len(data) > 0 {
		num, body, value, n := field(data)
		if n < 0 {
			return ErrMalformed
		}
		data = data[n:]
		var err error
		switch num {
		case 1:
			v.RegionError, err = regionError(body)
		case 2:
			v.Error, err = keyError(body)
		case 3:
			v.Value = bytes.Clone(body)
		case 4:
			v.NotFound = value != 0
		case 7:
			v.CommitTS = value
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// field takes one field: the bytes of one that has some, the value of a varint. n is
// negative if it is malformed. Nearly all have a tag of one byte and a length or value of
// one or two; the others go the long way.
func field(data []byte) (num protowire.Number, body []byte, value uint64, n int) {
	if len(data) < 3 || data[0] >= 0x80 || data[0] < 1<<3 {
		return anyField(data)
	}
	value, n = uint64(data[1]), 2
	if value >= 0x80 {
		if value, n = value&0x7f|uint64(data[2])<<7, 3; data[2] >= 0x80 {
			return anyField(data)
		}
	}
	num = protowire.Number(data[0] >> 3)
	switch protowire.Type(data[0] & 7) {
	case protowire.VarintType:
		return num, nil, value, n
	case protowire.BytesType:
		if end := n + int(value); end <= len(data) {
			return num, data[n:end], 0, end
		}
	}
	return anyField(data)
}

func anyField(data []byte) (num protowire.Number, body []byte, value uint64, n int) {
	num, typ, head := protowire.ConsumeTag(data)
	if head < 0 {
		return 0, nil, 0, head
	}
	switch typ {
	case protowire.BytesType:
		body, n = protowire.ConsumeBytes(data[head:])
	case protowire.VarintType:
		value, n = protowire.ConsumeVarint(data[head:])
	default:
		n = protowire.ConsumeFieldValue(num, typ, data[head:])
	}
	if n < 0 {
		return 0, nil, 0, n
	}
	return num, body, value, head + n
}

func regionError(data []byte) (*errorpb.Error, error) {
	e := &errorpb.Error{}
	return e, e.Unmarshal(data)
}

func keyError(data []byte) (*kvrpcpb.KeyError, error) {
	e := &kvrpcpb.KeyError{}
	return e, e.Unmarshal(data)
}

// Pair is one kvrpcpb.KvPair.
type Pair struct {
	Key, Value []byte // not nil, and the caller's for good
	CommitTS   uint64
	Error      *kvrpcpb.KeyError
}

// PairPool lends the memory of pairs to those answers that have come. One that is waited
// for has none: it would be cold by then, and as much as there are callers.
type PairPool struct{ free sync.Pool } // *[]Pair

// keptPairs is the most pairs that memory is kept for.
const keptPairs = 1024

// Pairs is decoded from a response that has pairs: RawBatchGetResponse,
// RawScanResponse, BatchGetResponse and ScanResponse.
type Pairs struct {
	ErrorField protowire.Number // of the response's own KeyError; 0: it has none
	Pool       *PairPool        // nil: the slice is new for each answer

	RegionError *errorpb.Error
	Error       *kvrpcpb.KeyError
	Pairs       []Pair // the slice is used again after Reset, what is in it is not
	Bytes       int    // of keys and values

	lent *[]Pair // by Pool
}

// Reset empties p.
func (p *Pairs) Reset() {
	if p.lent != nil && cap(p.Pairs) <= keptPairs {
		clear(p.Pairs)
		*p.lent = p.Pairs[:0]
		p.Pool.free.Put(p.lent)
	}
	*p = Pairs{ErrorField: p.ErrorField, Pool: p.Pool}
}

// borrow makes p have memory for pairs.
func (p *Pairs) borrow() {
	if p.lent != nil || p.Pool == nil {
		return
	}
	if p.lent, _ = p.Pool.free.Get().(*[]Pair); p.lent == nil {
		p.lent = new([]Pair)
	}
	p.Pairs = *p.lent
}

// GetRegionError is as kvproto's.
func (p *Pairs) GetRegionError() *errorpb.Error { return p.RegionError }

const fieldPairs = 2 // in all of those responses

// blockSize is the most bytes of a response that are copied in one piece.
const blockSize = 16 << 10

// Unmarshal decodes one of those responses. Keys and values share memory in blocks of at
// most blockSize, so that who keeps one of many keeps no more than that.
func (p *Pairs) Unmarshal(data []byte) error {
	p.borrow()
	for len(data) > 0 {
		n := blockOf(data)
		err := p.block(data[:n])
		if err != nil {
			clear(p.Pairs)
			p.Pairs, p.Bytes = p.Pairs[:0], 0
			return err
		}
		data = data[n:]
	}
	return nil
}

// blockOf is the length of the fields at the beginning of data that fit in a block, or of
// the first if it does not, or is malformed.
func blockOf(data []byte) (end int) {
	if len(data) <= blockSize {
		return len(data)
	}
	for end < len(data) {
		_, _, _, n := field(data[end:])
		switch {
		case n < 0 && end == 0:
			return len(data)
		case n < 0, end > 0 && end+n > blockSize:
			return end
		}
		end += n
	}
	return end
}

// block reads fields of a response. What is larger than a block is one pair: its key and
// its value have their own memory each.
func (p *Pairs) block(data []byte) (err error) {
	large := len(data) > blockSize
	if !large {
		data = bytes.Clone(data)
	}
	for len(data) > 0 {
		num, body, _, n := field(data)
		if n < 0 {
			return ErrMalformed
		}
		data = data[n:]
		switch num {
		case fieldPairs:
			p.Pairs = append(p.Pairs, Pair{})
			pair := &p.Pairs[len(p.Pairs)-1]
			if err = pair.read(body); large {
				pair.Key, pair.Value = append([]byte{}, pair.Key...), append([]byte{}, pair.Value...)
			}
			p.Bytes += len(pair.Key) + len(pair.Value)
		case 1:
			p.RegionError, err = regionError(body)
		case p.ErrorField:
			p.Error, err = keyError(body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// The fields of a kvrpcpb.KvPair.
const (
	fieldPairError    = 1
	fieldPairKey      = 2
	fieldPairValue    = 3
	fieldPairCommitTS = 4
)

// read reads a pair, which refers to data.
func (p *Pair) read(data []byte) (err error) {
	key, val := data[:0:0], data[:0:0] // not nil
	for len(data) > 0 && err == nil {
		num, body, value, n := field(data)
		if n < 0 {
			return ErrMalformed
		}
		data = data[n:]
		switch num {
		case fieldPairError:
			p.Error, err = keyError(body)
		case fieldPairKey:
			key = body[:len(body):len(body)]
		case fieldPairValue:
			val = body[:len(body):len(body)]
		case fieldPairCommitTS:
			p.CommitTS = value
		}
	}
	p.Key, p.Value = key, val
	return err
}

// Prewritten is decoded from a kvrpcpb.PrewriteResponse, as Value is from its response.
type Prewritten struct {
	RegionError   *errorpb.Error
	Errors        []*kvrpcpb.KeyError
	MinCommitTS   uint64
	OnePCCommitTS uint64
}

// Reset empties p.
func (p *Prewritten) Reset() { *p = Prewritten{} }

// GetRegionError is as kvproto's.
func (p *Prewritten) GetRegionError() *errorpb.Error { return p.RegionError }

// Unmarshal decodes a PrewriteResponse (kvproto kvrpcpb.proto).
func (p *Prewritten) Unmarshal(data []byte) error {
	for len(data) > 0 {
		num, body, value, n := field(data)
		if n < 0 {
			return ErrMalformed
		}
		data = data[n:]
		var err error
		switch num {
		case 1:
			p.RegionError, err = regionError(body)
		case 2:
			var ke *kvrpcpb.KeyError
			ke, err = keyError(body)
			p.Errors = append(p.Errors, ke)
		case 3:
			p.MinCommitTS = value
		case 4:
			p.OnePCCommitTS = value
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Done is decoded from a response that tells of an error or of none: CommitResponse and
// BatchRollbackResponse.
type Done struct {
	RegionError *errorpb.Error
	Error       *kvrpcpb.KeyError
}

// Reset empties d.
func (d *Done) Reset() { *d = Done{} }

// GetRegionError is as kvproto's.
func (d *Done) GetRegionError() *errorpb.Error { return d.RegionError }

// Unmarshal decodes one of those responses.
func (d *Done) Unmarshal(data []byte) error {
	for len(data) > 0 {
		num, body, _, n := field(data)
		if n < 0 {
			return ErrMalformed
		}
		data = data[n:]
		var err error
		switch num {
		case 1:
			d.RegionError, err = regionError(body)
		case 2:
			d.Error, err = keyError(body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
