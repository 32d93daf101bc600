package tikv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// commit runs one transaction that puts the given pairs.
func commit(t *testing.T, c *tikv.Client, pairs ...string) tikv.Timestamp {
	t.Helper()
	tx := begin(t, c)
	for i := 0; i < len(pairs); i += 2 {
		if err := tx.Put([]byte(pairs[i]), []byte(pairs[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	ts, _ := tx.CommitTS()
	return ts
}

// inTwoPhases makes the requests of a commit those that a test expects.
var inTwoPhases = tikv.WithCommitMode(tikv.CommitTwoPhase)

// begin begins a transaction that commits in two phases, unless the options say more.
func begin(t *testing.T, c *tikv.Client, opts ...tikv.BeginOption) *tikv.Txn {
	t.Helper()
	tx, err := c.Begin(t.Context(), append([]tikv.BeginOption{inTwoPhases}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// want checks the value of a key; "-" is absent.
func want(t *testing.T, r tikv.Reader, key, value string) {
	t.Helper()
	got, err := r.Get(t.Context(), []byte(key))
	if errors.Is(err, tikv.ErrNotFound) {
		got, err = []byte("-"), nil
	}
	if err != nil || string(got) != value {
		t.Fatalf("%s is %q, %v; want %q", key, got, err, value)
	}
}

// another returns a client of a second cluster in one test.
func another(t *testing.T, opts ...playground.Option) *tikv.Client {
	t.Helper()
	cluster, err := playground.Start(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tikv.Open(t.Context(), cluster.PD(), tikv.WithDialer(cluster.DialContext), tikv.WithAPIVersion(tikv.APIVersion(cluster.APIVersion())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), cluster.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func keysOf(n int) [][]byte {
	var keys [][]byte
	for i := range n {
		keys = append(keys, fmt.Appendf(nil, "k%03d", i))
	}
	return keys
}

func TestTxnReadsItsOwnWrites(t *testing.T) {
	for _, api := range []playground.APIVersion{playground.APIV1, playground.APIV2} {
		t.Run(fmt.Sprint(api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithAPIVersion(api), playground.WithSplitKeys(playground.KeyTxn, []byte("c")))
				c := cluster.Open()
				first := commit(t, c, "a", "1", "b", "2", "d", "4", "e", "")
				tx := begin(t, c)
				key := []byte("b")
				if err := tx.Put(key, []byte("two")); err != nil {
					t.Fatal(err)
				}
				key[0] = 'z' // arguments may be reused
				must(t, tx.Delete([]byte("d")), tx.Put([]byte("c"), nil), tx.Insert([]byte("f"), []byte("6")))
				if tx.Len() != 4 || tx.Size() != len("b"+"two"+"d"+"c"+"f"+"6") {
					t.Error(tx.Len(), tx.Size())
				}
				for k, v := range map[string]string{"a": "1", "b": "two", "c": "", "d": "-", "e": "", "f": "6", "g": "-"} {
					want(t, tx, k, v)
				}
				want(t, tx.Snapshot(), "b", "2")
				want(t, tx.Snapshot(tikv.WithNoFillCache()), "c", "-")
				ks := [][]byte{[]byte("f"), []byte("d"), []byte("a"), []byte("g"), []byte("e"), []byte("a"), []byte("c")}
				got, err := tx.BatchGet(t.Context(), ks)
				if err != nil || fmt.Sprintf("%q", got) != `["6" "" "1" "" "" "1" ""]` || got[1] != nil || got[3] != nil || got[4] == nil || got[6] == nil {
					t.Fatalf("%q %v", got, err)
				}
				got[2][0] = 'x'
				if string(got[5]) != "1" {
					t.Error("two results share their bytes")
				}
				vs, err := tx.GetVersions(t.Context(), [][]byte{[]byte("a"), []byte("b"), []byte("g")})
				if err != nil || vs[0].CommitTS != first || vs[1].CommitTS != 0 || string(vs[1].Value) != "two" || vs[2].Value != nil {
					t.Fatalf("%+v %v, committed at %d", vs, err, first)
				}
				if _, ok := tx.CommitTS(); ok {
					t.Error("a commit timestamp before the commit")
				}
				if err := tx.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				ts, ok := tx.CommitTS()
				if !ok || ts <= tx.StartTS() || tx.StartTS() <= first {
					t.Error(first, tx.StartTS(), ts, ok)
				}
				for k, v := range map[string]string{"b": "two", "c": "", "d": "-", "f": "6"} {
					want(t, c.Latest(), k, v)
				}
				want(t, c.SnapshotAt(ts-1), "b", "2")
				want(t, c.SnapshotAt(ts), "b", "two")
				want(t, tx.Snapshot(), "d", "4")
			})
		})
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestTxnConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		a, b := begin(t, c), begin(t, c)
		must(t, a.Put([]byte("k"), []byte("a")), b.Put([]byte("k"), []byte("b")))
		must(t, b.Commit(t.Context()))
		err := a.Commit(t.Context())
		var conflict *tikv.WriteConflictError
		if !errors.As(err, &conflict) || !errors.Is(err, tikv.ErrWriteConflict) || !tikv.IsRetryable(err) || !tikv.NotSent(err) {
			t.Fatal(err)
		}
		if ts, _ := b.CommitTS(); string(conflict.Key) != "k" || conflict.StartTS != a.StartTS() || conflict.ConflictTS != b.StartTS() || conflict.ConflictCommitTS != ts {
			t.Errorf("%+v", conflict)
		}
		want(t, c.Latest(), "k", "b")

		// A key that is only locked conflicts as well; one that is only read does not.
		lock, read := begin(t, c), begin(t, c)
		must(t, lock.Lock(t.Context(), [][]byte{[]byte("k")}), lock.Put([]byte("x"), nil), read.Put([]byte("y"), nil))
		want(t, read, "k", "b")
		commit(t, c, "k", "c")
		if err := lock.Commit(t.Context()); !errors.Is(err, tikv.ErrWriteConflict) {
			t.Error(err)
		}
		must(t, read.Commit(t.Context()))
		want(t, c.Latest(), "x", "-")
		want(t, c.Latest(), "y", "")
	})
}

func TestTxnClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, []byte("m"))).Open()
		commit(t, c, "k", "1")
		exists := func(claim func(tx *tikv.Txn) error) {
			t.Helper()
			tx := begin(t, c)
			must(t, tx.Put([]byte("x"), nil), claim(tx))
			err := tx.Commit(t.Context())
			var e *tikv.AlreadyExistsError
			if !errors.As(err, &e) || string(e.Key) != "k" || !errors.Is(err, tikv.ErrAlreadyExists) || tikv.IsRetryable(err) {
				t.Error(err)
			}
		}
		exists(func(tx *tikv.Txn) error { return tx.Insert([]byte("k"), []byte("2")) })
		exists(func(tx *tikv.Txn) error { return tx.CheckAbsent([]byte("k")) })
		exists(func(tx *tikv.Txn) error {
			return errors.Join(tx.Lock(t.Context(), [][]byte{[]byte("k")}), tx.CheckAbsent([]byte("k")))
		})
		want(t, c.Latest(), "x", "-")
		tx := begin(t, c)
		must(t, tx.Delete([]byte("k")), tx.Insert([]byte("k"), []byte("3")), tx.CheckAbsent([]byte("l")), tx.Insert([]byte("z"), nil))
		if err := tx.Insert([]byte("k"), nil); !errors.Is(err, tikv.ErrAlreadyExists) {
			t.Error(err)
		}
		must(t, tx.Commit(t.Context()))
		want(t, c.Latest(), "k", "3")
		want(t, c.Latest(), "l", "-")
		// Nothing but checks.
		tx = begin(t, c)
		must(t, tx.CheckAbsent([]byte("l")), tx.Commit(t.Context()))
		if _, ok := tx.CommitTS(); ok {
			t.Error("checks alone commit nothing")
		}
	})
}

func TestTxnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		for name, end := range map[string]func(tx *tikv.Txn) error{
			"commit":       func(tx *tikv.Txn) error { return tx.Commit(t.Context()) },
			"rollback":     func(tx *tikv.Txn) error { return tx.Rollback(t.Context()) },
			"empty commit": func(tx *tikv.Txn) error { return tx.Commit(t.Context()) },
		} {
			tx := begin(t, c)
			if name != "empty commit" {
				must(t, tx.Put([]byte(name), nil))
			}
			must(t, end(tx))
			for call, err := range map[string]error{
				"Get":         second(tx.Get(t.Context(), []byte("a"))),
				"BatchGet":    second(tx.BatchGet(t.Context(), keysOf(1))),
				"GetVersions": second(tx.GetVersions(t.Context(), keysOf(1))),
				"Scan":        second(tikv.Collect(tx.Scan(t.Context(), tikv.Range{}))),
				"Put":         tx.Put([]byte("a"), nil),
				"Insert":      tx.Insert([]byte("a"), nil),
				"Delete":      tx.Delete([]byte("a")),
				"CheckAbsent": tx.CheckAbsent([]byte("a")),
				"Lock":        tx.Lock(t.Context(), keysOf(1)),
				"Commit":      tx.Commit(t.Context()),
			} {
				if !errors.Is(err, tikv.ErrTxnDone) {
					t.Errorf("%s after %s: %v", call, name, err)
				}
			}
			must(t, tx.Rollback(t.Context()))
		}
		want(t, c.Latest(), "commit", "")
		want(t, c.Latest(), "rollback", "-")
	})
}

func second[T any](_ T, err error) error { return err }

func TestTxnBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		tx := begin(t, c)
		held := cluster.Inject(playground.Fault{Method: "KvGet", Hold: true})
		done := make(chan error)
		go func() { done <- second(tx.Get(t.Context(), []byte("a"))) }()
		synctest.Wait()
		if held.Waiting() != 1 {
			t.Fatal("the read is not under way")
		}
		for name, err := range map[string]error{
			"Put": tx.Put([]byte("a"), nil), "Commit": tx.Commit(t.Context()), "Rollback": tx.Rollback(t.Context()),
			"Delete": tx.Delete([]byte("a")), "Lock": tx.Lock(t.Context(), keysOf(1)),
		} {
			if !errors.Is(err, tikv.ErrTxnBusy) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// Reads go together.
		if _, err := tikv.Collect(tx.Scan(t.Context(), tikv.Range{})); err != nil {
			t.Error(err)
		}
		held.Remove()
		if err := <-done; !errors.Is(err, tikv.ErrNotFound) {
			t.Fatal(err)
		}
		must(t, tx.Put([]byte("a"), nil))

		held = cluster.Inject(playground.Fault{Method: "KvPrewrite", Hold: true})
		go func() { done <- tx.Commit(t.Context()) }()
		synctest.Wait()
		if _, err := tx.Get(t.Context(), []byte("a")); !errors.Is(err, tikv.ErrTxnBusy) {
			t.Error(err)
		}
		held.Remove()
		must(t, <-done)
	})
}

func TestTxnBadInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithAPIVersion(playground.APIV2))
		c := cluster.Open()
		v1 := another(t)
		tx, txV1 := begin(t, c), begin(t, v1)
		trace := cluster.Trace()
		long, ctx := make([]byte, 7276), t.Context()
		for name, err := range map[string]error{
			"empty key, Put":       tx.Put(nil, nil),
			"empty key, Insert":    tx.Insert([]byte{}, nil),
			"empty key, Delete":    tx.Delete(nil),
			"empty key, Lock":      tx.Lock(ctx, [][]byte{nil}),
			"empty key, Check":     tx.CheckAbsent(nil),
			"empty key, Get":       second(tx.Get(ctx, nil)),
			"empty key, BatchGet":  second(tx.BatchGet(ctx, [][]byte{[]byte("a"), nil})),
			"empty key, snapshot":  second(tx.Snapshot().Get(ctx, nil)),
			"empty key, versions":  second(tx.Snapshot().GetVersions(ctx, [][]byte{nil})),
			"inverted range":       second(tikv.Collect(tx.Scan(ctx, tikv.Range{Start: []byte("b"), End: []byte("a")}))),
			"bad limit":            second(tikv.Collect(tx.Scan(ctx, tikv.Range{}, tikv.WithLimit(0)))),
			"nil option, Scan":     second(tikv.Collect(tx.Snapshot().Scan(ctx, tikv.Range{}, nil))),
			"nil option, Begin":    second(c.Begin(ctx, nil)),
			"nil option, Snapshot": second(c.Snapshot(ctx, nil)),
			"nil option, held":     second(c.Latest(nil).Get(ctx, []byte("a"))),
			"nil option, With":     second(tx.Snapshot().With(nil).Get(ctx, []byte("a"))),
			"bad isolation":        second(tikv.Collect(c.SnapshotAt(1, tikv.WithIsolation(9)).Scan(ctx, tikv.Range{}))),
			"no timestamp":         second(c.SnapshotAt(0).Get(ctx, []byte("a"))),
			"no start timestamp":   second(c.Begin(ctx, tikv.WithStartTS(0))),
			"bad limits":           second(c.Begin(ctx, tikv.WithTxnLimits(0, 1))),
			"nil fn":               c.RunTxn(ctx, nil),
			"bad attempts":         c.RunTxn(ctx, func(context.Context, *tikv.Txn) error { return nil }, tikv.WithMaxAttempts(0)),
			"negative age":         second(c.RecentTimestamp(ctx, -1)),
		} {
			var arg *tikv.ArgumentError
			if !errors.As(err, &arg) || !errors.Is(err, tikv.ErrInvalid) || !tikv.NotSent(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name, err := range map[string]error{
			"key, V2":       tx.Put(long, nil),
			"key, V1":       txV1.Put(make([]byte, 7280), nil),
			"key, Delete":   tx.Delete(long),
			"key, Lock":     tx.Lock(ctx, [][]byte{long}),
			"entry":         tx.Put([]byte("k"), make([]byte, 8<<20)),
			"entry, Insert": tx.Insert([]byte("k"), make([]byte, 8<<20)),
		} {
			if !errors.Is(err, tikv.ErrTooLarge) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if calls := trace.Calls(); len(calls) != 0 || tx.Len() != 0 {
			t.Errorf("sent: %v, buffered: %d", calls, tx.Len())
		}
		trace.Stop()
		// The longest keys that fit, and a value near the limit, do get through.
		must(t, tx.Put(long[:7275], []byte("v")), tx.Put([]byte("big"), make([]byte, 5<<20)), tx.Commit(ctx))
		must(t, txV1.Put(make([]byte, 7279), nil), txV1.Commit(ctx))
		want(t, c.Latest(), string(long[:7275]), "v")
		if v, err := c.Latest().Get(ctx, []byte("big")); err != nil || len(v) != 5<<20 {
			t.Error(len(v), err)
		}
	})
}

func TestTxnUnsupportedAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		cluster := tikvtest.NewCluster(t)
		closed := cluster.Open()
		ttl := another(t, playground.WithAPIVersion(playground.APIV1TTL))
		tx := begin(t, closed)
		must(t, tx.Put([]byte("a"), nil))
		snap := closed.Latest()
		must(t, closed.Close())
		body := func(context.Context, *tikv.Txn) error { return nil }
		for name, errs := range map[string][2]error{
			"Begin":    {second(ttl.Begin(ctx)), second(closed.Begin(ctx))},
			"Snapshot": {second(ttl.Snapshot(ctx)), second(closed.Snapshot(ctx))},
			"RunTxn":   {ttl.RunTxn(ctx, body), closed.RunTxn(ctx, body)},
			"Get":      {second(ttl.Latest().Get(ctx, []byte("a"))), second(snap.Get(ctx, []byte("a")))},
			"BatchGet": {second(ttl.SnapshotAt(1).BatchGet(ctx, keysOf(1))), second(snap.BatchGet(ctx, keysOf(1)))},
			"Scan":     {second(tikv.Collect(ttl.Latest().Scan(ctx, tikv.Range{}))), second(tikv.Collect(snap.Scan(ctx, tikv.Range{})))},
		} {
			if !errors.Is(errs[0], tikv.ErrUnsupported) || !errors.Is(errs[1], tikv.ErrClosed) {
				t.Errorf("%s: %v; %v", name, errs[0], errs[1])
			}
		}
		for name, err := range map[string]error{
			"Put": tx.Put([]byte("a"), nil), "Commit": tx.Commit(ctx), "Txn.Get": second(tx.Get(ctx, []byte("a"))),
			"Timestamp": second(closed.Timestamp(ctx)), "RecentTimestamp": second(closed.RecentTimestamp(ctx, time.Hour)),
		} {
			if !errors.Is(err, tikv.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
		must(t, tx.Rollback(ctx))
	})
}

func TestTxnLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		tx := begin(t, c, tikv.WithTxnLimits(2, 10))
		must(t, tx.Put([]byte("a"), []byte("1234")))
		for name, err := range map[string]error{
			"bytes": tx.Put([]byte("b"), []byte("12345")), "longer": tx.Put([]byte("a"), make([]byte, 10)),
			"keys": tx.Lock(t.Context(), keysOf(2)),
		} {
			if !errors.Is(err, tikv.ErrTooLarge) {
				t.Errorf("%s: %v", name, err)
			}
		}
		must(t, tx.Put([]byte("a"), []byte("12345678")), tx.Delete([]byte("b")), tx.Put([]byte("a"), nil))
		if err := tx.Delete([]byte("c")); !errors.Is(err, tikv.ErrTooLarge) || tx.Len() != 2 || tx.Size() != 2 {
			t.Error(err, tx.Len(), tx.Size())
		}
		must(t, tx.Commit(t.Context()))
	})
}

// A transaction whose scans, in both directions, with limits and pages of all sizes, are
// compared with a map, over regions that split meanwhile.
func TestTxnScanModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		rng := rand.New(rand.NewPCG(1, 2))
		below := map[string]string{}
		for round := range 12 {
			tx := begin(t, c)
			model := maps.Clone(below)
			for i := range rng.IntN(120) {
				k := fmt.Sprintf("%02d", rng.IntN(100))
				switch rng.IntN(3) {
				case 0:
					must(t, tx.Delete([]byte(k)))
					delete(model, k)
				default:
					v := fmt.Sprint(round, i)
					must(t, tx.Put([]byte(k), []byte(v)))
					model[k] = v
				}
			}
			if _, err := cluster.Split(playground.KeyTxn, fmt.Appendf(nil, "%02d", rng.IntN(100))); err != nil {
				t.Fatal(err)
			}
			for range 30 {
				checkScan(t, rng, tx, model)
				checkScan(t, rng, tx.Snapshot(), below)
			}
			must(t, tx.Commit(t.Context()))
			below = model
		}
	})
}

func checkScan(t *testing.T, rng *rand.Rand, r tikv.Reader, model map[string]string) {
	t.Helper()
	rg := tikv.Range{Start: fmt.Appendf(nil, "%02d", rng.IntN(100)), End: fmt.Appendf(nil, "%02d", rng.IntN(100))}
	if bytes.Compare(rg.Start, rg.End) > 0 {
		rg.Start, rg.End = rg.End, rg.Start
	}
	if rng.IntN(4) == 0 {
		rg.Start = nil
	}
	if rng.IntN(4) == 0 {
		rg.End = nil
	}
	var expected []tikv.Pair
	for _, k := range slices.Sorted(maps.Keys(model)) {
		if rg.Contains([]byte(k)) {
			expected = append(expected, tikv.Pair{Key: []byte(k), Value: []byte(model[k])})
		}
	}
	var opts []tikv.ScanOption
	if rng.IntN(2) == 0 {
		opts = append(opts, tikv.WithReverse())
		slices.Reverse(expected)
	}
	if rng.IntN(2) == 0 {
		opts = append(opts, tikv.WithPageSize(1+rng.IntN(20)))
	}
	if rng.IntN(3) == 0 {
		n := 1 + rng.IntN(30)
		opts = append(opts, tikv.WithLimit(n))
		expected = expected[:min(n, len(expected))]
	}
	if rng.IntN(3) == 0 {
		opts = append(opts, tikv.WithKeysOnly())
		for i := range expected {
			expected[i].Value = nil
		}
	}
	got, err := tikv.Collect(r.Scan(t.Context(), rg, opts...))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got, expected, func(a, b tikv.Pair) bool {
		return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil)
	}) {
		t.Fatalf("%T %q with %d options\n got %s\nwant %s", r, rg, len(opts), got, expected)
	}
}

// Writing inside the loop of a scan is allowed and not seen by it.
func TestTxnWritesWhileScanning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		commit(t, c, "a", "1", "b", "2", "c", "3")
		tx := begin(t, c)
		must(t, tx.Put([]byte("d"), []byte("4")))
		seen := ""
		for kv, err := range tx.Scan(t.Context(), tikv.Range{}, tikv.WithPageSize(1)) {
			must(t, err, tx.Delete(kv.Key), tx.Put(append(kv.Key, '!'), kv.Value))
			seen += string(kv.Key)
		}
		if seen != "abcd" || tx.Len() != 8 {
			t.Error(seen, tx.Len())
		}
		must(t, tx.Commit(t.Context()))
		if got, err := tikv.Collect(c.Latest().Scan(t.Context(), tikv.Range{}, tikv.WithKeysOnly())); err != nil || len(got) != 4 || string(got[0].Key) != "a!" {
			t.Error(got, err)
		}
	})
}

// Many regions, values that make many batches, and all of it at one moment or not at
// all.
func TestTxnOverManyRegions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at [][]byte
		for _, k := range keysOf(100) {
			if len(at) < 9 && k[3]%10 == 7 {
				at = append(at, k)
			}
		}
		cluster := tikvtest.NewCluster(t, playground.WithStores(3), playground.WithSplitKeys(playground.KeyTxn, at...))
		c := cluster.Open()
		value := bytes.Repeat([]byte("v"), 20_000)
		tx := begin(t, c)
		for _, k := range keysOf(100) {
			must(t, tx.Put(k, value))
		}
		must(t, tx.Commit(t.Context()))
		got, err := c.SnapshotAt(tx.StartTS()).BatchGet(t.Context(), keysOf(100))
		if err != nil || slices.ContainsFunc(got, func(v []byte) bool { return v != nil }) {
			t.Fatal(err)
		}
		ts, _ := tx.CommitTS()
		got, err = c.SnapshotAt(ts).BatchGet(t.Context(), keysOf(101))
		if err != nil || got[100] != nil || slices.ContainsFunc(got[:100], func(v []byte) bool { return !bytes.Equal(v, value) }) {
			t.Fatal(err)
		}
		pairs, err := tikv.Collect(c.SnapshotAt(ts).Scan(t.Context(), tikv.Range{}, tikv.WithReverse()))
		if err != nil || len(pairs) != 100 {
			t.Fatal(len(pairs), err)
		}
	})
}

// A write that meets a live lock waits for it as long as its budget lasts, and not
// longer, however often it has to ask.
func TestWriteWaitsForALiveLock(t *testing.T) {
	for _, deadline := range []time.Duration{0, 7 * time.Second} {
		t.Run(deadline.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
				c, other := cluster.Open(tikv.WithRetryFor(15*time.Second)), cluster.Open(tikv.WithRPCTimeout(time.Hour))
				long := begin(t, other)
				must(t, putAll(long, "x", faultKeys...))
				held := cluster.Inject(playground.Fault{Method: "KvPrewrite", StartTS: uint64(long.StartTS()), Key: b("z"), Hold: true})
				cluster.Inject(playground.Fault{Method: "KvCheckTxnStatus", Delay: 300 * time.Millisecond}) // time passes in answers too
				done := start(t.Context(), func(ctx context.Context) error { return long.Commit(ctx) })
				<-time.After(100 * time.Millisecond)
				ctx, want := t.Context(), 15*time.Second
				if deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, deadline)
					defer cancel()
					want = deadline
				}
				tx := begin(t, c)
				must(t, tx.Put(b("b"), b("1")))
				before, began := cluster.Counts().Calls["KvPrewrite"], time.Now()
				err := tx.Commit(ctx)
				took, calls := time.Since(began), cluster.Counts().Calls["KvPrewrite"]-before
				var un *tikv.UnavailableError
				if !errors.As(err, &un) || un.Elapsed < want-4*time.Second || un.Total < 3 || !tikv.NotSent(err) {
					t.Errorf("%v", err)
				}
				if took < want-time.Second || took > want+time.Second || calls > 100 {
					t.Errorf("%d requests in %v", calls, took)
				}
				held.Remove()
				must(t, <-done)
			})
		})
	}
}
