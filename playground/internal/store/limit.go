package store

import (
	"context"
	"errors"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/storage"
)

// tooLate is a request whose max_execution_duration_ms is over (TiKV src/storage/
// errors.rs, extract_region_error_from_error; components/tikv_util/src/deadline.rs).
func tooLate() *errorpb.Error {
	return &errorpb.Error{
		Message:      "Deadline is exceeded",
		ServerIsBusy: &errorpb.ServerIsBusy{Reason: "deadline is exceeded"},
	}
}

// maxLimit is the longest limit, in milliseconds (deadline.rs,
// DEFAULT_EXECUTION_DURATION_LIMIT, which those without a limit have).
const maxLimit = 24 * 60 * 60 * 1000

// limited reports whether a command heeds max_execution_duration_ms: all that are written
// do, of the reads only these (TiKV src/storage/mod.rs, where get_deadline is called); a
// coprocessor has a deadline of its own.
func limited(c *command, req any) bool {
	switch req.(type) {
	case *kvrpcpb.GetRequest, *kvrpcpb.BatchGetRequest, *kvrpcpb.BufferBatchGetRequest:
		return true
	}
	return c.kind == write || c.kind == blind
}

// inTime runs a command that has to have all that it waits for in time: latches (src/
// storage/txn/scheduler.rs, fail_fast_or_check_deadline) and, of a replica, the data. What
// it writes by then is written, and answered.
func (s *Store) inTime(ctx context.Context, c *command, q request, d time.Duration) any {
	limit, cancel := storage.NewLimit(ctx, d)
	defer cancel()
	answer := s.within(limit, c, q, 0)
	if limit.Missed() && errors.Is(context.Cause(limit), context.DeadlineExceeded) {
		return c.refuse(tooLate())
	}
	return answer
}

// checkBusy refuses a read for which the queue is longer than its client wants to wait
// (TiKV src/read_pool.rs, check_busy_threshold): before anything else is looked at.
func (s *Store) checkBusy(c *command, q request) *errorpb.Error {
	threshold := time.Duration(q.GetContext().GetBusyThresholdMs()) * time.Millisecond
	if threshold == 0 || c.kind != read {
		return nil
	}
	switch q.(type) {
	case *kvrpcpb.ScanLockRequest, *kvrpcpb.MvccGetByKeyRequest, *kvrpcpb.MvccGetByStartTsRequest:
		return nil // of another pool, or without the check
	}
	wait := s.State().ReadWait
	if wait <= threshold {
		return nil
	}
	return &errorpb.Error{ServerIsBusy: &errorpb.ServerIsBusy{
		Reason:          "estimated wait time exceeds threshold",
		EstimatedWaitMs: uint32(min(wait.Milliseconds(), 1<<32-1)),
	}}
}
