package tikv_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// What each mode sends, for keys in one region and in two; each commit is wholly visible
// to a snapshot taken when it has returned.
func TestCommitModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1), playground.WithSplitKeys(playground.KeyTxn, b("m")))
		c := cluster.Open()
		for _, tt := range []struct {
			mode                        tikv.CommitMode
			keys                        string
			timestamps, prewrites, ends int // ends: commit records asked for
		}{
			{tikv.CommitAuto, "ab", 1, 1, 0},
			{tikv.CommitAuto, "ay", 1, 2, 2},
			{tikv.CommitAsync, "ab", 1, 1, 1},
			{tikv.CommitAsync, "ay", 1, 2, 2},
			{tikv.CommitTwoPhase, "ab", 1, 1, 1},
			{tikv.CommitTwoPhase, "ay", 1, 2, 2},
		} {
			for _, causal := range []bool{false, true} {
				opts := []tikv.CommitOption{tikv.WithCommitMode(tt.mode)}
				if causal {
					opts = append(opts, tikv.WithCausalConsistency())
					if tt.mode != tikv.CommitTwoPhase {
						tt.timestamps = 0
					}
				}
				tx, err := c.Begin(t.Context())
				must(t, err)
				for _, k := range tt.keys {
					must(t, tx.Put([]byte(string(k)), b("v")))
				}
				before := cluster.Counts().Calls
				must(t, tx.Commit(t.Context(), opts...))
				snap, err := c.Snapshot(t.Context())
				must(t, err)
				ts, ok := tx.CommitTS()
				if !ok || ts <= tx.StartTS() || ts > snap.Timestamp() {
					t.Errorf("%v: committed at %v, begun at %v, seen at %v", tt, ts, tx.StartTS(), snap.Timestamp())
				}
				synctest.Wait()
				after := cluster.Counts().Calls
				if n := after["KvPrewrite"] - before["KvPrewrite"]; n != tt.prewrites {
					t.Errorf("%v: %d prewrites", tt, n)
				}
				if n := after["KvCommit"] - before["KvCommit"]; n != tt.ends {
					t.Errorf("%v: %d commits", tt, n)
				}
				if n := after["Tso"] - before["Tso"]; n != tt.timestamps+1 { // and the snapshot's
					t.Errorf("%v, causal %v: %d timestamps", tt, causal, n)
				}
				for _, k := range tt.keys {
					got, err := snap.GetVersions(t.Context(), [][]byte{[]byte(string(k))})
					if err != nil || string(got[0].Value) != "v" || got[0].CommitTS != ts {
						t.Errorf("%v: %c is %v, %v", tt, k, got, err)
					}
				}
			}
		}
	})
}

// A commit that TiKV may not put after a timestamp that PD has not reached falls back.
func TestCommitFallsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1), playground.WithSplitKeys(playground.KeyTxn, b("m")))
		c := cluster.Open()
		for _, keys := range []string{"ab", "ay"} {
			tx, err := c.Begin(t.Context())
			must(t, err)
			for _, k := range keys {
				must(t, tx.Put([]byte(string(k)), b("v")))
			}
			// The prewrite is late, and others have read meanwhile.
			slow := cluster.Inject(playground.Fault{Method: "KvPrewrite", Delay: 5 * time.Second})
			done := start(t.Context(), func(ctx context.Context) error { return tx.Commit(ctx) })
			<-time.After(4 * time.Second)
			snap, err := c.Snapshot(t.Context())
			must(t, err)
			if _, err := snap.BatchGet(t.Context(), [][]byte{b("a"), b("y")}); err != nil {
				t.Fatal(err)
			}
			before := cluster.Counts().Calls["KvCommit"]
			must(t, <-done)
			slow.Remove()
			synctest.Wait()
			ts, _ := tx.CommitTS()
			if n := cluster.Counts().Calls["KvCommit"] - before; n != map[string]int{"ab": 1, "ay": 2}[keys] || ts <= snap.Timestamp() {
				t.Errorf("%s: %d commits, at %v, read at %v", keys, n, ts, snap.Timestamp())
			}
		}
	})
}

func TestCommitAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		c := cluster.Open()
		for _, mode := range []tikv.CommitMode{tikv.CommitAuto, tikv.CommitAsync, tikv.CommitTwoPhase} {
			for _, tt := range []struct {
				ahead, wait time.Duration
				took        time.Duration
				ok          bool
			}{
				{-time.Second, 0, 0, true},
				{3 * time.Second, 5 * time.Second, 3 * time.Second, true},
				{3 * time.Second, time.Second, 0, false},
				{3 * time.Second, 0, 0, false},
			} {
				now, err := c.Timestamp(t.Context())
				must(t, err)
				after := now + tikv.Timestamp(tt.ahead.Milliseconds()<<18)
				tx, err := c.Begin(t.Context())
				must(t, err)
				must(t, tx.Put(b("k"), b("v")))
				began := time.Now()
				err = tx.Commit(t.Context(), tikv.WithCommitMode(mode), tikv.WithCommitAfter(after, tt.wait))
				took := time.Since(began)
				ts, _ := tx.CommitTS()
				if tt.ok && (err != nil || ts <= after) || !tt.ok && (!errors.Is(err, tikv.ErrCommitTSLag) || !tikv.NotSent(err) || tikv.IsRetryable(err)) {
					t.Errorf("%v, %v: at %v, after %v: %v", mode, tt, ts, after, err)
				}
				if took < tt.took || took > tt.took+600*time.Millisecond {
					t.Errorf("%v, %v: took %v", mode, tt, took)
				}
				synctest.Wait()
				if n := len(cluster.Locks(nil, nil)); n > 0 {
					t.Errorf("%v, %v: %d locks are left", mode, tt, n)
				}
			}
		}
	})
}

func TestAssertions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		c := cluster.Open()
		must(t, c.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error { return tx.Put(b("there"), b("v")) }))
		write := func(level tikv.AssertionLevel, key string, a tikv.Assertion) error {
			return c.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error {
				return tx.Put([]byte(key), b("v"), tikv.WithAssertion(a))
			}, tikv.WithAssertions(level))
		}
		for level := tikv.AssertionsOff; level <= tikv.AssertionsStrict; level++ {
			must(t, write(level, "there", tikv.AssertExists))
			must(t, write(level, "there", tikv.AssertNothing))
			err := write(level, "there", tikv.AssertAbsent)
			var failed *tikv.AssertionError
			switch {
			case level == tikv.AssertionsOff:
				must(t, err)
			case !errors.As(err, &failed) || !errors.Is(err, tikv.ErrAssertion) || string(failed.Key) != "there" || failed.Assertion != tikv.AssertAbsent ||
				failed.StartTS == 0 || failed.ExistingTS == 0 || failed.ExistingCommitTS == 0 || tikv.IsRetryable(err) || !tikv.NotSent(err):
				t.Errorf("%v: %+v %v", level, failed, err)
			}
			if err := write(level, "missing", tikv.AssertExists); level != tikv.AssertionsOff && !errors.Is(err, tikv.ErrAssertion) {
				t.Errorf("%v: %v", level, err)
			} else if level == tikv.AssertionsOff {
				must(t, err)
				must(t, c.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error {
					return tx.Delete(b("missing"), tikv.WithAssertion(tikv.AssertExists))
				}))
			}
		}
		// What the transaction wrote itself is known at once.
		tx := begin(t, c)
		must(t, tx.Delete(b("there")))
		if err := tx.Put(b("there"), nil, tikv.WithAssertion(tikv.AssertExists)); !errors.Is(err, tikv.ErrAssertion) {
			t.Error(err)
		}
		must(t, tx.Put(b("there"), nil, tikv.WithAssertion(tikv.AssertAbsent)))
		if err := tx.Delete(b("there"), tikv.WithAssertion(tikv.AssertAbsent)); !errors.Is(err, tikv.ErrAssertion) {
			t.Error(err)
		}
		must(t, tx.Rollback(t.Context()))
	})
}

// A disk that is full takes what is allowed to go there, and change feeds and TiKV see
// where a transaction comes from.
func TestDiskFullAndSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		c := cluster.Open(tikv.WithRetryFor(3 * time.Second))
		put := func(opts ...tikv.RunOption) error {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			return c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put(b("k"), b("v")) }, opts...)
		}
		for _, tt := range []struct {
			disk   playground.Disk
			policy tikv.DiskFullPolicy
			ok     bool
		}{
			{playground.DiskOK, tikv.DiskFullRefuse, true},
			{playground.DiskAlmostFull, tikv.DiskFullRefuse, false},
			{playground.DiskAlmostFull, tikv.DiskFullAllowAlmost, true},
			{playground.DiskAlreadyFull, tikv.DiskFullAllowAlmost, false},
			{playground.DiskAlmostFull, tikv.DiskFullAllow, true},
			{playground.DiskAlreadyFull, tikv.DiskFullAllow, false}, // it leads (raftstore store/peer.rs)
		} {
			must(t, cluster.SetStore(1, playground.StoreState{Disk: tt.disk}))
			if err := put(tikv.WithDiskFull(tt.policy)); (err == nil) != tt.ok || !tt.ok && !errors.Is(err, tikv.ErrDiskFull) {
				t.Errorf("%v, %v: %v", tt.disk, tt.policy, err)
			}
		}
		must(t, cluster.SetStore(1, playground.StoreState{}))
		must(t, put(tikv.WithTxnSource(7)))
	})
}

// Commits of one client that write the same key wait for each other, and who is too late
// sends nothing.
func TestLocalLatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		c := cluster.Open(tikv.WithLocalLatches(8))
		txs := []*tikv.Txn{begin(t, c), begin(t, c), begin(t, c)}
		for _, tx := range txs[:2] {
			must(t, errors.Join(tx.Put(b("k"), b("1")), tx.Put(b("l"), b("1"))))
		}
		must(t, txs[2].Put(b("other"), b("1")))
		held := cluster.Inject(playground.Fault{Method: "KvPrewrite", StartTS: uint64(txs[0].StartTS()), Hold: true})
		first := start(t.Context(), func(ctx context.Context) error { return txs[0].Commit(ctx) })
		synctest.Wait()
		before := cluster.Counts().Calls["KvPrewrite"]
		second := start(t.Context(), func(ctx context.Context) error { return txs[1].Commit(ctx) })
		impatient := begin(t, c)
		must(t, impatient.Put(b("k"), b("2")))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := impatient.Commit(ctx); !errors.Is(err, tikv.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		held.Remove()
		must(t, <-first)
		var conflict *tikv.WriteConflictError
		ts, _ := txs[0].CommitTS()
		if err := <-second; !errors.As(err, &conflict) || conflict.ConflictCommitTS != ts || !tikv.IsRetryable(err) {
			t.Error(err, conflict)
		}
		if n := cluster.Counts().Calls["KvPrewrite"] - before; n > 1 { // the first one's, which was held
			t.Errorf("%d prewrites", n)
		}
		must(t, txs[2].Commit(t.Context()))
		must(t, c.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error { return tx.Put(b("k"), b("3")) }))
	})
}

// Bad values of the options are refused before anything is sent.
func TestCommitOptionsRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		c := cluster.Open()
		for name, opt := range map[string]tikv.CommitOption{
			"mode":          tikv.WithCommitMode(9),
			"no timestamp":  tikv.WithCommitAfter(0, 0),
			"the maximum":   tikv.WithCommitAfter(1<<64-1, 0),
			"negative wait": tikv.WithCommitAfter(1, -1),
			"policy":        tikv.WithDiskFull(9),
			"source":        tikv.WithTxnSource(0),
			"check":         tikv.WithCommitCheck(nil),
		} {
			tx := begin(t, c)
			must(t, tx.Put(b("k"), nil))
			_, berr := c.Begin(t.Context(), opt)
			rerr := c.RunTxn(t.Context(), func(context.Context, *tikv.Txn) error { return nil }, opt)
			for _, err := range []error{tx.Commit(t.Context(), opt), berr, rerr} {
				if !errors.Is(err, tikv.ErrInvalid) || !tikv.NotSent(err) {
					t.Errorf("%s: %v", name, err)
				}
			}
			must(t, tx.Commit(t.Context())) // it has not ended
		}
		tx := begin(t, c)
		for name, err := range map[string]error{
			"assertion":        tx.Put(b("k"), nil, tikv.WithAssertion(9)),
			"contradiction":    tx.Insert(b("k"), nil, tikv.WithAssertion(tikv.AssertExists)),
			"nil option":       tx.Delete(b("k"), nil),
			"level":            second(c.Begin(t.Context(), tikv.WithAssertions(9))),
			"latches":          second(tikv.Open(t.Context(), cluster.PD(), tikv.WithLocalLatches(0))),
			"too many latches": second(tikv.Open(t.Context(), cluster.PD(), tikv.WithLocalLatches(1<<25))),
		} {
			if !errors.Is(err, tikv.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if tx.Len() != 0 {
			t.Errorf("%d keys were written", tx.Len())
		}
	})
}

func TestCommitWords(t *testing.T) {
	got := fmt.Sprint(tikv.CommitAuto, tikv.CommitAsync, tikv.CommitTwoPhase, tikv.CommitMode(9),
		tikv.DiskFullRefuse, tikv.DiskFullAllowAlmost, tikv.DiskFullAllow, tikv.DiskFullPolicy(9),
		tikv.AssertNothing, tikv.AssertExists, tikv.AssertAbsent, tikv.Assertion(9),
		tikv.AssertionsOff, tikv.AssertionsFast, tikv.AssertionsStrict, tikv.AssertionLevel(9))
	want := "auto async two-phase CommitMode(9) refuse allow-almost allow DiskFullPolicy(9) nothing exists absent Assertion(9) off fast strict AssertionLevel(9)"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Of transactions that add to a counter none is lost, whichever way they commit, and with
// latches or without.
func TestCountersInEveryMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
		for store := range uint64(3) {
			cluster.Inject(playground.Fault{Node: playground.Store(store + 1), Delay: time.Millisecond})
		}
		clients := []*tikv.Client{cluster.Open(), cluster.Open(tikv.WithLocalLatches(4))}
		const each = 20
		var done []<-chan error
		for i, c := range clients {
			for mode := tikv.CommitAuto; mode <= tikv.CommitTwoPhase; mode++ {
				done = append(done, start(t.Context(), func(ctx context.Context) error {
					for n := range each {
						err := c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
							err := increment(ctx, tx)
							if n%2 == i { // in two regions
								err = errors.Join(err, tx.Put(fmt.Appendf(nil, "z%d-%d-%d", i, mode, n), b("x")))
							}
							return err
						}, tikv.WithCommitMode(mode))
						if err != nil {
							return err
						}
					}
					return nil
				}))
			}
		}
		for _, d := range done {
			must(t, <-d)
		}
		snap, err := clients[0].Snapshot(t.Context())
		must(t, err)
		pairs, err := tikv.Collect(snap.Scan(t.Context(), tikv.Range{}))
		must(t, err)
		i := slices.IndexFunc(pairs, func(p tikv.Pair) bool { return p.Key[0] != 'z' })
		if got := binary.BigEndian.Uint64(pairs[max(i, 0)].Value); got != uint64(len(done)*each) || len(pairs) != 1+len(done)*each/2 {
			t.Errorf("%d pairs, the counter is %d", len(pairs), got)
		}
	})
}

// A transfer that must come after what another system has told of.
func ExampleWithCommitAfter() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV1)
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	told, err := client.Timestamp(ctx) // elsewhere
	if err != nil {
		fmt.Println(err)
		return
	}
	tx, err := client.Begin(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := tx.Put([]byte("order/1"), []byte("paid"), tikv.WithAssertion(tikv.AssertAbsent)); err != nil {
		fmt.Println(err)
		return
	}
	if err := tx.Commit(ctx, tikv.WithCommitAfter(told, time.Second), tikv.WithCommitMode(tikv.CommitAsync)); err != nil {
		fmt.Println(err)
		return
	}
	at, _ := tx.CommitTS()
	fmt.Println(at > told)
	// Output: true
}
