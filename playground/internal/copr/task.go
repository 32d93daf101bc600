package copr

import (
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/sharedbytes"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/mvcc"
)

// Task is a request whose pairs were read, for an answer that is computed later: outside
// of its region.
type Task struct {
	q       *coprocessor.Request
	handler Handler
	now     func() time.Time
	pages   []*page
	failed  error // what the reading met behind the pages
	cached  bool  // the caller has the answer
	fresh   bool  // nothing was met that others may read differently
	version uint64
	buckets uint64
	read    time.Duration
}

// Region is what a request is read from.
type Region struct {
	Data   *mvcc.Engine
	Bounds keys.Range
	// Version tells one state of the region's data from another (TiKV: the index of the
	// entry that was applied last); 0: there is none, and nothing to be kept.
	Version uint64
	Buckets uint64 // their version, 0: none
	Now     func() time.Time
}

// Read reads what a request asks for: a page, or for a stream all.
func (hs Handlers) Read(ctx context.Context, r Region, q *coprocessor.Request, stream bool) *Task {
	t := &Task{q: q, handler: hs[q.Tp], now: r.Now, version: r.Version, buckets: r.Buckets}
	began := r.Now()
	defer func() { t.read = r.Now().Sub(began) }()
	ranges, err := r.Data.OpenRanges(ctx, q.Context, StartTS(q), Wire(q.Ranges), r.Bounds)
	if err != nil {
		t.failed = err
		return t
	}
	defer ranges.Close()
	if t.cached = q.IsCacheEnabled && r.Version != 0 && q.CacheIfMatchVersion == r.Version && !stream; t.cached {
		return t
	}
	pages := newReading(ranges, q.Ranges)
	for last := false; !last; last = last || !stream {
		p, err := pages.page(q, stream)
		if err != nil {
			t.failed = err
			return t
		}
		if last = p.last; stream && last && len(p.pairs) == 0 {
			break
		}
		t.pages = append(t.pages, p)
	}
	t.fresh = !ranges.Newer
	return t
}

func (r *reading) page(q *coprocessor.Request, stream bool) (*page, error) {
	if !stream {
		return r.next(budgetOf(q))
	}
	p := new(page)
	err := r.batch(p, streamBatch)
	r.from = p.read.End
	return p, err
}

// Wire are a request's ranges.
func Wire(in []*coprocessor.KeyRange) []keys.Range {
	all := make([]keys.Range, len(in))
	for i, r := range in {
		all[i] = keys.Range{Start: r.GetStart(), End: r.GetEnd()}
	}
	return all
}

// Answer computes the answer, which tells the version of the region's buckets
// (endpoint.rs, handle_unary_request_impl).
func (t *Task) Answer(ctx context.Context) *coprocessor.Response {
	resp := t.answer(ctx)
	resp.LatestBucketsVersion = t.buckets
	return resp
}

func (t *Task) answer(ctx context.Context) *coprocessor.Response {
	if t.cached {
		return t.detail(&coprocessor.Response{IsCacheHit: true, CacheLastVersion: t.version}, new(page), 0)
	}
	if t.failed != nil {
		return t.detail(failed(t.failed), new(page), 0)
	}
	p := t.pages[0]
	resp := t.compute(ctx, p)
	if resp.OtherError != "" {
		return resp
	}
	if budgetOf(t.q).limited() && !p.last {
		resp.Range = &p.read
	}
	if t.q.Tp != Analyze && t.q.Tp != Checksum { // dag/mod.rs, handle_qe_response
		resp.CanBeCached, resp.CacheLastVersion = t.q.IsCacheEnabled && t.fresh && t.version != 0, t.version
	}
	return resp
}

// Stream computes the answers to a stream, each as soon as it is asked for; the last
// is an error, if there is one (endpoint.rs, handle_stream_request_impl).
func (t *Task) Stream(ctx context.Context) func(yield func(*coprocessor.Response) bool) {
	return func(yield func(*coprocessor.Response) bool) {
		for _, p := range t.pages {
			resp := t.compute(ctx, p)
			if Late(ctx) {
				yield(&coprocessor.Response{RegionError: DeadlineExceeded()})
				return
			}
			if resp.OtherError == "" {
				resp.Range = &p.read
			}
			if !yield(resp) || resp.OtherError != "" {
				return
			}
		}
		if t.failed != nil {
			yield(t.detail(failed(t.failed), new(page), 0))
		}
	}
}

func (t *Task) compute(ctx context.Context, p *page) *coprocessor.Response {
	began := t.now()
	data, err := t.handler(ctx, t.q.Data, p.pairs)
	resp := &coprocessor.Response{Data: sharedbytes.SharedBytes(data)}
	if err != nil {
		resp = &coprocessor.Response{OtherError: err.Error()}
	}
	return t.detail(resp, p, t.now().Sub(began))
}

// failed is the answer to a request whose reading failed.
func failed(err error) *coprocessor.Response {
	locked, text := mvcc.AsText(err)
	return &coprocessor.Response{Locked: locked, OtherError: text}
}

// detail fills in what the answer took, in both of the forms that clients know (TiKV
// src/coprocessor/tracker.rs, exec_details).
func (t *Task) detail(resp *coprocessor.Response, p *page, computed time.Duration) *coprocessor.Response {
	took := t.read + computed
	spent := &kvrpcpb.TimeDetail{
		ProcessWallTimeMs: uint64(took.Milliseconds()), KvReadWallTimeMs: uint64(t.read.Milliseconds()),
	}
	resp.ExecDetails = &kvrpcpb.ExecDetails{TimeDetail: spent, ScanDetail: &kvrpcpb.ScanDetail{
		Write: &kvrpcpb.ScanInfo{Total: int64(p.versions), Processed: int64(p.processed)},
		Lock:  new(kvrpcpb.ScanInfo), Data: new(kvrpcpb.ScanInfo),
	}}
	again := *spent // of which more may be told
	resp.ExecDetailsV2 = &kvrpcpb.ExecDetailsV2{
		TimeDetail:   &again,
		TimeDetailV2: &kvrpcpb.TimeDetailV2{ProcessWallTimeNs: uint64(took), KvReadWallTimeNs: uint64(t.read)},
		ScanDetailV2: &kvrpcpb.ScanDetailV2{
			ProcessedVersions: uint64(p.processed), ProcessedVersionsSize: uint64(p.bytes), TotalVersions: uint64(p.versions),
		},
	}
	return resp
}

// Pairs are what was read, or the lock that was in the way.
func (t *Task) Pairs() ([][2][]byte, *kvrpcpb.LockInfo, error) {
	if t.failed == nil {
		return t.pages[0].pairs, nil, nil
	}
	locked, text := mvcc.AsText(t.failed)
	if locked == nil {
		return nil, nil, Words(text)
	}
	return nil, locked, nil
}
