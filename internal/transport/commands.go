package transport

import (
	"reflect"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
)

// command is what the transport knows of one TiKV request type.
type command struct {
	method string         // of the service, full
	reply  func() Message // a new response

	// Set for commands of the batched stream alone: how the request enters its
	// message, and how the response leaves its own, nil if it is another's.
	wrap   func(*request, Message)
	unwrap func(*response) Message
}

type (
	request  = tikvpb.BatchCommandsRequest_Request
	response = tikvpb.BatchCommandsResponse_Response
)

const service = "/tikvpb.Tikv/"

// batched describes a command of the stream.
func batched[Q, R any, PQ pointer[Q], PR pointer[R]](table map[reflect.Type]*command, method string,
	wrap func(*request, PQ), unwrap func(*response) PR) {
	table[reflect.TypeFor[PQ]()] = &command{
		method: service + method,
		reply:  func() Message { return PR(new(R)) },
		wrap:   func(b *request, m Message) { wrap(b, m.(PQ)) },
		unwrap: func(b *response) Message {
			if m := unwrap(b); m != nil {
				return m
			}
			return nil
		},
	}
}

// alone describes a command that the stream does not know.
func alone[Q, R any, PQ pointer[Q], PR pointer[R]](table map[reflect.Type]*command, method string) {
	table[reflect.TypeFor[PQ]()] = &command{
		method: service + method,
		reply:  func() Message { return PR(new(R)) },
	}
}

type pointer[T any] interface {
	*T
	Message
}

// newCommands returns all commands by the type of their request. Those that the
// official client also sends alone are so here.
func newCommands() map[reflect.Type]*command {
	t := make(map[reflect.Type]*command)
	addBatched(t)
	addAlone(t)
	return t
}

func addBatched(t map[reflect.Type]*command) {
	batched(t, "KvGet", func(b *request, m *kvrpcpb.GetRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_Get{Get: m}
	}, (*response).GetGet)
	batched(t, "KvScan", func(b *request, m *kvrpcpb.ScanRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_Scan{Scan: m}
	}, (*response).GetScan)
	batched(t, "KvPrewrite", func(b *request, m *kvrpcpb.PrewriteRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_Prewrite{Prewrite: m}
	}, (*response).GetPrewrite)
	batched(t, "KvPessimisticLock", func(b *request, m *kvrpcpb.PessimisticLockRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_PessimisticLock{PessimisticLock: m}
	}, (*response).GetPessimisticLock)
	batched(t, "KVPessimisticRollback", func(b *request, m *kvrpcpb.PessimisticRollbackRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_PessimisticRollback{PessimisticRollback: m}
	}, (*response).GetPessimisticRollback)
	batched(t, "KvTxnHeartBeat", func(b *request, m *kvrpcpb.TxnHeartBeatRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_TxnHeartBeat{TxnHeartBeat: m}
	}, (*response).GetTxnHeartBeat)
	batched(t, "KvCheckTxnStatus", func(b *request, m *kvrpcpb.CheckTxnStatusRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_CheckTxnStatus{CheckTxnStatus: m}
	}, (*response).GetCheckTxnStatus)
	batched(t, "KvCheckSecondaryLocks", func(b *request, m *kvrpcpb.CheckSecondaryLocksRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_CheckSecondaryLocks{CheckSecondaryLocks: m}
	}, (*response).GetCheckSecondaryLocks)
	batched(t, "KvCommit", func(b *request, m *kvrpcpb.CommitRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_Commit{Commit: m}
	}, (*response).GetCommit)
	batched(t, "KvCleanup", func(b *request, m *kvrpcpb.CleanupRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_Cleanup{Cleanup: m}
	}, (*response).GetCleanup)
	batched(t, "KvBatchGet", func(b *request, m *kvrpcpb.BatchGetRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_BatchGet{BatchGet: m}
	}, (*response).GetBatchGet)
	batched(t, "KvBatchRollback", func(b *request, m *kvrpcpb.BatchRollbackRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_BatchRollback{BatchRollback: m}
	}, (*response).GetBatchRollback)
	batched(t, "KvScanLock", func(b *request, m *kvrpcpb.ScanLockRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_ScanLock{ScanLock: m}
	}, (*response).GetScanLock)
	batched(t, "KvResolveLock", func(b *request, m *kvrpcpb.ResolveLockRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_ResolveLock{ResolveLock: m}
	}, (*response).GetResolveLock)
	batched(t, "KvDeleteRange", func(b *request, m *kvrpcpb.DeleteRangeRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_DeleteRange{DeleteRange: m}
	}, (*response).GetDeleteRange)
	batched(t, "KvPrepareFlashbackToVersion", func(b *request, m *kvrpcpb.PrepareFlashbackToVersionRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_PrepareFlashbackToVersion{PrepareFlashbackToVersion: m}
	}, (*response).GetPrepareFlashbackToVersion)
	batched(t, "KvFlashbackToVersion", func(b *request, m *kvrpcpb.FlashbackToVersionRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_FlashbackToVersion{FlashbackToVersion: m}
	}, (*response).GetFlashbackToVersion)
	batched(t, "KvFlush", func(b *request, m *kvrpcpb.FlushRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_Flush{Flush: m}
	}, (*response).GetFlush)
	batched(t, "KvBufferBatchGet", func(b *request, m *kvrpcpb.BufferBatchGetRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_BufferBatchGet{BufferBatchGet: m}
	}, (*response).GetBufferBatchGet)
	batched(t, "RawGet", func(b *request, m *kvrpcpb.RawGetRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_RawGet{RawGet: m}
	}, (*response).GetRawGet)
	batched(t, "RawBatchGet", func(b *request, m *kvrpcpb.RawBatchGetRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_RawBatchGet{RawBatchGet: m}
	}, (*response).GetRawBatchGet)
	batched(t, "RawPut", func(b *request, m *kvrpcpb.RawPutRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_RawPut{RawPut: m}
	}, (*response).GetRawPut)
	batched(t, "RawBatchPut", func(b *request, m *kvrpcpb.RawBatchPutRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_RawBatchPut{RawBatchPut: m}
	}, (*response).GetRawBatchPut)
	batched(t, "RawDelete", func(b *request, m *kvrpcpb.RawDeleteRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_RawDelete{RawDelete: m}
	}, (*response).GetRawDelete)
	batched(t, "RawBatchDelete", func(b *request, m *kvrpcpb.RawBatchDeleteRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_RawBatchDelete{RawBatchDelete: m}
	}, (*response).GetRawBatchDelete)
	batched(t, "RawScan", func(b *request, m *kvrpcpb.RawScanRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_RawScan{RawScan: m}
	}, (*response).GetRawScan)
	batched(t, "RawDeleteRange", func(b *request, m *kvrpcpb.RawDeleteRangeRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_RawDeleteRange{RawDeleteRange: m}
	}, (*response).GetRawDeleteRange)
	batched(t, "RawBatchScan", func(b *request, m *kvrpcpb.RawBatchScanRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_RawBatchScan{RawBatchScan: m}
	}, (*response).GetRawBatchScan)
	batched(t, "RawCoprocessor", func(b *request, m *kvrpcpb.RawCoprocessorRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_RawCoprocessor{RawCoprocessor: m}
	}, (*response).GetRawCoprocessor)
	batched(t, "GetHealthFeedback", func(b *request, m *kvrpcpb.GetHealthFeedbackRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_GetHealthFeedback{GetHealthFeedback: m}
	}, (*response).GetGetHealthFeedback)
	batched(t, "BroadcastTxnStatus", func(b *request, m *kvrpcpb.BroadcastTxnStatusRequest) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_BroadcastTxnStatus{BroadcastTxnStatus: m}
	}, (*response).GetBroadcastTxnStatus)
	batched(t, "Coprocessor", func(b *request, m *coprocessor.Request) {
		b.Cmd = &tikvpb.BatchCommandsRequest_Request_Coprocessor{Coprocessor: m}
	}, (*response).GetCoprocessor)
}

func addAlone(t map[reflect.Type]*command) {
	alone[kvrpcpb.RawGetKeyTTLRequest, kvrpcpb.RawGetKeyTTLResponse](t, "RawGetKeyTTL")
	alone[kvrpcpb.RawCASRequest, kvrpcpb.RawCASResponse](t, "RawCompareAndSwap")
	alone[kvrpcpb.RawChecksumRequest, kvrpcpb.RawChecksumResponse](t, "RawChecksum")
	alone[kvrpcpb.UnsafeDestroyRangeRequest, kvrpcpb.UnsafeDestroyRangeResponse](t, "UnsafeDestroyRange")
	alone[kvrpcpb.RegisterLockObserverRequest, kvrpcpb.RegisterLockObserverResponse](t, "RegisterLockObserver")
	alone[kvrpcpb.CheckLockObserverRequest, kvrpcpb.CheckLockObserverResponse](t, "CheckLockObserver")
	alone[kvrpcpb.RemoveLockObserverRequest, kvrpcpb.RemoveLockObserverResponse](t, "RemoveLockObserver")
	alone[kvrpcpb.PhysicalScanLockRequest, kvrpcpb.PhysicalScanLockResponse](t, "PhysicalScanLock")
	alone[kvrpcpb.SplitRegionRequest, kvrpcpb.SplitRegionResponse](t, "SplitRegion")
	alone[kvrpcpb.MvccGetByKeyRequest, kvrpcpb.MvccGetByKeyResponse](t, "MvccGetByKey")
	alone[kvrpcpb.MvccGetByStartTsRequest, kvrpcpb.MvccGetByStartTsResponse](t, "MvccGetByStartTs")
	alone[kvrpcpb.StoreSafeTSRequest, kvrpcpb.StoreSafeTSResponse](t, "GetStoreSafeTS")
	alone[kvrpcpb.GetLockWaitInfoRequest, kvrpcpb.GetLockWaitInfoResponse](t, "GetLockWaitInfo")
	alone[kvrpcpb.GetLockWaitHistoryRequest, kvrpcpb.GetLockWaitHistoryResponse](t, "GetLockWaitHistory")
	alone[kvrpcpb.CompactRequest, kvrpcpb.CompactResponse](t, "Compact")
}
