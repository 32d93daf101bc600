package interop

import (
	"encoding/json"
	"net/http"
	"strconv"
	"testing"
	"time"

	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
)

// counts are the playground's.
type counts struct {
	Commits int
	Calls   map[string]int
}

func (c *cluster) counts(t *testing.T) (n counts) {
	t.Helper()
	resp, err := http.Get("http://" + c.Control + "/v1/counts")
	must(t, err)
	defer resp.Body.Close()
	must(t, json.NewDecoder(resp.Body).Decode(&n))
	return n
}

// awaitCommits waits until so many transactions are committed at their primaries.
func (c *cluster) awaitCommits(t *testing.T, want int) counts {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); ; {
		n := c.counts(t)
		if n.Commits == want {
			return n
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%+v, want %d commits", n, want)
		}
	}
}

// The official client commits in one phase where the keys are in one region, and
// asynchronously where not; ours reads it at once.
func TestOfficialAsyncAndOnePhaseCommit(t *testing.T) {
	c := start(t)
	c.split(t, "txn", "m")
	official, ours := c.officialTxn(t), c.peer(t)
	for _, v := range []struct {
		name         string
		async, onePC bool
		keys         []string
		mode         string
	}{
		{"one phase", true, true, []string{"a1", "a2"}, "1pc"},
		{"one phase alone", false, true, []string{"c1", "c2"}, "1pc"},
		{"one phase of two regions", false, true, []string{"d1", "x1"}, "2pc"},
		{"async", true, false, []string{"e1", "e2"}, "async_commit"},
		{"async of two regions", true, true, []string{"f1", "x2"}, "async_commit"},
		{"neither", false, false, []string{"h1", "x4"}, "2pc"},
	} {
		t.Run(v.name, func(t *testing.T) {
			before := c.counts(t)
			tx, err := official.Begin()
			must(t, err)
			tx.SetEnableAsyncCommit(v.async)
			tx.SetEnable1PC(v.onePC)
			var info transaction.TxnInfo
			tx.SetCommitCallback(func(text string, err error) { must(t, json.Unmarshal([]byte(text), &info)) })
			for _, k := range v.keys {
				must(t, tx.Set([]byte(k), []byte(v.name)))
			}
			must(t, tx.Commit(within(t)))
			for _, k := range v.keys {
				if a := ours.ask(t, command{Do: "latest", Key: k}); a.Value == nil || *a.Value != v.name {
					t.Errorf("%s is %+v", k, a)
				}
			}
			if info.TxnCommitMode != v.mode || info.AsyncCommitFallback || info.OnePCFallback != (v.onePC && v.mode != "1pc" && v.name != "async") {
				t.Errorf("committed as %+v", info)
			}
			after := c.awaitCommits(t, before.Commits+1)
			if v.mode == "1pc" && after.Calls["KvCommit"] != before.Calls["KvCommit"] {
				t.Errorf("%d requests to commit", after.Calls["KvCommit"]-before.Calls["KvCommit"])
			}
		})
	}
}

// Both clients count in keys of two regions, the official one with async commit.
func TestAsyncCommitTogether(t *testing.T) {
	c := start(t)
	c.split(t, "txn", "m")
	official, ours := c.officialTxn(t), c.peer(t)
	const each = 40
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			for n := 0; n < each; {
				err := officialBoth(t, official)
				switch {
				case err == nil:
					n++
				case !again(err):
					return err
				}
			}
			return nil
		}()
	}()
	ours.ask(t, command{Do: "count", Key: "left", Times: each})
	ours.ask(t, command{Do: "count", Key: "right", Times: each})
	must(t, <-done)
	for _, k := range []string{"left", "right"} {
		if a := ours.ask(t, command{Do: "latest", Key: k}); a.Value == nil || *a.Value != strconv.Itoa(2*each) {
			t.Errorf("%s is %+v", k, a)
		}
	}
}

func officialBoth(t *testing.T, client *txnkv.Client) error {
	tx, err := client.Begin()
	if err != nil {
		return err
	}
	tx.SetEnableAsyncCommit(true)
	tx.SetEnable1PC(true)
	for _, k := range []string{"left", "right"} {
		n := 0
		switch v, err := tx.Get(t.Context(), []byte(k)); {
		case err == nil:
			if n, err = strconv.Atoi(string(v)); err != nil {
				return err
			}
		case !tikverr.IsErrNotFound(err):
			return err
		}
		if err := tx.Set([]byte(k), []byte(strconv.Itoa(n+1))); err != nil {
			return err
		}
	}
	return tx.Commit(t.Context())
}

// The official client dies within an async commit. If all its keys are prewritten it is
// committed, and ours must find that; if not it is rolled back.
func TestOursRecoversOfficialAsyncCommit(t *testing.T) {
	for mode, want := range map[string]string{"async": "new", "partly": "old"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := start(t)
			c.split(t, "txn", "theirs2")
			ours := c.peer(t)
			ours.ask(t, command{Do: "begin"})
			ours.ask(t, command{Do: "put", Key: "theirs1", Value: "old"})
			ours.ask(t, command{Do: "put", Key: "theirs2", Value: "old"})
			ours.ask(t, command{Do: "commit"})
			before := c.awaitCommits(t, 1) // asynchronously: it comes behind the answer
			officialDies(t, c, 2, deathMode+"="+mode)
			for _, k := range []string{"theirs1", "theirs2"} {
				if a := ours.ask(t, command{Do: "latest", Key: k}); a.Value == nil || *a.Value != want {
					t.Errorf("%s is %+v", k, a)
				}
			}
			commits := before.Commits
			if mode == "async" {
				commits++
			}
			if after := c.awaitCommits(t, commits); after.Calls["KvCheckSecondaryLocks"] == 0 {
				t.Errorf("%+v", after)
			}
		})
	}
}

// A pipelined transaction of the official client: it reads what it has flushed, and
// writes a key in two flushes.
func TestOfficialPipelined(t *testing.T) {
	c := start(t)
	c.split(t, "txn", "p2")
	client := c.officialTxn(t)
	tx, err := client.Begin(tikv.WithDefaultPipelinedTxn())
	must(t, err)
	flush := func() {
		if _, err := tx.GetMemBuffer().Flush(true); err != nil {
			t.Fatal(err)
		}
		must(t, tx.GetMemBuffer().FlushWait())
	}
	must(t, tx.Set([]byte("p1"), []byte("1")))
	must(t, tx.Set([]byte("p2"), []byte("1")))
	flush()
	must(t, tx.Set([]byte("p1"), []byte("2")))
	flush()
	must(t, tx.Set([]byte("p3"), []byte("1")))
	flush()
	for k, want := range map[string]string{"p1": "2", "p2": "1", "p3": "1"} {
		if v, err := tx.Get(within(t), []byte(k)); err != nil || string(v) != want {
			t.Errorf("%s is %q %v", k, v, err)
		}
	}
	must(t, tx.Commit(within(t)))
	ours := c.peer(t)
	for k, want := range map[string]string{"p1": "2", "p2": "1", "p3": "1"} {
		if a := ours.ask(t, command{Do: "latest", Key: k}); a.Value == nil || *a.Value != want {
			t.Errorf("%s is %+v", k, a)
		}
	}
	if n := c.counts(t); n.Calls["KvFlush"] < 4 || n.Calls["KvBufferBatchGet"] == 0 || n.Commits != 1 {
		t.Errorf("%+v", n)
	}
}
