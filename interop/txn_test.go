package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/oracle"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
)

func TestOfficialTxn(t *testing.T) {
	for _, v := range []struct {
		api  string
		opts []txnkv.ClientOpt
		args []string
	}{
		{"v1", nil, nil},
		{"v2", []txnkv.ClientOpt{txnkv.WithAPIVersion(kvrpcpb.APIVersion_V2), txnkv.WithKeyspace("tenant")}, []string{"--keyspace", "tenant"}},
	} {
		t.Run(v.api, func(t *testing.T) {
			c := start(t, append([]string{"--api", v.api}, v.args...)...)
			client := c.officialTxn(t, v.opts...)
			officialWrites(t, client)
			officialConflict(t, client)
			if v.api == "v1" {
				c.split(t, "txn", "t0500")
				officialReads(t, client)
			}
		})
	}
}

func officialWrites(t *testing.T, client *txnkv.Client) {
	t.Helper()
	tx, err := client.Begin()
	must(t, err)
	for i := range 1000 {
		must(t, tx.Set(fmt.Appendf(nil, "t%04d", i), fmt.Appendf(nil, "v%d", i)))
	}
	must(t, tx.Commit(within(t)))
	officialReads(t, client)
}

func officialReads(t *testing.T, client *txnkv.Client) {
	t.Helper()
	tx, err := client.Begin()
	must(t, err)
	defer tx.Rollback()
	if v, err := tx.Get(within(t), []byte("t0042")); err != nil || string(v) != "v42" {
		t.Fatalf("%q %v", v, err)
	}
	it, err := tx.Iter([]byte("t0100"), []byte("t0900"))
	must(t, err)
	n := 0
	for ; it.Valid(); must(t, it.Next()) {
		n++
	}
	if n != 800 {
		t.Fatalf("%d keys", n)
	}
	if _, err := tx.Get(within(t), []byte("absent")); !tikverr.IsErrNotFound(err) {
		t.Fatal(err)
	}
	got, err := tx.BatchGet(within(t), [][]byte{[]byte("t0001"), []byte("t0999"), []byte("absent")})
	if err != nil || len(got) != 2 || string(got["t0999"]) != "v999" {
		t.Fatal(got, err)
	}
}

func officialConflict(t *testing.T, client *txnkv.Client) {
	t.Helper()
	one, err := client.Begin()
	must(t, err)
	two, err := client.Begin()
	must(t, err)
	must(t, one.Set([]byte("conflict"), []byte("1")))
	must(t, two.Set([]byte("conflict"), []byte("2")))
	must(t, one.Commit(within(t)))
	if err := two.Commit(within(t)); !tikverr.IsErrWriteConflict(err) {
		t.Fatalf("the second commit: %v", err)
	}
}

// Both clients count in the same keys at once, each in transactions.
func TestTxnTogether(t *testing.T) {
	t.Run("v1", func(t *testing.T) {
		c := start(t)
		countTogether(t, c.officialTxn(t), c.peer(t))
	})
	t.Run("v2", func(t *testing.T) {
		c := start(t, "--api", "v2", "--keyspace", "other,tenant")
		tenant := c.officialTxn(t, txnkv.WithAPIVersion(kvrpcpb.APIVersion_V2), txnkv.WithKeyspace("tenant"))
		countTogether(t, tenant, c.peer(t, "-keyspace", "tenant"))
		if a := c.peer(t, "-keyspace", "other").try(t, command{Do: "latest", Key: "counter"}); a.Kind != "absent" {
			t.Fatalf("another keyspace has the counter too: %+v", a)
		}
	})
}

func countTogether(t *testing.T, official *txnkv.Client, ours *peer) {
	t.Helper()
	const each = 60
	done := make(chan error, 1)
	go func() { done <- officialCount(t.Context(), official, []byte("counter"), each) }()
	ours.ask(t, command{Do: "count", Key: "counter", Times: each})
	must(t, <-done)
	if a := ours.ask(t, command{Do: "latest", Key: "counter"}); a.Value == nil || *a.Value != strconv.Itoa(2*each) {
		t.Fatalf("%+v", a)
	}
	tx, err := official.Begin()
	must(t, err)
	defer tx.Rollback()
	if v, err := tx.Get(within(t), []byte("counter")); err != nil || string(v) != strconv.Itoa(2*each) {
		t.Fatalf("%q %v", v, err)
	}
}

func officialCount(ctx context.Context, client *txnkv.Client, key []byte, times int) error {
	for range times {
		for {
			err := officialIncrement(ctx, client, key)
			if err == nil {
				break
			}
			if !again(err) {
				return err
			}
		}
	}
	return nil
}

func officialIncrement(ctx context.Context, client *txnkv.Client, key []byte) error {
	tx, err := client.Begin()
	if err != nil {
		return err
	}
	n := 0
	switch v, err := tx.Get(ctx, key); {
	case err == nil:
		if n, err = strconv.Atoi(string(v)); err != nil {
			return err
		}
	case !tikverr.IsErrNotFound(err):
		return err
	}
	if err := tx.Set(key, []byte(strconv.Itoa(n+1))); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// Our client dies between prewrite and commit; the official one finds its locks, waits
// until they expire, and reads what was there before.
func TestOfficialResolvesOurLocks(t *testing.T) {
	t.Parallel() // most of it is a wait for locks to expire
	c := start(t)
	official, ours := c.officialTxn(t), c.peer(t)
	ours.ask(t, command{Do: "begin"})
	ours.ask(t, command{Do: "put", Key: "ours1", Value: "old"})
	ours.ask(t, command{Do: "put", Key: "ours2", Value: "old"})
	ours.ask(t, command{Do: "commit"})
	ours.ask(t, command{Do: "begin"})
	ours.ask(t, command{Do: "put", Key: "ours1", Value: "new"})
	ours.ask(t, command{Do: "put", Key: "ours2", Value: "new"})
	ours.die(t, command{Do: "prewrite"})

	tx, err := official.Begin()
	must(t, err)
	for _, key := range []string{"ours1", "ours2"} {
		if v, err := tx.Get(within(t), []byte(key)); err != nil || string(v) != "old" {
			t.Fatalf("%s is %q %v", key, v, err)
		}
	}
	must(t, tx.Set([]byte("ours1"), []byte("official")))
	must(t, tx.Commit(within(t)))
}

// Our client dies when its primary is committed; its secondaries are committed by the
// official one.
func TestOfficialFinishesOurCommit(t *testing.T) {
	c := start(t)
	c.split(t, "txn", "m")
	official, ours := c.officialTxn(t), c.peer(t)
	ours.ask(t, command{Do: "begin"})
	ours.ask(t, command{Do: "put", Key: "a", Value: "1"})
	ours.ask(t, command{Do: "put", Key: "z", Value: "1"})
	ours.die(t, command{Do: "commit"})
	tx, err := official.Begin()
	must(t, err)
	defer tx.Rollback()
	for _, key := range []string{"z", "a"} {
		if v, err := tx.Get(within(t), []byte(key)); err != nil || string(v) != "1" {
			t.Fatalf("%s is %q %v", key, v, err)
		}
	}
}

// deathRole makes this test binary an official client that prewrites and dies; its
// value is the PD address. deathMode is how: empty for two phases, "async" for async
// commit, "partly" for that with only the primary prewritten.
const (
	deathRole = "TIKV_INTEROP_DIE"
	deathMode = "TIKV_INTEROP_DIE_MODE"
)

// deathKeys is how many keys it prewrites.
const deathKeys = "TIKV_INTEROP_DIE_KEYS"

func dieAfterPrewrite(pd string) int {
	client, err := txnkv.NewClient(strings.Split(pd, ","))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	tx, err := client.Begin()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	n, err := strconv.Atoi(os.Getenv(deathKeys))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := range n {
		if err := tx.Set(fmt.Appendf(nil, "theirs%d", i+1), []byte("new")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	committer, err := transaction.TxnProbe{KVTxn: tx}.NewCommitter(1)
	if err == nil {
		err = prewriteAs(os.Getenv(deathMode), committer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Stdout.WriteString("prewritten\n")
	syscallExit()
	return 1
}

// officialDies lets an official client prewrite theirs1, theirs2, ... and die.
func officialDies(t *testing.T, c *cluster, keys int, env ...string) {
	t.Helper()
	died := exec.Command(os.Args[0])
	died.Env = append(append(os.Environ(), deathRole+"="+strings.Join(c.PD, ","), deathKeys+"="+strconv.Itoa(keys)), env...)
	died.Stderr = os.Stderr
	if out, _ := died.Output(); !strings.Contains(string(out), "prewritten") {
		t.Fatalf("the official client did not prewrite: %q", out)
	}
}

func prewriteAs(mode string, committer transaction.CommitterProbe) error {
	if mode != "" {
		committer.SetUseAsyncCommit()
	}
	if mode == "partly" {
		return committer.PrewriteMutations(context.Background(), committer.MutationsOfKeys([][]byte{committer.GetPrimaryKey()}))
	}
	return committer.PrewriteAllMutations(context.Background())
}

// The other way round: the official client dies, ours resolves, as a reader and as a
// writer.
func TestOursResolvesOfficialLocks(t *testing.T) {
	t.Parallel() // most of it is a wait for locks to expire
	for _, by := range []string{"reader", "writer", "scanner"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			c := start(t)
			ours := c.peer(t)
			ours.ask(t, command{Do: "begin"})
			ours.ask(t, command{Do: "put", Key: "theirs1", Value: "old"})
			ours.ask(t, command{Do: "put", Key: "theirs2", Value: "old"})
			ours.ask(t, command{Do: "commit"})

			officialDies(t, c, 2)
			switch by {
			case "reader":
				if a := ours.ask(t, command{Do: "latest", Key: "theirs2"}); a.Value == nil || *a.Value != "old" {
					t.Fatalf("%+v", a)
				}
			case "writer":
				ours.ask(t, command{Do: "begin"})
				ours.ask(t, command{Do: "put", Key: "theirs2", Value: "ours"})
				ours.ask(t, command{Do: "commit"})
			case "scanner":
				a := ours.ask(t, command{Do: "scan", Key: "theirs", End: "theirt"})
				if fmt.Sprint(a.Pairs) != "[[theirs1 old] [theirs2 old]]" {
					t.Fatalf("%+v", a)
				}
			}
			if a := ours.ask(t, command{Do: "latest", Key: "theirs1"}); a.Value == nil || *a.Value != "old" {
				t.Fatalf("%+v", a)
			}
		})
	}
}

// A dead transaction of many keys in two regions is resolved by the region, not by the
// key, by either client: a write of its last key waits until it has expired, a scan of
// all of them does not see it.
func TestManyLocksLeftBehind(t *testing.T) {
	t.Parallel() // most of it is a wait for locks to expire
	const n, mostRequests = 1500, 20
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		c := start(t)
		c.split(t, "txn", "ours0700")
		official, ours := c.officialTxn(t), c.peer(t)
		ours.ask(t, command{Do: "begin"})
		for i := range n {
			ours.ask(t, command{Do: "put", Key: fmt.Sprintf("ours%04d", i), Value: "new"})
		}
		ours.die(t, command{Do: "prewrite"})
		tx, err := official.Begin()
		must(t, err)
		must(t, tx.Set([]byte("ours1499"), []byte("official")))
		must(t, tx.Commit(within(t)))
		tx, err = official.Begin()
		must(t, err)
		defer tx.Rollback()
		it, err := tx.Iter([]byte("ours"), []byte("ourt"))
		must(t, err)
		if !it.Valid() || string(it.Key()) != "ours1499" || string(it.Value()) != "official" {
			t.Fatalf("%v %q %q", it.Valid(), it.Key(), it.Value())
		}
		if calls := c.calls(t, "KvResolveLock"); calls == 0 || calls > mostRequests {
			t.Fatalf("%d requests resolved %d locks", calls, n)
		}
	})
	t.Run("theirs", func(t *testing.T) {
		t.Parallel()
		c := start(t)
		c.split(t, "txn", "theirs5")
		officialDies(t, c, n)
		ours := c.peer(t)
		ours.ask(t, command{Do: "begin"})
		ours.ask(t, command{Do: "put", Key: "theirs999", Value: "ours"})
		ours.ask(t, command{Do: "commit"})
		a := ours.ask(t, command{Do: "scan", Key: "theirs", End: "theirt"})
		if fmt.Sprint(a.Pairs) != "[[theirs999 ours]]" {
			t.Fatalf("%d pairs: %.100v", len(a.Pairs), a.Pairs)
		}
		if calls := c.calls(t, "KvResolveLock"); calls == 0 || calls > mostRequests {
			t.Fatalf("%d requests resolved %d locks", calls, n)
		}
	})
}

// The transactions of a client that asks for asynchronous or one-phase commit are like
// others.
func TestOfficialAsksForAsyncCommit(t *testing.T) {
	c := start(t)
	c.split(t, "txn", "m")
	official, ours := c.officialTxn(t), c.peer(t)
	for i, ask := range []func(*transaction.KVTxn){
		func(tx *transaction.KVTxn) { tx.SetEnable1PC(true) },
		func(tx *transaction.KVTxn) { tx.SetEnableAsyncCommit(true) },
		func(tx *transaction.KVTxn) { tx.SetEnable1PC(true); tx.SetEnableAsyncCommit(true) },
	} {
		for _, keys := range [][]string{{"a"}, {"a", "b"}, {"a", "z"}} {
			value := fmt.Sprintf("%d of %v", i, keys)
			tx, err := official.Begin()
			must(t, err)
			ask(tx)
			for _, key := range keys {
				must(t, tx.Set([]byte(key), []byte(value)))
			}
			must(t, tx.Commit(within(t)))
			for _, key := range keys {
				if a := ours.ask(t, command{Do: "latest", Key: key}); a.Value == nil || *a.Value != value {
					t.Fatalf("%s after %s: %+v", key, value, a)
				}
			}
		}
	}
}

// Both clients go on counting while regions split, leaders move and stores go away and
// come back.
func TestTogetherThroughChange(t *testing.T) {
	c := start(t)
	official, ours := c.officialTxn(t), c.peer(t)
	const each, rounds = 15, 4
	for round := range rounds {
		theirs := make(chan error, 1)
		go func() { theirs <- officialCount(t.Context(), official, []byte("counter"), each) }()
		ours.send(t, command{Do: "count", Key: "counter", Times: each})
		c.split(t, "txn", fmt.Sprintf("counter%d", round))
		for _, r := range c.regions(t, "txn") {
			for _, store := range r.Stores {
				if store != r.Leader {
					c.control(t, "transfer-leader", map[string]any{"region": r.ID, "store": store})
					break
				}
			}
		}
		store := map[string]any{"store": round%3 + 1}
		c.control(t, "stop", store)
		c.control(t, "wait", nil)
		must(t, <-theirs)
		if a := ours.answer(t); a.Error != "" {
			t.Fatal(a.Error)
		}
		c.control(t, "start", store)
	}
	if a := ours.ask(t, command{Do: "latest", Key: "counter"}); a.Value == nil || *a.Value != strconv.Itoa(2*each*rounds) {
		t.Fatalf("%+v", a)
	}
}

// TestLongRun keeps the official client at work for longer than it goes on reading when
// it cannot refresh its safe point (100 s). `.ci/run` asks for it.
func TestLongRun(t *testing.T) {
	if os.Getenv("TIKV_INTEROP_LONG") == "" {
		t.Skip("takes 150 s; set TIKV_INTEROP_LONG=1")
	}
	c := start(t)
	client := c.officialTxn(t)
	began, rounds := time.Now(), 0
	for tick := time.NewTicker(250 * time.Millisecond); time.Since(began) < 150*time.Second; <-tick.C {
		key := fmt.Appendf(nil, "long%d", rounds%100)
		tx, err := client.Begin()
		must(t, err)
		if v, err := tx.Get(within(t), key); err != nil && !tikverr.IsErrNotFound(err) {
			t.Fatalf("after %v: %q %v", time.Since(began), v, err)
		}
		must(t, tx.Set(key, fmt.Appendf(nil, "%d", rounds)))
		if err := tx.Commit(within(t)); err != nil {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		rounds++
	}
	before := time.Now()
	ts, err := client.GetTimestamp(within(t))
	must(t, err)
	if at := oracle.GetTimeFromTS(ts); at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Fatalf("the cluster's clock is off: at %v it is %v", before, at)
	}
	t.Logf("%d transactions in %v", rounds, time.Since(began).Round(time.Second))
}
