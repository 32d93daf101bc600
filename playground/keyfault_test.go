package playground

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Each key error, with what TiKV puts in it (src/storage/errors.rs, extract_key_error).
func TestKeyFaultKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		start := c.timestamp()
		tests := map[KeyFault]func(*kvrpcpb.KeyError) bool{
			KeyLocked: func(e *kvrpcpb.KeyError) bool {
				return string(e.Locked.GetKey()) == "k" && string(e.Locked.PrimaryLock) == "k" && e.Locked.LockVersion < start && e.Locked.LockTtl > 0
			},
			WriteConflict: func(e *kvrpcpb.KeyError) bool {
				w := e.Conflict
				return w.GetStartTs() == start && w.ConflictCommitTs > w.ConflictTs && w.ConflictTs > start && string(w.Key) == "k" &&
					w.Reason == kvrpcpb.WriteConflict_Optimistic && e.Retryable != ""
			},
			AlreadyExist: func(e *kvrpcpb.KeyError) bool { return string(e.AlreadyExist.GetKey()) == "k" },
			Deadlock: func(e *kvrpcpb.KeyError) bool {
				return string(e.Deadlock.GetLockKey()) == "k" && len(e.Deadlock.WaitChain) == 2 && e.Deadlock.WaitChain[0].Txn == start
			},
			CommitTSExpired: func(e *kvrpcpb.KeyError) bool {
				x := e.CommitTsExpired
				return x.GetAttemptedCommitTs() == start+9 && x.MinCommitTs > x.AttemptedCommitTs && x.StartTs == start
			},
			TxnNotFound:     func(e *kvrpcpb.KeyError) bool { return e.TxnNotFound.GetStartTs() == start },
			TxnLockNotFound: func(e *kvrpcpb.KeyError) bool { return string(e.TxnLockNotFound.GetKey()) == "k" && e.Retryable != "" },
			PrimaryMismatch: func(e *kvrpcpb.KeyError) bool { return string(e.PrimaryMismatch.GetLockInfo().GetKey()) == "k" },
			AssertionFailed: func(e *kvrpcpb.KeyError) bool {
				return string(e.AssertionFailed.GetKey()) == "k" && e.AssertionFailed.StartTs == start
			},
			Abort: func(e *kvrpcpb.KeyError) bool { return e.Abort != "" },
		}
		if len(tests) != len(keyFaults)-1 {
			t.Fatal("a key error has no case")
		}
		for kind, good := range tests {
			f := c.Inject(Fault{Times: 1, KeyError: kind, StartTS: start})
			e := c.commit(start, start+9, "k").Error
			if e == nil || !good(e) || f.Hits() != 1 {
				t.Errorf("%v: %v", kind, e)
			}
			f.Remove()
		}
	})
}

// Every answer that has key errors has an injected one where TiKV puts it; those that
// have none are as without the fault.
func TestKeyFaultPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.rawPut("k", "v")
		at, kv := c.at(KeyTxn, "k")
		k, ts := []byte("k"), c.timestamp()
		f := c.Inject(Fault{Mode: KeyTxn, KeyError: Abort})
		raw := c.Inject(Fault{Mode: KeyRaw, KeyError: Abort})
		ctx := t.Context()
		aborted := func(errs ...*kvrpcpb.KeyError) bool {
			for _, e := range errs {
				if e.GetAbort() == "" {
					return false
				}
			}
			return len(errs) > 0
		}
		tests := map[string]func() (bool, error){
			"KvGet": func() (bool, error) {
				r, err := kv.KvGet(ctx, &kvrpcpb.GetRequest{Context: at, Key: k, Version: ts})
				return aborted(r.GetError()), err
			},
			"KvBatchGet": func() (bool, error) {
				r, err := kv.KvBatchGet(ctx, &kvrpcpb.BatchGetRequest{Context: at, Keys: [][]byte{k}, Version: ts})
				return aborted(r.GetError()) && len(r.Pairs) == 1 && aborted(r.Pairs[0].Error), err
			},
			"KvScan": func() (bool, error) {
				r, err := kv.KvScan(ctx, &kvrpcpb.ScanRequest{Context: at, StartKey: k, Version: ts, Limit: 1})
				return aborted(r.GetError()) && len(r.Pairs) == 1 && aborted(r.Pairs[0].Error), err
			},
			"KvScanLock": func() (bool, error) {
				r, err := kv.KvScanLock(ctx, &kvrpcpb.ScanLockRequest{Context: at, MaxVersion: ts, Limit: 1})
				return aborted(r.GetError()), err
			},
			"KvPrewrite": func() (bool, error) {
				r, err := kv.KvPrewrite(ctx, &kvrpcpb.PrewriteRequest{Context: at, StartVersion: ts, PrimaryLock: k, LockTtl: 1, Mutations: []*kvrpcpb.Mutation{{Key: k, Value: k}}})
				return aborted(r.GetErrors()...), err
			},
			"KvCommit": func() (bool, error) {
				r, err := kv.KvCommit(ctx, &kvrpcpb.CommitRequest{Context: at, StartVersion: ts, CommitVersion: ts + 1, Keys: [][]byte{k}})
				return aborted(r.GetError()), err
			},
			"KvBatchRollback": func() (bool, error) {
				r, err := kv.KvBatchRollback(ctx, &kvrpcpb.BatchRollbackRequest{Context: at, StartVersion: ts, Keys: [][]byte{k}})
				return aborted(r.GetError()), err
			},
			"KvTxnHeartBeat": func() (bool, error) {
				r, err := kv.KvTxnHeartBeat(ctx, &kvrpcpb.TxnHeartBeatRequest{Context: at, StartVersion: ts, PrimaryLock: k, AdviseLockTtl: 9})
				return aborted(r.GetError()), err
			},
			"KvCheckTxnStatus": func() (bool, error) {
				r, err := kv.KvCheckTxnStatus(ctx, &kvrpcpb.CheckTxnStatusRequest{Context: at, LockTs: ts, PrimaryKey: k})
				return aborted(r.GetError()), err
			},
			"KvCheckSecondaryLocks": func() (bool, error) {
				r, err := kv.KvCheckSecondaryLocks(ctx, &kvrpcpb.CheckSecondaryLocksRequest{Context: at, StartVersion: ts, Keys: [][]byte{k}})
				return aborted(r.GetError()), err
			},
			"KvResolveLock": func() (bool, error) {
				r, err := kv.KvResolveLock(ctx, &kvrpcpb.ResolveLockRequest{Context: at, StartVersion: ts})
				return aborted(r.GetError()), err
			},
			"RawGet": func() (bool, error) {
				r, err := kv.RawGet(ctx, &kvrpcpb.RawGetRequest{Context: at, Key: k})
				return string(r.GetValue()) == "v" && r.Error == "", err
			},
		}
		for name, ask := range tests {
			if good, err := ask(); !good || err != nil {
				t.Errorf("%s: not as it should be: %v", name, err)
			}
		}
		if f.Hits() != len(tests)-1 || raw.Hits() != 1 || len(c.Locks(nil, nil)) != 0 {
			t.Fatal(f.Hits(), raw.Hits(), c.Locks(nil, nil))
		}
	})
}

// A mangled answer reaches its caller as bytes that the caller's decoder judges.
func TestMangle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.rawPut("k", "value")
		at, kv := c.at(KeyRaw, "k")
		get := &kvrpcpb.RawGetRequest{Context: at, Key: []byte("k")}
		cut := c.Inject(Fault{Method: "RawGet", Times: 1, Mangle: func(b []byte) []byte { return b[:len(b)-2] }})
		if resp, err := kv.RawGet(t.Context(), get); status.Code(err) != codes.Internal || cut.Hits() != 1 {
			t.Fatal("a truncated answer was taken:", resp, err)
		}
		cut.Remove()
		other := c.Inject(Fault{Method: "RawGet", Mangle: func(b []byte) []byte { return bytes.Replace(b, []byte("value"), []byte("wrong"), 1) }})
		second := c.Inject(Fault{Method: "RawGet", Mangle: func(b []byte) []byte { return bytes.Replace(b, []byte("wrong"), []byte("right"), 1) }})
		if resp, err := kv.RawGet(t.Context(), get); err != nil || string(resp.Value) != "right" {
			t.Fatal("two changes, in order:", resp, err)
		}
		second.Remove()
		stream, err := kv.BatchCommands(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ask := func(id uint64) {
			t.Helper()
			if err := stream.Send(&tikvpb.BatchCommandsRequest{RequestIds: []uint64{id}, Requests: []*tikvpb.BatchCommandsRequest_Request{{
				Cmd: &tikvpb.BatchCommandsRequest_Request_RawGet{RawGet: get},
			}}}); err != nil {
				t.Fatal(err)
			}
		}
		ask(3)
		if resp, err := stream.Recv(); err != nil || len(resp.RequestIds) != 1 || resp.RequestIds[0] != 3 || string(resp.Responses[0].GetRawGet().GetValue()) != "wrong" {
			t.Fatal(resp, err)
		}
		other.Remove()
		c.Inject(Fault{Method: "RawGet", Times: 1, Mangle: func(b []byte) []byte { return b[:len(b)-2] }})
		ask(4)
		if resp, err := stream.Recv(); status.Code(err) != codes.Internal {
			t.Fatal("a truncated answer of a batch was taken:", resp, err)
		}
	})
}

// Mangle on PD: a unary answer, and one message of a stream.
func TestMangleOfPD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		f := c.Inject(Fault{Method: "GetStore", Times: 1, Mangle: func(b []byte) []byte { return b[:len(b)-1] }})
		req := &pdpb.GetStoreRequest{Header: c.header(), StoreId: 1}
		if resp, err := c.pdc().GetStore(t.Context(), req); err == nil || f.Hits() != 1 {
			t.Fatal(resp, err)
		}
		if resp, err := c.pdc().GetStore(t.Context(), req); err != nil || resp.Store.GetId() != 1 {
			t.Fatal(resp, err)
		}
		more := func(b []byte) []byte {
			m := new(pdpb.TsoResponse)
			if err := m.Unmarshal(b); err != nil {
				t.Error(err)
			}
			m.Count += 7 // an answer to more than was asked for
			b, _ = m.Marshal()
			return b
		}
		c.Inject(Fault{Method: "Tso", Skip: 1, Times: 1, Mangle: more})
		stream, err := c.pdc().Tso(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []uint32{1, 8, 1} {
			if err := stream.Send(&pdpb.TsoRequest{Header: c.header(), Count: 1}); err != nil {
				t.Fatal(err)
			}
			if resp, err := stream.Recv(); err != nil || resp.Count != want {
				t.Fatal(i, resp, err)
			}
		}
		_ = stream.CloseSend()
	})
}

// A stall of the timestamps keeps them waiting, a jump moves them ahead for good.
func TestTSOFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		before := c.timestamp()
		c.JumpTSO(time.Hour)
		c.JumpTSO(-time.Hour)
		jumped := c.timestamp()
		if d := int64(jumped>>18) - int64(before>>18); d < time.Hour.Milliseconds() {
			t.Fatal("a jump of", d)
		}
		<-time.After(time.Minute)
		if later := c.timestamp(); later <= jumped || later>>18 > jumped>>18+1 {
			t.Fatal("the clock caught up:", jumped, later)
		}
		c.StallTSO(true)
		c.StallTSO(true)
		time.AfterFunc(time.Minute, func() { c.StallTSO(false) })
		began := time.Now()
		if c.timestamp() <= jumped || time.Since(began) != time.Minute {
			t.Fatal("answered after", time.Since(began))
		}
		c.StallTSO(true)
		if err := c.Stop(Member(0)); err != nil { // does not wait for the stall
			t.Fatal(err)
		}
	})
}
