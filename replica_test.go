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

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// replicaTest is a cluster of three stores in zones z1 to z3, whose region is led by store
// 1 and holds a and b, and a client in zone z2.
type replicaTest struct {
	*testing.T
	cluster *tikvtest.Cluster
	client  *tikv.Client
	region  uint64
}

func newReplicaTest(t *testing.T, mode playground.KeyMode, opts ...tikv.Option) *replicaTest {
	var cluster []playground.Option
	for id := range uint64(3) {
		cluster = append(cluster, playground.WithLabels(id+1, map[string]string{"zone": fmt.Sprint("z", id+1)}))
	}
	e := &replicaTest{T: t, cluster: tikvtest.NewCluster(t, cluster...)}
	e.region = e.cluster.Regions(mode)[0].ID
	e.lead(1)
	e.client = e.cluster.Open(append([]tikv.Option{tikv.WithZone("z2")}, opts...)...)
	if mode == playground.KeyRaw {
		must(t, e.client.Raw().Put(t.Context(), []byte("a"), []byte("1")))
	} else {
		commit(t, e.client, "a", "1", "b", "2")
	}
	return e
}

func (e *replicaTest) lead(store uint64) {
	e.Helper()
	if err := e.cluster.TransferLeader(e.region, store); err != nil && e.cluster.Regions(playground.KeyTxn)[0].Leader != store {
		e.Fatal(err)
	}
}

// served tells which stores are asked while do runs, in order.
func (e *replicaTest) served(do func()) string {
	e.Helper()
	trace := e.cluster.Trace()
	do()
	synctest.Wait()
	trace.Stop()
	var stores []string
	for _, call := range trace.Calls() {
		if call.Region != 0 && strings.HasPrefix(call.Node.String(), "store ") {
			stores = append(stores, strings.TrimPrefix(call.Node.String(), "store "))
		}
	}
	return strings.Join(stores, " ")
}

// Who serves the reads of each kind of view, under each policy.
func TestReplicaPolicies(t *testing.T) {
	for _, c := range []struct {
		opt    tikv.ReplicaOption
		stores string // that may serve
	}{
		{tikv.WithReplicaRead(tikv.ReadLeader), "1"},
		{tikv.WithReplicaRead(tikv.ReadPreferLeader), "1"},
		{tikv.WithReplicaRead(tikv.ReadFollower), "23"},
		{tikv.WithReplicaRead(tikv.ReadAny), "123"},
		{tikv.WithReplicaRead(tikv.ReadNearest), "2"},
		{tikv.WithReplicaRead(tikv.ReadLearner), "23"}, // there is none
		{tikv.WithReplicaReadBySize(func(n int) tikv.ReplicaPolicy {
			return []tikv.ReplicaPolicy{tikv.ReadLeader, tikv.ReadNearest}[min(n/1, 1)]
		}), "2"},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newReplicaTest(t, playground.KeyTxn)
			snap, err := e.client.Snapshot(t.Context(), c.opt)
			must(t, err)
			tx, err := e.client.Begin(t.Context(), c.opt)
			must(t, err)
			defer tx.Rollback(t.Context())
			for name, view := range map[string]tikv.Reader{"Snapshot": snap, "Txn": tx, "Latest": e.client.Latest(c.opt)} {
				got := e.served(func() {
					want(t, view, "a", "1")
					values, err := view.BatchGet(t.Context(), [][]byte{[]byte("b"), []byte("a")})
					if err != nil || fmt.Sprintf("%s", values) != "[2 1]" {
						t.Fatalf("%s %v", values, err)
					}
					pairs, err := tikv.Collect(view.Scan(t.Context(), tikv.Range{}))
					if err != nil || len(pairs) != 2 {
						t.Fatal(pairs, err)
					}
				})
				if len(strings.Fields(got)) != 3 || strings.Trim(got, c.stores+" ") != "" {
					t.Errorf("%s: stores %q, not of %q", name, got, c.stores)
				}
			}
		})
		synctest.Test(t, func(t *testing.T) {
			e := newReplicaTest(t, playground.KeyRaw)
			raw := e.client.Raw(c.opt)
			got := e.served(func() {
				want(t, raw, "a", "1")
				if _, err := raw.BatchGet(t.Context(), [][]byte{[]byte("a")}); err != nil {
					t.Fatal(err)
				}
				if pairs, err := tikv.Collect(raw.Scan(t.Context(), tikv.Range{})); err != nil || len(pairs) != 1 {
					t.Fatal(pairs, err)
				}
			})
			if len(strings.Fields(got)) != 3 || strings.Trim(got, c.stores+" ") != "" {
				t.Errorf("Raw: stores %q, not of %q", got, c.stores)
			}
			if got := e.served(func() { must(t, raw.Put(t.Context(), []byte("a"), []byte("2"))) }); got != "1" {
				t.Errorf("a write was at %q", got)
			}
		})
	}
}

// Preferences choose among what the policy allows.
func TestReplicaPreferences(t *testing.T) {
	for _, c := range []struct {
		opts   []tikv.ReadOption
		stores string
	}{
		{[]tikv.ReadOption{tikv.WithReplicaRead(tikv.ReadFollower), tikv.WithReplicaStores(3)}, "3"},
		{[]tikv.ReadOption{tikv.WithReplicaRead(tikv.ReadFollower), tikv.WithReplicaLabels(map[string]string{"zone": "z3"})}, "3"},
		{[]tikv.ReadOption{tikv.WithReplicaRead(tikv.ReadNearest), tikv.WithReplicaLabels(map[string]string{"zone": "z1"})}, "1"},
		{[]tikv.ReadOption{tikv.WithReplicaRead(tikv.ReadAny), tikv.WithReplicaStores(1)}, "1"},
		{[]tikv.ReadOption{tikv.WithReplicaRead(tikv.ReadNearest), tikv.WithIsolation(tikv.IsolationRCCheckTS)}, "1"},
		{[]tikv.ReadOption{tikv.WithReplicaStores(3)}, "1"}, // leaders are where they are
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newReplicaTest(t, playground.KeyTxn)
			view := e.client.Latest(c.opts...)
			if got := e.served(func() { want(t, view, "a", "1") }); got != c.stores {
				t.Errorf("stores %q, not %q", got, c.stores)
			}
		})
	}
}

// A learner, a witness and a store of another engine: each is asked for what it is.
func TestReplicasOfOtherKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyTxn)
		flash, err := e.cluster.AddStore(map[string]string{"engine": "tiflash"})
		must(t, err)
		must(t, e.cluster.AddPeer(e.region, flash, playground.Learner))
		four, err := e.cluster.AddStore(map[string]string{"zone": "z2"})
		must(t, err)
		must(t, e.cluster.AddPeer(e.region, four, playground.Learner))
		client := e.cluster.Open(tikv.WithZone("z2"))
		for policy, stores := range map[tikv.ReplicaPolicy]string{tikv.ReadLearner: fmt.Sprint(four), tikv.ReadNearest: fmt.Sprint("2 ", four), tikv.ReadFollower: fmt.Sprint("2 3 ", four)} {
			for range 10 {
				if got := e.served(func() { want(t, client.Latest(tikv.WithReplicaRead(policy)), "a", "1") }); !slices.Contains(strings.Fields(stores), got) {
					t.Errorf("%v: store %q", policy, got)
				}
			}
		}
	})
}

// A stale read goes to whoever is ready, without asking PD, and else to the leader.
func TestStaleRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyTxn)
		<-time.After(10 * time.Second)
		ts, err := e.client.Timestamp(t.Context())
		must(t, err)
		commit(t, e.client, "a", "new")
		near := tikv.WithReplicaRead(tikv.ReadNearest)
		view := func() *tikv.Snapshot { return e.client.SnapshotAt(ts, tikv.WithStaleRead(), near) }
		if got := e.served(func() { want(t, view(), "a", "1") }); got != "2" {
			t.Fatal(got)
		}
		if got := e.served(func() { want(t, e.client.Latest(near), "a", "new") }); got != "2" {
			t.Fatal(got)
		}
		// Behind in what is safe to read: the leader.
		must(t, e.cluster.SetStore(2, playground.StoreState{ResolvedLag: time.Hour}))
		commit(t, e.client, "a", "newer")
		ts, err = e.client.Timestamp(t.Context())
		must(t, err)
		if got := e.served(func() { want(t, view(), "a", "newer") }); got != "2 1" {
			t.Fatal(got)
		}
		// And behind in the data, so that a replica read would have to wait: the leader again.
		must(t, e.cluster.SetStore(2, playground.StoreState{ApplyLag: time.Hour, ResolvedLag: time.Hour}))
		if got := e.served(func() { want(t, view(), "a", "newer") }); got != "2 1" {
			t.Fatal(got)
		}
		// The leader is away: another replica that is ready.
		must(t, e.cluster.Stop(playground.Store(1)))
		want(t, view(), "a", "newer")
	})
}

func TestMaxStaleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyTxn)
		<-time.After(10 * time.Second)
		if _, err := e.client.Timestamp(t.Context()); err != nil {
			t.Fatal(err)
		}
		commit(t, e.client, "a", "new")
		asks := e.cluster.Inject(playground.Fault{Method: "Tso"})
		snap, err := e.client.Snapshot(t.Context(), tikv.WithMaxStaleness(5*time.Second), tikv.WithReplicaRead(tikv.ReadNearest))
		must(t, err)
		if age := time.Since(snap.Timestamp().Time()); age != 5*time.Second {
			t.Fatal(age)
		}
		if got := e.served(func() { want(t, snap, "a", "1") }); got != "2" || asks.Hits() > 0 {
			t.Fatalf("store %s, %d timestamps", got, asks.Hits())
		}
		<-time.After(6 * time.Second)
		snap, err = e.client.Snapshot(t.Context(), tikv.WithMaxStaleness(5*time.Second))
		must(t, err)
		want(t, snap, "a", "new")
	})
}

// A leader that this client alone cannot reach is reached through another store, by writes
// too, and itself again when it can be.
func TestForwarding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyTxn, tikv.WithRPCTimeout(time.Second))
		must(t, e.cluster.Cut(playground.Client(), playground.Store(1)))
		must(t, e.cluster.Cut(playground.Store(1), playground.Client()))
		began := time.Now()
		commit(t, e.client, "a", "through")
		want(t, e.client.Latest(), "a", "through")
		if took := time.Since(began); took > 15*time.Second {
			t.Fatal(took)
		}
		for range 20 { // the way is known by now, but for a trial of the straight one
			began = time.Now()
			commit(t, e.client, "a", "through")
			if took := time.Since(began); took > 1500*time.Millisecond {
				t.Fatal(took)
			}
			<-time.After(time.Second)
		}
		if leader := e.cluster.Regions(playground.KeyTxn)[0].Leader; leader != 1 {
			t.Fatal(leader)
		}
		e.cluster.Heal()
		<-time.After(time.Minute)
		want(t, e.client.Latest(), "b", "2")
		if got := e.served(func() { want(t, e.client.Latest(), "b", "2") }); got != "1" {
			t.Fatalf("stores %q", got)
		}
	})
}

// A read's first attempts have little time; then there is as much as ever.
func TestReadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyTxn)
		quick := tikv.WithReadTimeout(50 * time.Millisecond)
		want(t, e.client.Latest(quick), "a", "1")
		slow := e.cluster.Inject(playground.Fault{Method: "KvGet", Node: playground.Store(1), Delay: time.Second})
		began := time.Now()
		want(t, e.client.Latest(quick), "a", "1")
		if took := time.Since(began); took > 300*time.Millisecond {
			t.Fatal(took)
		}
		slow.Remove()
		e.cluster.Inject(playground.Fault{Method: "KvGet", Delay: 2 * time.Second})
		began = time.Now()
		want(t, e.client.Latest(quick), "a", "1")
		if took := time.Since(began); took < 2*time.Second || took > 4*time.Second {
			t.Fatal(took)
		}
	})
}

func TestHedging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyTxn)
		hedged := e.client.Latest(tikv.WithHedging(20*time.Millisecond), tikv.WithReplicaStores(3))
		want(t, hedged, "a", "1")
		e.cluster.Inject(playground.Fault{Method: "KvGet", Node: playground.Store(1), Delay: time.Second})
		began := time.Now()
		if got := e.served(func() { want(t, hedged, "a", "1") }); !strings.Contains(got, "3") {
			t.Fatal(got)
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Fatal(took)
		}
		<-time.After(2 * time.Second)
	})
}

// A store whose queue is too long for a read is left out, until all are like it.
func TestBusyThreshold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyTxn)
		view := e.client.Latest(tikv.WithBusyThreshold(100 * time.Millisecond))
		must(t, e.cluster.SetStore(1, playground.StoreState{ReadWait: time.Second}))
		if got := e.served(func() { want(t, view, "a", "1") }); got != "1 2" && got != "1 3" {
			t.Fatal(got)
		}
		for id := range uint64(3) {
			must(t, e.cluster.SetStore(id+1, playground.StoreState{ReadWait: time.Second}))
		}
		<-time.After(time.Minute)
		began := time.Now()
		want(t, view, "a", "1")
		if took := time.Since(began); took > time.Second {
			t.Fatal(took)
		}
	})
}

// Without a majority nobody leads: who fails fast is told at once.
func TestFailFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyTxn)
		must(t, e.cluster.Stop(playground.Store(1)))
		must(t, e.cluster.Stop(playground.Store(2)))
		for _, do := range []func(ctx context.Context) error{
			func(ctx context.Context) error {
				_, err := e.client.Latest(tikv.WithFailFast()).Get(ctx, []byte("a"))
				return err
			},
			func(ctx context.Context) error {
				return e.client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put([]byte("a"), []byte("x")) }, tikv.WithFailFast())
			},
		} {
			began := time.Now()
			err := do(t.Context())
			var away *tikv.UnavailableError
			if !errors.As(err, &away) || time.Since(began) > time.Second || len(away.Attempts) == 0 || !tikv.NotSent(err) {
				t.Fatal(err, time.Since(began))
			}
		}
	})
}

// What an attempt was is in the error.
func TestAttemptsTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyTxn)
		e.cluster.Inject(playground.Fault{Method: "KvGet", RegionError: playground.ServerIsBusy})
		_, err := e.client.Latest(tikv.WithReplicaRead(tikv.ReadNearest), tikv.WithRetryFor(2*time.Second)).Get(t.Context(), []byte("a"))
		var away *tikv.UnavailableError
		if !errors.As(err, &away) || len(away.Attempts) < 3 {
			t.Fatal(err)
		}
		replicas, delay := 0, time.Duration(0)
		for _, a := range away.Attempts {
			delay += a.Delay
			if a.Reason != tikv.ReasonServerBusy || a.Addr == "" || (a.Asked == tikv.AskedReplica) != (a.StoreID != 1) {
				t.Errorf("%+v", a)
			}
			if a.Asked == tikv.AskedReplica {
				replicas++
			}
		}
		if delay == 0 || replicas == 0 || !strings.Contains(err.Error(), "as replica") {
			t.Fatal(err)
		}
	})
}

func TestReplicaOptionsAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		for name, opt := range map[string]tikv.ReadOption{
			"WithReplicaRead": tikv.WithReplicaRead(9), "WithReplicaReadBySize": tikv.WithReplicaReadBySize(nil),
			"WithReplicaLabels": tikv.WithReplicaLabels(nil), "WithReplicaStores": tikv.WithReplicaStores(0),
			"WithBusyThreshold": tikv.WithBusyThreshold(time.Microsecond), "WithReadTimeout": tikv.WithReadTimeout(1500 * time.Microsecond),
			"WithHedging": tikv.WithHedging(0),
		} {
			var arg *tikv.ArgumentError
			if _, err := c.Latest(opt).Get(t.Context(), []byte("a")); !errors.As(err, &arg) || arg.Arg != name {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, d := range []time.Duration{0, -1, time.Hour * 24 * 365} {
			if _, err := c.Snapshot(t.Context(), tikv.WithMaxStaleness(d)); !errors.Is(err, tikv.ErrInvalid) {
				t.Errorf("%v: %v", d, err)
			}
		}
		if _, err := tikv.Open(t.Context(), []string{"pd:1"}, tikv.WithZone("")); !errors.Is(err, tikv.ErrInvalid) {
			t.Error(err)
		}
		if s := fmt.Sprint(tikv.ReadNearest, tikv.ReplicaPolicy(9), tikv.AskedStale, tikv.Asked(9)); s != "nearest ReplicaPolicy(9) stale Asked(9)" {
			t.Error(s)
		}
	})
}

// Every error of the table, once from whoever is asked, and for good from one replica: a
// read gets its value from somebody, soon and after few attempts, unless TiKV means that
// nobody will do.
func TestEveryErrorOfReplicas(t *testing.T) {
	for _, kind := range faultKinds {
		if kind.before != nil || kind.kills || kind.place == onPD || kind.place == onKeys || kind.fault.Duplicate {
			continue
		}
		for _, c := range []struct {
			name    string
			route   []tikv.SnapshotAtOption
			forGood bool
		}{
			{"leader", nil, false},
			{"leader or another", []tikv.SnapshotAtOption{tikv.WithReadTimeout(100 * time.Millisecond)}, false},
			{"prefer-leader", []tikv.SnapshotAtOption{tikv.WithReplicaRead(tikv.ReadPreferLeader)}, false},
			{"nearest", []tikv.SnapshotAtOption{tikv.WithReplicaRead(tikv.ReadNearest)}, false},
			{"stale", []tikv.SnapshotAtOption{tikv.WithReplicaRead(tikv.ReadNearest), tikv.WithStaleRead()}, false},
			{"nearest, for good", []tikv.SnapshotAtOption{tikv.WithReplicaRead(tikv.ReadNearest)}, true},
			{"stale, for good", []tikv.SnapshotAtOption{tikv.WithReplicaRead(tikv.ReadNearest), tikv.WithStaleRead()}, true},
			{"hedged, for good", []tikv.SnapshotAtOption{tikv.WithReplicaRead(tikv.ReadNearest), tikv.WithHedging(time.Millisecond)}, true},
		} {
			t.Run(kind.name+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := newReplicaTest(t, playground.KeyTxn, tikv.WithRPCTimeout(3*time.Second))
					ts, err := e.client.Timestamp(t.Context())
					must(t, err)
					f := kind.fault
					f.Method, f.Times = "KvGet", 1
					if c.forGood {
						f.Times, f.Node = 0, playground.Store(2)
					}
					hit := e.cluster.Inject(f)
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					trace := e.cluster.Trace()
					got, err := e.client.SnapshotAt(ts, c.route...).Get(ctx, []byte("a"))
					calls := len(trace.Calls())
					trace.Stop()
					leads := c.name == "leader" || c.name == "leader or another" || c.name == "prefer-leader"
					// What is final is believed of the leader; a flashback, of it alone.
					flashback := kind.fault.RegionError == playground.FlashbackInProgress && !leads
					if kind.fatal != nil && !flashback && !strings.HasPrefix(c.name, "hedged") {
						if !errors.Is(err, kind.fatal) {
							t.Fatalf("%q %v, not %v", got, err, kind.fatal)
						}
					} else if kind.fatal == nil && (err != nil || string(got) != "1") {
						t.Fatalf("%q %v", got, err)
					}
					if hit.Hits() == 0 || calls > 12 {
						t.Fatalf("%d requests, %d of them met the fault", calls, hit.Hits())
					}
				})
			})
		}
	}
}

// A leader whose store is slow, by its own word, is spared while others can serve, and is
// asked again when it is well.
func TestPreferLeaderSparesSlowStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyTxn)
		view := e.client.Latest(tikv.WithReplicaRead(tikv.ReadPreferLeader))
		read := func() string { return e.served(func() { want(t, view, "a", "1") }) }
		until := func(stores string) {
			t.Helper()
			var got string
			for range 60 {
				if got = read(); strings.Contains(stores, got) {
					return
				}
				<-time.After(time.Second)
				want(t, e.client.Latest(), "b", "2") // an answer of the leader's, with its word
			}
			t.Fatalf("still asks %q, not one of %q", got, stores)
		}
		until("1")
		must(t, e.cluster.SetStore(1, playground.StoreState{SlowScore: 100}))
		until("2 3")
		must(t, e.cluster.SetStore(1, playground.StoreState{}))
		until("1")
	})
}

// Hooks are told of every attempt: whom it asks, as what, and through whom. Any-request
// views have the same routes.
func TestHooksSeeReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		e := newReplicaTest(t, playground.KeyTxn, tikv.WithHooks(rec), tikv.WithRPCTimeout(time.Second))
		seen := func(do func()) (all string) {
			rec.take()
			do()
			synctest.Wait()
			_, calls := rec.take()
			for _, c := range calls {
				all += fmt.Sprintf(" %s:%d", c.Asked, c.StoreID)
				if c.Via != 0 {
					all += fmt.Sprint("<", c.Via)
				}
			}
			return all
		}
		near := tikv.WithReplicaRead(tikv.ReadNearest)
		if got := seen(func() { want(t, e.client.Latest(near), "a", "1") }); got != " replica:2" {
			t.Error(got)
		}
		must(t, e.cluster.SetStore(2, playground.StoreState{ResolvedLag: time.Hour}))
		<-time.After(time.Second)
		ts, err := e.client.Timestamp(t.Context())
		must(t, err)
		if got := seen(func() { want(t, e.client.SnapshotAt(ts, near, tikv.WithStaleRead()), "a", "1") }); got != " stale:2 leader:1" {
			t.Error(got)
		}
		slow := e.cluster.Inject(playground.Fault{Method: "KvGet", Node: playground.Store(1), Delay: 200 * time.Millisecond})
		hedged := e.client.Latest(tikv.WithHedging(time.Millisecond), tikv.WithReplicaStores(3))
		if got := seen(func() { want(t, hedged, "a", "1") }); got != " leader:1 replica:3" {
			t.Error(got)
		}
		slow.Remove()
		req := &kvrpcpb.GetRequest{Key: []byte("a"), Version: uint64(ts)}
		if got := seen(func() {
			resp, err := tikv.Call(t.Context(), e.client.RPC(near), tikv.ToKey(tikv.KeyTxn, []byte("a")), tikvpb.TikvClient.KvGet, req)
			if err != nil || string(resp.GetValue()) != "1" {
				t.Error(resp, err)
			}
		}); got != " replica:2" {
			t.Error(got)
		}
		must(t, e.cluster.Cut(playground.Client(), playground.Store(1)))
		if got := seen(func() { commit(t, e.client, "a", "2") }); !strings.Contains(got, " leader:1<") {
			t.Error(got)
		}
		e.cluster.Heal()
	})
}

// The parts of a batch that replicas read are all under way at once, as those for leaders
// are.
func TestReplicasReadBatchesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newReplicaTest(t, playground.KeyRaw)
		var keys [][]byte
		for i := range 40 {
			keys = append(keys, fmt.Appendf(nil, "k%02d", i))
			_, err := e.cluster.Split(playground.KeyRaw, keys[i])
			must(t, err)
		}
		near := e.client.Raw(tikv.WithReplicaRead(tikv.ReadNearest), tikv.WithReadTimeout(time.Minute))
		get := func(ctx context.Context) error { _, err := near.BatchGet(ctx, keys); return err }
		must(t, get(t.Context())) // from then on the stores are known
		held := e.cluster.Inject(playground.Fault{Method: "RawBatchGet", Node: playground.Store(2), Hold: true})
		done := start(t.Context(), get)
		synctest.Wait()
		if n := held.Waiting(); n != len(keys) {
			t.Errorf("%d of %d requests under way", n, len(keys))
		}
		held.Remove()
		must(t, <-done)
		// What fails goes on one by one, at other replicas.
		must(t, e.cluster.Stop(playground.Store(2)))
		must(t, get(t.Context()))
	})
}

// Raw keys have no versions to be read at: options of such reads do not fit a raw view.
func TestRawViewsHaveNoStaleReads(t *testing.T) {
	for _, o := range []any{tikv.WithStaleRead(), tikv.WithMaxStaleness(time.Second)} {
		if _, ok := o.(tikv.RawOption); ok {
			t.Errorf("%T", o)
		}
		if _, ok := o.(tikv.RPCOption); ok {
			t.Errorf("%T", o)
		}
	}
}
