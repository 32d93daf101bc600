package mvcc

import (
	"sync"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// resolvedWatch holds the resolved timestamps of the halves' regions against what is
// committed after they were handed out.
type resolvedWatch struct {
	*testing.T
	mu      sync.Mutex
	handed  [2]uint64
	current int // those that were as new as could be
	held    int // those that a lock held back
}

func (w *resolvedWatch) hand(region int, ts, now uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handed[region] = max(w.handed[region], ts)
	if ts == now {
		w.current++
	} else {
		w.held++
	}
}

// check looks at what a batch commits, before it is written.
func (w *resolvedWatch) check(b *storage.Batch) {
	written := storage.NewMemory()
	if err := written.Apply(b); err != nil {
		w.Error(err)
		return
	}
	snap := written.Snapshot()
	defer snap.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for stored, data := range snap.Scan(storage.Write, keys.Range{}, false) {
		enc, commitTS, err := splitVersion(stored)
		if err != nil {
			w.Error(err)
			return
		}
		record, err := parseWrite(data)
		if err != nil {
			w.Error(err)
			return
		}
		raw, _, _ := keys.Decode(enc)
		if handed := w.handed[regionOf(raw)]; record.changes() && !record.fenced && commitTS <= handed {
			w.Errorf("%s is committed at %d after %d was resolved", raw, commitTS, handed)
		}
	}
}

func (w *resolvedWatch) checkHeld() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current == 0 || w.held == 0 {
		w.Errorf("%d resolved timestamps were current, %d held back: the test shows nothing", w.current, w.held)
	}
}

// resolved asks for a region's resolved timestamp where it is led.
func (h *halves) resolved(region int) {
	now := h.ts()
	key := [2]string{"a", "z"}[region]
	in := [2]keys.Range{{End: keys.Encode([]byte("n"))}, {Start: keys.Encode([]byte("n"))}}[region]
	h.on([]byte(key), func(e *Engine) { h.watch.hand(region, e.Resolved(in, now), now) })
}

// The kinds of locks that a resolved timestamp stays below: TiKV components/resolved_ts/
// src/resolver.rs, tests, and scanner.rs.
func TestResolved(t *testing.T) {
	put := func(k string) *kvrpcpb.Mutation {
		return &kvrpcpb.Mutation{Op: kvrpcpb.Op_Put, Key: []byte(k), Value: []byte("v")}
	}
	prewrite := func(ts uint64, m *kvrpcpb.Mutation) *kvrpcpb.PrewriteRequest {
		return &kvrpcpb.PrewriteRequest{StartVersion: ts, PrimaryLock: m.Key, LockTtl: 1, Mutations: []*kvrpcpb.Mutation{m}}
	}
	flush := &kvrpcpb.FlushRequest{StartTs: 10, PrimaryKey: []byte("a"), Generation: 1, Mutations: []*kvrpcpb.Mutation{put("a")}}
	report := func(s *kvrpcpb.TxnStatus) *kvrpcpb.BroadcastTxnStatusRequest {
		s.StartTs = 10
		return &kvrpcpb.BroadcastTxnStatusRequest{TxnStatus: []*kvrpcpb.TxnStatus{s}}
	}
	for _, c := range []struct {
		name           string
		do             []any
		resolved, safe uint64
	}{
		{name: "nothing", resolved: 20, safe: 20},
		{name: "a put", do: []any{prewrite(10, put("a"))}, resolved: 10, safe: 10},
		{name: "a deletion", do: []any{prewrite(10, &kvrpcpb.Mutation{Op: kvrpcpb.Op_Del, Key: []byte("a")})}, resolved: 10, safe: 10},
		{name: "a lock", do: []any{prewrite(10, &kvrpcpb.Mutation{Op: kvrpcpb.Op_Lock, Key: []byte("a")})}, resolved: 20, safe: 20},
		{name: "the least of several", do: []any{prewrite(12, put("a")), prewrite(11, put("b"))}, resolved: 11, safe: 11},
		{name: "outside of the range", do: []any{prewrite(10, put("x"))}, resolved: 20, safe: 20},
		{name: "younger than the timestamp", do: []any{prewrite(30, put("a"))}, resolved: 20, safe: 20},
		{name: "pessimistic", do: []any{&kvrpcpb.PessimisticLockRequest{StartVersion: 10, ForUpdateTs: 10, PrimaryLock: []byte("a"),
			LockTtl: 1, Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: []byte("a")}}}}, resolved: 20, safe: 20},
		{name: "committed", do: []any{prewrite(10, put("a")),
			&kvrpcpb.CommitRequest{StartVersion: 10, CommitVersion: 11, Keys: [][]byte{[]byte("a")}}}, resolved: 20, safe: 20},
		{name: "rolled back", do: []any{prewrite(10, put("a")),
			&kvrpcpb.BatchRollbackRequest{StartVersion: 10, Keys: [][]byte{[]byte("a")}}}, resolved: 20, safe: 20},
		{name: "flushed", do: []any{flush}, resolved: 10, safe: 9},
		{name: "flushed and pushed", do: []any{flush, report(&kvrpcpb.TxnStatus{MinCommitTs: 15})}, resolved: 10, safe: 14},
		{name: "reports out of order", do: []any{flush, report(&kvrpcpb.TxnStatus{MinCommitTs: 15}),
			report(&kvrpcpb.TxnStatus{MinCommitTs: 13})}, resolved: 10, safe: 14},
		{name: "flushed and decided", do: []any{flush, report(&kvrpcpb.TxnStatus{CommitTs: 16})}, resolved: 10, safe: 20},
		{name: "flushed and rolled back", do: []any{flush, report(&kvrpcpb.TxnStatus{RolledBack: true})}, resolved: 10, safe: 20},
		{name: "said to be complete, and a lock left", do: []any{flush, report(&kvrpcpb.TxnStatus{RolledBack: true, IsCompleted: true})},
			resolved: 10, safe: 9},
		{name: "not decided again", do: []any{flush, report(&kvrpcpb.TxnStatus{RolledBack: true}),
			report(&kvrpcpb.TxnStatus{MinCommitTs: 15})}, resolved: 10, safe: 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := New(storage.NewMemory(), Config{})
			for _, req := range c.do {
				var failed any
				switch q := req.(type) {
				case *kvrpcpb.PrewriteRequest:
					failed = e.Prewrite(t.Context(), keys.Range{}, q).Errors
				case *kvrpcpb.FlushRequest:
					failed = e.Flush(t.Context(), keys.Range{}, q).Errors
				case *kvrpcpb.PessimisticLockRequest:
					failed = e.PessimisticLock(t.Context(), keys.Range{}, q).Errors
				case *kvrpcpb.CommitRequest:
					if err := e.Commit(t.Context(), keys.Range{}, q).Error; err != nil {
						t.Fatal(err)
					}
				case *kvrpcpb.BatchRollbackRequest:
					if err := e.BatchRollback(t.Context(), keys.Range{}, q).Error; err != nil {
						t.Fatal(err)
					}
				case *kvrpcpb.BroadcastTxnStatusRequest:
					e.BroadcastTxnStatus(t.Context(), q)
				}
				if errs, _ := failed.([]*kvrpcpb.KeyError); len(errs) > 0 {
					t.Fatal(errs)
				}
			}
			in := keys.Range{End: keys.Encode([]byte("m"))}
			if got := e.Resolved(in, 20); got != c.resolved {
				t.Errorf("resolved %d, not %d", got, c.resolved)
			}
			bound, snap := e.manager.Bound(20), e.store.Snapshot()
			defer snap.Close()
			if got := Safe(e.manager, snap, in, bound); got != c.safe {
				t.Errorf("safe %d, not %d", got, c.safe)
			}
			if got := e.MaxTS(); got != 20 {
				t.Errorf("MaxTS is %d", got)
			}
		})
	}
}

// A lock that is in memory counts, wherever its key is: what it announces may be in the
// range by the time it is gone.
func TestResolvedInMemory(t *testing.T) {
	e := New(storage.NewMemory(), Config{})
	k := keyOf([]byte("x"))
	if !e.manager.propose(k, &lock{ts: 10}, 10, 0) {
		t.Fatal("not proposed")
	}
	in := keys.Range{End: keys.Encode([]byte("m"))}
	if got := e.Resolved(in, 20); got != 10 {
		t.Errorf("resolved %d", got)
	}
	e.manager.release([]key{k})
	if got := e.Resolved(in, 20); got != 20 {
		t.Errorf("resolved %d after the lock", got)
	}
}
