package store

import (
	"context"
	"math"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/copr"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// addCoprocessor lists the requests that users supply the answers to. A request is read in
// its region, and computed outside.
func (s *Store) addCoprocessor(cs commands) {
	add(cs, command{method: "Coprocessor", kind: read}, copRanges, unreachable[coprocessor.Request, coprocessor.Response],
		func(p *coprocessor.Response) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Coprocessor{Coprocessor: p}}
		})
	c := cs.of(&coprocessor.Request{})
	c.run = s.readTask(c, false)
	c.around = func(ctx context.Context, req any) any { return s.coprocessor(ctx, c, req.(*coprocessor.Request)) }

	add(cs, command{method: "RawCoprocessor", kind: read, raw: true},
		func(q *kvrpcpb.RawCoprocessorRequest) inside { return starts(q.Ranges) }, unreachable[kvrpcpb.RawCoprocessorRequest, kvrpcpb.RawCoprocessorResponse],
		func(p *kvrpcpb.RawCoprocessorResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawCoprocessor{RawCoprocessor: p}}
		})
	raw := cs.of(&kvrpcpb.RawCoprocessorRequest{})
	raw.run = func(ctx context.Context, bounds keys.Range, req any) any {
		return s.rawPairs(ctx, bounds, req.(*kvrpcpb.RawCoprocessorRequest))
	}
	raw.around = func(ctx context.Context, req any) any {
		return s.rawCoprocessor(ctx, raw, req.(*kvrpcpb.RawCoprocessorRequest))
	}
}

// unreachable is the place of a function that is set later, since it needs the command.
func unreachable[Q, P any](context.Context, keys.Range, *Q) *P { return new(P) }

// copRanges are named for faults alone: one outside of its region is no region error
// (TiKV src/storage/txn/store.rs, verify_range).
func copRanges(q *coprocessor.Request) inside {
	var in inside
	for _, r := range q.Ranges {
		in.named = append(in.named, r.GetStart())
	}
	return in
}

// readTask returns what reads a request's pairs, as a *copr.Task.
func (s *Store) readTask(c *command, stream bool) func(context.Context, keys.Range, any) any {
	return func(ctx context.Context, bounds keys.Range, req any) any {
		q := req.(*coprocessor.Request)
		return s.Coprocessors.Read(ctx, s.copRegion(ctx, q.GetContext(), bounds), q, stream)
	}
}

// copRegion is what a request is read from. Its caller is in the region. The state that a
// replica behind the leader has, or one that is being written, has no version.
func (s *Store) copRegion(ctx context.Context, of *kvrpcpb.Context, bounds keys.Range) copr.Region {
	r := copr.Region{Data: s.Txn, Bounds: bounds, Now: s.Now}
	in := s.Topology.ByID(of.GetRegionId())
	if in == nil {
		return r
	}
	r.Buckets = s.Topology.StoreBuckets(in).GetVersion()
	if applied, ok := in.Applied(); ok && !storage.Viewed(ctx) {
		r.Version = s.DataVersion + applied
	}
	return r
}

// coprocessor answers a request and those that it carries, all at once. A store that is
// too busy for it does not look at the others (endpoint.rs, parse_and_handle_unary_request).
func (s *Store) coprocessor(ctx context.Context, c *command, q *coprocessor.Request) *coprocessor.Response {
	others := copr.Tasks(q)
	if len(others) == 0 {
		return s.computed(ctx, c, q)
	}
	if e := s.checkBusy(c, q); e != nil {
		return &coprocessor.Response{RegionError: e}
	}
	answers := make([]*coprocessor.Response, len(others)+1)
	all := append(others, q)
	_ = task.Each(ctx, 0, len(all), func(ctx context.Context, i int) error { // none fails
		answers[i] = s.computed(ctx, c, all[i])
		return nil
	})
	resp := answers[len(others)]
	for i, t := range q.Tasks {
		resp.BatchResponses = append(resp.BatchResponses, copr.TaskAnswer(t.GetTaskId(), answers[i]))
	}
	return resp
}

// computed answers one request.
func (s *Store) computed(ctx context.Context, c *command, q *coprocessor.Request) *coprocessor.Response {
	if no := s.Coprocessors.Refuse(q); no != nil {
		return no
	}
	ctx, cancel := copr.WithDeadline(ctx, q.Context)
	defer cancel()
	answer := s.once(ctx, c, q)
	if t, ok := answer.(*copr.Task); ok {
		answer = t.Answer(ctx)
	}
	resp := answer.(*coprocessor.Response)
	if copr.Late(ctx) {
		return &coprocessor.Response{RegionError: copr.DeadlineExceeded()}
	}
	return resp
}

// coprocessorStream answers a request page by page. Requests that it carries are left
// aside, as TiKV leaves them.
func (s *Store) coprocessorStream() *streamed {
	cs := make(commands)
	add(cs, command{method: "CoprocessorStream", kind: read}, copRanges, unreachable[coprocessor.Request, coprocessor.Response], nil)
	c := cs.of(&coprocessor.Request{})
	c.run = s.readTask(c, true)
	return &streamed{c, func(ctx context.Context, req any) messages {
		return func(yield func(any, error) bool) {
			q := req.(*coprocessor.Request)
			if no := s.Coprocessors.Refuse(q); no != nil {
				yield(no, nil)
				return
			}
			ctx, cancel := copr.WithDeadline(ctx, q.Context)
			defer cancel()
			answer := s.once(ctx, c, q)
			t, ok := answer.(*copr.Task)
			if !ok {
				yield(answer, nil)
				return
			}
			for resp := range t.Stream(ctx) {
				if !yield(resp, nil) {
					return
				}
			}
		}
	}}
}

// rawCoprocessor answers a request to a plugin.
func (s *Store) rawCoprocessor(ctx context.Context, c *command, q *kvrpcpb.RawCoprocessorRequest) *kvrpcpb.RawCoprocessorResponse {
	handler, no := s.Plugins.Find(q.CoprName, q.CoprVersionReq)
	if handler == nil {
		return &kvrpcpb.RawCoprocessorResponse{Error: no}
	}
	answer := s.once(ctx, c, q)
	found, ok := answer.(*rawFound)
	switch {
	case !ok:
		return answer.(*kvrpcpb.RawCoprocessorResponse)
	case found.err != "":
		return &kvrpcpb.RawCoprocessorResponse{Error: found.err}
	}
	data, err := handler(ctx, q.Data, found.pairs)
	if err != nil {
		return &kvrpcpb.RawCoprocessorResponse{Error: err.Error()}
	}
	return &kvrpcpb.RawCoprocessorResponse{Data: data}
}

// rawFound are the pairs that a plugin is given.
type rawFound struct {
	pairs [][2][]byte
	err   string
}

// rawPairs reads a request's ranges as scans would.
func (s *Store) rawPairs(ctx context.Context, bounds keys.Range, q *kvrpcpb.RawCoprocessorRequest) *rawFound {
	found := new(rawFound)
	for _, r := range q.Ranges {
		resp := s.Raw.Scan(ctx, bounds, &kvrpcpb.RawScanRequest{
			Context: q.Context, StartKey: r.GetStartKey(), EndKey: r.GetEndKey(), Limit: math.MaxUint32,
		})
		for _, kv := range resp.Kvs {
			if kv.Error != nil {
				found.err = kv.Error.GetAbort()
				return found
			}
			found.pairs = append(found.pairs, [2][]byte{kv.Key, kv.Value})
		}
	}
	return found
}
