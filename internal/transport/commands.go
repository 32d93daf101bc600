package transport

import (
	"reflect"
	"slices"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/mpp"
	"google.golang.org/protobuf/encoding/protowire"
)

// command is what the transport knows of one TiKV request type.
type command struct {
	method string       // of the service, full
	resp   reflect.Type // of its response's struct

	// number is the command's field in the messages of the batched stream (kvproto
	// tikvpb.proto, BatchCommandsRequest.Request and BatchCommandsResponse.Response);
	// 0: the stream does not know it.
	number protowire.Number
	stays  bool // no store passes it on to another
	shares bool // a decoded response refers to the bytes it was decoded from
}

const service = "/tikvpb.Tikv/"

// row is a line of the table of commands.
type row struct {
	method    string
	number    protowire.Number
	req, resp Message // of the types, nil
}

// newCommands returns all commands by the type of their request. Those that the
// official client also sends alone are so here.
func newCommands() map[reflect.Type]*command {
	t := make(map[reflect.Type]*command)
	for _, r := range rows() {
		t[reflect.TypeOf(r.req)] = &command{
			method: service + r.method, number: r.number, resp: reflect.TypeOf(r.resp).Elem(),
			stays: slices.Contains(notForwarded[:], r.method),
		}
	}
	// kvproto lets these refer to the bytes they are decoded from (pkg/sharedbytes).
	t[reflect.TypeFor[*coprocessor.Request]()].shares = true
	return t
}

// reply returns a new response.
func (c *command) reply() Message {
	m, _ := reflect.New(c.resp).Interface().(Message) // a row's
	return m
}

// rows is data and no code, which is smaller.
func rows() []row {
	return []row{
		{"KvGet", 1, (*kvrpcpb.GetRequest)(nil), (*kvrpcpb.GetResponse)(nil)},
		{"KvScan", 2, (*kvrpcpb.ScanRequest)(nil), (*kvrpcpb.ScanResponse)(nil)},
		{"KvPrewrite", 3, (*kvrpcpb.PrewriteRequest)(nil), (*kvrpcpb.PrewriteResponse)(nil)},
		{"KvCommit", 4, (*kvrpcpb.CommitRequest)(nil), (*kvrpcpb.CommitResponse)(nil)},
		{"KvCleanup", 6, (*kvrpcpb.CleanupRequest)(nil), (*kvrpcpb.CleanupResponse)(nil)},
		{"KvBatchGet", 7, (*kvrpcpb.BatchGetRequest)(nil), (*kvrpcpb.BatchGetResponse)(nil)},
		{"KvBatchRollback", 8, (*kvrpcpb.BatchRollbackRequest)(nil), (*kvrpcpb.BatchRollbackResponse)(nil)},
		{"KvScanLock", 9, (*kvrpcpb.ScanLockRequest)(nil), (*kvrpcpb.ScanLockResponse)(nil)},
		{"KvResolveLock", 10, (*kvrpcpb.ResolveLockRequest)(nil), (*kvrpcpb.ResolveLockResponse)(nil)},
		{"KvDeleteRange", 12, (*kvrpcpb.DeleteRangeRequest)(nil), (*kvrpcpb.DeleteRangeResponse)(nil)},
		{"RawGet", 13, (*kvrpcpb.RawGetRequest)(nil), (*kvrpcpb.RawGetResponse)(nil)},
		{"RawBatchGet", 14, (*kvrpcpb.RawBatchGetRequest)(nil), (*kvrpcpb.RawBatchGetResponse)(nil)},
		{"RawPut", 15, (*kvrpcpb.RawPutRequest)(nil), (*kvrpcpb.RawPutResponse)(nil)},
		{"RawBatchPut", 16, (*kvrpcpb.RawBatchPutRequest)(nil), (*kvrpcpb.RawBatchPutResponse)(nil)},
		{"RawDelete", 17, (*kvrpcpb.RawDeleteRequest)(nil), (*kvrpcpb.RawDeleteResponse)(nil)},
		{"RawBatchDelete", 18, (*kvrpcpb.RawBatchDeleteRequest)(nil), (*kvrpcpb.RawBatchDeleteResponse)(nil)},
		{"RawScan", 19, (*kvrpcpb.RawScanRequest)(nil), (*kvrpcpb.RawScanResponse)(nil)},
		{"RawDeleteRange", 20, (*kvrpcpb.RawDeleteRangeRequest)(nil), (*kvrpcpb.RawDeleteRangeResponse)(nil)},
		{"RawBatchScan", 21, (*kvrpcpb.RawBatchScanRequest)(nil), (*kvrpcpb.RawBatchScanResponse)(nil)},
		{"Coprocessor", 22, (*coprocessor.Request)(nil), (*coprocessor.Response)(nil)},
		{"KvPessimisticLock", 23, (*kvrpcpb.PessimisticLockRequest)(nil), (*kvrpcpb.PessimisticLockResponse)(nil)},
		{"KVPessimisticRollback", 24, (*kvrpcpb.PessimisticRollbackRequest)(nil), (*kvrpcpb.PessimisticRollbackResponse)(nil)},
		{"KvCheckTxnStatus", 25, (*kvrpcpb.CheckTxnStatusRequest)(nil), (*kvrpcpb.CheckTxnStatusResponse)(nil)},
		{"KvTxnHeartBeat", 26, (*kvrpcpb.TxnHeartBeatRequest)(nil), (*kvrpcpb.TxnHeartBeatResponse)(nil)},
		{"KvCheckSecondaryLocks", 33, (*kvrpcpb.CheckSecondaryLocksRequest)(nil), (*kvrpcpb.CheckSecondaryLocksResponse)(nil)},
		{"RawCoprocessor", 34, (*kvrpcpb.RawCoprocessorRequest)(nil), (*kvrpcpb.RawCoprocessorResponse)(nil)},
		{"KvFlashbackToVersion", 35, (*kvrpcpb.FlashbackToVersionRequest)(nil), (*kvrpcpb.FlashbackToVersionResponse)(nil)},
		{"KvPrepareFlashbackToVersion", 36, (*kvrpcpb.PrepareFlashbackToVersionRequest)(nil), (*kvrpcpb.PrepareFlashbackToVersionResponse)(nil)},
		{"KvFlush", 37, (*kvrpcpb.FlushRequest)(nil), (*kvrpcpb.FlushResponse)(nil)},
		{"KvBufferBatchGet", 38, (*kvrpcpb.BufferBatchGetRequest)(nil), (*kvrpcpb.BufferBatchGetResponse)(nil)},
		{"GetHealthFeedback", 39, (*kvrpcpb.GetHealthFeedbackRequest)(nil), (*kvrpcpb.GetHealthFeedbackResponse)(nil)},
		{"BroadcastTxnStatus", 40, (*kvrpcpb.BroadcastTxnStatusRequest)(nil), (*kvrpcpb.BroadcastTxnStatusResponse)(nil)},
		{"RawGetKeyTTL", 0, (*kvrpcpb.RawGetKeyTTLRequest)(nil), (*kvrpcpb.RawGetKeyTTLResponse)(nil)},
		{"RawCompareAndSwap", 0, (*kvrpcpb.RawCASRequest)(nil), (*kvrpcpb.RawCASResponse)(nil)},
		{"RawChecksum", 0, (*kvrpcpb.RawChecksumRequest)(nil), (*kvrpcpb.RawChecksumResponse)(nil)},
		{"UnsafeDestroyRange", 0, (*kvrpcpb.UnsafeDestroyRangeRequest)(nil), (*kvrpcpb.UnsafeDestroyRangeResponse)(nil)},
		{"RegisterLockObserver", 0, (*kvrpcpb.RegisterLockObserverRequest)(nil), (*kvrpcpb.RegisterLockObserverResponse)(nil)},
		{"CheckLockObserver", 0, (*kvrpcpb.CheckLockObserverRequest)(nil), (*kvrpcpb.CheckLockObserverResponse)(nil)},
		{"RemoveLockObserver", 0, (*kvrpcpb.RemoveLockObserverRequest)(nil), (*kvrpcpb.RemoveLockObserverResponse)(nil)},
		{"PhysicalScanLock", 0, (*kvrpcpb.PhysicalScanLockRequest)(nil), (*kvrpcpb.PhysicalScanLockResponse)(nil)},
		{"SplitRegion", 0, (*kvrpcpb.SplitRegionRequest)(nil), (*kvrpcpb.SplitRegionResponse)(nil)},
		{"MvccGetByKey", 0, (*kvrpcpb.MvccGetByKeyRequest)(nil), (*kvrpcpb.MvccGetByKeyResponse)(nil)},
		{"MvccGetByStartTs", 0, (*kvrpcpb.MvccGetByStartTsRequest)(nil), (*kvrpcpb.MvccGetByStartTsResponse)(nil)},
		{"GetStoreSafeTS", 0, (*kvrpcpb.StoreSafeTSRequest)(nil), (*kvrpcpb.StoreSafeTSResponse)(nil)},
		{"GetLockWaitInfo", 0, (*kvrpcpb.GetLockWaitInfoRequest)(nil), (*kvrpcpb.GetLockWaitInfoResponse)(nil)},
		{"GetLockWaitHistory", 0, (*kvrpcpb.GetLockWaitHistoryRequest)(nil), (*kvrpcpb.GetLockWaitHistoryResponse)(nil)},
		{"Compact", 0, (*kvrpcpb.CompactRequest)(nil), (*kvrpcpb.CompactResponse)(nil)},
		{"DispatchMPPTask", 0, (*mpp.DispatchTaskRequest)(nil), (*mpp.DispatchTaskResponse)(nil)},
		{"CancelMPPTask", 0, (*mpp.CancelTaskRequest)(nil), (*mpp.CancelTaskResponse)(nil)},
		{"IsAlive", 0, (*mpp.IsAliveRequest)(nil), (*mpp.IsAliveResponse)(nil)},
		{"ReportMPPTaskStatus", 0, (*mpp.ReportTaskStatusRequest)(nil), (*mpp.ReportTaskStatusResponse)(nil)},
		{"GetTiFlashSystemTable", 0, (*kvrpcpb.TiFlashSystemTableRequest)(nil), (*kvrpcpb.TiFlashSystemTableResponse)(nil)},
		{"GetEstimateTiCICount", 0, (*coprocessor.TiCIEstimateCountRequest)(nil), (*coprocessor.TiCIEstimateCountResponse)(nil)},
	}
}
