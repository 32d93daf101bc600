package store

import (
	"fmt"
	"slices"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/copr"
)

// drift is how far ahead of PD's timestamps a request's may be, in milliseconds (TiKV
// src/storage/config.rs, max-ts: max_drift).
const drift = 60_000

// checkTimestamps refuses a request whose timestamp would raise max_ts above what PD
// can have given out: no client has such a one from PD. Where one transaction settles
// another the limit is exact, but for TiDB. TiKV's default is to end the process; this
// is its milder setting (components/concurrency_manager/src/lib.rs, update_max_ts).
func (s *Store) checkTimestamps(req any) *errorpb.Error {
	ts, exact := raised(req)
	if ts == 0 {
		return nil
	}
	limit := s.Limit()
	if !exact {
		limit += drift << 18
	}
	if ts <= limit {
		return nil
	}
	return words(fmt.Sprintf("invalid max_ts update: %d exceeds the limit %d", ts, limit))
}

// raised is the timestamp that a request raises max_ts to, 0 for none, and whether it
// is one whose limit depends on its origin.
func raised(req any) (ts uint64, exact bool) {
	switch q := req.(type) {
	case *kvrpcpb.GetRequest:
		return readAt(q.Context, q.Version), false
	case *kvrpcpb.BatchGetRequest:
		return readAt(q.Context, q.Version), false
	case *kvrpcpb.ScanRequest:
		return readAt(q.Context, q.Version), false
	case *kvrpcpb.BufferBatchGetRequest:
		return readAt(q.Context, q.Version), false
	case *coprocessor.Request:
		return readAt(q.Context, copr.StartTS(q)), false
	case *kvrpcpb.FlushRequest:
		if reads(q.Mutations) {
			return finite(q.StartTs), false
		}
	case *kvrpcpb.PrewriteRequest:
		if reads(q.Mutations) {
			return finite(q.StartVersion), false
		}
	case *kvrpcpb.PessimisticLockRequest:
		if q.ReturnValues || q.CheckExistence || slices.ContainsFunc(q.Mutations, func(m *kvrpcpb.Mutation) bool {
			return m.GetAssertion() == kvrpcpb.Assertion_NotExist
		}) {
			return finite(q.ForUpdateTs), false
		}
	case *kvrpcpb.CheckTxnStatusRequest:
		return max(finite(q.LockTs), finite(q.CurrentTs), finite(q.CallerStartTs)), notTiDB(q.Context)
	case *kvrpcpb.CheckSecondaryLocksRequest:
		return finite(q.StartVersion), notTiDB(q.Context)
	case *kvrpcpb.CleanupRequest:
		return finite(q.StartVersion), notTiDB(q.Context)
	case *kvrpcpb.ScanLockRequest:
		return finite(q.MaxVersion), notTiDB(q.Context)
	}
	return 0, false
}

// reads tells whether mutations have one that looks whether a key exists.
func reads(muts []*kvrpcpb.Mutation) bool {
	return slices.ContainsFunc(muts, func(m *kvrpcpb.Mutation) bool {
		return m.GetOp() == kvrpcpb.Op_Insert || m.GetOp() == kvrpcpb.Op_CheckNotExists
	})
}

// readAt is finite for a read, which raises nothing if it is a stale one.
func readAt(ctx *kvrpcpb.Context, ts uint64) uint64 {
	if ctx.GetStaleRead() {
		return 0
	}
	return finite(ts)
}

// finite is 0 for the largest timestamp, which stands for none.
func finite(ts uint64) uint64 {
	if ts == ^uint64(0) {
		return 0
	}
	return ts
}

func notTiDB(ctx *kvrpcpb.Context) bool {
	return ctx.GetRequestOrigin() != kvrpcpb.RequestOrigin_RequestOriginTiDB
}
