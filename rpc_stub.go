package tikv

import (
	"context"
	"errors"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/disaggregated"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/mpp"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/internal/transport"
)

// stub is the service's client that the method of an any-request call is given. It notes
// which method was called; a stream it begins, if it has a place to.
type stub struct {
	method string // the service's name for it
	stream bool

	pool   *transport.Pool // nil: nothing is begun
	to     transport.Target
	opened *transport.Stream
}

var _ tikvpb.TikvClient = (*stub)(nil)

var errStub = errors.New("tikv: not sent")

func one[R any](s *stub, method string) (*R, error) {
	s.method = method
	return nil, errStub
}

func none[S any](s *stub, method string) (stream S, err error) {
	s.method = method
	return stream, errStub
}

// messages are the answers of a stream.
type messages[R any] struct{ grpc.ClientStream }

// Recv implements the clients of the service's streams.
func (m messages[R]) Recv() (*R, error) {
	resp := new(R)
	if err := m.RecvMsg(resp); err != nil {
		return nil, err
	}
	return resp, nil
}

func many[R any](ctx context.Context, s *stub, method string, req any) (m messages[R], err error) {
	s.method, s.stream = method, true
	if s.pool == nil {
		return m, errStub
	}
	if s.opened, err = s.pool.Stream(ctx, s.to, &grpc.StreamDesc{ServerStreams: true}, service+method); err != nil {
		return m, err
	}
	if err = s.opened.SendMsg(req); err == nil {
		err = s.opened.CloseSend()
	}
	return messages[R]{s.opened}, err
}

func (s *stub) BroadcastTxnStatus(context.Context, *kvrpcpb.BroadcastTxnStatusRequest, ...grpc.CallOption) (*kvrpcpb.BroadcastTxnStatusResponse, error) {
	return one[kvrpcpb.BroadcastTxnStatusResponse](s, "BroadcastTxnStatus")
}
func (s *stub) CancelDisaggTask(context.Context, *disaggregated.CancelDisaggTaskRequest, ...grpc.CallOption) (*disaggregated.CancelDisaggTaskResponse, error) {
	return one[disaggregated.CancelDisaggTaskResponse](s, "CancelDisaggTask")
}
func (s *stub) CancelMPPTask(context.Context, *mpp.CancelTaskRequest, ...grpc.CallOption) (*mpp.CancelTaskResponse, error) {
	return one[mpp.CancelTaskResponse](s, "CancelMPPTask")
}
func (s *stub) CheckLeader(context.Context, *kvrpcpb.CheckLeaderRequest, ...grpc.CallOption) (*kvrpcpb.CheckLeaderResponse, error) {
	return one[kvrpcpb.CheckLeaderResponse](s, "CheckLeader")
}
func (s *stub) CheckLockObserver(context.Context, *kvrpcpb.CheckLockObserverRequest, ...grpc.CallOption) (*kvrpcpb.CheckLockObserverResponse, error) {
	return one[kvrpcpb.CheckLockObserverResponse](s, "CheckLockObserver")
}
func (s *stub) Compact(context.Context, *kvrpcpb.CompactRequest, ...grpc.CallOption) (*kvrpcpb.CompactResponse, error) {
	return one[kvrpcpb.CompactResponse](s, "Compact")
}
func (s *stub) Coprocessor(context.Context, *coprocessor.Request, ...grpc.CallOption) (*coprocessor.Response, error) {
	return one[coprocessor.Response](s, "Coprocessor")
}
func (s *stub) DelegateCoprocessor(context.Context, *coprocessor.DelegateRequest, ...grpc.CallOption) (*coprocessor.DelegateResponse, error) {
	return one[coprocessor.DelegateResponse](s, "DelegateCoprocessor")
}
func (s *stub) DispatchMPPTask(context.Context, *mpp.DispatchTaskRequest, ...grpc.CallOption) (*mpp.DispatchTaskResponse, error) {
	return one[mpp.DispatchTaskResponse](s, "DispatchMPPTask")
}
func (s *stub) EstablishDisaggTask(context.Context, *disaggregated.EstablishDisaggTaskRequest, ...grpc.CallOption) (*disaggregated.EstablishDisaggTaskResponse, error) {
	return one[disaggregated.EstablishDisaggTaskResponse](s, "EstablishDisaggTask")
}
func (s *stub) GetDisaggConfig(context.Context, *disaggregated.GetDisaggConfigRequest, ...grpc.CallOption) (*disaggregated.GetDisaggConfigResponse, error) {
	return one[disaggregated.GetDisaggConfigResponse](s, "GetDisaggConfig")
}
func (s *stub) GetEstimateTiCICount(context.Context, *coprocessor.TiCIEstimateCountRequest, ...grpc.CallOption) (*coprocessor.TiCIEstimateCountResponse, error) {
	return one[coprocessor.TiCIEstimateCountResponse](s, "GetEstimateTiCICount")
}
func (s *stub) GetHealthFeedback(context.Context, *kvrpcpb.GetHealthFeedbackRequest, ...grpc.CallOption) (*kvrpcpb.GetHealthFeedbackResponse, error) {
	return one[kvrpcpb.GetHealthFeedbackResponse](s, "GetHealthFeedback")
}
func (s *stub) GetLockWaitHistory(context.Context, *kvrpcpb.GetLockWaitHistoryRequest, ...grpc.CallOption) (*kvrpcpb.GetLockWaitHistoryResponse, error) {
	return one[kvrpcpb.GetLockWaitHistoryResponse](s, "GetLockWaitHistory")
}
func (s *stub) GetLockWaitInfo(context.Context, *kvrpcpb.GetLockWaitInfoRequest, ...grpc.CallOption) (*kvrpcpb.GetLockWaitInfoResponse, error) {
	return one[kvrpcpb.GetLockWaitInfoResponse](s, "GetLockWaitInfo")
}
func (s *stub) GetStoreSafeTS(context.Context, *kvrpcpb.StoreSafeTSRequest, ...grpc.CallOption) (*kvrpcpb.StoreSafeTSResponse, error) {
	return one[kvrpcpb.StoreSafeTSResponse](s, "GetStoreSafeTS")
}
func (s *stub) GetTiFlashSystemTable(context.Context, *kvrpcpb.TiFlashSystemTableRequest, ...grpc.CallOption) (*kvrpcpb.TiFlashSystemTableResponse, error) {
	return one[kvrpcpb.TiFlashSystemTableResponse](s, "GetTiFlashSystemTable")
}
func (s *stub) IsAlive(context.Context, *mpp.IsAliveRequest, ...grpc.CallOption) (*mpp.IsAliveResponse, error) {
	return one[mpp.IsAliveResponse](s, "IsAlive")
}
func (s *stub) KVPessimisticRollback(context.Context, *kvrpcpb.PessimisticRollbackRequest, ...grpc.CallOption) (*kvrpcpb.PessimisticRollbackResponse, error) {
	return one[kvrpcpb.PessimisticRollbackResponse](s, "KVPessimisticRollback")
}
func (s *stub) KvBatchGet(context.Context, *kvrpcpb.BatchGetRequest, ...grpc.CallOption) (*kvrpcpb.BatchGetResponse, error) {
	return one[kvrpcpb.BatchGetResponse](s, "KvBatchGet")
}
func (s *stub) KvBatchRollback(context.Context, *kvrpcpb.BatchRollbackRequest, ...grpc.CallOption) (*kvrpcpb.BatchRollbackResponse, error) {
	return one[kvrpcpb.BatchRollbackResponse](s, "KvBatchRollback")
}
func (s *stub) KvBufferBatchGet(context.Context, *kvrpcpb.BufferBatchGetRequest, ...grpc.CallOption) (*kvrpcpb.BufferBatchGetResponse, error) {
	return one[kvrpcpb.BufferBatchGetResponse](s, "KvBufferBatchGet")
}
func (s *stub) KvCheckSecondaryLocks(context.Context, *kvrpcpb.CheckSecondaryLocksRequest, ...grpc.CallOption) (*kvrpcpb.CheckSecondaryLocksResponse, error) {
	return one[kvrpcpb.CheckSecondaryLocksResponse](s, "KvCheckSecondaryLocks")
}
func (s *stub) KvCheckTxnStatus(context.Context, *kvrpcpb.CheckTxnStatusRequest, ...grpc.CallOption) (*kvrpcpb.CheckTxnStatusResponse, error) {
	return one[kvrpcpb.CheckTxnStatusResponse](s, "KvCheckTxnStatus")
}
func (s *stub) KvCleanup(context.Context, *kvrpcpb.CleanupRequest, ...grpc.CallOption) (*kvrpcpb.CleanupResponse, error) {
	return one[kvrpcpb.CleanupResponse](s, "KvCleanup")
}
func (s *stub) KvCommit(context.Context, *kvrpcpb.CommitRequest, ...grpc.CallOption) (*kvrpcpb.CommitResponse, error) {
	return one[kvrpcpb.CommitResponse](s, "KvCommit")
}
func (s *stub) KvDeleteRange(context.Context, *kvrpcpb.DeleteRangeRequest, ...grpc.CallOption) (*kvrpcpb.DeleteRangeResponse, error) {
	return one[kvrpcpb.DeleteRangeResponse](s, "KvDeleteRange")
}
func (s *stub) KvFlashbackToVersion(context.Context, *kvrpcpb.FlashbackToVersionRequest, ...grpc.CallOption) (*kvrpcpb.FlashbackToVersionResponse, error) {
	return one[kvrpcpb.FlashbackToVersionResponse](s, "KvFlashbackToVersion")
}
func (s *stub) KvFlush(context.Context, *kvrpcpb.FlushRequest, ...grpc.CallOption) (*kvrpcpb.FlushResponse, error) {
	return one[kvrpcpb.FlushResponse](s, "KvFlush")
}
func (s *stub) KvGC(context.Context, *kvrpcpb.GCRequest, ...grpc.CallOption) (*kvrpcpb.GCResponse, error) {
	return one[kvrpcpb.GCResponse](s, "KvGC")
}
func (s *stub) KvGet(context.Context, *kvrpcpb.GetRequest, ...grpc.CallOption) (*kvrpcpb.GetResponse, error) {
	return one[kvrpcpb.GetResponse](s, "KvGet")
}
func (s *stub) KvImport(context.Context, *kvrpcpb.ImportRequest, ...grpc.CallOption) (*kvrpcpb.ImportResponse, error) {
	return one[kvrpcpb.ImportResponse](s, "KvImport")
}
func (s *stub) KvPessimisticLock(context.Context, *kvrpcpb.PessimisticLockRequest, ...grpc.CallOption) (*kvrpcpb.PessimisticLockResponse, error) {
	return one[kvrpcpb.PessimisticLockResponse](s, "KvPessimisticLock")
}
func (s *stub) KvPrepareFlashbackToVersion(context.Context, *kvrpcpb.PrepareFlashbackToVersionRequest, ...grpc.CallOption) (*kvrpcpb.PrepareFlashbackToVersionResponse, error) {
	return one[kvrpcpb.PrepareFlashbackToVersionResponse](s, "KvPrepareFlashbackToVersion")
}
func (s *stub) KvPrewrite(context.Context, *kvrpcpb.PrewriteRequest, ...grpc.CallOption) (*kvrpcpb.PrewriteResponse, error) {
	return one[kvrpcpb.PrewriteResponse](s, "KvPrewrite")
}
func (s *stub) KvResolveLock(context.Context, *kvrpcpb.ResolveLockRequest, ...grpc.CallOption) (*kvrpcpb.ResolveLockResponse, error) {
	return one[kvrpcpb.ResolveLockResponse](s, "KvResolveLock")
}
func (s *stub) KvScan(context.Context, *kvrpcpb.ScanRequest, ...grpc.CallOption) (*kvrpcpb.ScanResponse, error) {
	return one[kvrpcpb.ScanResponse](s, "KvScan")
}
func (s *stub) KvScanLock(context.Context, *kvrpcpb.ScanLockRequest, ...grpc.CallOption) (*kvrpcpb.ScanLockResponse, error) {
	return one[kvrpcpb.ScanLockResponse](s, "KvScanLock")
}
func (s *stub) KvTxnHeartBeat(context.Context, *kvrpcpb.TxnHeartBeatRequest, ...grpc.CallOption) (*kvrpcpb.TxnHeartBeatResponse, error) {
	return one[kvrpcpb.TxnHeartBeatResponse](s, "KvTxnHeartBeat")
}
func (s *stub) MvccGetByKey(context.Context, *kvrpcpb.MvccGetByKeyRequest, ...grpc.CallOption) (*kvrpcpb.MvccGetByKeyResponse, error) {
	return one[kvrpcpb.MvccGetByKeyResponse](s, "MvccGetByKey")
}
func (s *stub) MvccGetByStartTs(context.Context, *kvrpcpb.MvccGetByStartTsRequest, ...grpc.CallOption) (*kvrpcpb.MvccGetByStartTsResponse, error) {
	return one[kvrpcpb.MvccGetByStartTsResponse](s, "MvccGetByStartTs")
}
func (s *stub) PhysicalScanLock(context.Context, *kvrpcpb.PhysicalScanLockRequest, ...grpc.CallOption) (*kvrpcpb.PhysicalScanLockResponse, error) {
	return one[kvrpcpb.PhysicalScanLockResponse](s, "PhysicalScanLock")
}
func (s *stub) RawBatchDelete(context.Context, *kvrpcpb.RawBatchDeleteRequest, ...grpc.CallOption) (*kvrpcpb.RawBatchDeleteResponse, error) {
	return one[kvrpcpb.RawBatchDeleteResponse](s, "RawBatchDelete")
}
func (s *stub) RawBatchGet(context.Context, *kvrpcpb.RawBatchGetRequest, ...grpc.CallOption) (*kvrpcpb.RawBatchGetResponse, error) {
	return one[kvrpcpb.RawBatchGetResponse](s, "RawBatchGet")
}
func (s *stub) RawBatchPut(context.Context, *kvrpcpb.RawBatchPutRequest, ...grpc.CallOption) (*kvrpcpb.RawBatchPutResponse, error) {
	return one[kvrpcpb.RawBatchPutResponse](s, "RawBatchPut")
}
func (s *stub) RawBatchScan(context.Context, *kvrpcpb.RawBatchScanRequest, ...grpc.CallOption) (*kvrpcpb.RawBatchScanResponse, error) {
	return one[kvrpcpb.RawBatchScanResponse](s, "RawBatchScan")
}
func (s *stub) RawChecksum(context.Context, *kvrpcpb.RawChecksumRequest, ...grpc.CallOption) (*kvrpcpb.RawChecksumResponse, error) {
	return one[kvrpcpb.RawChecksumResponse](s, "RawChecksum")
}
func (s *stub) RawCompareAndSwap(context.Context, *kvrpcpb.RawCASRequest, ...grpc.CallOption) (*kvrpcpb.RawCASResponse, error) {
	return one[kvrpcpb.RawCASResponse](s, "RawCompareAndSwap")
}
func (s *stub) RawCoprocessor(context.Context, *kvrpcpb.RawCoprocessorRequest, ...grpc.CallOption) (*kvrpcpb.RawCoprocessorResponse, error) {
	return one[kvrpcpb.RawCoprocessorResponse](s, "RawCoprocessor")
}
func (s *stub) RawDelete(context.Context, *kvrpcpb.RawDeleteRequest, ...grpc.CallOption) (*kvrpcpb.RawDeleteResponse, error) {
	return one[kvrpcpb.RawDeleteResponse](s, "RawDelete")
}
func (s *stub) RawDeleteRange(context.Context, *kvrpcpb.RawDeleteRangeRequest, ...grpc.CallOption) (*kvrpcpb.RawDeleteRangeResponse, error) {
	return one[kvrpcpb.RawDeleteRangeResponse](s, "RawDeleteRange")
}
func (s *stub) RawGet(context.Context, *kvrpcpb.RawGetRequest, ...grpc.CallOption) (*kvrpcpb.RawGetResponse, error) {
	return one[kvrpcpb.RawGetResponse](s, "RawGet")
}
func (s *stub) RawGetKeyTTL(context.Context, *kvrpcpb.RawGetKeyTTLRequest, ...grpc.CallOption) (*kvrpcpb.RawGetKeyTTLResponse, error) {
	return one[kvrpcpb.RawGetKeyTTLResponse](s, "RawGetKeyTTL")
}
func (s *stub) RawPut(context.Context, *kvrpcpb.RawPutRequest, ...grpc.CallOption) (*kvrpcpb.RawPutResponse, error) {
	return one[kvrpcpb.RawPutResponse](s, "RawPut")
}
func (s *stub) RawScan(context.Context, *kvrpcpb.RawScanRequest, ...grpc.CallOption) (*kvrpcpb.RawScanResponse, error) {
	return one[kvrpcpb.RawScanResponse](s, "RawScan")
}
func (s *stub) ReadIndex(context.Context, *kvrpcpb.ReadIndexRequest, ...grpc.CallOption) (*kvrpcpb.ReadIndexResponse, error) {
	return one[kvrpcpb.ReadIndexResponse](s, "ReadIndex")
}
func (s *stub) RegisterLockObserver(context.Context, *kvrpcpb.RegisterLockObserverRequest, ...grpc.CallOption) (*kvrpcpb.RegisterLockObserverResponse, error) {
	return one[kvrpcpb.RegisterLockObserverResponse](s, "RegisterLockObserver")
}
func (s *stub) RemoveLockObserver(context.Context, *kvrpcpb.RemoveLockObserverRequest, ...grpc.CallOption) (*kvrpcpb.RemoveLockObserverResponse, error) {
	return one[kvrpcpb.RemoveLockObserverResponse](s, "RemoveLockObserver")
}
func (s *stub) ReportMPPTaskStatus(context.Context, *mpp.ReportTaskStatusRequest, ...grpc.CallOption) (*mpp.ReportTaskStatusResponse, error) {
	return one[mpp.ReportTaskStatusResponse](s, "ReportMPPTaskStatus")
}
func (s *stub) SplitRegion(context.Context, *kvrpcpb.SplitRegionRequest, ...grpc.CallOption) (*kvrpcpb.SplitRegionResponse, error) {
	return one[kvrpcpb.SplitRegionResponse](s, "SplitRegion")
}
func (s *stub) TryAddLock(context.Context, *disaggregated.TryAddLockRequest, ...grpc.CallOption) (*disaggregated.TryAddLockResponse, error) {
	return one[disaggregated.TryAddLockResponse](s, "tryAddLock")
}
func (s *stub) TryMarkDelete(context.Context, *disaggregated.TryMarkDeleteRequest, ...grpc.CallOption) (*disaggregated.TryMarkDeleteResponse, error) {
	return one[disaggregated.TryMarkDeleteResponse](s, "tryMarkDelete")
}
func (s *stub) UnsafeDestroyRange(context.Context, *kvrpcpb.UnsafeDestroyRangeRequest, ...grpc.CallOption) (*kvrpcpb.UnsafeDestroyRangeResponse, error) {
	return one[kvrpcpb.UnsafeDestroyRangeResponse](s, "UnsafeDestroyRange")
}

// Methods that answer with a stream.

func (s *stub) BatchCoprocessor(ctx context.Context, req *coprocessor.BatchRequest, _ ...grpc.CallOption) (tikvpb.Tikv_BatchCoprocessorClient, error) {
	return many[coprocessor.BatchResponse](ctx, s, "BatchCoprocessor", req)
}

func (s *stub) CoprocessorStream(ctx context.Context, req *coprocessor.Request, _ ...grpc.CallOption) (tikvpb.Tikv_CoprocessorStreamClient, error) {
	return many[coprocessor.Response](ctx, s, "CoprocessorStream", req)
}

func (s *stub) EstablishMPPConnection(ctx context.Context, req *mpp.EstablishMPPConnectionRequest, _ ...grpc.CallOption) (tikvpb.Tikv_EstablishMPPConnectionClient, error) {
	return many[mpp.MPPDataPacket](ctx, s, "EstablishMPPConnection", req)
}

func (s *stub) FetchDisaggPages(ctx context.Context, req *disaggregated.FetchDisaggPagesRequest, _ ...grpc.CallOption) (tikvpb.Tikv_FetchDisaggPagesClient, error) {
	return many[disaggregated.PagesPacket](ctx, s, "FetchDisaggPages", req)
}

// Methods whose requests are a stream: of stores among each other, and of transports.

func (s *stub) BatchCommands(context.Context, ...grpc.CallOption) (tikvpb.Tikv_BatchCommandsClient, error) {
	return none[tikvpb.Tikv_BatchCommandsClient](s, "BatchCommands")
}
func (s *stub) BatchRaft(context.Context, ...grpc.CallOption) (tikvpb.Tikv_BatchRaftClient, error) {
	return none[tikvpb.Tikv_BatchRaftClient](s, "BatchRaft")
}
func (s *stub) Raft(context.Context, ...grpc.CallOption) (tikvpb.Tikv_RaftClient, error) {
	return none[tikvpb.Tikv_RaftClient](s, "Raft")
}
func (s *stub) Snapshot(context.Context, ...grpc.CallOption) (tikvpb.Tikv_SnapshotClient, error) {
	return none[tikvpb.Tikv_SnapshotClient](s, "Snapshot")
}
func (s *stub) TabletSnapshot(context.Context, ...grpc.CallOption) (tikvpb.Tikv_TabletSnapshotClient, error) {
	return none[tikvpb.Tikv_TabletSnapshotClient](s, "TabletSnapshot")
}
