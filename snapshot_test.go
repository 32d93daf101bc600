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

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// die writes pairs in a transaction whose client dies: with its locks written and
// nothing committed, or with the primary key alone committed.
func die(t *testing.T, cluster *tikvtest.Cluster, committed bool, pairs ...string) *tikv.Txn {
	t.Helper()
	c, err := tikv.Open(t.Context(), cluster.PD(), append(cluster.ClientOptions(), tikv.WithCloseTimeout(0))...)
	if err != nil {
		t.Fatal(err)
	}
	tx := begin(t, c)
	for i := 0; i < len(pairs); i += 2 {
		must(t, tx.Put([]byte(pairs[i]), []byte(pairs[i+1])))
	}
	f := playground.Fault{Method: "KvCommit", StartTS: uint64(tx.StartTS()), DropRequest: true}
	if committed {
		f.Skip = 1
	}
	lost := cluster.Inject(f)
	defer lost.Remove()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = tx.Commit(ctx)
	if committed && err != nil || !committed && !errors.Is(err, tikv.ErrUndetermined) {
		t.Fatal(err)
	}
	synctest.Wait()
	if err := c.Close(); committed && err == nil {
		t.Fatal("nothing was owed")
	}
	return tx
}

func locks(c *tikvtest.Cluster) string {
	var ks []string
	for _, l := range c.Locks(nil, nil) {
		ks = append(ks, string(l.Key))
	}
	return strings.Join(ks, " ")
}

func TestReadersMeetALiveTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, []byte("c")))
		c := cluster.Open()
		commit(t, c, "a", "1", "b", "2", "c", "3", "d", "4")
		before := time.Now()
		die(t, cluster, false, "a", "x", "b", "x", "d", "x")
		if got := locks(cluster); got != "a b d" {
			t.Fatal(got)
		}
		// A reader pushes it and does not wait.
		snap, err := c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		want(t, snap, "b", "2")
		got, err := snap.BatchGet(t.Context(), [][]byte{[]byte("d"), []byte("c"), []byte("a")})
		if err != nil || fmt.Sprintf("%s", got) != "[4 3 1]" {
			t.Fatalf("%s %v", got, err)
		}
		for _, opts := range [][]tikv.ScanOption{nil, {tikv.WithReverse()}, {tikv.WithPageSize(1)}} {
			pairs, err := tikv.Collect(snap.Scan(t.Context(), tikv.Range{}, opts...))
			if err != nil || len(pairs) != 4 {
				t.Fatal(pairs, err)
			}
		}
		if waited := time.Since(at); waited > 100*time.Millisecond {
			t.Errorf("a reader waited for %v", waited)
		}
		if got := locks(cluster); got != "a b d" {
			t.Error("locks of a live transaction are gone:", got)
		}
		// A reader of the newest waits until it is dead.
		want(t, c.Latest(), "d", "4")
		if waited := time.Since(before); waited < 3*time.Second || waited > 7*time.Second {
			t.Errorf("waited for %v, a lock lives for 3 s", waited)
		}
		pairs, err := tikv.Collect(c.Latest().Scan(t.Context(), tikv.Range{}, tikv.WithReverse()))
		if err != nil || len(pairs) != 4 || string(pairs[0].Value) != "4" {
			t.Error(pairs, err)
		}
		want(t, c.Latest(), "b", "2") // the scan may have been told of d alone, and looked past b
		synctest.Wait()
		if got := locks(cluster); got != "" {
			t.Error("left locks:", got)
		}
	})
}

func TestWriterMeetsADeadTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, []byte("c")))
		c := cluster.Open()
		commit(t, c, "a", "1")
		before := time.Now()
		die(t, cluster, false, "a", "x", "d", "x")
		commit(t, c, "d", "mine")
		if waited := time.Since(before); waited < 3*time.Second || waited > 7*time.Second {
			t.Errorf("waited for %v, a lock lives for 3 s", waited)
		}
		want(t, c.Latest(), "a", "1")
		want(t, c.Latest(), "d", "mine")
		synctest.Wait()
		if got := locks(cluster); got != "" {
			t.Error("left locks:", got)
		}
	})
}

// The primary key is committed, its client died: what it wrote counts everywhere.
func TestReadersMeetACommittedTransaction(t *testing.T) {
	for _, r := range []string{"snapshot", "latest", "versions", "txn", "old"} {
		t.Run(r, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at := [][]byte{[]byte("b"), []byte("d"), []byte("f")}
				cluster := tikvtest.NewCluster(t, playground.WithStores(3), playground.WithSplitKeys(playground.KeyTxn, at...))
				c := cluster.Open()
				commit(t, c, "c", "1", "e", "1", "g", "1")
				old, err := c.Snapshot(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				dead := die(t, cluster, true, "a", "2", "c", "2", "d", "2", "g", "2")
				if got := locks(cluster); got != "c d g" {
					t.Fatal(got)
				}
				begun := time.Now()
				ts, _ := dead.CommitTS()
				switch r {
				case "snapshot":
					checkPairs(t, c.SnapshotAt(ts), "a=2 c=2 d=2 e=1 g=2")
				case "latest":
					checkPairs(t, c.Latest(), "a=2 c=2 d=2 e=1 g=2")
				case "txn":
					tx := begin(t, c)
					must(t, tx.Delete([]byte("d")), tx.Put([]byte("b"), []byte("3")))
					checkPairs(t, tx, "a=2 b=3 c=2 e=1 g=2")
				case "old":
					checkPairs(t, old, "c=1 e=1 g=1")
				case "versions":
					got, err := c.SnapshotAt(ts).GetVersions(t.Context(), [][]byte{[]byte("g"), []byte("c"), []byte("x")})
					if err != nil || got[0].CommitTS != ts || string(got[1].Value) != "2" || got[1].CommitTS != ts || got[2].Value != nil {
						t.Fatalf("%+v %v", got, err)
					}
				}
				if waited := time.Since(begun); waited > time.Second {
					t.Errorf("waited for %v for what was decided", waited)
				}
				// Removing the locks goes on behind the readers' backs.
				want(t, c.Latest(), "c", "2")
				want(t, c.Latest(), "d", "2")
				want(t, c.Latest(), "g", "2")
				synctest.Wait()
				if got := locks(cluster); got != "" {
					t.Error("left locks:", got)
				}
			})
		})
	}
}

// checkPairs reads everything in every way.
func checkPairs(t *testing.T, r tikv.Reader, all string) {
	t.Helper()
	show := func(pairs []tikv.Pair) string {
		var out []string
		for _, p := range pairs {
			out = append(out, string(p.Key)+"="+string(p.Value))
		}
		return strings.Join(out, " ")
	}
	for _, opts := range [][]tikv.ScanOption{{tikv.WithReverse()}, nil, {tikv.WithPageSize(1)}, {tikv.WithPageSize(2), tikv.WithReverse()}} {
		pairs, err := tikv.Collect(r.Scan(t.Context(), tikv.Range{}, opts...))
		if len(opts) > 0 && string(pairs[0].Key) > string(pairs[len(pairs)-1].Key) {
			slices.Reverse(pairs)
		}
		if err != nil || show(pairs) != all {
			t.Fatalf("%s, %v; want %s", show(pairs), err, all)
		}
	}
	var ks [][]byte
	for _, k := range strings.Split("a b c d e f g", " ") {
		ks = append(ks, []byte(k))
	}
	values, err := r.BatchGet(t.Context(), ks)
	var pairs []tikv.Pair
	for i, v := range values {
		if v != nil {
			pairs = append(pairs, tikv.Pair{Key: ks[i], Value: v})
		}
	}
	if err != nil || show(pairs) != all {
		t.Fatalf("%s, %v; want %s", show(pairs), err, all)
	}
	for _, p := range pairs {
		want(t, r, string(p.Key), string(p.Value))
	}
}

func TestCommitSurvivesLostAnswers(t *testing.T) {
	for _, f := range []playground.Fault{
		{Method: "KvPrewrite", Disconnect: true}, {Method: "KvCommit", Disconnect: true},
		{Method: "KvPrewrite", DropAnswer: true}, {Method: "KvCommit", DropAnswer: true},
		{Method: "KvPrewrite", DropRequest: true}, {Method: "KvCommit", DropRequest: true},
		{Method: "KvCommit", Duplicate: true}, {Method: "KvPrewrite", Duplicate: true},
		{Method: "KvPrewrite", RegionError: playground.ServerIsBusy}, {Method: "KvCommit", RegionError: playground.StaleCommand},
	} {
		t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, []byte("m")))
				// Enough for one attempt that is never answered.
				c := cluster.Open(tikv.WithRetryFor(time.Minute))
				f.Times = 1
				fault := cluster.Inject(f)
				ts := commit(t, c, "a", "1", "x", "2")
				if fault.Hits() != 1 {
					t.Fatal("the fault did not happen")
				}
				want(t, c.SnapshotAt(ts), "a", "1")
				want(t, c.SnapshotAt(ts), "x", "2")
				synctest.Wait()
				vs, err := cluster.Versions([]byte("a"))
				if err != nil || len(vs) != 1 || tikv.Timestamp(vs[0].CommitTS) != ts || locks(cluster) != "" {
					t.Errorf("%+v %v, locks %q", vs, err, locks(cluster))
				}
			})
		})
	}
}

// A commit that takes longer than its locks live: the heartbeat keeps them.
func TestSlowCommitLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, []byte("m")))
		c, other := cluster.Open(), cluster.Open()
		slow := cluster.Inject(playground.Fault{Method: "KvPrewrite", Key: []byte("x"), Delay: 15 * time.Second})
		done := make(chan error)
		tx := begin(t, c)
		must(t, tx.Put([]byte("a"), []byte("1")), tx.Put([]byte("x"), []byte("1")))
		go func() { done <- tx.Commit(t.Context()) }()
		time.AfterFunc(10*time.Second, func() { _, _ = other.Latest().Get(t.Context(), []byte("a")) })
		must(t, <-done)
		if slow.Hits() != 1 {
			t.Fatal("not slow")
		}
		want(t, other.Latest(), "x", "1")
	})
}

func TestSnapshotsAreOfOneMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		commit(t, c, "a", "1")
		snap, err := c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		latest := c.Latest(tikv.WithPriority(tikv.PriorityHigh), tikv.WithIsolation(tikv.IsolationSnapshot))
		ts := commit(t, c, "a", "2", "b", "1")
		want(t, snap, "a", "1")
		want(t, snap.With(tikv.WithNoFillCache()), "b", "-")
		want(t, latest, "a", "2")
		want(t, c.SnapshotAt(ts), "b", "1")
		want(t, c.SnapshotAt(ts-1), "b", "-")
		if latest.Timestamp() != 0 || snap.Timestamp() == 0 || snap.Timestamp() >= ts || c.SnapshotAt(ts).Timestamp() != ts {
			t.Error(snap.Timestamp(), ts)
		}
		// Anything newer is a conflict for a reader that asks for it.
		_, err = snap.With(tikv.WithIsolation(tikv.IsolationRCCheckTS)).Get(t.Context(), []byte("a"))
		if !errors.Is(err, tikv.ErrWriteConflict) {
			t.Error(err)
		}
	})
}

func TestTimestamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		a, err := c.Timestamp(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.Timestamp(t.Context())
		if err != nil || b <= a {
			t.Fatal(a, b, err)
		}
		recent, err := c.RecentTimestamp(t.Context(), time.Second)
		if err != nil || recent != b {
			t.Error(recent, b, err)
		}
		time.AfterFunc(2*time.Second, func() {})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		<-ctx.Done()
		cancel()
		recent, err = c.RecentTimestamp(t.Context(), time.Second)
		if err != nil || recent <= b {
			t.Error(recent, b, err)
		}
		if now := recent.Time(); time.Until(now).Abs() > 1100*time.Millisecond || tikv.TimestampAt(now) > recent || recent.Logical() < 0 {
			t.Error(recent)
		}

		future := recent + tikv.TimestampAt(time.UnixMilli(60_000))
		snap := c.SnapshotAt(future)
		for name, err := range map[string]error{
			"Get":      second(snap.Get(t.Context(), []byte("a"))),
			"BatchGet": second(snap.BatchGet(t.Context(), keysOf(2))),
			"Scan":     second(tikv.Collect(snap.Scan(t.Context(), tikv.Range{}))),
			"With":     second(snap.With().Get(t.Context(), []byte("a"))),
			"Begin":    second(c.Begin(t.Context(), tikv.WithStartTS(future))),
		} {
			if !errors.Is(err, tikv.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// In time it becomes the past.
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute+time.Second)
		<-ctx.Done()
		cancel()
		want(t, snap, "a", "-")
		commit(t, c, "a", "1")
		want(t, begin(t, c, tikv.WithStartTS(future)), "a", "-")
	})
}

// Close waits for the locks that a committed transaction still has.
func TestCloseCommitsWhatIsOwed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		delay time.Duration
		took  time.Duration
	}{{"in time", 2 * time.Second, 2 * time.Second}, {"not in time", time.Hour, 3 * time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, []byte("m")))
				c, err := tikv.Open(t.Context(), cluster.PD(), cluster.ClientOptions()...)
				if err != nil {
					t.Fatal(err)
				}
				held := cluster.Inject(playground.Fault{Method: "KvCommit", Key: []byte("x"), Hold: true})
				ts := commit(t, c, "a", "1", "x", "2")
				synctest.Wait()
				if locks(cluster) != "x" || held.Waiting() != 1 {
					t.Fatal(locks(cluster))
				}
				timer := time.AfterFunc(tt.delay, held.Remove)
				begun := time.Now()
				err = c.Close()
				if took := time.Since(begun); took < tt.took || took > tt.took+100*time.Millisecond {
					t.Errorf("took %v", took)
				}
				timer.Stop()
				held.Remove()
				if (err != nil) != (tt.delay > 3*time.Second) || err != nil && !strings.Contains(err.Error(), "commit secondaries") {
					t.Error(err)
				}
				synctest.Wait()
				want(t, cluster.Open().SnapshotAt(ts), "x", "2")
			})
		})
	}
}

// A commit whose answer is out when the client closes: unknown, and closed.
func TestCloseDuringCommit(t *testing.T) {
	for method, unknown := range map[string]bool{"KvCommit": true, "KvPrewrite": false} {
		synctest.Test(t, func(t *testing.T) {
			cluster := tikvtest.NewCluster(t)
			c, err := tikv.Open(t.Context(), cluster.PD(), cluster.ClientOptions()...)
			if err != nil {
				t.Fatal(err)
			}
			held := cluster.Inject(playground.Fault{Method: method, Hold: true})
			defer held.Remove()
			tx, done := begin(t, c), make(chan error)
			must(t, tx.Put([]byte("a"), nil))
			go func() { done <- tx.Commit(t.Context()) }()
			synctest.Wait()
			if held.Waiting() != 1 {
				t.Fatal("not under way")
			}
			must(t, c.Close())
			if err := <-done; !errors.Is(err, tikv.ErrClosed) || errors.Is(err, tikv.ErrUndetermined) != unknown || tikv.NotSent(err) == unknown {
				t.Errorf("%s: %v", method, err)
			}
		})
	}
}

// Regions split and leaders move under scans and transactions.
func TestTopologyChangesUnderReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(3))
		c := cluster.Open()
		var pairs []string
		for _, k := range keysOf(200) {
			pairs = append(pairs, string(k), string(k))
		}
		commit(t, c, pairs...)
		for _, opts := range [][]tikv.ScanOption{{tikv.WithPageSize(7)}, {tikv.WithPageSize(7), tikv.WithReverse()}} {
			n := 0
			for kv, err := range c.Latest().Scan(t.Context(), tikv.Range{}, opts...) {
				if err != nil || string(kv.Key) != string(kv.Value) {
					t.Fatal(kv, err)
				}
				if n++; n%11 == 0 {
					disturb(t, cluster, n)
				}
			}
			if n != 200 {
				t.Errorf("%d pairs", n)
			}
			got, err := c.Latest().BatchGet(t.Context(), keysOf(200))
			if err != nil || slices.ContainsFunc(got, func(v []byte) bool { return v == nil }) {
				t.Error(err)
			}
		}
		if n := len(cluster.Regions(playground.KeyTxn)); n < 10 {
			t.Errorf("%d regions", n)
		}
	})
}

// disturb splits a region and moves a leader.
func disturb(t *testing.T, c *tikvtest.Cluster, n int) {
	t.Helper()
	if _, err := c.Split(playground.KeyTxn, fmt.Appendf(nil, "k%03d", n*37%200)); err != nil {
		t.Fatal(err)
	}
	regions := c.Regions(playground.KeyTxn)
	r := regions[n%len(regions)]
	for _, s := range r.Stores {
		if s != r.Leader {
			must(t, c.TransferLeader(r.ID, s))
			return
		}
	}
}

// A call that waits for a lock ends with its context, at once.
func TestCancelWhileWaitingForALock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		die(t, cluster, false, "a", "x", "b", "x") // the newest data of a primary key are not hidden by its lock
		for name, call := range map[string]func(ctx context.Context) error{
			"Get":      func(ctx context.Context) error { return second(c.Latest().Get(ctx, []byte("b"))) },
			"BatchGet": func(ctx context.Context) error { return second(c.Latest().BatchGet(ctx, [][]byte{[]byte("b")})) },
			"Scan":     func(ctx context.Context) error { return second(tikv.Collect(c.Latest().Scan(ctx, tikv.Range{}))) },
			"Commit": func(ctx context.Context) error {
				tx := begin(t, c)
				must(t, tx.Put([]byte("b"), nil))
				return tx.Commit(ctx)
			},
		} {
			ctx, cancel := context.WithCancelCause(t.Context())
			over, done := errors.New("over"), make(chan error)
			go func() { done <- call(ctx) }()
			synctest.Wait()
			begun := time.Now()
			time.AfterFunc(200*time.Millisecond, func() { cancel(over) })
			err := <-done
			if !errors.Is(err, over) || !errors.Is(err, context.Canceled) || time.Since(begun) != 200*time.Millisecond || !tikv.NotSent(err) {
				t.Errorf("%s: %v after %v", name, err, time.Since(begun))
			}
		}
	})
}

func ExampleClient_Snapshot() {
	ctx := context.Background()
	cluster, err := playground.Start(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), tikv.WithDialer(cluster.DialContext))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	put := func(key, value string) {
		err := client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
			return tx.Put([]byte(key), []byte(value))
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	put("user/1", "ann")
	put("user/2", "bob")
	snap, err := client.Snapshot(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	put("user/2", "bert")
	put("user/3", "cat")
	for kv, err := range snap.Scan(ctx, tikv.Prefix([]byte("user/")), tikv.WithReverse()) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s=%s\n", kv.Key, kv.Value)
	}
	// Output:
	// user/2=bob
	// user/1=ann
}
