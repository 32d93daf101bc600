package check

import (
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// Histories of a real cluster of which it is known what is in them: that the checkers see
// it also where it was recorded as TestLists and TestRegisters record.

// newRun is a run without workers.
func newRun(t *testing.T, opts ...playground.Option) (*run, *tikv.Client) {
	r := &run{t: t, progress: make(chan struct{}, 1)}
	r.cluster = tikvtest.NewCluster(t, opts...)
	return r, r.cluster.Open(tikv.WithRPCTimeout(300 * time.Millisecond))
}

// Two transactions read two keys and append to one each: snapshot isolation allows it.
func TestWriteSkewIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, client := newRun(t)
		w := &worker{run: r}
		var txs [2]*tikv.Txn
		var ts [2]Txn
		for i := range txs {
			ts[i] = Txn{Begin: r.tick()}
			tx, err := client.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			txs[i] = tx
			ts[i].Began, ts[i].StartTS = r.tick(), uint64(tx.StartTS())
			if err := w.play(t.Context(), tx, &ts[i], []step{{do: batchGet, keys: []int{0, 1}}, {do: appendTo, keys: []int{i}}}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range txs {
			ts[i].Commit = r.tick()
			w.ended(&ts[i], txs[i], txs[i].Commit(t.Context()))
		}
		if err := r.readLists(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		if last := r.history.Txns[2]; len(last.Ops[0].Read) != 1 || len(last.Ops[1].Read) != 1 {
			t.Fatalf("one of them did not commit: %v", &last)
		}
		if found, err := CheckTxns(r.history.Txns); err != nil || len(found) > 0 {
			t.Fatal(found, err)
		}
	})
}

// A reader that ignores locks sees one key of a commit that is under way, and not the other.
func TestReadCommittedIsCaught(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, client := newRun(t, playground.WithSplitKeys(playground.KeyTxn, keyOf(1)))
		w := &worker{run: r}
		held := r.cluster.Inject(playground.Fault{Method: "KvCommit", Key: keyOf(1), Hold: true})
		txn := Txn{Begin: r.tick()}
		tx, err := client.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		txn.Began = r.tick()
		if err := w.play(t.Context(), tx, &txn, []step{{do: appendTo, keys: []int{0}}, {do: appendTo, keys: []int{1}}}); err != nil {
			t.Fatal(err)
		}
		txn.Commit = r.tick()
		w.ended(&txn, tx, tx.Commit(t.Context()))
		synctest.Wait() // key 0 is committed in the background, key 1 waits at the fault
		look := Txn{Begin: r.tick(), Outcome: Done}
		snap, err := client.Snapshot(t.Context(), tikv.WithIsolation(tikv.IsolationRC))
		if err != nil {
			t.Fatal(err)
		}
		look.Began = r.tick()
		if err := readBatch(t.Context(), snap, &look, []int{0, 1}); err != nil {
			t.Fatal(err)
		}
		r.add(&look)
		held.Remove()
		found, err := CheckTxns(r.history.Txns)
		if err != nil || len(found) != 1 || found[0].Name != GSingle {
			t.Fatal(found, err)
		}
	})
}

// A plain raw view sends a write again whose answer was lost, and overwrites what came
// between: that is not linearizable. An atomic one does not.
func TestResentWriteIsCaught(t *testing.T) {
	for _, atomic := range []bool{false, true} {
		t.Run(strconv.FormatBool(atomic), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, client := newRun(t)
				raw := client.Raw()
				if atomic {
					raw = &client.AtomicRaw().Raw
				}
				r.cluster.Inject(playground.Fault{Method: "RawPut", DropAnswer: true, Times: 1})
				put := func(value int) {
					c := Call{Do: Write, New: value, Called: r.tick()}
					r.record(&c, raw.Put(t.Context(), keyOf(0), itoa(value)))
				}
				look := func() {
					c := Call{Do: Read, Called: r.tick()}
					data, err := raw.Get(t.Context(), keyOf(0))
					if err := r.got(&c, data, err); err != nil {
						t.Fatal(err)
					}
				}
				first := make(chan struct{})
				go func() { put(1); close(first) }()
				synctest.Wait()
				look()
				put(2)
				look()
				<-first
				look()
				found, err := CheckCalls(r.history.Calls, time.Minute)
				if err != nil || len(found) == 1 == atomic {
					t.Fatal(found, err)
				}
				lost := slices.IndexFunc(r.history.Calls, func(c Call) bool { return c.New == 1 })
				if want := map[bool]Outcome{false: Done, true: Unknown}[atomic]; r.history.Calls[lost].Outcome != want {
					t.Errorf("the write was %v, want %v", r.history.Calls[lost].Outcome, want)
				}
			})
		})
	}
}
