package mvcc

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// dice is chance for many goroutines.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// pause waits for up to 4 ms of the bubble's time, and for some: docs/testing.md, what
// soaks found.
func (d *dice) pause() { <-time.After(max(1, time.Duration(d.n(4))*time.Millisecond)) }

// slowStore is an engine in which what was checked grows old before it is used.
type slowStore struct {
	storage.Engine
	*dice
	watched *resolvedWatch
}

func (s slowStore) Snapshot() storage.Snapshot {
	s.pause()
	return s.Engine.Snapshot()
}

func (s slowStore) Apply(b *storage.Batch) error {
	s.pause()
	defer s.pause()
	s.watched.check(b)
	return s.Engine.Apply(b)
}

// halves is a cluster of two stores and two regions, [,n) and [n,), each led by one of
// the stores, which change now and then.
type halves struct {
	*testing.T
	*dice
	tso      atomic.Uint64
	managers [2]*Manager
	engines  [2]*Engine
	regions  [2]struct {
		tokens chan struct{} // one for each command that runs in the region
		leader int
	}
	watch    *resolvedWatch
	mu       sync.Mutex
	attempts []*attempt
	modes    map[string]int
}

const regionTokens = 16

func newHalves(t *testing.T, seed uint64) *halves {
	h := &halves{T: t, dice: &dice{r: rand.New(rand.NewPCG(seed, 1))}, modes: map[string]int{}}
	h.watch = &resolvedWatch{T: t}
	base := New(slowStore{storage.NewMemory(), h.dice, h.watch}, Config{})
	for i := range h.engines {
		h.managers[i] = NewManager()
		h.engines[i] = base.On(h.managers[i], func(region uint64) *Manager { return h.managers[h.regions[region].leader] })
		h.regions[i].tokens = make(chan struct{}, regionTokens)
		h.regions[i].leader = i
	}
	return h
}

func regionOf(k []byte) int {
	if string(k) < "n" {
		return 0
	}
	return 1
}

// on runs a command on the leader of a key's region.
func (h *halves) on(k []byte, command func(*Engine)) {
	r := &h.regions[regionOf(k)]
	r.tokens <- struct{}{}
	defer func() { <-r.tokens }()
	command(h.engines[r.leader])
}

// move lets the other store lead a region, once the commands under the old one have
// ended. It knows nothing of what was read there, so that it asks for a timestamp.
func (h *halves) move(region int) {
	r := &h.regions[region]
	for range regionTokens {
		r.tokens <- struct{}{}
	}
	r.leader = 1 - r.leader
	h.managers[r.leader].Observe(h.ts())
	for range regionTokens {
		<-r.tokens
	}
}

func (h *halves) ts() uint64 { return h.tso.Add(1) }

// attempt is a transaction as its client knows it.
type attempt struct {
	start  uint64
	seen   uint64 // the timestamp at which it read: its start, or the last for-update one
	keys   [][]byte
	reads  map[string]string
	value  string
	commit uint64 // 0: not acknowledged
	gone   bool   // known to have failed
}

// read gets a key at a timestamp, as a follower's read now and then.
func (h *halves) read(k []byte, ts uint64) string {
	var bypass []uint64
	for {
		var resp *kvrpcpb.GetResponse
		h.on(k, func(e *Engine) {
			req := &kvrpcpb.GetRequest{Key: k, Version: ts, Context: &kvrpcpb.Context{ResolvedLocks: bypass, RegionId: uint64(regionOf(k))}}
			if h.n(4) == 0 {
				req.Context.ReplicaRead = true
				e = h.engines[h.n(2)]
			}
			resp = e.Get(h.Context(), keys.Range{}, req)
		})
		switch {
		case resp.Error == nil:
			return string(resp.Value)
		case resp.Error.Locked == nil:
			h.Errorf("get: %s", showError(resp.Error))
			return ""
		}
		if h.resolve(resp.Error.Locked, ts) {
			bypass = append(bypass, resp.Error.Locked.LockVersion)
		}
	}
}

// resolve ends the transaction of a lock, or waits for it. It reports that the reader
// at ts may pass the lock.
func (h *halves) resolve(l *kvrpcpb.LockInfo, ts uint64) (pass bool) {
	if h.n(3) > 0 {
		h.pause()
		return false
	}
	status := h.status(l, ts, false)
	if status == nil {
		return false
	}
	if p := status.LockInfo; p != nil && p.UseAsyncCommit && status.LockTtl > 0 {
		return h.recover(l, p, ts)
	}
	if status.LockTtl > 0 {
		return status.Action == kvrpcpb.Action_MinCommitTSPushed
	}
	h.end(l, status.CommitVersion, [][]byte{l.Key})
	return false
}

func (h *halves) status(l *kvrpcpb.LockInfo, ts uint64, force bool) (status *kvrpcpb.CheckTxnStatusResponse) {
	h.on(l.PrimaryLock, func(e *Engine) {
		req := &kvrpcpb.CheckTxnStatusRequest{PrimaryKey: l.PrimaryLock, LockTs: l.LockVersion, CallerStartTs: ts,
			CurrentTs: maxTS, RollbackIfNotExist: true, VerifyIsPrimary: true, ForceSyncCommit: force,
			ResolvingPessimisticLock: l.LockType == kvrpcpb.Op_PessimisticLock}
		if h.n(4) == 0 && !force {
			req.CurrentTs = h.tso.Load()
		}
		status = e.CheckTxnStatus(h.Context(), keys.Range{}, req)
	})
	if status.Error != nil {
		if status.Error.PrimaryMismatch == nil {
			h.Errorf("status: %s", showError(status.Error))
		}
		return nil
	}
	return status
}

// recover decides an async commit from its locks; p is that of its primary.
func (h *halves) recover(l, p *kvrpcpb.LockInfo, ts uint64) (pass bool) {
	commitTS := p.MinCommitTs
	for _, k := range p.Secondaries {
		var resp *kvrpcpb.CheckSecondaryLocksResponse
		h.on(k, func(e *Engine) {
			resp = e.CheckSecondaryLocks(h.Context(), keys.Range{}, &kvrpcpb.CheckSecondaryLocksRequest{StartVersion: p.LockVersion, Keys: [][]byte{k}})
		})
		switch {
		case resp.Error != nil:
			h.Errorf("secondary: %s", showError(resp.Error))
			return false
		case len(resp.Locks) == 0:
			if commitTS = resp.CommitTs; commitTS != 0 && commitTS < p.MinCommitTs {
				h.Errorf("a secondary is committed at %d, the primary not before %d", commitTS, p.MinCommitTs)
			}
			h.end(p, commitTS, append([][]byte{p.Key}, p.Secondaries...))
			return false
		case !resp.Locks[0].UseAsyncCommit: // it fell back
			if s := h.status(l, ts, true); s != nil && s.LockTtl == 0 {
				h.end(l, s.CommitVersion, [][]byte{l.Key})
			}
			return false
		}
		commitTS = max(commitTS, resp.Locks[0].MinCommitTs)
	}
	h.end(p, commitTS, append([][]byte{p.Key}, p.Secondaries...))
	return false
}

// end commits or rolls back what is left of a transaction.
func (h *halves) end(l *kvrpcpb.LockInfo, commitTS uint64, ks [][]byte) {
	for _, k := range ks {
		h.on(k, func(e *Engine) {
			if l.LockType == kvrpcpb.Op_PessimisticLock {
				e.PessimisticRollback(h.Context(), keys.Range{}, &kvrpcpb.PessimisticRollbackRequest{
					StartVersion: l.LockVersion, ForUpdateTs: maxTS, Keys: [][]byte{k}})
				return
			}
			resp := e.ResolveLock(h.Context(), keys.Range{}, &kvrpcpb.ResolveLockRequest{
				StartVersion: l.LockVersion, CommitVersion: commitTS, Keys: [][]byte{k}})
			if resp.Error != nil {
				h.Errorf("resolve %s of %d with %d: %s", k, l.LockVersion, commitTS, showError(resp.Error))
			}
		})
	}
}

// transact runs one transaction: it reads some keys and writes to all of them.
func (h *halves) transact() {
	a := &attempt{start: h.ts(), reads: map[string]string{}}
	a.seen, a.value = a.start, fmt.Sprint(a.start)
	names := []string{"a", "b", "c", "x", "y", "z"}
	for range 1 + h.n(3) {
		a.keys = append(a.keys, []byte(names[h.n(len(names))]))
	}
	slices.SortFunc(a.keys, func(x, y []byte) int { return cmp.Compare(string(x), string(y)) })
	a.keys = slices.CompactFunc(a.keys, func(x, y []byte) bool { return string(x) == string(y) })
	if h.n(2) == 0 {
		slices.Reverse(a.keys)
	}
	h.mu.Lock()
	h.attempts = append(h.attempts, a)
	h.mu.Unlock()
	pessimistic := h.n(3) == 0
	switch {
	case pessimistic:
		if !h.lockAll(a) {
			h.rollback(a)
			return
		}
	default:
		for _, k := range a.keys {
			a.reads[string(k)] = h.read(k, a.start)
		}
	}
	if h.n(12) == 0 {
		if pessimistic {
			h.rollback(a)
		}
		a.gone = true
		return // a reader
	}
	h.write(a, pessimistic)
}

// lockAll locks the keys and reads them, all at one for-update timestamp.
func (h *halves) lockAll(a *attempt) bool {
	for range 20 {
		a.seen = h.ts()
		if done, ok := h.lockAt(a); done {
			return ok
		}
	}
	return false
}

func (h *halves) lockAt(a *attempt) (done, ok bool) {
	for i := 0; i < len(a.keys); i++ {
		k := a.keys[i]
		var resp *kvrpcpb.PessimisticLockResponse
		h.on(k, func(e *Engine) {
			resp = e.PessimisticLock(h.Context(), keys.Range{}, &kvrpcpb.PessimisticLockRequest{
				Mutations:   []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: k}},
				PrimaryLock: a.keys[0], StartVersion: a.start, ForUpdateTs: a.seen, LockTtl: 1, ReturnValues: true, WaitTimeout: -1})
		})
		if len(resp.Errors) == 0 {
			a.reads[string(k)] = string(resp.Values[0])
			continue
		}
		switch e := resp.Errors[0]; {
		case e.Locked != nil:
			h.resolve(e.Locked, 0)
			if h.n(3) == 0 {
				return true, false // or it may wait for itself, through another
			}
			i--
		case e.Conflict != nil:
			return false, false
		default:
			return true, false // rolled back by another
		}
	}
	return true, true
}

// write prewrites and commits in one of the ways.
func (h *halves) write(a *attempt, pessimistic bool) {
	mode := []string{"two phases", "async", "async", "one phase"}[h.n(4)]
	for _, k := range a.keys {
		if mode == "one phase" && regionOf(k) != regionOf(a.keys[0]) {
			mode = "async"
		}
	}
	var minCommitTS, maxCommitTS uint64 = a.start + 1, 0
	if mode != "two phases" {
		if h.n(2) == 0 { // else only causally consistent: it is for the server to see to the rest
			minCommitTS = h.ts() + 1
		}
		if h.n(3) == 0 {
			maxCommitTS = minCommitTS + uint64(h.n(6))
		}
	}
	var groups [][][]byte
	for r := range 2 {
		var g [][]byte
		for _, k := range a.keys {
			if regionOf(k) == r {
				g = append(g, k)
			}
		}
		if len(g) > 0 {
			groups = append(groups, g)
		}
	}
	if h.n(2) == 0 {
		slices.Reverse(groups)
	}
	asked := mode
	for _, g := range groups {
		req := &kvrpcpb.PrewriteRequest{StartVersion: a.start, PrimaryLock: a.keys[0], LockTtl: 1, MinCommitTs: minCommitTS,
			MaxCommitTs: maxCommitTS, UseAsyncCommit: mode == "async", TryOnePc: mode == "one phase", Context: &kvrpcpb.Context{}}
		if mode == "async" && string(g[0]) == string(a.keys[0]) {
			req.Secondaries = a.keys[1:]
		}
		if pessimistic {
			req.ForUpdateTs = a.seen
		}
		for _, k := range g {
			req.Mutations = append(req.Mutations, &kvrpcpb.Mutation{Op: kvrpcpb.Op_Put, Key: k, Value: []byte(a.value)})
			if pessimistic {
				req.PessimisticActions = append(req.PessimisticActions, kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK)
			}
		}
		resp := h.prewrite(req)
		if resp == nil {
			h.rollback(a)
			return
		}
		switch {
		case mode == "one phase" && resp.OnePcCommitTs != 0:
			a.commit = resp.OnePcCommitTs
			if h.n(4) == 0 { // the answer was lost
				req.Context.IsRetryRequest = true
				if again := h.prewrite(req); again == nil || again.OnePcCommitTs != a.commit {
					h.Errorf("a repeated one-phase commit at %d: %v", a.commit, again)
				}
			}
		case mode == "async" && resp.MinCommitTs != 0:
			a.commit = max(a.commit, resp.MinCommitTs)
		case mode != "two phases":
			mode = "two phases"
		}
		if h.n(25) == 0 && mode != "one phase" {
			a.commit = 0
			return // it died
		}
	}
	if mode == "two phases" {
		a.commit = 0
		h.count(asked + " asked for, two")
		h.commitPrimary(a)
		return
	}
	h.count(mode)
	h.returned(a)
	if mode == "async" && h.n(3) > 0 {
		h.commitKeys(a, a.keys)
	}
}

func (h *halves) count(mode string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.modes[mode]++
}

// returned is when the client's caller is told: from then on every new reader must see
// the commit.
func (h *halves) returned(a *attempt) {
	if next := h.tso.Load() + 1; a.commit > next {
		h.Errorf("%d is committed at %d, and a reader may begin at %d", a.start, a.commit, next)
	}
}

// prewrite sends the request until no lock is in the way; nil: it failed.
func (h *halves) prewrite(req *kvrpcpb.PrewriteRequest) (resp *kvrpcpb.PrewriteResponse) {
	for {
		h.on(req.Mutations[0].Key, func(e *Engine) { resp = e.Prewrite(h.Context(), keys.Range{}, req) })
		for _, e := range resp.Errors {
			if e.Locked == nil {
				return nil
			}
			h.resolve(e.Locked, 0)
		}
		if len(resp.Errors) == 0 {
			return resp
		}
	}
}

func (h *halves) commitPrimary(a *attempt) {
	for {
		ts := h.ts()
		resp := h.commitAt(a, a.keys[:1], ts)
		switch {
		case resp.Error == nil:
			a.commit = ts
			h.returned(a)
			h.commitKeys(a, a.keys[1:])
			return
		case resp.Error.CommitTsExpired == nil:
			h.rollback(a)
			return
		}
	}
}

func (h *halves) commitAt(a *attempt, ks [][]byte, ts uint64) (resp *kvrpcpb.CommitResponse) {
	h.on(ks[0], func(e *Engine) {
		resp = e.Commit(h.Context(), keys.Range{}, &kvrpcpb.CommitRequest{StartVersion: a.start, CommitVersion: ts, Keys: ks})
	})
	return resp
}

func (h *halves) commitKeys(a *attempt, ks [][]byte) {
	for _, k := range ks {
		if resp := h.commitAt(a, [][]byte{k}, a.commit); resp.Error != nil {
			h.Errorf("commit %s of %d at %d: %s", k, a.start, a.commit, showError(resp.Error))
		}
	}
}

func (h *halves) rollback(a *attempt) {
	a.gone, a.commit = true, 0
	for _, k := range a.keys {
		h.on(k, func(e *Engine) {
			if resp := e.BatchRollback(h.Context(), keys.Range{}, &kvrpcpb.BatchRollbackRequest{StartVersion: a.start, Keys: [][]byte{k}}); resp.Error != nil {
				h.Errorf("rollback %s of %d: %s", k, a.start, showError(resp.Error))
			}
		})
	}
}

type stored struct{ commit, start uint64 }

// versions are the commits of a key as they are stored, the oldest first.
func (h *halves) versions(k string) (all []stored) {
	info, err := h.engines[0].Versions([]byte(k))
	if err != nil {
		h.Fatal(err)
	}
	for _, w := range slices.Backward(info.Writes) {
		if w.Type == kvrpcpb.Op_Put {
			if n := len(all); n > 0 && all[n-1].commit == w.CommitTs {
				h.Errorf("%s has two versions at %d", k, w.CommitTs)
			}
			all = append(all, stored{w.CommitTs, w.StartTs})
		}
	}
	return all
}

// check compares what is stored with what the clients were told and saw.
func (h *halves) check() {
	versions := map[string][]stored{}
	ends := map[uint64]uint64{} // commit timestamps by start
	for _, k := range []string{"a", "b", "c", "x", "y", "z"} {
		h.read([]byte(k), h.ts()) // so that nothing is left locked
		versions[k] = h.versions(k)
		for _, v := range versions[k] {
			if ts, ok := ends[v.start]; ok && ts != v.commit {
				h.Errorf("%d is committed at %d and %d", v.start, ts, v.commit)
			}
			ends[v.start] = v.commit
		}
	}
	for _, a := range h.attempts {
		commit := ends[a.start]
		switch {
		case a.commit != 0 && commit != a.commit:
			h.Errorf("%d was told that it is committed at %d, it is at %d", a.start, a.commit, commit)
		case a.gone && commit != 0:
			h.Errorf("%d was told that it failed, it is committed at %d", a.start, commit)
		}
		for k, got := range a.reads {
			want := ""
			for _, v := range slices.Backward(versions[k]) {
				if v.commit <= a.seen {
					want = fmt.Sprint(v.start)
					break
				}
			}
			if got != want && !(a.gone && a.seen != a.start) { // a lock that failed has read at several times
				h.Errorf("%d read %s=%q at %d, not %q", a.start, k, got, a.seen, want)
			}
			for _, v := range versions[k] {
				if commit != 0 && v.commit > a.seen && v.commit < commit {
					h.Errorf("%d, of %d, committed at %d over %d", a.start, a.seen, commit, v.commit)
				}
			}
		}
	}
}

// Clients that commit in all the ways, die and resolve each other, under changes of
// leaders: snapshot isolation, and what was acknowledged is seen by who begins later.
func TestRandomAsyncCommit(t *testing.T) {
	modes := map[string]int{}
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHalves(t, seed)
				var clients sync.WaitGroup
				for range 6 {
					clients.Add(1)
					go func() {
						defer clients.Done()
						for range 100 {
							h.transact()
						}
					}()
				}
				stop, stopped := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(stopped)
					for tick := time.NewTicker(50 * time.Millisecond); ; {
						select {
						case <-stop:
							tick.Stop()
							return
						case <-tick.C:
							h.move(h.n(2))
						case <-time.After(time.Millisecond):
							h.resolved(h.n(2))
						}
					}
				}()
				clients.Wait()
				close(stop)
				<-stopped
				h.check()
				h.watch.checkHeld()
				for mode, n := range h.modes {
					modes[mode] += n
				}
			})
		})
	}
	for _, mode := range []string{"async", "one phase", "async asked for, two", "one phase asked for, two", "two phases asked for, two"} {
		if modes[mode] == 0 {
			t.Errorf("no %s in %v", mode, modes)
		}
	}
}
