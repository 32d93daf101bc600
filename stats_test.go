package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// truth is what stores say that they were asked, and what they answered.
type truth struct {
	t       *testing.T
	name    string
	trace   *playground.Trace
	looks   []*playground.Injection
	mu      sync.Mutex
	bytes   int
	details []*kvrpcpb.ExecDetailsV2
}

// answers are the methods whose answers a truth takes down, with what they are.
func answers() map[string]func() any {
	return map[string]func() any{
		"KvGet":                 func() any { return new(kvrpcpb.GetResponse) },
		"KvBatchGet":            func() any { return new(kvrpcpb.BatchGetResponse) },
		"KvScan":                func() any { return new(kvrpcpb.ScanResponse) },
		"KvPrewrite":            func() any { return new(kvrpcpb.PrewriteResponse) },
		"KvCommit":              func() any { return new(kvrpcpb.CommitResponse) },
		"KvPessimisticLock":     func() any { return new(kvrpcpb.PessimisticLockResponse) },
		"KvCheckTxnStatus":      func() any { return new(kvrpcpb.CheckTxnStatusResponse) },
		"KvResolveLock":         func() any { return new(kvrpcpb.ResolveLockResponse) },
		"KvFlush":               func() any { return new(kvrpcpb.FlushResponse) },
		"KvBufferBatchGet":      func() any { return new(kvrpcpb.BufferBatchGetResponse) },
		"KvScanLock":            func() any { return new(kvrpcpb.ScanLockResponse) },
		"KvTxnHeartBeat":        func() any { return new(kvrpcpb.TxnHeartBeatResponse) },
		"KvBatchRollback":       func() any { return new(kvrpcpb.BatchRollbackResponse) },
		"KVPessimisticRollback": func() any { return new(kvrpcpb.PessimisticRollbackResponse) },
		"BroadcastTxnStatus":    func() any { return new(kvrpcpb.BroadcastTxnStatusResponse) },
		"RawGet":                func() any { return new(kvrpcpb.RawGetResponse) },
		"RawPut":                func() any { return new(kvrpcpb.RawPutResponse) },
		"RawBatchGet":           func() any { return new(kvrpcpb.RawBatchGetResponse) },
		"RawScan":               func() any { return new(kvrpcpb.RawScanResponse) },
	}
}

func seek(t *testing.T, name string, cluster *tikvtest.Cluster) *truth {
	tr := &truth{t: t, name: name, trace: cluster.Trace()}
	for method, empty := range answers() {
		tr.looks = append(tr.looks, cluster.Inject(playground.Fault{Method: method, Mangle: func(answer []byte) []byte {
			m := empty()
			if err := m.(interface{ Unmarshal([]byte) error }).Unmarshal(answer); err != nil {
				t.Error(err)
			}
			tr.mu.Lock()
			defer tr.mu.Unlock()
			tr.bytes += len(answer)
			if d, ok := m.(interface {
				GetExecDetailsV2() *kvrpcpb.ExecDetailsV2
			}); ok {
				tr.details = append(tr.details, d.GetExecDetailsV2())
			}
			return answer
		}}))
	}
	return tr
}

func (tr *truth) stop() {
	tr.trace.Stop()
	removeAll(tr.looks)()
}

// check compares what was counted with what the stores say.
func (tr *truth) check(s tikv.CallStats) {
	tr.t.Helper()
	rpcs, keys, methods := 0, 0, map[tikv.Method]int{}
	for _, call := range tr.trace.Calls() {
		if answers()[call.Method] != nil {
			if rpcs++; !strings.Contains(call.Method, "Scan") { // those have bounds
				keys += call.Keys
			}
			methods[tikv.Method(call.Method)]++
		}
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var read, size, scanned, written uint64
	var total, process, lockWait time.Duration
	for _, d := range tr.details {
		read, size = read+d.GetScanDetailV2().GetProcessedVersions(), size+d.GetScanDetailV2().GetProcessedVersionsSize()
		scanned += d.GetScanDetailV2().GetTotalVersions()
		written += d.GetRuV2().GetRaftstoreStoreWriteTriggerWbBytes()
		total += time.Duration(d.GetTimeDetailV2().GetTotalRpcWallTimeNs())
		process += time.Duration(d.GetTimeDetailV2().GetProcessWallTimeNs())
		lockWait += time.Duration(d.GetWriteDetail().GetPessimisticLockWaitNanos())
	}
	sv := s.Server
	for name, v := range map[string][2]any{
		"RPCs": {s.RPCs, rpcs}, "keys": {s.Keys, keys}, "bytes received": {s.BytesReceived, tr.bytes},
		"keys read": {sv.ProcessedKeys, read}, "bytes read": {sv.ProcessedBytes, size}, "keys scanned": {sv.ScannedKeys, scanned},
		"bytes written": {sv.WriteBytes, written}, "total": {sv.Total, total}, "process": {sv.Process, process}, "lock wait": {sv.Write.LockWait, lockWait},
	} {
		if v[0] != v[1] {
			tr.t.Errorf("%s: %s: %v, the stores say %v: %s", tr.name, name, v[0], v[1], s)
		}
	}
	got := map[tikv.Method]int{}
	elapsed := time.Duration(0)
	for name, m := range s.ByMethod {
		got[name], elapsed = m.RPCs, elapsed+m.Elapsed
		if slow := m.Slowest; slow.Addr == "" || slow.StoreID == 0 || (slow.RegionID == 0) != (name == "BroadcastTxnStatus") || slow.Elapsed > m.Elapsed {
			tr.t.Errorf("%s: %s: %+v", tr.name, name, m)
		}
	}
	if !reflect.DeepEqual(got, methods) || elapsed != s.Elapsed {
		tr.t.Errorf("%s: %v in %v, the stores say %v; in all %v", tr.name, got, elapsed, methods, s.Elapsed)
	}
}

// What a recorder counts of the calls of each view is what the stores were asked.
func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithAPIVersion(playground.APIV2), playground.WithSplitKeys(playground.KeyTxn, b("m")), playground.WithSplitKeys(playground.KeyRaw, b("m")))
		var all tikv.Recorder
		c := cluster.Open(tikv.WithRecorder(&all))
		commit(t, c, "a", "1", "b", "22", "z", "333")
		put(t, c.Raw(), "a", "1", "z", "2")
		synctest.Wait()
		all.Reset()
		snap, err := c.Snapshot(t.Context())
		must(t, err)
		commit(t, cluster.Open(), "z3", "newer than that")
		ctx, keys, whole := t.Context(), ks("a", "b", "c", "z"), tikv.Range{}
		every := tikv.CallStats{}
		for name, do := range map[string]func(with tikv.ViewOption) error{
			"raw get":    func(with tikv.ViewOption) error { return second(c.Raw(with).Get(ctx, b("a"))) },
			"raw put":    func(with tikv.ViewOption) error { return c.Raw(with).Put(ctx, b("a"), b("x")) },
			"raw batch":  func(with tikv.ViewOption) error { return second(c.Raw(with).BatchGet(ctx, keys)) },
			"raw scan":   func(with tikv.ViewOption) error { return second(tikv.Collect(c.Raw(with).Scan(ctx, whole))) },
			"get":        func(with tikv.ViewOption) error { return second(snap.With(with).Get(ctx, b("a"))) },
			"get absent": func(with tikv.ViewOption) error { return ignoreNotFound(second(snap.With(with).Get(ctx, b("c")))) },
			"batch":      func(with tikv.ViewOption) error { return second(snap.With(with).BatchGet(ctx, keys)) },
			"scan":       func(with tikv.ViewOption) error { return second(tikv.Collect(snap.With(with).Scan(ctx, whole))) },
			"latest":     func(with tikv.ViewOption) error { return second(c.Latest(with).BatchGet(ctx, keys)) },
			"past":       func(with tikv.ViewOption) error { return second(c.SnapshotAt(snap.Timestamp(), with).Get(ctx, b("z"))) },
			"snapshot now": func(with tikv.ViewOption) error {
				s, err := c.Snapshot(ctx, with)
				return errors.Join(err, second(s.Get(ctx, b("a"))))
			},
			"call": func(with tikv.ViewOption) error {
				return second(tikv.Call(ctx, c.RPC(with), tikv.ToKey(tikv.KeyTxn, b("a")), tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: b("a"), Version: uint64(snap.Timestamp())}))
			},
			"transaction": func(with tikv.ViewOption) error {
				defer synctest.Wait() // for its second region
				return c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
					if _, err := tx.Get(ctx, b("a")); err != nil {
						return err
					}
					return errors.Join(tx.Put(b("b"), b("new")), tx.Put(b("y"), b("new")))
				}, with, inTwoPhases)
			},
			"pipelined": func(with tikv.ViewOption) error {
				tx, err := c.Begin(ctx, with, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(3, 1<<20))
				must(t, err, tx.Put(b("p1"), nil), tx.Delete(b("p2")))
				for i := range 10 {
					must(t, tx.Put(fmt.Appendf(nil, "q%d", i), b("v")))
				}
				got, err := tx.BatchGet(ctx, ks("p1", "p2", "q5", "a"))
				if must(t, err); got[0] == nil || got[1] != nil {
					t.Errorf("%q", got)
				}
				<-time.After(25 * time.Second)
				must(t, tx.Commit(ctx))
				<-time.After(10 * time.Second)
				return nil
			},
			"pipelined, rolled back": func(with tikv.ViewOption) error {
				tx, err := c.Begin(ctx, with, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(3, 1<<20))
				must(t, err)
				for i := range 10 {
					must(t, tx.Put(fmt.Appendf(nil, "q%d", i), b("v")))
				}
				synctest.Wait() // for the flush, which a rollback cuts short
				must(t, tx.Rollback(ctx))
				<-time.After(10 * time.Second)
				return nil
			},
			"locks": func(with tikv.ViewOption) error {
				tx, err := c.Begin(ctx, with, tikv.WithPessimistic())
				must(t, err, tx.Lock(ctx, ks("l1", "z1")), tx.Lock(ctx, ks("l2", "z2"), tikv.WithShared()), tx.Put(b("l1"), nil))
				<-time.After(25 * time.Second)
				must(t, tx.Commit(ctx))
				<-time.After(time.Second)
				return nil
			},
			"locks, let go": func(with tikv.ViewOption) error {
				tx, err := c.Begin(ctx, with, tikv.WithPessimistic())
				must(t, err, tx.Lock(ctx, ks("l1", "z1")), tx.Rollback(ctx))
				return nil
			},
			"a conflict": func(with tikv.ViewOption) error {
				tx, err := c.Begin(ctx, with, tikv.WithStartTS(snap.Timestamp()))
				must(t, err, tx.Put(b("c1"), nil), tx.Put(b("z3"), nil))
				if err := tx.Commit(ctx); !errors.Is(err, tikv.ErrWriteConflict) {
					t.Error(err)
				}
				<-time.After(time.Second)
				return nil
			},
		} {
			var rec, other tikv.Recorder
			tr := seek(t, name, cluster)
			must(t, do(tikv.WithRecorder(&rec)))
			tr.stop()
			tr.check(rec.Stats())
			if s := rec.Stats(); s.RPCs == 0 || s.BytesSent <= 0 || s.BytesReceived < 0 || s.Retries != 0 || s.Backoff != 0 {
				t.Errorf("%s: %s", name, s)
			}
			every = every.Add(rec.Reset())
			if again := rec.Stats(); !reflect.DeepEqual(again, other.Stats()) {
				t.Errorf("%s: after Reset: %+v", name, again)
			}
		}
		// The client's own recorder has counted all of it.
		if got := all.Stats(); got.String() != every.String() || !reflect.DeepEqual(got.Server, every.Server) {
			t.Errorf("\n%s, the views\n%s", got, every)
		}
	})
}

func TestWithRecorderNeedsOne(t *testing.T) {
	cluster := tikvtest.NewCluster(t)
	_, err := tikv.Open(t.Context(), cluster.PD(), append(cluster.ClientOptions(), tikv.WithRecorder(nil))...)
	var arg *tikv.ArgumentError
	if !errors.As(err, &arg) || arg.Arg != "WithRecorder" {
		t.Error(err)
	}
}

// A transaction counts what it costs, with a recorder and without: the same, and as it is.
func TestTxnStats(t *testing.T) {
	keep := func(tx *tikv.Txn) error { return errors.Join(tx.Put(b("a"), b("1")), tx.Put(b("z"), b("2"))) }
	for name, c := range map[string]struct {
		opts               []tikv.BeginOption
		do                 func(ctx context.Context, tx *tikv.Txn) error
		rpcs, later        int // until it has ended, and behind it
		stamps             int // timestamps that it waits for
		prewrites, commits int // times that it waits one after the other
		locks              int
	}{
		"reads":      {nil, func(ctx context.Context, tx *tikv.Txn) error { return second(tx.BatchGet(ctx, ks("a", "z"))) }, 2, 0, 1, 0, 0, 0},
		"nothing":    {nil, func(context.Context, *tikv.Txn) error { return nil }, 0, 0, 1, 0, 0, 0},
		"one phase":  {nil, func(_ context.Context, tx *tikv.Txn) error { return tx.Put(b("a"), b("1")) }, 1, 0, 2, 1, 0, 0},
		"async":      {nil, func(_ context.Context, tx *tikv.Txn) error { return keep(tx) }, 2, 2, 2, 1, 0, 0},
		"two phases": {[]tikv.BeginOption{inTwoPhases}, func(_ context.Context, tx *tikv.Txn) error { return keep(tx) }, 3, 1, 2, 1, 1, 0},
		"pessimistic": {[]tikv.BeginOption{inTwoPhases, tikv.WithPessimistic()}, func(ctx context.Context, tx *tikv.Txn) error {
			return errors.Join(tx.Lock(ctx, ks("a", "z")), keep(tx))
		}, 5, 1, 2, 1, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
				client := cluster.Open()
				commit(t, client, "a", "old", "z", "old")
				synctest.Wait()
				const tso, read, lock, prewrite, commits = 7 * time.Millisecond, 11 * time.Millisecond, 13 * time.Millisecond, 17 * time.Millisecond, 19 * time.Millisecond
				for method, d := range map[string]time.Duration{
					"Tso": tso, "KvBatchGet": read, "KvPessimisticLock": lock, "KvPrewrite": prewrite, "KvCommit": commits,
				} {
					cluster.Inject(playground.Fault{Method: method, Delay: d})
				}
				var rec tikv.Recorder
				var told [2]tikv.TxnResult
				var kept [2]*tikv.Txn
				for i, more := range [][]tikv.BeginOption{nil, {tikv.WithRecorder(&rec)}} {
					tx, err := client.Begin(t.Context(), append(more, c.opts...)...)
					must(t, err)
					kept[i] = tx
					tx.OnEnd(func(r tikv.TxnResult) { told[i] = r })
					must(t, c.do(t.Context(), tx), tx.Commit(t.Context()))
					s := tx.Stats()
					for what, v := range map[string][2]any{
						"RPCs": {s.RPCs, c.rpcs}, "timestamps": {s.Timestamps, time.Duration(c.stamps) * tso},
						"prewrite": {s.Prewrite, time.Duration(c.prewrites) * prewrite}, "commit": {s.Commit, time.Duration(c.commits) * commits},
						"locking": {s.Locking, time.Duration(c.locks) * lock}, "retries": {s.Retries, 0}, "backoff": {s.Backoff, time.Duration(0)},
						"locks": {s.Locks, 0}, "result": {told[i].Stats.String(), s.String()},
					} {
						if v[0] != v[1] {
							t.Errorf("recorded %v: %s is %v, want %v", i == 1, what, v[0], v[1])
						}
					}
					synctest.Wait()
					<-time.After(time.Second) // what is owed
				}
				plain, full := kept[0].Stats(), kept[1].Stats()
				if plain.RPCs != c.rpcs+c.later {
					t.Errorf("behind it: %s", plain)
				}
				if full.String() != rec.Stats().String() {
					t.Errorf("\n%s, the recorder\n%s", full, rec.Stats())
				}
				if (full.RPCs > 0) != (len(full.ByMethod) > 0) || plain.ByMethod != nil {
					t.Errorf("%v, %v", full.ByMethod, plain.ByMethod)
				}
				full.ByMethod, full.Server, full.Keys, full.BytesSent, full.BytesReceived, full.RequestUnits = nil, tikv.ServerStats{}, 0, 0, 0, 0
				if !reflect.DeepEqual(plain, full) {
					t.Errorf("\n%+v, with a recorder\n%+v", plain, full)
				}
			})
		})
	}
}

// Retries and waits are counted by what they are about, and their times make up the call's.
func TestStatsOfRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		commit(t, c, "a", "1")
		cluster.Inject(playground.Fault{Method: "KvGet", RegionError: playground.ServerIsBusy, Times: 2})
		cluster.Inject(playground.Fault{Method: "KvGet", RegionError: playground.StaleCommand, Skip: 2, Times: 1})
		cluster.Inject(playground.Fault{Method: "KvGet", Delay: 3 * time.Millisecond})
		var rec tikv.Recorder
		trace := cluster.Trace()
		tx := begin(t, c, tikv.WithRecorder(&rec))
		began := time.Now()
		_, err := tx.Get(t.Context(), b("a"))
		must(t, err)
		took := time.Since(began)
		rpcs, failed, retries := 0, map[playground.RegionFault]int{}, 0
		for _, call := range trace.Calls() {
			if call.Method == "KvGet" {
				rpcs++
			}
			if call.RegionError != 0 {
				failed[call.RegionError]++
				retries++
			}
		}
		if retries < 3 || failed[playground.ServerIsBusy] != 2 || failed[playground.StaleCommand] != 1 {
			t.Fatal(failed)
		}
		for _, s := range []tikv.CallStats{rec.Stats(), tx.Stats()} {
			if s.RPCs != rpcs || s.Retries != retries || s.ByReason[tikv.ReasonServerBusy].Retries != 2 || s.ByReason[tikv.ReasonStaleCommand].Retries != 1 ||
				s.ByReason[tikv.ReasonNotLeader].Retries != failed[playground.NotLeader] {
				t.Errorf("%s, the store %v", s, failed)
			}
			waits := time.Duration(0)
			for _, r := range s.ByReason {
				waits += r.Wait
			}
			if s.Backoff == 0 || s.Elapsed+s.Backoff != took || waits != s.Backoff || s.LockWait != 0 {
				t.Errorf("%v of %v: %s", s.Elapsed+s.Backoff, took, s)
			}
		}
		must(t, tx.Rollback(t.Context()))
		// A store that does not answer, and one that is gone.
		rec.Reset()
		cluster.Inject(playground.Fault{Method: "KvGet", DropRequest: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		_, err = c.Latest(tikv.WithRecorder(&rec)).Get(ctx, b("a"))
		if s := rec.Stats(); !errors.Is(err, tikv.ErrUnavailable) || s.RPCs != 1 || s.Elapsed != time.Since(began) || s.Retries != 1 || s.ByReason[tikv.ReasonTimeout].Retries != 1 {
			t.Errorf("%v: %+v", err, s)
		}
		// The regions have to be asked for.
		rec.Reset()
		cluster.Inject(playground.Fault{Method: "GetRegion", Delay: 5 * time.Millisecond})
		cluster.Inject(playground.Fault{Method: "QueryRegion", Delay: 5 * time.Millisecond})
		_, err = cluster.Open().Raw(tikv.WithRecorder(&rec)).Get(t.Context(), b("a"))
		if s := rec.Stats(); !errors.Is(err, tikv.ErrNotFound) || s.Lookup != 5*time.Millisecond || s.RPCs != 1 {
			t.Errorf("%v: %+v", err, s)
		}
	})
}

// Who waits for locks is told for how long, who resolves some how many they were.
func TestStatsOfLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		commit(t, c, "a", "1", "b", "1", "c", "1")
		synctest.Wait()
		// A dead transaction's locks.
		die(t, cluster, false, "a", "2", "b", "2", "c", "2")
		<-time.After(time.Minute)
		cluster.Inject(playground.Fault{Method: "KvCheckTxnStatus", Delay: 9 * time.Millisecond})
		var rec tikv.Recorder
		snap, err := c.Snapshot(t.Context(), tikv.WithRecorder(&rec))
		must(t, err)
		_, err = snap.BatchGet(t.Context(), ks("a", "b", "c"))
		must(t, err)
		s := rec.Stats()
		if s.Locks != 3 || s.Resolve != 9*time.Millisecond || s.LockWait != 0 || s.ByMethod["KvCheckTxnStatus"].RPCs != 1 || s.ByMethod["KvBatchGet"].RPCs != 2 {
			t.Errorf("%+v", s)
		}
		synctest.Wait()
		// A live one's.
		held := begin(t, c, tikv.WithPessimistic())
		must(t, held.Lock(t.Context(), ks("a")), held.Put(b("a"), b("3")), held.Put(b("b"), b("3")))
		slow := cluster.Inject(playground.Fault{Method: "KvCommit", StartTS: uint64(held.StartTS()), Hold: true})
		done := start(t.Context(), func(ctx context.Context) error { return held.Commit(ctx) })
		synctest.Wait()
		rec.Reset()
		began := time.Now()
		newest := c.Latest(tikv.WithRecorder(&rec)) // which waits for live locks
		read := start(t.Context(), func(ctx context.Context) error { return second(newest.Get(ctx, b("b"))) })
		<-time.After(time.Second)
		slow.Remove()
		must(t, <-done, <-read)
		s = rec.Stats()
		if s.Locks == 0 || s.Retries == 0 || s.LockWait+s.Elapsed != time.Since(began) || s.LockWait == 0 || s.ByReason[tikv.ReasonLock].Wait != s.LockWait || s.Backoff != 0 {
			t.Errorf("of %v: %+v", time.Since(began), s)
		}
	})
}

// A pessimistic lock is waited for in TiKV's queue.
func TestStatsOfPessimisticWaits(t *testing.T) {
	dueling(t, func(d *duel) {
		var rec tikv.Recorder
		three := begin(d.T, d.c, tikv.WithPessimistic(), tikv.WithRecorder(&rec))
		waits := []*tikv.Txn{d.two, three}
		for _, tx := range waits {
			began := time.Now()
			done := start(d.Context(), func(ctx context.Context) error { return tx.Lock(ctx, ks("a"), tikv.WithLockWait(5*time.Second)) })
			err := <-done
			d.is(err, tikv.ErrLocked)
			s := tx.Stats()
			if took := time.Since(began); s.LockWait != took || s.Locking != took || took != 5*time.Second || s.Locks == 0 || s.Retries == 0 {
				d.Errorf("of %v: %+v", took, s)
			}
		}
		if s := rec.Stats(); s.Server.Write.LockWait < 3*time.Second || s.Server.Write.LockWait > s.LockWait || s.ByReason[tikv.ReasonLock].Wait != s.LockWait {
			d.Errorf("%s", s)
		}
		must(d.T, three.Rollback(d.Context()))
	})
}

// The waits between RunTxn's attempts are its caller's, and so are all attempts.
func TestStatsOfRunTxn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		var rec tikv.Recorder
		var each tikv.CallStats
		n := 0
		began := time.Now()
		must(t, c.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error {
			tx.OnEnd(func(r tikv.TxnResult) { each = each.Add(r.Stats) })
			if n++; n < 4 {
				commit(t, c, "k", fmt.Sprint(n))
			}
			return tx.Put(b("k"), b("mine"))
		}, tikv.WithRecorder(&rec)))
		s := rec.Stats()
		if s.Backoff == 0 || s.Backoff != time.Since(began) || each.Backoff != 0 {
			t.Errorf("of %v: %v, in the attempts %v", time.Since(began), s.Backoff, each.Backoff)
		}
		if s.RPCs != 4 || each.RPCs != 4 || s.ByMethod["KvPrewrite"].RPCs != 4 || each.BytesSent != s.BytesSent {
			t.Errorf("%s\n%s", s, each)
		}
	})
}
