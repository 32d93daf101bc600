package transport

import (
	"reflect"
	"slices"
	"strings"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/mpp"
	"google.golang.org/protobuf/encoding/protowire"
)

// command is what the transport knows of one TiKV request type.
type command struct {
	method string         // of the service, full
	reply  func() Message // a new response

	// number is the command's field in the messages of the batched stream (kvproto
	// tikvpb.proto, BatchCommandsRequest.Request and BatchCommandsResponse.Response);
	// 0: the stream does not know it.
	number protowire.Number
	stays  bool // no store passes it on to another
	shares bool // a decoded response refers to the bytes it was decoded from
}

const service = "/tikvpb.Tikv/"

// batched describes a command of the stream.
func batched[Q, R any, PQ pointer[Q], PR pointer[R]](table map[reflect.Type]*command, method string, number protowire.Number) {
	alone[Q, R, PQ, PR](table, method)
	table[reflect.TypeFor[PQ]()].number = number
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
	for _, c := range t {
		c.stays = slices.Contains(notForwarded[:], strings.TrimPrefix(c.method, service))
	}
	return t
}

func addBatched(t map[reflect.Type]*command) {
	batched[kvrpcpb.GetRequest, kvrpcpb.GetResponse](t, "KvGet", 1)
	batched[kvrpcpb.ScanRequest, kvrpcpb.ScanResponse](t, "KvScan", 2)
	batched[kvrpcpb.PrewriteRequest, kvrpcpb.PrewriteResponse](t, "KvPrewrite", 3)
	batched[kvrpcpb.CommitRequest, kvrpcpb.CommitResponse](t, "KvCommit", 4)
	batched[kvrpcpb.CleanupRequest, kvrpcpb.CleanupResponse](t, "KvCleanup", 6)
	batched[kvrpcpb.BatchGetRequest, kvrpcpb.BatchGetResponse](t, "KvBatchGet", 7)
	batched[kvrpcpb.BatchRollbackRequest, kvrpcpb.BatchRollbackResponse](t, "KvBatchRollback", 8)
	batched[kvrpcpb.ScanLockRequest, kvrpcpb.ScanLockResponse](t, "KvScanLock", 9)
	batched[kvrpcpb.ResolveLockRequest, kvrpcpb.ResolveLockResponse](t, "KvResolveLock", 10)
	batched[kvrpcpb.DeleteRangeRequest, kvrpcpb.DeleteRangeResponse](t, "KvDeleteRange", 12)
	batched[kvrpcpb.RawGetRequest, kvrpcpb.RawGetResponse](t, "RawGet", 13)
	batched[kvrpcpb.RawBatchGetRequest, kvrpcpb.RawBatchGetResponse](t, "RawBatchGet", 14)
	batched[kvrpcpb.RawPutRequest, kvrpcpb.RawPutResponse](t, "RawPut", 15)
	batched[kvrpcpb.RawBatchPutRequest, kvrpcpb.RawBatchPutResponse](t, "RawBatchPut", 16)
	batched[kvrpcpb.RawDeleteRequest, kvrpcpb.RawDeleteResponse](t, "RawDelete", 17)
	batched[kvrpcpb.RawBatchDeleteRequest, kvrpcpb.RawBatchDeleteResponse](t, "RawBatchDelete", 18)
	batched[kvrpcpb.RawScanRequest, kvrpcpb.RawScanResponse](t, "RawScan", 19)
	batched[kvrpcpb.RawDeleteRangeRequest, kvrpcpb.RawDeleteRangeResponse](t, "RawDeleteRange", 20)
	batched[kvrpcpb.RawBatchScanRequest, kvrpcpb.RawBatchScanResponse](t, "RawBatchScan", 21)
	batched[coprocessor.Request, coprocessor.Response](t, "Coprocessor", 22)
	batched[kvrpcpb.PessimisticLockRequest, kvrpcpb.PessimisticLockResponse](t, "KvPessimisticLock", 23)
	batched[kvrpcpb.PessimisticRollbackRequest, kvrpcpb.PessimisticRollbackResponse](t, "KVPessimisticRollback", 24)
	batched[kvrpcpb.CheckTxnStatusRequest, kvrpcpb.CheckTxnStatusResponse](t, "KvCheckTxnStatus", 25)
	batched[kvrpcpb.TxnHeartBeatRequest, kvrpcpb.TxnHeartBeatResponse](t, "KvTxnHeartBeat", 26)
	batched[kvrpcpb.CheckSecondaryLocksRequest, kvrpcpb.CheckSecondaryLocksResponse](t, "KvCheckSecondaryLocks", 33)
	batched[kvrpcpb.RawCoprocessorRequest, kvrpcpb.RawCoprocessorResponse](t, "RawCoprocessor", 34)
	batched[kvrpcpb.FlashbackToVersionRequest, kvrpcpb.FlashbackToVersionResponse](t, "KvFlashbackToVersion", 35)
	batched[kvrpcpb.PrepareFlashbackToVersionRequest, kvrpcpb.PrepareFlashbackToVersionResponse](t, "KvPrepareFlashbackToVersion", 36)
	batched[kvrpcpb.FlushRequest, kvrpcpb.FlushResponse](t, "KvFlush", 37)
	batched[kvrpcpb.BufferBatchGetRequest, kvrpcpb.BufferBatchGetResponse](t, "KvBufferBatchGet", 38)
	batched[kvrpcpb.GetHealthFeedbackRequest, kvrpcpb.GetHealthFeedbackResponse](t, "GetHealthFeedback", 39)
	batched[kvrpcpb.BroadcastTxnStatusRequest, kvrpcpb.BroadcastTxnStatusResponse](t, "BroadcastTxnStatus", 40)
	// kvproto lets these refer to the bytes they are decoded from (pkg/sharedbytes).
	t[reflect.TypeFor[*coprocessor.Request]()].shares = true
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
	alone[mpp.DispatchTaskRequest, mpp.DispatchTaskResponse](t, "DispatchMPPTask")
	alone[mpp.CancelTaskRequest, mpp.CancelTaskResponse](t, "CancelMPPTask")
	alone[mpp.IsAliveRequest, mpp.IsAliveResponse](t, "IsAlive")
	alone[mpp.ReportTaskStatusRequest, mpp.ReportTaskStatusResponse](t, "ReportMPPTaskStatus")
	alone[kvrpcpb.TiFlashSystemTableRequest, kvrpcpb.TiFlashSystemTableResponse](t, "GetTiFlashSystemTable")
	alone[coprocessor.TiCIEstimateCountRequest, coprocessor.TiCIEstimateCountResponse](t, "GetEstimateTiCICount")
}
