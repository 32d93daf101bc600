package mvcc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// worker is a client that runs transactions as a client of TiKV does, and notes what it
// read and wrote.
type worker struct {
	*testing.T
	*rand.Rand
	e     *Engine
	clock *atomic.Uint64
	done  []committed
	died  int // transactions left locked for others to resolve
}

// committed is a transaction that succeeded.
type committed struct {
	start, commit uint64
	reads         map[string]string
	writes        map[string]string
}

func (w *worker) ts() uint64 { return w.clock.Add(1) }

// get reads a key, resolving whose lock is in the way.
func (w *worker) get(k string, ts uint64) string {
	for {
		resp := w.e.Get(w.Context(), keys.Range{}, &kvrpcpb.GetRequest{Key: []byte(k), Version: ts})
		if resp.Error == nil {
			return string(resp.Value)
		}
		if resp.Error.Locked == nil {
			w.Errorf("get: %s", showError(resp.Error))
			return ""
		}
		w.resolve(resp.Error.Locked, ts)
	}
}

// resolve ends the transaction of a lock; half of the time, as one whose TTL is over,
// else by waiting for it, which here is asking again.
func (w *worker) resolve(l *kvrpcpb.LockInfo, caller uint64) {
	req := &kvrpcpb.CheckTxnStatusRequest{PrimaryKey: l.PrimaryLock, LockTs: l.LockVersion, CallerStartTs: caller,
		CurrentTs: w.clock.Load(), RollbackIfNotExist: true, VerifyIsPrimary: true}
	if w.IntN(2) == 0 {
		req.CurrentTs = maxTS
	}
	status := w.e.CheckTxnStatus(w.Context(), keys.Range{}, req)
	switch {
	case status.Error != nil:
		w.Errorf("status: %s", showError(status.Error))
	case status.LockTtl > 0:
		return
	default:
		resolve := &kvrpcpb.ResolveLockRequest{StartVersion: l.LockVersion, CommitVersion: status.CommitVersion}
		if w.IntN(2) == 0 {
			resolve.Keys = [][]byte{l.Key}
		}
		// With keys the lock may be gone since, in the same way or by its owner.
		if resp := w.e.ResolveLock(w.Context(), keys.Range{}, resolve); resp.Error != nil {
			w.Errorf("resolve: %s", showError(resp.Error))
		}
	}
}

// transfer moves an amount between two accounts.
func (w *worker) transfer(accounts int) {
	x := committed{start: w.ts(), reads: map[string]string{}, writes: map[string]string{}}
	a, b := w.IntN(accounts), w.IntN(accounts)
	if a == b {
		return
	}
	from, to := fmt.Sprintf("account%02d", a), fmt.Sprintf("account%02d", b)
	for _, k := range []string{from, to} {
		x.reads[k] = w.get(k, x.start)
	}
	balance, _ := strconv.Atoi(x.reads[from])
	other, _ := strconv.Atoi(x.reads[to])
	amount := w.IntN(10)
	x.writes[from], x.writes[to] = strconv.Itoa(balance-amount), strconv.Itoa(other+amount)
	ks := [][]byte{[]byte(from), []byte(to)}
	for !w.prewrite(&x, ks) {
		if x.start == 0 {
			return
		}
	}
	if w.IntN(20) == 0 {
		w.died++
		return
	}
	x.commit = w.ts()
	if resp := w.e.Commit(w.Context(), keys.Range{}, &kvrpcpb.CommitRequest{StartVersion: x.start, CommitVersion: x.commit, Keys: ks[:1]}); resp.Error != nil {
		if resp.Error.TxnLockNotFound == nil && resp.Error.CommitTsExpired == nil {
			w.Errorf("commit: %s", showError(resp.Error))
		}
		w.e.BatchRollback(w.Context(), keys.Range{}, &kvrpcpb.BatchRollbackRequest{StartVersion: x.start, Keys: ks})
		return
	}
	w.done = append(w.done, x)
	if w.IntN(4) > 0 { // else the other key is left to whoever meets it
		if resp := w.e.Commit(w.Context(), keys.Range{}, &kvrpcpb.CommitRequest{StartVersion: x.start, CommitVersion: x.commit, Keys: ks[1:]}); resp.Error != nil {
			w.Errorf("commit of the secondary: %s", showError(resp.Error))
		}
	}
}

// prewrite reports false to be called again; a start of 0 then says that it is over.
func (w *worker) prewrite(x *committed, ks [][]byte) bool {
	req := &kvrpcpb.PrewriteRequest{StartVersion: x.start, PrimaryLock: ks[0], LockTtl: 1, MinCommitTs: x.start + 1}
	for _, k := range ks {
		req.Mutations = append(req.Mutations, &kvrpcpb.Mutation{Op: kvrpcpb.Op_Put, Key: k, Value: []byte(x.writes[string(k)])})
	}
	resp := w.e.Prewrite(w.Context(), keys.Range{}, req)
	for _, e := range resp.Errors {
		if e.Locked == nil {
			if e.Conflict == nil {
				w.Errorf("prewrite: %s", showError(e))
			}
			w.e.BatchRollback(w.Context(), keys.Range{}, &kvrpcpb.BatchRollbackRequest{StartVersion: x.start, Keys: ks})
			x.start = 0
			return false
		}
		w.resolve(e.Locked, x.start)
	}
	return len(resp.Errors) == 0
}

// audit reads all accounts at one timestamp: the sum never changes.
func (w *worker) audit(accounts, want int) {
	ts, sum := w.ts(), 0
	for i := range accounts {
		n, _ := strconv.Atoi(w.get(fmt.Sprintf("account%02d", i), ts))
		sum += n
	}
	if sum != want {
		w.Errorf("at %d the accounts hold %d of %d", ts, sum, want)
	}
}

func TestConcurrentTransfers(t *testing.T) {
	for name, transfers := range map[string]int{"memory": 400, "dir": 60} {
		t.Run(name, func(t *testing.T) {
			store := storage.NewMemory()
			if name == "dir" {
				var err error
				if store, err = storage.OpenDir(t.TempDir(), false); err != nil {
					t.Fatal(err)
				}
			}
			runTransfers(t, New(store, Config{}), transfers)
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func runTransfers(t *testing.T, e *Engine, transfers int) {
	const accounts, workers, each = 8, 4, 100
	clock := new(atomic.Uint64)
	initial := &worker{T: t, Rand: rand.New(rand.NewPCG(0, 0)), e: e, clock: clock}
	x := committed{start: initial.ts(), writes: map[string]string{}}
	var ks [][]byte
	for i := range accounts {
		k := fmt.Sprintf("account%02d", i)
		ks = append(ks, []byte(k))
		x.writes[k] = strconv.Itoa(each)
	}
	x.commit = initial.ts()
	if !initial.prewrite(&x, ks) {
		t.Fatal("the first transaction failed")
	}
	if resp := e.Commit(t.Context(), keys.Range{}, &kvrpcpb.CommitRequest{StartVersion: x.start, CommitVersion: x.commit, Keys: ks}); resp.Error != nil {
		t.Fatal(resp.Error)
	}
	history, died := []committed{x}, 0
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	for n := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w := &worker{T: t, Rand: rand.New(rand.NewPCG(7, uint64(n))), e: e, clock: clock}
			for i := range transfers {
				w.transfer(accounts)
				if i%20 == 0 {
					w.audit(accounts, accounts*each)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			history, died = append(history, w.done...), died+w.died
		}()
	}
	wg.Wait()
	initial.audit(accounts, accounts*each)
	// Deaths are drawn; of a few transfers there may be none.
	if len(history) < transfers/4 || died == 0 && transfers >= 400 {
		t.Errorf("%d committed, %d died", len(history), died)
	}
	checkHistory(t, history)
}

// checkHistory replays the committed transactions in the order of their commits: each
// must have read what was committed when it began, and what it wrote must not have been
// written in between.
func checkHistory(t *testing.T, history []committed) {
	slices.SortFunc(history, func(a, b committed) int { return int(a.commit) - int(b.commit) })
	type written struct {
		commit uint64
		value  string
	}
	versions := map[string][]written{}
	for _, x := range history {
		for k, read := range x.reads {
			want := ""
			for _, v := range slices.Backward(versions[k]) {
				if v.commit <= x.start {
					want = v.value
					break
				}
			}
			if read != want {
				t.Errorf("the transaction %d-%d read %s=%q, not %q", x.start, x.commit, k, read, want)
			}
		}
		for k, value := range x.writes {
			if n := len(versions[k]); n > 0 && versions[k][n-1].commit > x.start {
				t.Errorf("the transaction %d-%d overwrote %s of %d", x.start, x.commit, k, versions[k][n-1].commit)
			}
			versions[k] = append(versions[k], written{x.commit, value})
		}
	}
}
