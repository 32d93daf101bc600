// Package copr is the coprocessor of a store: it reads the pairs of a request's ranges
// in pages, and has what its user supplied compute the answers. What a plan says is
// none of its business, but for the timestamp in old ones. The rules are TiKV's
// (src/coprocessor/endpoint.rs), those of BatchCoprocessor and of MPP tasks TiFlash's
// (dbms/src/Flash).
package copr

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// Types of requests (TiKV src/coprocessor/mod.rs). Others are those that the user gave a
// handler for; they are treated like DAG.
const (
	DAG      = 103
	Analyze  = 104
	Checksum = 105
)

// Handler computes an answer from a request's plan and the pairs of its ranges.
type Handler = func(ctx context.Context, plan []byte, pairs [][2][]byte) ([]byte, error)

// Handlers are those of the types of requests.
type Handlers map[int64]Handler

// maxDuration is how long a request may take that does not say so itself (TiKV src/
// server/config.rs, DEFAULT_ENDPOINT_REQUEST_MAX_HANDLE_SECS).
const maxDuration = 60 * time.Second

//lint:ignore ST1005 the words are TiKV's
var errDeadline = errors.New("Coprocessor task terminated due to exceeding the deadline")

// WithDeadline bounds a request's time, as the request asks.
func WithDeadline(ctx context.Context, of *kvrpcpb.Context) (context.Context, context.CancelFunc) {
	d := maxDuration
	if ms := of.GetMaxExecutionDurationMs(); ms > 0 {
		d = time.Duration(min(ms, uint64(time.Hour/time.Millisecond))) * time.Millisecond
	}
	return context.WithTimeoutCause(ctx, d, errDeadline)
}

// Late reports whether the time of WithDeadline is over.
func Late(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errDeadline) }

// DeadlineExceeded is the region error of a request that took too long.
func DeadlineExceeded() *errorpb.Error {
	return &errorpb.Error{
		Message:      errDeadline.Error(),
		ServerIsBusy: &errorpb.ServerIsBusy{Reason: "deadline is exceeded"}, // components/tikv_util/src/deadline.rs
	}
}

// Refuse returns the answer to a request that no region needs to be looked at for
// (endpoint.rs, parse_request_and_check_memory_locks), nil if it is a good one.
func (hs Handlers) Refuse(q *coprocessor.Request) *coprocessor.Response {
	switch {
	case q.GetContext().GetApiVersion() > kvrpcpb.APIVersion_V2:
		return refusal(217, "API V3 is not supported by this TiKV build")
	case hs[q.Tp] == nil:
		return refusal(450, fmt.Sprintf("unsupported tp %d", q.Tp))
	}
	return nil
}

// refusal has the line of TiKV's source in its text, as box_err! puts it there.
func refusal(line int, text string) *coprocessor.Response {
	return &coprocessor.Response{OtherError: fmt.Sprintf("[src/coprocessor/endpoint.rs:%d]: %s", line, text)}
}

// Tasks are the requests that q carries for other regions of the same store (endpoint.rs,
// process_batch_tasks).
func Tasks(q *coprocessor.Request) []*coprocessor.Request {
	all := make([]*coprocessor.Request, len(q.Tasks))
	for i, t := range q.Tasks {
		one := *q
		of := kvrpcpb.Context{}
		if q.Context != nil {
			of = *q.Context
		}
		of.RegionId, of.RegionEpoch, of.Peer = t.RegionId, t.RegionEpoch, t.Peer
		one.Context, one.Ranges, one.Tasks, one.IsCacheEnabled = &of, t.Ranges, nil, false
		all[i] = &one
	}
	return all
}

// TaskAnswer is the answer to a request of Tasks, as the answer to the one that carried
// it has it.
func TaskAnswer(id uint64, p *coprocessor.Response) *coprocessor.StoreBatchTaskResponse {
	return &coprocessor.StoreBatchTaskResponse{
		TaskId: id, Data: p.Data, RegionError: p.RegionError, Locked: p.Locked, OtherError: p.OtherError,
		ExecDetailsV2: p.ExecDetailsV2,
	}
}
