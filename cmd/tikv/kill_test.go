package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/tikv-go/tikv"
)

const (
	killRounds  = 50
	killWriters = 4
)

// Nothing that was acknowledged is lost when the playground is killed, whenever that
// is. Each round kills it in the middle of raw and transactional writes.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	var acked ledger
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 0))
	for round := range killRounds {
		p := startProcess(t, "--port", "0", "--dir", dir)
		acked.verify(t, p.pd, round)
		if t.Failed() {
			p.end(t, os.Kill)
			return
		}
		writeUntilKilled(t, p, &acked, round, 1+rng.IntN(60))
	}
	p := startProcess(t, "--port", "0", "--dir", dir)
	acked.verify(t, p.pd, killRounds)
	acked.verifyWithTool(t, p.pd)
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	t.Logf("%d rounds, %d raw and %d transactional writes acknowledged, none lost", killRounds, len(acked.raw), len(acked.txn))
}

// ledger is what was acknowledged, in the order in which it was.
type ledger struct {
	mu       sync.Mutex
	raw, txn []string
}

func (l *ledger) add(list *[]string, key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	*list = append(*list, key)
	return len(l.raw) + len(l.txn)
}

// writeUntilKilled writes from several goroutines and kills the playground after so
// many acknowledgements.
func writeUntilKilled(t *testing.T, p *process, acked *ledger, round, after int) {
	t.Helper()
	client, err := tikv.Open(t.Context(), []string{p.pd}, tikv.WithCloseTimeout(0)) // nobody will answer it
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	start := len(acked.raw) + len(acked.txn)
	reached := make(chan struct{}, killWriters)
	ended := make(chan error, killWriters)
	for w := range killWriters {
		go func() {
			for n := 0; ctx.Err() == nil; n++ {
				total, err := writeOne(ctx, client, acked, fmt.Sprintf("r%02d/w%d/%04d", round, w, n), n%2 == 0)
				if err != nil { // killed under way: not acknowledged
					ended <- err
					return
				}
				if total-start >= after {
					reached <- struct{}{}
					break
				}
			}
			ended <- nil
		}()
	}
	left := killWriters
	for alive := true; alive && left > 0; {
		select {
		case <-reached:
			alive = false
		case err := <-ended:
			if left--; err != nil {
				t.Logf("round %d: a writer ended before the kill: %v", round, err)
			}
		}
	}
	p.end(t, os.Kill)
	cancel()
	for range left {
		<-ended
	}
	if written := len(acked.raw) + len(acked.txn) - start; written < after {
		t.Fatalf("round %d: every writer has ended, after %d writes of %d", round, written, after)
	}
}

func writeOne(ctx context.Context, client *tikv.Client, acked *ledger, key string, raw bool) (total int, err error) {
	if raw {
		key = "raw/" + key
		if err := client.Raw().Put(ctx, []byte(key), []byte(key)); err != nil {
			return 0, err
		}
		return acked.add(&acked.raw, key), nil
	}
	key = "txn/" + key
	err = client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
		for _, part := range []string{"/a", "/b"} {
			if err := tx.Put([]byte(key+part), []byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return acked.add(&acked.txn, key), nil
}

// verify reads all that was ever acknowledged.
func (l *ledger) verify(t *testing.T, pd string, round int) {
	t.Helper()
	client, err := tikv.Open(t.Context(), []string{pd})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var rawKeys, txnKeys [][]byte
	for _, key := range l.raw {
		rawKeys = append(rawKeys, []byte(key))
	}
	for _, key := range l.txn {
		txnKeys = append(txnKeys, []byte(key+"/a"), []byte(key+"/b"))
	}
	values, err := client.Raw().BatchGet(t.Context(), rawKeys)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if string(v) != l.raw[i] {
			t.Errorf("round %d: %s was acknowledged and is %q", round, l.raw[i], v)
		}
	}
	snap, err := client.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if values, err = snap.BatchGet(t.Context(), txnKeys); err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if string(v) != l.txn[i/2] {
			t.Errorf("round %d: %s was acknowledged and is %q", round, txnKeys[i], v)
		}
	}
}

// verifyWithTool looks with the commands that a person would use.
func (l *ledger) verifyWithTool(t *testing.T, pd string) {
	t.Helper()
	if code, out, errOut := tool(t, "get", "--pd", pd, "--raw", l.raw[0], patience); code != 0 || out != l.raw[0]+"\n" {
		t.Errorf("%d %q %q", code, out, errOut)
	}
	code, out, errOut := tool(t, "count", "--pd", pd, "--prefix", "txn/", patience)
	n := 0
	if _, err := fmt.Sscan(out, &n); code != 0 || err != nil || n < 2*len(l.txn) {
		t.Errorf("%d %q %q: at least %d are meant", code, out, errOut, 2*len(l.txn))
	}
}
