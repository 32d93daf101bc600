package store

import (
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/fault"
)

// timing says which answers tell how long they took.
type timing uint8

const (
	// alone is the answer to a call (TiKV src/server/service/kv.rs, has_time_detail).
	alone timing = 1 << iota
	// inBatch is the answer in a batch (same file, handle_measures_for_batch_commands).
	inBatch
	// spends tells also how its time was spent (same file, set_time_detail).
	spends
)

// detailed is where an answer has its details, nil if it has none in TiKV, and when it
// tells of time.
func detailed(answer any) (**kvrpcpb.ExecDetailsV2, timing) {
	switch p := answer.(type) {
	case *kvrpcpb.GetResponse:
		return &p.ExecDetailsV2, alone | inBatch | spends
	case *kvrpcpb.BatchGetResponse:
		return &p.ExecDetailsV2, inBatch | spends
	case *kvrpcpb.BufferBatchGetResponse:
		return &p.ExecDetailsV2, spends
	case *kvrpcpb.PrewriteResponse:
		return &p.ExecDetailsV2, alone | inBatch
	case *kvrpcpb.CommitResponse:
		return &p.ExecDetailsV2, alone | inBatch
	case *kvrpcpb.PessimisticLockResponse:
		return &p.ExecDetailsV2, alone | inBatch
	case *kvrpcpb.ResolveLockResponse:
		return &p.ExecDetailsV2, alone | inBatch
	case *kvrpcpb.CheckTxnStatusResponse:
		return &p.ExecDetailsV2, alone | inBatch
	case *kvrpcpb.CheckSecondaryLocksResponse:
		return &p.ExecDetailsV2, alone | inBatch
	case *kvrpcpb.TxnHeartBeatResponse:
		return &p.ExecDetailsV2, alone | inBatch
	case *kvrpcpb.PessimisticRollbackResponse:
		return &p.ExecDetailsV2, alone
	case *kvrpcpb.BatchRollbackResponse:
		return &p.ExecDetailsV2, alone
	case *kvrpcpb.ScanLockResponse:
		return &p.ExecDetailsV2, alone
	case *coprocessor.Response:
		return &p.ExecDetailsV2, inBatch
	}
	return nil, 0
}

// begin is when a request came, if its answer is to tell. A fault that delays it comes later.
func (s *Store) begin(c *command, when timing) time.Time {
	if c.timing&when == 0 {
		return time.Time{}
	}
	return s.Now()
}

// end notes how long a request took, in an answer that tells it, whatever it says.
func (s *Store) end(answer any, when timing, began time.Time) {
	if began.IsZero() {
		return
	}
	if m, ok := answer.(fault.Mangled); ok {
		answer = m.Answer
	}
	at, t := detailed(answer)
	if t&when == 0 {
		return
	}
	d := *at
	if d == nil {
		d = new(kvrpcpb.ExecDetailsV2)
		*at = d
	}
	if d.TimeDetail == nil {
		d.TimeDetail = new(kvrpcpb.TimeDetail)
	}
	if d.TimeDetailV2 == nil {
		d.TimeDetailV2 = new(kvrpcpb.TimeDetailV2)
	}
	d.TimeDetail.TotalRpcWallTimeNs = uint64(max(0, s.Now().Sub(began)))
	d.TimeDetailV2.TotalRpcWallTimeNs = d.TimeDetail.TotalRpcWallTimeNs
}

// spent notes how a read spent its time, what it was not at work being its wait. One that
// failed has no details.
func spent(answer any, took time.Duration) {
	at, t := detailed(answer)
	if t&spends == 0 || *at == nil {
		return
	}
	d, all := *at, uint64(max(0, took))
	v2 := d.TimeDetailV2
	v2.KvReadWallTimeNs, v2.WaitWallTimeNs = all, all-min(all, v2.ProcessWallTimeNs)
	d.TimeDetail = &kvrpcpb.TimeDetail{
		KvReadWallTimeMs: all / 1e6, WaitWallTimeMs: v2.WaitWallTimeNs / 1e6, ProcessWallTimeMs: v2.ProcessWallTimeNs / 1e6,
	}
}
