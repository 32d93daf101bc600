package raw

import (
	"bytes"
	"context"
	"iter"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/router"
)

// Pair is a wire key and its value.
type Pair struct{ Key, Value []byte }

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
func (kv *KV) Scan(ctx context.Context, op string, s Scan) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		left, size := s.Limit, s.PageSize
		if size == 0 {
			size = firstPage
		}
		for !s.Range.Empty() {
			n := size
			if s.Limit > 0 {
				n = min(n, left)
			}
			pairs, rest, err := kv.page(ctx, op, s, n)
			if err != nil {
				yield(Pair{}, err)
				return
			}
			for _, p := range pairs {
				if !yield(p, nil) {
					return
				}
			}
			if left -= len(pairs); (s.Limit > 0 && left == 0) || rest == nil {
				return
			}
			s.Range = *rest
			if s.PageSize == 0 {
				size = min(2*size, maxPage)
			}
		}
	}
}

// page reads up to n pairs from the region at the near end of the range, and returns
// what is left of the range: nil if nothing is.
func (kv *KV) page(ctx context.Context, op string, s Scan, n int) ([]Pair, *keys.Range, error) {
	call := kv.read(op)
	call.Key = s.Range.Start
	locate, from := kv.Router.Locate, s.Range.Start
	if s.Reverse {
		locate, from = kv.Router.LocateEnd, s.Range.End
	}
	for {
		reg, err := locate(ctx, call, from)
		if err != nil {
			return nil, nil, err
		}
		part := call.Codec.WireRange(reg.Range).Intersect(s.Range)
		req := &kvrpcpb.RawScanRequest{
			Context: &kvrpcpb.Context{}, StartKey: part.Start, EndKey: part.End, Limit: uint32(min(n, 1<<30)),
			KeyOnly: s.KeysOnly, Reverse: s.Reverse, Cf: kv.CF,
		}
		if s.Reverse {
			req.StartKey, req.EndKey = upper(part.End), part.Start
		}
		resp, err := kv.Router.Send(ctx, call, reg, req)
		if err == router.ErrRegionChanged {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		answer, ok := resp.(*kvrpcpb.RawScanResponse)
		if !ok {
			return nil, nil, call.Refuse(otherAnswer)
		}
		pairs, err := pairsOf(call, answer.GetKvs(), s.KeysOnly)
		if err != nil {
			return nil, nil, err
		}
		return pairs, s.rest(part, pairs, n), nil
	}
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

func pairsOf(call *router.Call, kvs []*kvrpcpb.KvPair, keysOnly bool) ([]Pair, error) {
	pairs := make([]Pair, len(kvs))
	for i, p := range kvs {
		if text := pairError(p); text != "" {
			return nil, call.Refuse(text)
		}
		pairs[i].Key = p.GetKey()
		if !keysOnly {
			pairs[i].Value = present(p.GetValue())
		}
	}
	return pairs, nil
}

// rest is the range that is left after a page of n pairs at most was read from part.
func (s *Scan) rest(part keys.Range, pairs []Pair, n int) *keys.Range {
	full := len(pairs) >= n
	if s.Reverse {
		rest := keys.Range{Start: s.Range.Start, End: part.Start}
		if full {
			rest.End = pairs[len(pairs)-1].Key
		}
		if len(rest.End) == 0 { // the region at the start of all keys is done
			return nil
		}
		return &rest
	}
	rest := keys.Range{Start: part.End, End: s.Range.End}
	if full {
		rest.Start = keys.Next(pairs[len(pairs)-1].Key)
	} else if len(part.End) == 0 { // and the one at their end
		return nil
	}
	return &rest
}
