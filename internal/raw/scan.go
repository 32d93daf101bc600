package raw

import (
	"bytes"
	"context"

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

// Pages reads a range page by page. It belongs to one goroutine, and must be ended.
type Pages struct {
	kv   *KV
	op   string
	s    Scan // with what is left of the range
	left int  // pairs that are still wanted, if there is a limit
	size int  // of the next page
	over bool
	r    *read
}

// Pages begins a scan.
func (kv *KV) Pages(op string, s Scan) Pages {
	p := Pages{kv: kv, op: op, s: s, left: s.Limit, size: s.PageSize, over: s.Range.Empty(), r: kv.takeRead(op)}
	if p.size == 0 {
		p.size = firstPage
	}
	return p
}

// End gives up what the scan holds, its last page too.
func (p *Pages) End() { p.kv.giveRead(p.r) }

// Next reads the next page, in the order of the scan; it has no pairs when there are no
// more. The slice is used again, what is in it is not.
func (p *Pages) Next(ctx context.Context) ([]wire.Pair, error) {
	for !p.over {
		n := p.size
		if p.s.Limit > 0 {
			n = min(n, p.left)
		}
		rest, more, err := p.kv.page(ctx, p.op, p.r, &p.s, n, p.s.Limit > 0 && n == p.left)
		if err != nil {
			return nil, err
		}
		pairs := p.r.got.Pairs
		p.left -= len(pairs)
		if p.over = !more || rest.Empty(); more {
			p.s.Range = rest
		}
		if p.s.PageSize == 0 {
			p.size = min(2*p.size, maxPage)
		}
		if len(pairs) > 0 {
			return pairs, nil
		}
	}
	return nil, nil
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
