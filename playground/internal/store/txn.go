package store

import (
	"context"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// addReads lists the transactional reads.
func (s *Store) addReads(cs commands) {
	e := s.Txn
	add(cs, command{method: "KvGet", kind: read},
		func(q *kvrpcpb.GetRequest) inside { return one(q.Key) }, e.Get,
		func(p *kvrpcpb.GetResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Get{Get: p}}
		})
	add(cs, command{method: "KvBatchGet", kind: read},
		func(q *kvrpcpb.BatchGetRequest) inside { return several(q.Keys) }, e.BatchGet,
		func(p *kvrpcpb.BatchGetResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_BatchGet{BatchGet: p}}
		})
	add(cs, command{method: "KvScan", kind: read},
		func(q *kvrpcpb.ScanRequest) inside { return seek(q.StartKey) }, e.Scan,
		func(p *kvrpcpb.ScanResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Scan{Scan: p}}
		})
	add(cs, command{method: "KvBufferBatchGet", kind: read},
		func(q *kvrpcpb.BufferBatchGetRequest) inside { return several(q.Keys) }, e.BufferBatchGet,
		func(p *kvrpcpb.BufferBatchGetResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_BufferBatchGet{BufferBatchGet: p}}
		})
	add(cs, command{method: "KvScanLock", kind: read, leader: true},
		func(q *kvrpcpb.ScanLockRequest) inside {
			if len(q.StartKey) == 0 { // from the region's start
				return inside{}
			}
			return seek(q.StartKey)
		}, e.ScanLock,
		func(p *kvrpcpb.ScanLockResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_ScanLock{ScanLock: p}}
		})
	add(cs, command{method: "MvccGetByKey", kind: read},
		func(q *kvrpcpb.MvccGetByKeyRequest) inside { return one(q.Key) }, e.MvccGetByKey, nil)
	add(cs, command{method: "MvccGetByStartTs", kind: read}, nothing, e.MvccGetByStartTs, nil)
}

// addWrites lists the requests that a transaction's writing consists of.
func (s *Store) addWrites(cs commands) {
	e := s.Txn
	add(cs, command{method: "KvPrewrite", kind: write},
		func(q *kvrpcpb.PrewriteRequest) inside {
			in := inside{keys: make([][]byte, len(q.Mutations))}
			for i, m := range q.Mutations {
				in.keys[i] = m.GetKey()
			}
			return in
		}, e.Prewrite,
		func(p *kvrpcpb.PrewriteResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Prewrite{Prewrite: p}}
		})
	add(cs, command{method: "KvCommit", kind: write},
		func(q *kvrpcpb.CommitRequest) inside { return several(q.Keys) }, e.Commit,
		func(p *kvrpcpb.CommitResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Commit{Commit: p}}
		})
	add(cs, command{method: "KvBatchRollback", kind: write},
		func(q *kvrpcpb.BatchRollbackRequest) inside { return several(q.Keys) }, e.BatchRollback,
		func(p *kvrpcpb.BatchRollbackResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_BatchRollback{BatchRollback: p}}
		})
	add(cs, command{method: "KvCleanup", kind: write},
		func(q *kvrpcpb.CleanupRequest) inside { return one(q.Key) }, e.Cleanup,
		func(p *kvrpcpb.CleanupResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Cleanup{Cleanup: p}}
		})
	add(cs, command{method: "KvFlush", kind: write},
		func(q *kvrpcpb.FlushRequest) inside {
			in := inside{keys: make([][]byte, len(q.Mutations))}
			for i, m := range q.Mutations {
				in.keys[i] = m.GetKey()
			}
			return in
		}, e.Flush,
		func(p *kvrpcpb.FlushResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Flush{Flush: p}}
		})
	add(cs, command{method: "KvTxnHeartBeat", kind: write},
		func(q *kvrpcpb.TxnHeartBeatRequest) inside { return one(q.PrimaryLock) }, e.TxnHeartBeat,
		func(p *kvrpcpb.TxnHeartBeatResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_TxnHeartBeat{TxnHeartBeat: p}}
		})
}

// addResolving lists the requests by which one transaction settles another.
func (s *Store) addResolving(cs commands) {
	e := s.Txn
	add(cs, command{method: "KvCheckTxnStatus", kind: write},
		func(q *kvrpcpb.CheckTxnStatusRequest) inside { return one(q.PrimaryKey) }, e.CheckTxnStatus,
		func(p *kvrpcpb.CheckTxnStatusResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_CheckTxnStatus{CheckTxnStatus: p}}
		})
	add(cs, command{method: "KvCheckSecondaryLocks", kind: write},
		func(q *kvrpcpb.CheckSecondaryLocksRequest) inside { return several(q.Keys) }, e.CheckSecondaryLocks,
		func(p *kvrpcpb.CheckSecondaryLocksResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_CheckSecondaryLocks{CheckSecondaryLocks: p}}
		})
	add(cs, command{method: "KvResolveLock", kind: write},
		func(q *kvrpcpb.ResolveLockRequest) inside { return several(q.Keys) }, e.ResolveLock,
		func(p *kvrpcpb.ResolveLockResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_ResolveLock{ResolveLock: p}}
		})
	add(cs, command{method: "BroadcastTxnStatus", kind: local}, nothing,
		func(ctx context.Context, _ keys.Range, q *kvrpcpb.BroadcastTxnStatusRequest) *kvrpcpb.BroadcastTxnStatusResponse {
			return e.BroadcastTxnStatus(ctx, q)
		},
		func(p *kvrpcpb.BroadcastTxnStatusResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_BroadcastTxnStatus{BroadcastTxnStatus: p}}
		})
	add(cs, command{method: "KvDeleteRange", kind: blind},
		func(q *kvrpcpb.DeleteRangeRequest) inside {
			return inside{ranges: []keys.Range{{Start: q.StartKey, End: q.EndKey}}}
		}, e.DeleteRange,
		func(p *kvrpcpb.DeleteRangeResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_DeleteRange{DeleteRange: p}}
		})
	add(cs, command{method: "UnsafeDestroyRange", kind: local}, nothing,
		func(ctx context.Context, _ keys.Range, q *kvrpcpb.UnsafeDestroyRangeRequest) *kvrpcpb.UnsafeDestroyRangeResponse {
			return e.UnsafeDestroyRange(ctx, q)
		}, nil)
	add(cs, command{method: "Compact", kind: local}, nothing, compact, nil)
}

// compact answers Compact, which is TiFlash's: TiKV has no such call. There is never
// anything to compact here, so that each ends where it began, with nothing left to do.
func compact(_ context.Context, _ keys.Range, q *kvrpcpb.CompactRequest) *kvrpcpb.CompactResponse {
	return &kvrpcpb.CompactResponse{CompactedStartKey: q.StartKey, CompactedEndKey: q.StartKey}
}
