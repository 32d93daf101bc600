package raw

import (
	"context"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/transport"
)

// RangeError is a call over a range that stopped: Rest is not done, or not certainly.
type RangeError struct {
	Rest  keys.Range
	Begun bool // something was done, or may have been
	Err   error
}

// Error is the cause's.
func (e *RangeError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *RangeError) Unwrap() error { return e.Err }

// walk sends a request for each region's part of a range, one after the other.
func (kv *KV) walk(ctx context.Context, r keys.Range, begin func() *router.Call,
	send func(call *router.Call, part keys.Range) transport.Request, done func(*router.Call, transport.Response) error) error {
	begun := false
	call := begin()
	for !r.Empty() {
		call.Key = r.Start
		reg, err := kv.Router.Locate(ctx, call, r.Start)
		var part keys.Range
		if err == nil {
			part = call.Codec.WireRange(reg.Range).Intersect(r)
			var resp transport.Response
			if resp, err = kv.Router.Send(ctx, call, reg, send(call, part)); err == router.ErrRegionChanged {
				continue
			}
			if err == nil {
				err = done(call, resp)
			}
		}
		if err != nil {
			return &RangeError{Rest: r, Begun: begun || Unknown(err), Err: err}
		}
		if len(part.End) == 0 {
			return nil
		}
		r.Start, begun, call = part.End, true, begin()
	}
	return nil
}

// DeleteRange removes all keys of a range. The error is a *RangeError.
func (kv *KV) DeleteRange(ctx context.Context, op string, r keys.Range) error {
	return kv.walk(ctx, r, func() *router.Call { return kv.write(op) },
		func(_ *router.Call, part keys.Range) transport.Request {
			return &kvrpcpb.RawDeleteRangeRequest{Context: &kvrpcpb.Context{}, StartKey: part.Start, EndKey: part.End, Cf: kv.CF}
		},
		func(call *router.Call, resp transport.Response) error { return written(call, resp, nil) })
}

// Sum is the checksum of a range: the XOR of the pairs' CRC-64, their number and bytes.
type Sum struct{ CRC64XOR, Pairs, Bytes uint64 }

// Checksum adds up a range of the default column family.
func (kv *KV) Checksum(ctx context.Context, op string, r keys.Range) (Sum, error) {
	var sum Sum
	err := kv.walk(ctx, r, func() *router.Call { return kv.read(op) },
		func(_ *router.Call, part keys.Range) transport.Request {
			return &kvrpcpb.RawChecksumRequest{
				Context: &kvrpcpb.Context{}, Algorithm: kvrpcpb.ChecksumAlgorithm_Crc64_Xor,
				Ranges: []*kvrpcpb.KeyRange{{StartKey: part.Start, EndKey: part.End}},
			}
		},
		func(call *router.Call, resp transport.Response) error {
			answer, ok := resp.(*kvrpcpb.RawChecksumResponse)
			if !ok {
				return call.Refuse(otherAnswer)
			}
			if answer.GetError() != "" {
				return call.Refuse(answer.GetError())
			}
			sum.CRC64XOR ^= answer.GetChecksum()
			sum.Pairs += answer.GetTotalKvs()
			sum.Bytes += answer.GetTotalBytes()
			return nil
		})
	if err != nil {
		return Sum{}, err.(*RangeError).Err
	}
	return sum, nil
}
