package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// dead is a transaction whose client is gone: what it left was written request by
// request. Its primary key is "a" unless it says otherwise.
type dead struct {
	t       *testing.T
	c       *tikv.Client
	start   uint64
	primary string
	size    uint64
	async   []string // its secondaries; nil: two phases
	forTS   uint64   // not 0: it is pessimistic
}

const deadTTL = 5 * time.Second

func newDead(t *testing.T, c *tikv.Client) *dead {
	t.Helper()
	ts, err := c.Timestamp(t.Context())
	must(t, err)
	return &dead{t: t, c: c, start: uint64(ts), primary: "a", size: 2}
}

func (d *dead) now() uint64 {
	d.t.Helper()
	ts, err := d.c.Timestamp(d.t.Context())
	must(d.t, err)
	return uint64(ts)
}

// lostCall sends a request of a dead transaction's.
func lostCall[Req, Resp any](d *dead, key string, method func(tikvpb.TikvClient, context.Context, *Req, ...grpc.CallOption) (*Resp, error), req *Req) *Resp {
	d.t.Helper()
	resp, err := tikv.Call(d.t.Context(), d.c.RPC(), tikv.ToKey(tikv.KeyTxn, b(key)), method, req)
	must(d.t, err)
	return resp
}

func (d *dead) no(what string, errs ...*kvrpcpb.KeyError) {
	d.t.Helper()
	for _, ke := range errs {
		if ke != nil {
			d.t.Fatalf("%s: %v", what, ke)
		}
	}
}

// mutate is the prewrite of a key that is to be "new".
func (d *dead) mutate(key string) *kvrpcpb.PrewriteRequest {
	req := &kvrpcpb.PrewriteRequest{
		PrimaryLock: b(d.primary), StartVersion: d.start, LockTtl: uint64(deadTTL.Milliseconds()), TxnSize: d.size,
		MinCommitTs: d.start + 1, ForUpdateTs: d.forTS,
		Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: b(key), Value: b("new")}},
	}
	if d.forTS != 0 {
		req.PessimisticActions = []kvrpcpb.PrewriteRequest_PessimisticAction{kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK}
	}
	if d.async == nil {
		return req
	}
	req.UseAsyncCommit = true
	for _, s := range d.async {
		if key == d.primary {
			req.Secondaries = append(req.Secondaries, b(s))
		}
	}
	return req
}

func (d *dead) send(req *kvrpcpb.PrewriteRequest) *kvrpcpb.PrewriteResponse {
	d.t.Helper()
	return lostCall(d, string(req.Mutations[0].Key), tikvpb.TikvClient.KvPrewrite, req)
}

// prewrite writes locks.
func (d *dead) prewrite(keys ...string) *dead {
	d.t.Helper()
	for _, k := range keys {
		resp := d.send(d.mutate(k))
		d.no("prewrite", resp.Errors...)
		if (d.async != nil) != (resp.MinCommitTs != 0) {
			d.t.Fatalf("prewritten as of %d", resp.MinCommitTs)
		}
	}
	return d
}

func (d *dead) flush(keys ...string) *dead {
	d.t.Helper()
	for _, k := range keys {
		d.no("flush", lostCall(d, k, tikvpb.TikvClient.KvFlush, &kvrpcpb.FlushRequest{
			PrimaryKey: b(d.primary), StartTs: d.start, MinCommitTs: d.start + 1, Generation: 1, LockTtl: uint64(deadTTL.Milliseconds()),
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: b(k), Value: b("new")}},
		}).Errors...)
	}
	return d
}

// lock takes pessimistic locks.
func (d *dead) lock(op kvrpcpb.Op, keys ...string) *dead {
	d.t.Helper()
	d.forTS = d.now()
	for _, k := range keys {
		d.no("lock", lostCall(d, k, tikvpb.TikvClient.KvPessimisticLock, &kvrpcpb.PessimisticLockRequest{
			PrimaryLock: b(d.primary), StartVersion: d.start, ForUpdateTs: d.forTS, MinCommitTs: d.forTS + 1, LockTtl: uint64(deadTTL.Milliseconds()), WaitTimeout: -1,
			Mutations: []*kvrpcpb.Mutation{{Op: op, Key: b(k)}},
		}).Errors...)
	}
	return d
}

func (d *dead) commit(keys ...string) *dead {
	d.t.Helper()
	at := d.now()
	for _, k := range keys {
		resp := lostCall(d, k, tikvpb.TikvClient.KvCommit, &kvrpcpb.CommitRequest{StartVersion: d.start, CommitVersion: at, Keys: [][]byte{b(k)}})
		d.no("commit", resp.Error)
	}
	return d
}

func (d *dead) rollback(keys ...string) *dead {
	d.t.Helper()
	for _, k := range keys {
		d.no("rollback", lostCall(d, k, tikvpb.TikvClient.KvBatchRollback, &kvrpcpb.BatchRollbackRequest{StartVersion: d.start, Keys: [][]byte{b(k)}}).Error)
	}
	return d
}

// shared takes "z" in share mode, beside a primary key of its own.
func (d *dead) shared(op kvrpcpb.Op, primary string) *dead {
	d.t.Helper()
	d.primary = primary
	d.lock(kvrpcpb.Op_PessimisticLock, primary)
	d.lock(kvrpcpb.Op_SharedPessimisticLock, "z")
	if op == kvrpcpb.Op_SharedLock {
		req := d.mutate("z")
		req.Mutations[0].Op, req.Mutations[0].Value = op, nil
		d.no("prewrite", d.send(req).Errors...)
	}
	return d
}

// sharedSince lets another transaction share the primary key, of which TiKV's CheckTxnStatus
// tells nothing then.
func (d *dead) sharedSince() {
	o := newDead(d.t, d.c)
	o.primary = "b"
	o.lock(kvrpcpb.Op_PessimisticLock, "b").lock(kvrpcpb.Op_SharedPessimisticLock, "a")
}

// patience is who has to wait while the transaction is alive.
type patience uint8

const (
	nobody  patience = iota // it is over
	writers                 // and readers of the newest
	readers                 // and all others
)

// remains are what is left of a transaction that was to set "a" and "z", of two regions,
// to "new".
var remains = []struct {
	name      string
	leave     func(d *dead)
	committed bool
	waits     patience
	a, z      bool   // whether readers meet a lock there
	sent      string // when a writer meets "z" later
}{
	{"prewritten", func(d *dead) { d.prewrite("a", "z") }, false, writers, true, true, "Check Resolve/1"},
	{"only the primary prewritten", func(d *dead) { d.prewrite("a") }, false, writers, true, false, ""},
	{"only the secondary prewritten", func(d *dead) { d.prewrite("z") }, false, readers, false, true, "Check Check Resolve/1"},
	{"primary committed", func(d *dead) { d.prewrite("a", "z").commit("a") }, true, nobody, false, true, "Check Resolve/1"},
	{"primary rolled back", func(d *dead) { d.prewrite("a", "z").rollback("a") }, false, nobody, false, true, "Check Resolve/1"},
	{"a large one", func(d *dead) { d.size = 1000; d.prewrite("a", "b", "y", "z") }, false, writers, true, true, "Check Resolve/0"},
	{"a large one, primary committed", func(d *dead) { d.size = 1000; d.prewrite("a", "b", "y", "z").commit("a") }, true, nobody, false, true, "Check Resolve/0"},
	{"flushed", func(d *dead) { d.flush("a", "b", "z") }, false, writers, true, true, "Check Resolve/0"},
	{"flushed, primary committed", func(d *dead) { d.flush("a", "b", "z").commit("a") }, true, nobody, false, true, "Check Resolve/0"},

	{"pessimistic", func(d *dead) { d.lock(kvrpcpb.Op_PessimisticLock, "a", "b", "y", "z") }, false, writers, false, false, "Check PessimisticRollback/0"},
	{"pessimistic, without the primary", func(d *dead) { d.lock(kvrpcpb.Op_PessimisticLock, "z") }, false, writers, false, false, "Check Check PessimisticRollback/0"},
	{"pessimistic, of another primary", func(d *dead) {
		d.lock(kvrpcpb.Op_PessimisticLock, "z")
		d.primary = "c"
		d.lock(kvrpcpb.Op_PessimisticLock, "c", "a")
	}, false, writers, false, false, "Check PessimisticRollback/1"},
	{"pessimistic, prewritten", func(d *dead) { d.lock(kvrpcpb.Op_PessimisticLock, "a", "z").prewrite("a", "z") }, false, writers, true, true, "Check Resolve/1"},
	{"pessimistic, only the primary prewritten", func(d *dead) { d.lock(kvrpcpb.Op_PessimisticLock, "a", "z").prewrite("a") }, false, writers, true, false, "Check PessimisticRollback/0"},
	{"pessimistic, only the secondary prewritten", func(d *dead) { d.lock(kvrpcpb.Op_PessimisticLock, "a", "z").prewrite("z") }, false, writers, false, true, "Check Resolve/1"},
	{"pessimistic, primary committed", func(d *dead) { d.lock(kvrpcpb.Op_PessimisticLock, "a", "z").prewrite("a", "z").commit("a") }, true, nobody, false, true, "Check Resolve/1"},
	{"pessimistic, late, of one that committed", func(d *dead) {
		d.lock(kvrpcpb.Op_PessimisticLock, "a", "y", "z").prewrite("a", "z").commit("a", "z")
	}, true, nobody, false, false, ""},

	{"async", func(d *dead) { d.async = []string{"z"}; d.prewrite("a", "z") }, true, readers, true, true, "Check Secondaries/1 Resolve/1 Resolve/1"},
	{"async, its primary alone", func(d *dead) { d.async = []string{"z"}; d.prewrite("a") }, false, readers, true, false, ""},
	{"async, without its primary", func(d *dead) { d.async = []string{"z"}; d.prewrite("z") }, false, readers, false, true, "Check Check Resolve/1"},
	{"async, primary committed", func(d *dead) { d.async = []string{"z"}; d.prewrite("a", "z").commit("a") }, true, nobody, false, true, "Check Resolve/1"},
	{"async, secondary committed", func(d *dead) { d.async = []string{"z"}; d.prewrite("a", "z").commit("z") }, true, readers, true, false, ""},
	{"async, fallen back", func(d *dead) {
		d.async = []string{"z"}
		d.prewrite("a")
		d.async = nil
		d.prewrite("z")
	}, false, readers, true, true, "Check Secondaries/1 Check Resolve/1"},
	{"async, pessimistic, a secondary not prewritten", func(d *dead) {
		d.async = []string{"z"}
		d.lock(kvrpcpb.Op_PessimisticLock, "a", "z").prewrite("a")
	}, false, readers, true, false, "Check Secondaries/1 Resolve/1 Resolve/1 PessimisticRollback/0"},

	{"primary committed, and shared by others since", func(d *dead) { d.prewrite("a", "z").commit("a").sharedSince() }, true, readers, false, true, "Check Secondaries/1 Resolve/1"},
	{"primary rolled back, and shared by others since", func(d *dead) { d.prewrite("a", "z").rollback("a").sharedSince() }, false, readers, false, true, "Check Secondaries/1 Resolve/1"},
	{"only the secondary prewritten, others share the primary", func(d *dead) { d.prewrite("z").sharedSince() }, false, readers, false, true, "Check Secondaries/1 Resolve/1"},
	{"pessimistic, others share the primary", func(d *dead) { d.lock(kvrpcpb.Op_PessimisticLock, "z").sharedSince() }, false, writers, false, false, "Check PessimisticRollback/1"},

	{"shared, pessimistic", func(d *dead) { d.shared(kvrpcpb.Op_SharedPessimisticLock, "y") }, false, writers, false, false, "Check PessimisticRollback/0"},
	{"shared, prewritten", func(d *dead) { d.shared(kvrpcpb.Op_SharedLock, "y") }, false, writers, false, false, "Check Resolve/1"},
	{"shared by two", func(d *dead) {
		d.shared(kvrpcpb.Op_SharedLock, "x")
		newDead(d.t, d.c).shared(kvrpcpb.Op_SharedPessimisticLock, "y")
	}, false, writers, false, false, "Check Check PessimisticRollback/0 Resolve/1"},
}

// finders meet what is left. They return the values of "a" and "z" as they see them.
var finders = []struct {
	name           string
	newest, writes bool
	find           func(ctx context.Context, c *tikv.Client) ([][]byte, error)
}{
	{"get", false, false, func(ctx context.Context, c *tikv.Client) ([][]byte, error) {
		s, err := c.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		z, err := s.Get(ctx, b("z"))
		if err != nil {
			return nil, err
		}
		a, err := s.Get(ctx, b("a"))
		return [][]byte{a, z}, err
	}},
	{"batch get", false, false, func(ctx context.Context, c *tikv.Client) ([][]byte, error) {
		s, err := c.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		return s.BatchGet(ctx, [][]byte{b("a"), b("z")})
	}},
	{"scan", false, false, func(ctx context.Context, c *tikv.Client) ([][]byte, error) {
		s, err := c.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		var got [][]byte
		for p, err := range s.Scan(ctx, tikv.Range{}, tikv.WithReverse()) {
			if err != nil {
				return nil, err
			}
			if k := string(p.Key); k == "a" || k == "z" {
				got = append([][]byte{p.Value}, got...)
			}
		}
		return got, nil
	}},
	{"versions", false, false, func(ctx context.Context, c *tikv.Client) ([][]byte, error) {
		s, err := c.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		vs, err := s.GetVersions(ctx, [][]byte{b("a"), b("z")})
		if err != nil {
			return nil, err
		}
		return [][]byte{vs[0].Value, vs[1].Value}, nil
	}},
	{"latest", true, false, func(ctx context.Context, c *tikv.Client) ([][]byte, error) {
		z, err := c.Latest().Get(ctx, b("z"))
		if err != nil {
			return nil, err
		}
		a, err := c.Latest().Get(ctx, b("a"))
		return [][]byte{a, z}, err
	}},
	{"write", false, true, func(ctx context.Context, c *tikv.Client) ([][]byte, error) {
		tx, err := c.Begin(ctx)
		if err != nil {
			return nil, err
		}
		for _, k := range []string{"a", "b", "c", "x", "y", "z"} {
			if err := tx.Put(b(k), b("mine")); err != nil {
				return nil, err
			}
		}
		return nil, tx.Commit(ctx)
	}},
}

// met is a cluster after somebody has met what a transaction left.
type met struct {
	cluster *tikvtest.Cluster
	d       *dead
	got     [][]byte
	waited  time.Duration
	sent    string
}

// meet leaves remains and lets find meet them, at once or when they have expired.
func meet(t *testing.T, leave func(*dead), expired bool, find func(context.Context, *tikv.Client) ([][]byte, error)) *met {
	t.Helper()
	m := &met{cluster: tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))}
	c := m.cluster.Open()
	commit(t, c, "a", "old", "z", "old")
	synctest.Wait()
	m.d = newDead(t, c)
	leave(m.d)
	if expired {
		pause(t, 2*deadTTL)
	}
	trace, began := m.cluster.Trace(), time.Now()
	var err error
	m.got, err = find(t.Context(), c)
	must(t, err)
	m.waited = time.Since(began)
	pause(t, time.Second) // for what goes on behind
	trace.Stop()
	m.sent = resolving(trace)
	return m
}

// committed reports whether the transaction has committed a key.
func (m *met) committed(t *testing.T, key string) bool {
	t.Helper()
	vs, err := m.cluster.Versions(b(key))
	must(t, err)
	return slices.ContainsFunc(vs, func(v playground.Version) bool { return v.StartTS == m.d.start && v.Kind == playground.WritePut })
}

// TestLocksOfTheDead lets readers and writers meet everything that a dead client can
// leave, at once and when it has expired: they see what became of the transaction, wait
// where they must and no longer, and leave nothing of what was in their way.
func TestLocksOfTheDead(t *testing.T) {
	for _, r := range remains {
		for _, f := range finders {
			for _, expired := range []bool{false, true} {
				name := r.name + "/" + f.name + map[bool]string{false: ", at once", true: ", later"}[expired]
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := meet(t, r.leave, expired, f.find)
						value := map[bool]string{false: "old", true: "new"}[r.committed]
						if text := fmt.Sprintf("%s", m.got); !f.writes && text != fmt.Sprintf("[%s %s]", value, value) {
							t.Errorf("read %s, want %s twice", text, value)
						}
						// On its primary key a lock is nothing to a reader of the newest (TiKV
						// components/txn_types/src/lock.rs, check_ts_conflict_si).
						for key, seen := range map[string]bool{"a": r.a && !f.newest, "z": r.z} {
							if (f.writes || seen && expired) && m.committed(t, key) != r.committed {
								t.Errorf("%s: committed is not %v", key, r.committed)
							}
							if (f.writes || seen && expired) && strings.Contains(locks(m.cluster), key) {
								t.Errorf("%s is locked", key)
							}
						}
						waits := !expired && (r.waits == readers && (r.a || r.z || f.writes) || r.waits == writers && (f.writes || f.newest && r.z))
						if waits != (m.waited > time.Second) || m.waited > 2*deadTTL {
							t.Errorf("waited for %v", m.waited)
						}
						if left := locks(m.cluster); f.writes && left != "" {
							t.Errorf("locks of %s", left)
						}
					})
				})
			}
		}
		t.Run(r.name+"/sent", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := meet(t, r.leave, true, func(ctx context.Context, c *tikv.Client) ([][]byte, error) {
					commit(t, c, "z", "mine")
					return nil, nil
				})
				if inOrder(m.sent) != inOrder(r.sent) {
					t.Errorf("sent %q, want %q", m.sent, r.sent)
				}
			})
		})
	}
}

// resolving is what was sent to resolve locks, with the number of keys.
func resolving(trace *playground.Trace) string {
	var sent []string
	for _, call := range trace.Calls() {
		switch call.Method {
		case "KvCheckTxnStatus":
			sent = append(sent, "Check")
		case "KvCheckSecondaryLocks":
			sent = append(sent, fmt.Sprintf("Secondaries/%d", call.Keys))
		case "KvResolveLock":
			sent = append(sent, fmt.Sprintf("Resolve/%d", call.Keys))
		case "KVPessimisticRollback":
			sent = append(sent, fmt.Sprintf("PessimisticRollback/%d", call.Keys))
		}
	}
	return strings.Join(sent, " ")
}

func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal("the test has ended")
	}
}

// Who waits for whom is told while it lasts, and by the error of who waited in vain.
func TestLockWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		commit(t, c, "z", "old")
		d := newDead(t, c)
		d.prewrite("a", "z")
		if got := c.LockWaits(); got == nil || len(got) != 0 {
			t.Fatal(got)
		}
		tx := begin(t, c)
		must(t, tx.Put(b("z"), b("mine")))
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		errs := make(chan error, 2)
		go func() { errs <- tx.Commit(ctx) }()
		go func() { _, err := c.Latest().Get(ctx, b("z")); errs <- err }()
		synctest.Wait()
		got := c.LockWaits()
		slices.SortFunc(got, func(a, b tikv.LockWait) int { return strings.Compare(a.Op, b.Op) })
		for i := range got {
			if got[i].Since.Before(began) || got[i].Since.After(time.Now()) {
				t.Error(got[i].Since)
			}
			got[i].Since = time.Time{}
		}
		want := []tikv.LockWait{
			{Op: "Snapshot.Get", Key: b("z"), Primary: b("a"), Holder: tikv.Timestamp(d.start)},
			{Op: "Txn.Commit", Key: b("z"), Primary: b("a"), Holder: tikv.Timestamp(d.start), Waiter: tx.StartTS()},
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%+v", got)
		}
		for range 2 {
			err := <-errs
			var locked *tikv.LockedError
			if !errors.As(err, &locked) || !errors.Is(err, tikv.ErrLocked) || !errors.Is(err, tikv.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			l := locked.Lock
			if string(l.Key) != "z" || string(l.Primary) != "a" || uint64(l.StartTS) != d.start || l.TTL != deadTTL || locked.Left <= 0 || locked.Left > deadTTL+time.Millisecond {
				t.Errorf("%+v", locked)
			}
			for _, part := range []string{fmt.Sprint("lock of transaction ", d.start), "key ?1", "primary key ?1", "to live"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v does not say %q", err, part)
				}
			}
		}
		if got := c.LockWaits(); len(got) != 0 {
			t.Fatal(got)
		}
	})
}

// A read of the newest waits for the lock that it met, and for none that came later.
func TestLatestPassesLaterLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		commit(t, c, "a", "old", "z", "old")
		synctest.Wait()
		first, second := newDead(t, c), newDead(t, c)
		first.prewrite("a", "z")
		got := make(chan string, 1)
		go func() {
			v, err := c.Latest().Get(t.Context(), b("z"))
			got <- fmt.Sprintf("%s %v", v, err)
		}()
		pause(t, time.Second)
		began := time.Now()
		first.rollback("a", "z")
		second.prewrite("a", "z")
		if v := <-got; v != "old <nil>" || time.Since(began) > 2*time.Second {
			t.Errorf("%s after %v", v, time.Since(began))
		}
		began = time.Now()
		want(t, c.Latest(), "z", "old") // which meets that one first
		if waited := time.Since(began); waited < time.Second {
			t.Errorf("waited for %v", waited)
		}
	})
}

// Locks that a view is told of are not asked about.
func TestLockBypass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
		c := cluster.Open()
		commit(t, c, "b", "old", "y", "old")
		synctest.Wait()
		live := newDead(t, c).prewrite("a", "b")
		committed := newDead(t, c)
		committed.primary = "x"
		committed.prewrite("x", "y").commit("x")
		at, err := c.Timestamp(t.Context())
		must(t, err)
		trace := cluster.Trace()
		s := c.SnapshotAt(at, tikv.WithLockBypass([]tikv.Timestamp{1, tikv.Timestamp(live.start)}, []tikv.Timestamp{tikv.Timestamp(committed.start)}))
		want(t, s, "b", "old")
		want(t, s, "y", "new")
		got, err := s.BatchGet(t.Context(), [][]byte{b("y"), b("b")})
		if err != nil || fmt.Sprintf("%s", got) != "[new old]" {
			t.Fatalf("%s %v", got, err)
		}
		pairs, err := tikv.Collect(s.Scan(t.Context(), tikv.Range{}))
		if err != nil || len(pairs) != 3 {
			t.Fatal(pairs, err)
		}
		trace.Stop()
		if sent := resolving(trace); sent != "" {
			t.Error(sent)
		}
		want(t, c.SnapshotAt(at), "b", "old")
		want(t, c.SnapshotAt(at), "y", "new")
	})
}

// What the client itself has committed asynchronously it reads at once, whatever keeps the
// locks from going; another has to wait until they have expired.
func TestOwnCommitIsReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
		c, other := cluster.Open(), cluster.Open()
		lost := cluster.Inject(playground.Fault{Method: "KvCommit", DropRequest: true})
		tx := begin(t, c)
		must(t, tx.Put(b("a"), b("new")), tx.Put(b("z"), b("new")), tx.Commit(t.Context(), tikv.WithCommitMode(tikv.CommitAsync)))
		if got := locks(cluster); got != "a z" {
			t.Fatal(got)
		}
		began := time.Now()
		s, err := c.Snapshot(t.Context())
		must(t, err)
		want(t, s, "z", "new")
		if waited := time.Since(began); waited > 10*time.Millisecond {
			t.Errorf("waited for %v", waited)
		}
		s, err = other.Snapshot(t.Context())
		must(t, err)
		want(t, s, "a", "new")
		if waited := time.Since(began); waited < time.Second {
			t.Errorf("another waited for %v", waited)
		}
		lost.Remove()
		pause(t, time.Minute) // what the client owes
	})
}

// inOrder sorts the removals in what was sent, which go at the same time: they come last.
func inOrder(sent string) string {
	words := strings.Fields(sent)
	first := slices.IndexFunc(words, func(w string) bool { return strings.Contains(w, "/") })
	if first >= 0 {
		slices.Sort(words[first:])
	}
	return strings.Join(words, " ")
}
