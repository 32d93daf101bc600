package raw

import (
	"bytes"
	"context"
	"iter"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/wire"
)

// Scan is what a scan does.
type Scan struct {
	Range    keys.Range
	Limit    int // 0: none
	PageSize int // 0: adaptive
	Reverse  bool
	KeysOnly bool
}

// The sizes of adaptive pages: the first, and the largest.
const (
	firstPage = 128
	maxPage   = 1024
)

// Scan yields the pairs of a range in order; an error comes last.
func (kv *KV) Scan(ctx context.Context, op string, s Scan) iter.Seq2[wire.Pair, error] {
	return func(yield func(wire.Pair, error) bool) {
		r := kv.takeRead(op)
		defer kv.giveRead(r)
		left, size := s.Limit, s.PageSize
		if size == 0 {
			size = firstPage
		}
		for !s.Range.Empty() {
			n := size
			if s.Limit > 0 {
				n = min(n, left)
			}
			rest, more, err := kv.page(ctx, op, r, &s, n, s.Limit > 0 && n == left)
			if err != nil {
				yield(wire.Pair{}, err)
				return
			}
			for _, p := range r.got.Pairs {
				if !yield(p, nil) {
					return
				}
			}
			if left -= len(r.got.Pairs); !more {
				return
			}
			s.Range = rest
			if s.PageSize == 0 {
				size = min(2*size, maxPage)
			}
		}
	}
}

// page reads up to n pairs into r, from the region at the near end of the range, and
// returns what is left of the range, if anything is; if n pairs are the last that are
// wanted, nothing is.
func (kv *KV) page(ctx context.Context, op string, r *read, s *Scan, n int, last bool) (rest keys.Range, more bool, err error) {
	r.call = kv.Call
	r.call.Op, r.call.Resend = op, true
	call := &r.call
	call.Key = s.Range.Start
	for {
		reg, err := kv.locate(ctx, call, s)
		if err != nil {
			return keys.Range{}, false, err
		}
		part := call.Codec.WireRange(reg.Range).Intersect(s.Range)
		r.scan = kvrpcpb.RawScanRequest{
			Context: &r.context, StartKey: part.Start, EndKey: part.End, Limit: uint32(min(n, 1<<30)),
			KeyOnly: s.KeysOnly, Reverse: s.Reverse, Cf: kv.CF,
		}
		if s.Reverse {
			r.scan.StartKey, r.scan.EndKey = upper(part.End), part.Start
		}
		r.got.Reset()
		err = kv.Router.SendInto(ctx, call, reg, &r.scan, &r.got)
		if err == router.ErrRegionChanged {
			continue
		}
		if err != nil {
			return keys.Range{}, false, err
		}
		for i := range r.got.Pairs {
			pair := &r.got.Pairs[i]
			if text := pairError(pair.Error); text != "" {
				return keys.Range{}, false, call.Refuse(text)
			}
			if s.KeysOnly {
				pair.Value = nil
			}
		}
		if last && len(r.got.Pairs) >= n {
			return keys.Range{}, false, nil
		}
		rest, more = s.rest(part, r.got.Pairs, n)
		return rest, more, nil
	}
}

// locate finds the region at the near end of the range.
func (kv *KV) locate(ctx context.Context, call *router.Call, s *Scan) (*region.Region, error) {
	if s.Reverse {
		return kv.Router.LocateEnd(ctx, call, s.Range.End)
	}
	return kv.Router.Locate(ctx, call, s.Range.Start)
}

// upper is where a scan backwards begins. TiKV takes an empty key for the lowest one
// here, so the end of all keys is said with a key above every one that it stores
// (storage.max-key-size is 8 KiB).
func upper(end []byte) []byte {
	if len(end) > 0 {
		return end
	}
	return bytes.Repeat([]byte{0xff}, 8<<10+1)
}

// rest is the range that is left after a page of n pairs at most was read from part, if
// there may be more in it.
func (s *Scan) rest(part keys.Range, pairs []wire.Pair, n int) (rest keys.Range, more bool) {
	full := len(pairs) >= n
	if s.Reverse {
		rest = keys.Range{Start: s.Range.Start, End: part.Start}
		if full {
			rest.End = pairs[len(pairs)-1].Key
		}
		return rest, len(rest.End) > 0 // else the region at the start of all keys is done
	}
	rest = keys.Range{Start: part.End, End: s.Range.End}
	if full {
		rest.Start = keys.Next(pairs[len(pairs)-1].Key)
		return rest, true
	}
	return rest, len(part.End) > 0 // else the one at their end is
}
