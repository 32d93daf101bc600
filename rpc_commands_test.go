package tikv_test

import (
	"context"
	"testing"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/mpp"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// commands sends requests one after the other.
type commands struct {
	t   *testing.T
	c   *tikv.Client
	rpc *tikv.RPC
}

func (s *commands) now() uint64 {
	s.t.Helper()
	ts, err := s.c.Timestamp(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return uint64(ts)
}

// command sends one, whose answer has to be right.
func command[Req, Resp any](s *commands, to tikv.Target, method func(tikvpb.TikvClient, context.Context, *Req, ...grpc.CallOption) (*Resp, error),
	req *Req, right func(*Resp) bool) {
	s.t.Helper()
	resp, err := tikv.Call(s.t.Context(), s.rpc, to, method, req)
	if err != nil || !right(resp) {
		s.t.Errorf("%T: %v %v", req, resp, err)
	}
}

// Every command that clients send to TiKV goes through Call, to the right place and with
// its keys encoded, on API V1 and V2 alike.
func TestCallEveryCommand(t *testing.T) {
	for _, v := range []playground.APIVersion{playground.APIV1, playground.APIV2} {
		cluster := rpcCluster(t, v, playground.KeyTxn)
		c := cluster.Open()
		s := &commands{t, c, c.RPC()}
		s.transaction()
		s.locks()
		s.flushes()
		s.ranges()
		s.store(flash(t, cluster))
	}
	for _, v := range []playground.APIVersion{playground.APIV1TTL, playground.APIV2} {
		c := rpcCluster(t, v, playground.KeyRaw).Open()
		(&commands{t, c, c.RPC()}).raw()
	}
}

// transaction commits a key in two phases, and looks at it.
func (s *commands) transaction() {
	key, to := []byte("a"), tikv.ToKey(tikv.KeyTxn, []byte("a"))
	start := s.now()
	command(s, to, tikvpb.TikvClient.KvPrewrite, &kvrpcpb.PrewriteRequest{
		Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: key, Value: []byte("1")}}, PrimaryLock: key, StartVersion: start, LockTtl: 3000, MinCommitTs: start + 1,
	}, func(p *kvrpcpb.PrewriteResponse) bool { return len(p.Errors) == 0 })
	command(s, to, tikvpb.TikvClient.KvTxnHeartBeat, &kvrpcpb.TxnHeartBeatRequest{PrimaryLock: key, StartVersion: start, AdviseLockTtl: 60000},
		func(p *kvrpcpb.TxnHeartBeatResponse) bool { return p.LockTtl == 60000 })
	command(s, to, tikvpb.TikvClient.KvCheckTxnStatus, &kvrpcpb.CheckTxnStatusRequest{PrimaryKey: key, LockTs: start, CurrentTs: s.now()},
		func(p *kvrpcpb.CheckTxnStatusResponse) bool {
			return p.LockTtl == 60000 && string(p.LockInfo.GetPrimaryLock()) == "a"
		})
	command(s, to, tikvpb.TikvClient.KvScanLock, &kvrpcpb.ScanLockRequest{MaxVersion: start, StartKey: key, EndKey: []byte("b"), Limit: 9},
		func(p *kvrpcpb.ScanLockResponse) bool { return len(p.Locks) == 1 && string(p.Locks[0].Key) == "a" })
	end := s.now()
	command(s, to, tikvpb.TikvClient.KvCommit, &kvrpcpb.CommitRequest{Keys: [][]byte{key}, StartVersion: start, CommitVersion: end},
		func(p *kvrpcpb.CommitResponse) bool { return p.Error == nil })
	command(s, to, tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: key, Version: end}, func(p *kvrpcpb.GetResponse) bool { return string(p.Value) == "1" })
	command(s, to, tikvpb.TikvClient.KvBatchGet, &kvrpcpb.BatchGetRequest{Keys: [][]byte{key}, Version: end},
		func(p *kvrpcpb.BatchGetResponse) bool { return len(p.Pairs) == 1 && string(p.Pairs[0].Key) == "a" })
	command(s, to, tikvpb.TikvClient.KvScan, &kvrpcpb.ScanRequest{StartKey: key, EndKey: []byte("b"), Version: end, Limit: 9},
		func(p *kvrpcpb.ScanResponse) bool { return len(p.Pairs) == 1 && string(p.Pairs[0].Key) == "a" })
	command(s, to, tikvpb.TikvClient.Coprocessor, &coprocessor.Request{Tp: 103, StartTs: end, Ranges: []*coprocessor.KeyRange{{Start: key, End: []byte("b")}}},
		func(p *coprocessor.Response) bool { return string(p.Data) == " a=1" })
	command(s, to, tikvpb.TikvClient.MvccGetByKey, &kvrpcpb.MvccGetByKeyRequest{Key: key}, func(p *kvrpcpb.MvccGetByKeyResponse) bool { return len(p.Info.Writes) == 1 })
	command(s, to, tikvpb.TikvClient.MvccGetByStartTs, &kvrpcpb.MvccGetByStartTsRequest{StartTs: start}, func(p *kvrpcpb.MvccGetByStartTsResponse) bool { return string(p.Key) == "a" })
	command(s, to, tikvpb.TikvClient.SplitRegion, &kvrpcpb.SplitRegionRequest{SplitKeys: [][]byte{[]byte("aa")}},
		func(p *kvrpcpb.SplitRegionResponse) bool {
			return len(p.Regions) == 2 && string(p.Regions[1].StartKey) == "aa"
		})
}

// locks leaves locks of every kind and removes them.
func (s *commands) locks() {
	key, to := []byte("b"), tikv.ToKey(tikv.KeyTxn, []byte("b"))
	start := s.now()
	command(s, to, tikvpb.TikvClient.KvPessimisticLock, &kvrpcpb.PessimisticLockRequest{
		Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: key}}, PrimaryLock: key, StartVersion: start, ForUpdateTs: start, LockTtl: 3000,
	}, func(p *kvrpcpb.PessimisticLockResponse) bool { return len(p.Errors) == 0 })
	command(s, to, tikvpb.TikvClient.KVPessimisticRollback, &kvrpcpb.PessimisticRollbackRequest{Keys: [][]byte{key}, StartVersion: start, ForUpdateTs: start},
		func(p *kvrpcpb.PessimisticRollbackResponse) bool { return len(p.Errors) == 0 })

	start = s.now()
	prewrite := &kvrpcpb.PrewriteRequest{
		Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: key, Value: []byte("2")}}, PrimaryLock: key, StartVersion: start, LockTtl: 3000,
		MinCommitTs: start + 1, UseAsyncCommit: true, Secondaries: [][]byte{[]byte("c")},
	}
	command(s, to, tikvpb.TikvClient.KvPrewrite, prewrite, func(p *kvrpcpb.PrewriteResponse) bool { return len(p.Errors) == 0 && p.MinCommitTs > start })
	command(s, to, tikvpb.TikvClient.KvCheckSecondaryLocks, &kvrpcpb.CheckSecondaryLocksRequest{Keys: [][]byte{key}, StartVersion: start},
		func(p *kvrpcpb.CheckSecondaryLocksResponse) bool {
			return len(p.Locks) == 1 && string(p.Locks[0].Secondaries[0]) == "c"
		})
	command(s, to, tikvpb.TikvClient.KvBatchRollback, &kvrpcpb.BatchRollbackRequest{Keys: [][]byte{key}, StartVersion: start},
		func(p *kvrpcpb.BatchRollbackResponse) bool { return p.Error == nil })

	prewrite.StartVersion, prewrite.UseAsyncCommit, prewrite.Secondaries = s.now(), false, nil
	command(s, to, tikvpb.TikvClient.KvPrewrite, prewrite, func(p *kvrpcpb.PrewriteResponse) bool { return len(p.Errors) == 0 })
	command(s, to, tikvpb.TikvClient.KvResolveLock, &kvrpcpb.ResolveLockRequest{StartVersion: prewrite.StartVersion, CommitVersion: s.now(), Keys: [][]byte{key}},
		func(p *kvrpcpb.ResolveLockResponse) bool { return p.Error == nil })
	command(s, to, tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: key, Version: s.now()}, func(p *kvrpcpb.GetResponse) bool { return string(p.Value) == "2" })
	prewrite.StartVersion = s.now()
	command(s, to, tikvpb.TikvClient.KvPrewrite, prewrite, func(p *kvrpcpb.PrewriteResponse) bool { return len(p.Errors) == 0 })
	command(s, to, tikvpb.TikvClient.KvCleanup, &kvrpcpb.CleanupRequest{Key: key, StartVersion: prewrite.StartVersion},
		func(p *kvrpcpb.CleanupResponse) bool { return p.Error == nil && p.CommitVersion == 0 })
}

// flushes writes and reads as a pipelined transaction does.
func (s *commands) flushes() {
	key, to := []byte("f"), tikv.ToKey(tikv.KeyTxn, []byte("f"))
	start := s.now()
	command(s, to, tikvpb.TikvClient.KvFlush, &kvrpcpb.FlushRequest{
		Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: key, Value: []byte("3")}}, PrimaryKey: key, StartTs: start, Generation: 1, LockTtl: 3000,
	}, func(p *kvrpcpb.FlushResponse) bool { return len(p.Errors) == 0 })
	command(s, to, tikvpb.TikvClient.KvBufferBatchGet, &kvrpcpb.BufferBatchGetRequest{Keys: [][]byte{key}, Version: start},
		func(p *kvrpcpb.BufferBatchGetResponse) bool {
			return len(p.Pairs) == 1 && string(p.Pairs[0].Key) == "f"
		})
	command(s, to, tikvpb.TikvClient.KvBatchRollback, &kvrpcpb.BatchRollbackRequest{Keys: [][]byte{key}, StartVersion: start},
		func(p *kvrpcpb.BatchRollbackResponse) bool { return p.Error == nil })
}

// ranges flashes a region back, and empties it.
func (s *commands) ranges() {
	if err := stock(s.t.Context(), s.c, "g", "4"); err != nil {
		s.t.Fatal(err)
	}
	to := tikv.ToKey(tikv.KeyTxn, []byte("g"))
	before := s.now()
	if err := stock(s.t.Context(), s.c, "g", "5"); err != nil {
		s.t.Fatal(err)
	}
	start := s.now()
	command(s, to, tikvpb.TikvClient.KvPrepareFlashbackToVersion, &kvrpcpb.PrepareFlashbackToVersionRequest{StartKey: []byte("d"), EndKey: []byte("m"), StartTs: start, Version: before},
		func(p *kvrpcpb.PrepareFlashbackToVersionResponse) bool { return p.Error == "" })
	command(s, to, tikvpb.TikvClient.KvFlashbackToVersion, &kvrpcpb.FlashbackToVersionRequest{StartKey: []byte("d"), EndKey: []byte("m"), StartTs: start, CommitTs: s.now(), Version: before},
		func(p *kvrpcpb.FlashbackToVersionResponse) bool { return p.Error == "" })
	command(s, to, tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: []byte("g"), Version: s.now()}, func(p *kvrpcpb.GetResponse) bool { return string(p.Value) == "4" })
	command(s, to, tikvpb.TikvClient.KvDeleteRange, &kvrpcpb.DeleteRangeRequest{StartKey: []byte("d"), EndKey: []byte("m")},
		func(p *kvrpcpb.DeleteRangeResponse) bool { return p.Error == "" })
	command(s, to, tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: []byte("g"), Version: s.now()}, func(p *kvrpcpb.GetResponse) bool { return p.NotFound })
}

// store sends what is about no region to a store, and what is TiFlash's to its own.
func (s *commands) store(flash uint64) {
	to := tikv.ToStore(1)
	command(s, to, tikvpb.TikvClient.UnsafeDestroyRange, &kvrpcpb.UnsafeDestroyRangeRequest{StartKey: []byte("a"), EndKey: []byte("aa")},
		func(p *kvrpcpb.UnsafeDestroyRangeResponse) bool { return p.Error == "" })
	command(s, tikv.ToKey(tikv.KeyTxn, []byte("a")), tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: []byte("a"), Version: s.now()},
		func(p *kvrpcpb.GetResponse) bool { return p.NotFound })
	command(s, to, tikvpb.TikvClient.GetStoreSafeTS, &kvrpcpb.StoreSafeTSRequest{}, func(p *kvrpcpb.StoreSafeTSResponse) bool { return p.SafeTs > 0 })
	command(s, to, tikvpb.TikvClient.GetLockWaitInfo, &kvrpcpb.GetLockWaitInfoRequest{},
		func(p *kvrpcpb.GetLockWaitInfoResponse) bool { return p.Error == "" && len(p.Entries) == 0 })
	command(s, to, tikvpb.TikvClient.GetHealthFeedback, &kvrpcpb.GetHealthFeedbackRequest{},
		func(p *kvrpcpb.GetHealthFeedbackResponse) bool { return p.HealthFeedback.GetStoreId() == 1 })
	command(s, to, tikvpb.TikvClient.BroadcastTxnStatus, &kvrpcpb.BroadcastTxnStatusRequest{TxnStatus: []*kvrpcpb.TxnStatus{{StartTs: s.now(), RolledBack: true}}},
		func(*kvrpcpb.BroadcastTxnStatusResponse) bool { return true })
	command(s, tikv.ToStore(flash), tikvpb.TikvClient.Compact, &kvrpcpb.CompactRequest{}, func(p *kvrpcpb.CompactResponse) bool { return !p.HasRemaining })
	command(s, tikv.ToStore(flash), tikvpb.TikvClient.CancelMPPTask, &mpp.CancelTaskRequest{Meta: &mpp.TaskMeta{StartTs: s.now(), TaskId: 1}},
		func(p *mpp.CancelTaskResponse) bool { return p.Error == nil })
}

// raw sends the commands of raw keys.
func (s *commands) raw() {
	a, b, to := []byte("a"), []byte("b"), tikv.ToKey(tikv.KeyRaw, []byte("a"))
	command(s, to, tikvpb.TikvClient.RawPut, &kvrpcpb.RawPutRequest{Key: a, Value: []byte("1"), Ttl: 100}, func(p *kvrpcpb.RawPutResponse) bool { return p.Error == "" })
	command(s, to, tikvpb.TikvClient.RawGet, &kvrpcpb.RawGetRequest{Key: a}, func(p *kvrpcpb.RawGetResponse) bool { return string(p.Value) == "1" })
	command(s, to, tikvpb.TikvClient.RawGetKeyTTL, &kvrpcpb.RawGetKeyTTLRequest{Key: a}, func(p *kvrpcpb.RawGetKeyTTLResponse) bool { return p.Ttl > 0 })
	command(s, to, tikvpb.TikvClient.RawBatchPut, &kvrpcpb.RawBatchPutRequest{Pairs: []*kvrpcpb.KvPair{{Key: b, Value: []byte("2")}}, Ttls: []uint64{0}},
		func(p *kvrpcpb.RawBatchPutResponse) bool { return p.Error == "" })
	command(s, to, tikvpb.TikvClient.RawBatchGet, &kvrpcpb.RawBatchGetRequest{Keys: [][]byte{a, b}},
		func(p *kvrpcpb.RawBatchGetResponse) bool { return len(p.Pairs) == 2 && string(p.Pairs[1].Key) == "b" })
	command(s, to, tikvpb.TikvClient.RawScan, &kvrpcpb.RawScanRequest{StartKey: a, EndKey: []byte("c"), Limit: 9},
		func(p *kvrpcpb.RawScanResponse) bool { return len(p.Kvs) == 2 && string(p.Kvs[0].Key) == "a" })
	command(s, to, tikvpb.TikvClient.RawChecksum, &kvrpcpb.RawChecksumRequest{Algorithm: kvrpcpb.ChecksumAlgorithm_Crc64_Xor, Ranges: []*kvrpcpb.KeyRange{{StartKey: a, EndKey: []byte("c")}}},
		func(p *kvrpcpb.RawChecksumResponse) bool { return p.TotalKvs == 2 })
	command(s, to, tikvpb.TikvClient.RawCompareAndSwap, &kvrpcpb.RawCASRequest{Key: a, Value: []byte("3"), PreviousValue: []byte("1")},
		func(p *kvrpcpb.RawCASResponse) bool { return p.Succeed })
	command(s, to, tikvpb.TikvClient.RawDelete, &kvrpcpb.RawDeleteRequest{Key: a}, func(p *kvrpcpb.RawDeleteResponse) bool { return p.Error == "" })
	command(s, to, tikvpb.TikvClient.RawBatchDelete, &kvrpcpb.RawBatchDeleteRequest{Keys: [][]byte{b}}, func(p *kvrpcpb.RawBatchDeleteResponse) bool { return p.Error == "" })
	command(s, to, tikvpb.TikvClient.RawDeleteRange, &kvrpcpb.RawDeleteRangeRequest{StartKey: a, EndKey: []byte("c")},
		func(p *kvrpcpb.RawDeleteRangeResponse) bool { return p.Error == "" })
	command(s, to, tikvpb.TikvClient.RawScan, &kvrpcpb.RawScanRequest{StartKey: a, EndKey: []byte("c"), Limit: 9}, func(p *kvrpcpb.RawScanResponse) bool { return len(p.Kvs) == 0 })
}
