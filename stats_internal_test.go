package tikv

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/wire"
)

// distinct sets every number below v to another value, from 1 on.
func distinct(v reflect.Value, next *uint64) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Uint64:
			*next++
			f.SetUint(*next)
		case reflect.Int, reflect.Int64:
			*next++
			f.SetInt(int64(*next))
		case reflect.Float64:
			*next++
			f.SetFloat(float64(*next))
		case reflect.Struct:
			distinct(f, next)
		}
	}
}

// What TiKV says stands under the right names.
func TestServerStatsNames(t *testing.T) {
	var next uint64
	m := kvrpcpb.ExecDetailsV2{
		TimeDetailV2: new(kvrpcpb.TimeDetailV2), ScanDetailV2: new(kvrpcpb.ScanDetailV2), WriteDetail: new(kvrpcpb.WriteDetail),
		RuV2: new(kvrpcpb.RUV2), ReadPoolTaskDetails: new(kvrpcpb.PoolTaskDetails),
	}
	ti, sc, wr, po := m.TimeDetailV2, m.ScanDetailV2, m.WriteDetail, m.ReadPoolTaskDetails
	for _, part := range []any{ti, sc, wr, m.RuV2, po} {
		distinct(reflect.ValueOf(part).Elem(), &next)
	}
	po.FairQueueEnabled = true
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	d := func(n uint64) time.Duration { return time.Duration(n) }
	want := ServerStats{
		Total: d(ti.TotalRpcWallTimeNs), Wait: d(ti.WaitWallTimeNs), Process: d(ti.ProcessWallTimeNs), Suspend: d(ti.ProcessSuspendWallTimeNs),
		KVRead: d(ti.KvReadWallTimeNs), GRPCProcess: d(ti.KvGrpcProcessTimeNs), GRPCWait: d(ti.KvGrpcWaitTimeNs),
		ProcessedKeys: sc.ProcessedVersions, ProcessedBytes: sc.ProcessedVersionsSize, ScannedKeys: sc.TotalVersions, ScannedBytes: sc.TotalVersionsSize,
		DeletesSkipped: sc.RocksdbDeleteSkippedCount, KeysSkipped: sc.RocksdbKeySkippedCount, BlockCacheHits: sc.RocksdbBlockCacheHitCount,
		BlockReads: sc.RocksdbBlockReadCount, BlockReadBytes: sc.RocksdbBlockReadByte, BlockRead: d(sc.RocksdbBlockReadNanos),
		Snapshot: d(sc.GetSnapshotNanos), ReadIndexPropose: d(sc.ReadIndexProposeWaitNanos), ReadIndexConfirm: d(sc.ReadIndexConfirmWaitNanos),
		PoolQueue: d(sc.ReadPoolScheduleWaitNanos), RemoteHits: sc.IaCacheHitCount, RemoteReads: sc.IaRemoteReadSegmentCount,
		RemoteReadBytes: sc.IaRemoteReadSegmentBytes, RemoteRead: d(sc.IaRemoteReadSegmentNanos),
		WriteBytes: m.RuV2.RaftstoreStoreWriteTriggerWbBytes,
		Write: WriteStats{
			LatchWait: d(wr.LatchWaitNanos), Process: d(wr.ProcessNanos), Throttle: d(wr.ThrottleNanos), LockWait: d(wr.PessimisticLockWaitNanos),
			BatchWait: d(wr.StoreBatchWaitNanos), ProposeWait: d(wr.ProposeSendWaitNanos), PersistLog: d(wr.PersistLogNanos),
			LogLeaderWait: d(wr.RaftDbWriteLeaderWaitNanos), LogSync: d(wr.RaftDbSyncLogNanos), LogMemtable: d(wr.RaftDbWriteMemtableNanos),
			CommitLog: d(wr.CommitLogNanos), ApplyWait: d(wr.ApplyBatchWaitNanos), Apply: d(wr.ApplyLogNanos), ApplyMutex: d(wr.ApplyMutexLockNanos),
			ApplyLeaderWait: d(wr.ApplyWriteLeaderWaitNanos), ApplyWAL: d(wr.ApplyWriteWalNanos), ApplyMemory: d(wr.ApplyWriteMemtableNanos),
		},
		Pool: PoolStats{
			Tasks: 1, Polls: po.PollCount, Dispatches: po.DispatchCount, Elapsed: d(po.TotalWallNanos),
			QueueWait: d(po.TotalQueueWaitNanos), MaxQueueWait: d(po.MaxQueueWaitNanos), WakeWait: d(po.TotalWakeWaitNanos), MaxWakeWait: d(po.MaxWakeWaitNanos),
			PollCPU: d(po.PollCpuNanos), MaxPollCPU: d(po.MaxPollCpuNanos), PollElapsed: d(po.PollWallNanos), MaxPollElapsed: d(po.MaxPollWallNanos),
			FairQueued: 1, SlicesAhead: po.TotalFairQueueWaitedTaskSlices, MaxSlicesAhead: po.MaxFairQueueWaitedTaskSlices,
		},
	}
	if got := detailed(data); got != want {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}
	// Each has a place of its own.
	seen := map[uint64]string{}
	checkDistinct(t, "", reflect.ValueOf(want), seen)
}

func checkDistinct(t *testing.T, path string, v reflect.Value, seen map[uint64]string) {
	for i := range v.NumField() {
		name, f := path+v.Type().Field(i).Name, v.Field(i)
		var n uint64
		switch f.Kind() {
		case reflect.Struct:
			checkDistinct(t, name+".", f, seen)
			continue
		case reflect.Int64:
			n = uint64(f.Int())
		case reflect.Uint64:
			n = f.Uint()
		}
		if was := seen[n]; n == 0 || was != "" && n != 1 {
			t.Errorf("%s is %d, as %q is", name, n, was)
		}
		seen[n] = name
	}
}

// Request units are what client-go calculates (config/ruv2.go): here by its names.
func TestRequestUnits(t *testing.T) {
	m := kvrpcpb.ExecDetailsV2{RuV2: &kvrpcpb.RUV2{
		KvEngineCacheMiss: 3, CoprocessorExecutorIterations: 5, CoprocessorResponseBytes: 700, RaftstoreStoreWriteTriggerWbBytes: 11_000,
		StorageProcessedKeysBatchGet: 13, StorageProcessedKeysGet: 17, ReadRpcCount: 19, WriteRpcCount: 23,
		ExecutorInputs: &kvrpcpb.ExecutorInputs{TikvCoprocessorExecutorWorkTotalBatchLimit: 29, TikvCoprocessorExecutorWorkTotalBatchTopN: 31},
	}}
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var d wire.Details
	d.Add(data)
	want := 2.10 * (3*0.45975389 + (29+31)*0.0000315 + 5*0.05775369 + 700*0.00000087 + 11_000*0.000061 + 13*0.00266791 + 17*0.01416829 + 2*0.09642181)
	if got := requestUnits(&d, 2); got < want-1e-9 || got > want+1e-9 {
		t.Errorf("%v, want %v", got, want)
	}
}

// Add adds every figure; of maxima and of the slowest it keeps the larger.
func TestCallStatsAdd(t *testing.T) {
	var one, two CallStats
	next := uint64(0)
	distinct(reflect.ValueOf(&one).Elem(), &next)
	distinct(reflect.ValueOf(&two).Elem(), &next)
	one.ByMethod = map[Method]MethodStats{"KvGet": {RPCs: 1, Elapsed: 5, Slowest: RPCStats{Addr: "a", Elapsed: 5}}}
	two.ByMethod = map[Method]MethodStats{"KvGet": {RPCs: 2, Elapsed: 9, Slowest: RPCStats{Addr: "b", Elapsed: 7}}, "KvScan": {RPCs: 1}}
	two.ByReason = map[Reason]ReasonStats{ReasonLock: {Retries: 1, Wait: time.Second}}
	sum := one.Add(two)
	checkSum(t, "", reflect.ValueOf(one), reflect.ValueOf(two), reflect.ValueOf(sum))
	if got := sum.ByMethod["KvGet"]; got.RPCs != 3 || got.Elapsed != 14 || got.Slowest.Addr != "b" || sum.ByMethod["KvScan"].RPCs != 1 || len(sum.ByMethod) != 2 {
		t.Errorf("%+v", sum.ByMethod)
	}
	if got := sum.ByReason[ReasonLock]; got != (ReasonStats{1, time.Second}) || len(one.ByMethod) != 1 || one.ByReason != nil || one.ByMethod["KvGet"].RPCs != 1 {
		t.Errorf("%+v, and was %+v", got, one)
	}
	if again := two.Add(one).Add(CallStats{}); !reflect.DeepEqual(again, sum) {
		t.Errorf("\n%+v, want\n%+v", again, sum)
	}
	if none := (CallStats{}).Add(CallStats{}); !reflect.DeepEqual(none, CallStats{}) {
		t.Errorf("%+v", none)
	}
}

func checkSum(t *testing.T, path string, a, b, sum reflect.Value) {
	for i := range a.NumField() {
		field := a.Type().Field(i)
		x, y, s := a.Field(i), b.Field(i), sum.Field(i)
		ok := true
		most := strings.HasPrefix(field.Name, "Max")
		switch x.Kind() {
		case reflect.Struct:
			checkSum(t, path+field.Name+".", x, y, s)
		case reflect.Int, reflect.Int64:
			ok = s.Int() == x.Int()+y.Int() && !most || most && s.Int() == max(x.Int(), y.Int())
		case reflect.Uint64:
			ok = s.Uint() == x.Uint()+y.Uint() && !most || most && s.Uint() == max(x.Uint(), y.Uint())
		case reflect.Float64:
			ok = s.Float() == x.Float()+y.Float()
		case reflect.Map:
		default:
			t.Errorf("%s%s is a %v, which Add does not know", path, field.Name, x.Kind())
		}
		if !ok {
			t.Errorf("%s%s: %v and %v are %v", path, field.Name, x, y, s)
		}
	}
}

func TestCallStatsString(t *testing.T) {
	for want, s := range map[string]CallStats{
		"0 RPCs": {},
		"3 RPCs in 5ms (KvGet 2, KvScan 1), 2 retries (lock 1, not leader 1), 1 locks, 7 keys, 80 bytes sent, 90 bytes received, " +
			"backoff 2ms, lockwait 3ms, timestamps 1ms, 0.500 request units, 6 keys read, 9 keys scanned, TiKV total 4ms, TiKV write lockwait 3ms, TiKV pool pollcpu 1ms": {
			RPCs: 3, Elapsed: 5 * time.Millisecond, Retries: 2, Backoff: 2 * time.Millisecond, Locks: 1, LockWait: 3 * time.Millisecond,
			Timestamps: time.Millisecond, Keys: 7, BytesSent: 80, BytesReceived: 90, RequestUnits: 0.5,
			ByMethod: map[Method]MethodStats{"KvScan": {RPCs: 1}, "KvGet": {RPCs: 2}},
			ByReason: map[Reason]ReasonStats{ReasonNotLeader: {Retries: 1}, ReasonLock: {Retries: 1, Wait: time.Second}, ReasonNone: {Wait: 1}},
			Server: ServerStats{
				Total: 4 * time.Millisecond, ProcessedKeys: 6, ScannedKeys: 9,
				Write: WriteStats{LockWait: 3 * time.Millisecond}, Pool: PoolStats{PollCPU: time.Millisecond},
			},
		},
	} {
		if got := s.String(); got != want {
			t.Errorf("\n%s, want\n%s", got, want)
		}
	}
	for o := range TxnUndetermined + 2 {
		if p := Protocol(o); o.String() == "" || p.String() == "" {
			t.Error(o, p)
		}
	}
}
