package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/wire"
)

// Pair is a key and its value.
type Pair struct{ Key, Value []byte }

// ScanOptions are how a range is scanned.
type ScanOptions struct {
	Limit    int // pairs in all; 0: no limit
	PageSize int // pairs a request; 0: adaptive
	Reverse  bool
	KeysOnly bool
}

// The adaptive page: it doubles as long as the pages are full and not too heavy.
const (
	firstPage = 256
	maxPage   = 4096
	pageBytes = 2 << 20
)

// Pages walks a range page by page. It belongs to one goroutine.
type Pages struct {
	s    *Snapshot
	op   string
	rest keys.Range // what has not been read
	opts ScanOptions
	left int // of Limit
	size int // of the next page
	done bool

	locks []lock.Lock // met behind the last page

	context kvrpcpb.Context // of the last request, with its answer
	req     kvrpcpb.ScanRequest
	got     wire.Pairs
}

// scanError is the field of a ScanResponse's own error (kvproto kvrpcpb.proto).
const scanError = 3

// Pages returns the pages of a range.
func (s *Snapshot) Pages(op string, r keys.Range, o ScanOptions) *Pages {
	p := &Pages{s: s, op: op, rest: r, opts: o, left: o.Limit, size: o.PageSize, done: r.Empty()}
	p.got.ErrorField, p.got.Pool = scanError, &s.e.pairs
	if p.size == 0 {
		p.size = firstPage
	}
	return p
}

// Next returns the next pairs, none when there are no more. An error ends the walk.
func (p *Pages) Next(ctx context.Context) ([]Pair, error) {
	if p.done {
		return nil, nil
	}
	call, err := p.s.begin(ctx, p.op)
	if err != nil {
		return nil, p.end(err)
	}
	for !p.done {
		if len(p.locks) > 0 {
			if err := p.s.meet(ctx, call, p.locks, false); err != nil {
				return nil, p.end(err)
			}
			p.locks = nil
		}
		at, err := p.locate(ctx, call)
		if err != nil {
			return nil, p.end(err)
		}
		page, err := p.read(ctx, call, at)
		switch {
		case errors.Is(err, router.ErrRegionChanged):
			continue
		case err != nil:
			return nil, p.end(err)
		case len(page) > 0:
			if err := p.s.check(ctx, time.Now()); err != nil {
				return nil, p.end(err)
			}
			return page, nil
		}
	}
	return nil, p.s.check(ctx, time.Now())
}

func (p *Pages) end(err error) error {
	p.done = true
	return err
}

func (p *Pages) locate(ctx context.Context, call *router.Call) (*region.Region, error) {
	if p.opts.Reverse {
		return p.s.e.router.LocateEnd(ctx, call, p.rest.End)
	}
	return p.s.e.router.Locate(ctx, call, p.rest.Start)
}

// read sends one request for what the region at has of the rest. It returns the pairs
// before the first lock, where the rest then begins, and notes all locks.
func (p *Pages) read(ctx context.Context, call *router.Call, at *region.Region) ([]Pair, error) {
	part := p.rest.Intersect(p.s.e.codec.WireRange(at.Range))
	if part.Empty() {
		return nil, fmt.Errorf("txn: region %d was found for keys that it cannot hold", at.ID)
	}
	limit := p.size
	if p.left > 0 {
		limit = min(limit, p.left)
	}
	p.prepare(part, limit)
	if err := p.s.e.router.SendInto(ctx, call, at, &p.req, &p.got); err != nil {
		return nil, err
	}
	if ke := p.got.Error; ke != nil { // the pairs mean nothing
		if ke.GetLocked() == nil {
			return nil, keyError(call, p.s.ts, ke)
		}
		p.locks = lock.FromProto(ke.GetLocked())
		return nil, nil
	}
	page := make([]Pair, 0, len(p.got.Pairs))
	for i := range p.got.Pairs {
		pair := &p.got.Pairs[i]
		ke := pair.Error
		if ke != nil && ke.GetLocked() == nil {
			return nil, keyError(call, p.s.ts, ke)
		}
		if ke != nil {
			p.locks = append(p.locks, lock.FromProto(ke.GetLocked())...)
		} else if len(p.locks) == 0 {
			if p.opts.KeysOnly {
				pair.Value = nil
			}
			page = append(page, Pair{Key: pair.Key, Value: pair.Value})
		}
	}
	full := len(p.got.Pairs) >= limit
	p.advance(part, page, full || len(p.locks) > 0)
	p.adapt(full, p.got.Bytes)
	p.got.Reset()
	return page, nil
}

// prepare makes the request for one page. In reverse it goes from StartKey, exclusive,
// down to EndKey.
func (p *Pages) prepare(part keys.Range, limit int) {
	p.context = kvrpcpb.Context{}
	p.s.fill(&p.context)
	p.got.Reset()
	p.req = kvrpcpb.ScanRequest{
		Context:  &p.context,
		StartKey: part.Start,
		EndKey:   part.End,
		Limit:    uint32(limit),
		Version:  p.s.ts,
		KeyOnly:  p.opts.KeysOnly,
		Reverse:  p.opts.Reverse,
	}
	if p.opts.Reverse {
		p.req.StartKey, p.req.EndKey = part.End, part.Start
		if len(p.req.StartKey) == 0 {
			// TiKV takes it for the empty key and finds nothing below it
			// (src/server/service/kv.rs, future_scan).
			p.req.StartKey = aboveAll()
		}
	}
}

// aboveAll is above every key that TiKV's default limit of 8 KiB lets in.
func aboveAll() []byte { return bytes.Repeat([]byte{0xff}, 8<<10) }

// advance takes what was read off the rest: up to the last pair, or, where the region
// has no more, the whole part.
func (p *Pages) advance(part keys.Range, page []Pair, more bool) {
	if p.left > 0 {
		if p.left -= len(page); p.left == 0 {
			p.done = true
			return
		}
	}
	switch {
	case more && len(page) == 0:
		return
	case more && p.opts.Reverse:
		p.rest.End = page[len(page)-1].Key
	case more:
		p.rest.Start = keys.Next(page[len(page)-1].Key)
	case p.opts.Reverse:
		p.rest.End = part.Start
		p.done = len(part.Start) == 0
	default:
		p.rest.Start = part.End
		p.done = len(part.End) == 0
	}
	p.done = p.done || p.rest.Empty()
}

// adapt chooses the size of the next page.
func (p *Pages) adapt(full bool, heavy int) {
	switch {
	case p.opts.PageSize > 0:
	case heavy > pageBytes:
		p.size = max(p.size/2, 16)
	case full && heavy < pageBytes/2:
		p.size = min(2*p.size, maxPage)
	}
}
