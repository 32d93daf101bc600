package playground

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
)

// Answers tell what they took where TiKV's do (TiKV src/server/service/kv.rs, has_time_detail,
// handle_measures_for_batch_commands, future_get and those that follow), and no others.
func TestDetails(t *testing.T) {
	synctest.Test(t, testDetails)
}

func testDetails(t *testing.T) {
	c := start(t, WithStores(1))
	rctx, _ := c.at(KeyTxn, "k")
	c.Inject(Fault{Delay: time.Millisecond})
	put := []*kvrpcpb.Mutation{{Key: []byte("k"), Value: []byte("v")}}
	k := [][]byte{[]byte("k")}
	for _, q := range []struct {
		name   string
		method string
		cmd    any
		want   string // r: of a read, w: of a write, t: the time, alone and in a batch, -: nothing
	}{
		{"prewrite", "KvPrewrite", &tikvpb.BatchCommandsRequest_Request_Prewrite{Prewrite: &kvrpcpb.PrewriteRequest{Context: rctx, Mutations: put, PrimaryLock: k[0], StartVersion: 10, LockTtl: 1000}}, "wt wt"},
		{"locked", "KvGet", &tikvpb.BatchCommandsRequest_Request_Get{Get: &kvrpcpb.GetRequest{Context: rctx, Key: k[0], Version: 20}}, "t t"},
		{"heartbeat", "KvTxnHeartBeat", &tikvpb.BatchCommandsRequest_Request_TxnHeartBeat{TxnHeartBeat: &kvrpcpb.TxnHeartBeatRequest{Context: rctx, PrimaryLock: k[0], StartVersion: 10, AdviseLockTtl: 2000}}, "wt wt"},
		{"status", "KvCheckTxnStatus", &tikvpb.BatchCommandsRequest_Request_CheckTxnStatus{CheckTxnStatus: &kvrpcpb.CheckTxnStatusRequest{Context: rctx, PrimaryKey: k[0], LockTs: 10, CurrentTs: 20}}, "wt wt"},
		{"secondaries", "KvCheckSecondaryLocks", &tikvpb.BatchCommandsRequest_Request_CheckSecondaryLocks{CheckSecondaryLocks: &kvrpcpb.CheckSecondaryLocksRequest{Context: rctx, Keys: k, StartVersion: 10}}, "wt wt"},
		{"locks", "KvScanLock", &tikvpb.BatchCommandsRequest_Request_ScanLock{ScanLock: &kvrpcpb.ScanLockRequest{Context: rctx, MaxVersion: 100}}, "t -"},
		{"commit", "KvCommit", &tikvpb.BatchCommandsRequest_Request_Commit{Commit: &kvrpcpb.CommitRequest{Context: rctx, Keys: k, StartVersion: 10, CommitVersion: 20}}, "wt wt"},
		{"bad commit", "KvCommit", &tikvpb.BatchCommandsRequest_Request_Commit{Commit: &kvrpcpb.CommitRequest{Context: rctx, Keys: k, StartVersion: 11, CommitVersion: 20}}, "wt wt"},
		{"elsewhere", "KvCommit", &tikvpb.BatchCommandsRequest_Request_Commit{Commit: &kvrpcpb.CommitRequest{Context: &kvrpcpb.Context{RegionId: 1 << 40}, Keys: k, StartVersion: 11, CommitVersion: 20}}, "t t"},
		{"resolve", "KvResolveLock", &tikvpb.BatchCommandsRequest_Request_ResolveLock{ResolveLock: &kvrpcpb.ResolveLockRequest{Context: rctx, StartVersion: 10, CommitVersion: 20}}, "wt wt"},
		{"rollback", "KvBatchRollback", &tikvpb.BatchCommandsRequest_Request_BatchRollback{BatchRollback: &kvrpcpb.BatchRollbackRequest{Context: rctx, Keys: k, StartVersion: 30}}, "wt w"},
		{"cleanup", "KvCleanup", &tikvpb.BatchCommandsRequest_Request_Cleanup{Cleanup: &kvrpcpb.CleanupRequest{Context: rctx, Key: k[0], StartVersion: 32}}, "- -"},
		{"lock", "KvPessimisticLock", &tikvpb.BatchCommandsRequest_Request_PessimisticLock{PessimisticLock: &kvrpcpb.PessimisticLockRequest{Context: rctx, PrimaryLock: k[0], StartVersion: 40, ForUpdateTs: 40, LockTtl: 1,
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: k[0]}}}}, "wt wt"},
		{"unlock", "KVPessimisticRollback", &tikvpb.BatchCommandsRequest_Request_PessimisticRollback{PessimisticRollback: &kvrpcpb.PessimisticRollbackRequest{Context: rctx, Keys: k, StartVersion: 40, ForUpdateTs: 40}}, "wt w"},
		{"get", "KvGet", &tikvpb.BatchCommandsRequest_Request_Get{Get: &kvrpcpb.GetRequest{Context: rctx, Key: k[0], Version: 50}}, "rt rt"},
		{"absent", "KvGet", &tikvpb.BatchCommandsRequest_Request_Get{Get: &kvrpcpb.GetRequest{Context: rctx, Key: []byte("kk"), Version: 50}}, "rt rt"},
		{"batch get", "KvBatchGet", &tikvpb.BatchCommandsRequest_Request_BatchGet{BatchGet: &kvrpcpb.BatchGetRequest{Context: rctx, Keys: k, Version: 50}}, "r rt"},
		{"buffer", "KvBufferBatchGet", &tikvpb.BatchCommandsRequest_Request_BufferBatchGet{BufferBatchGet: &kvrpcpb.BufferBatchGetRequest{Context: rctx, Keys: k, Version: 50}}, "r r"},
		{"flush", "KvFlush", &tikvpb.BatchCommandsRequest_Request_Flush{Flush: &kvrpcpb.FlushRequest{Context: rctx, Mutations: put, PrimaryKey: k[0], StartTs: 60, Generation: 1}}, "- -"},
	} {
		alone, batched := askBoth(t, c, q.method, q.cmd)
		if got := shape(alone) + " " + shape(batched); got != q.want {
			t.Errorf("%s: %s, want %s: %v, %v", q.name, got, q.want, alone, batched)
		}
	}
}

// shape is what there is of an answer's details.
func shape(d *kvrpcpb.ExecDetailsV2) string {
	if d == nil {
		return "-"
	}
	s := ""
	switch {
	case d.WriteDetail != nil && d.ScanDetailV2 != nil && d.RuV2 != nil:
		s = "w"
	case d.ScanDetailV2 != nil && d.RuV2 != nil && d.TimeDetail != nil:
		s = "r"
	}
	if d.TimeDetail.GetTotalRpcWallTimeNs() == 1e6 && d.TimeDetailV2.GetTotalRpcWallTimeNs() == 1e6 {
		s += "t"
	}
	return s
}

// askBoth sends a request in a batch and in a call of its own, and returns the details of
// the answers.
func askBoth(t *testing.T, c *testCluster, method string, cmd any) (alone, batched *kvrpcpb.ExecDetailsV2) {
	t.Helper()
	r := new(tikvpb.BatchCommandsRequest_Request)
	reflect.ValueOf(r).Elem().FieldByName("Cmd").Set(reflect.ValueOf(cmd))
	stream, err := c.tikv(1).BatchCommands(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&tikvpb.BatchCommandsRequest{RequestIds: []uint64{1}, Requests: []*tikvpb.BatchCommandsRequest_Request{r}}); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	inner := func(cmd any) reflect.Value { return reflect.ValueOf(cmd).Elem().Field(0) }
	answer := inner(m.Responses[0].Cmd)
	again := reflect.New(answer.Type().Elem()).Interface()
	if err := c.conn(c.store(1).Server().Addr()).Invoke(t.Context(), "/tikvpb.Tikv/"+method, inner(cmd).Interface(), again); err != nil {
		t.Fatal(err)
	}
	return detailsOf(again), detailsOf(answer.Interface())
}

func detailsOf(answer any) *kvrpcpb.ExecDetailsV2 {
	if p, ok := answer.(interface {
		GetExecDetailsV2() *kvrpcpb.ExecDetailsV2
	}); ok {
		return p.GetExecDetailsV2()
	}
	return nil
}

// The time of a request for a pessimistic lock is told with what of it was the wait for
// the lock, and that of a write with what the disk took.
func TestDetailsOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(1))
		rctx, kv := c.at(KeyTxn, "k")
		lock := func(ts uint64) *kvrpcpb.PessimisticLockResponse {
			resp, err := kv.KvPessimisticLock(t.Context(), &kvrpcpb.PessimisticLockRequest{Context: rctx, PrimaryLock: []byte("k"),
				StartVersion: ts, ForUpdateTs: ts, LockTtl: 1000, WaitTimeout: 700,
				Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: []byte("k")}}})
			if err != nil || resp.RegionError != nil {
				t.Error(resp, err)
			}
			return resp
		}
		if d := lock(10).ExecDetailsV2; d.GetTimeDetailV2().GetTotalRpcWallTimeNs() != 0 || d.GetWriteDetail().GetPessimisticLockWaitNanos() != 0 {
			t.Error(d)
		}
		d := lock(20).ExecDetailsV2
		if d.WriteDetail.PessimisticLockWaitNanos != 700e6 || d.TimeDetailV2.TotalRpcWallTimeNs != 700e6 || d.TimeDetail.TotalRpcWallTimeNs != 700e6 {
			t.Error(d)
		}
		if d.ScanDetailV2.TotalVersions != 0 || d.RuV2.RaftstoreStoreWriteTriggerWbBytes != 9 {
			t.Error(d)
		}
		if err := c.SetStore(1, StoreState{DiskDelay: 30 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		resp, err := kv.KVPessimisticRollback(t.Context(), &kvrpcpb.PessimisticRollbackRequest{Context: rctx, StartVersion: 10, ForUpdateTs: 10, Keys: [][]byte{[]byte("k")}})
		if err != nil || resp.ExecDetailsV2.TimeDetailV2.TotalRpcWallTimeNs != 30e6 || resp.ExecDetailsV2.WriteDetail.ProcessNanos != 0 {
			t.Error(resp, err)
		}
	})
}

// Of the time of a read, what a follower lacks is the wait.
func TestDetailsOfWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.putOnePhase("k", "v")
		region, followers := c.followers("k")
		c.set(followers[0], StoreState{ApplyLag: 1500 * time.Millisecond})
		c.putOnePhase("k", "w")
		resp := c.getOn("k", c.timestamp(), region, followers[0], replica)
		if string(resp.Value) != "w" {
			t.Fatal(resp)
		}
		d := resp.ExecDetailsV2
		if v2 := d.TimeDetailV2; v2.WaitWallTimeNs != 1500e6 || v2.KvReadWallTimeNs != 1500e6 || v2.ProcessWallTimeNs != 0 || v2.TotalRpcWallTimeNs != 1500e6 {
			t.Error(d)
		}
		if v1 := d.TimeDetail; v1.WaitWallTimeMs != 1500 || v1.KvReadWallTimeMs != 1500 || v1.ProcessWallTimeMs != 0 {
			t.Error(d)
		}
	})
}
