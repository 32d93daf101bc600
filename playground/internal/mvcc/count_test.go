package mvcc

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// However many copies of what ends a transaction run at a time, it ends once.
func TestEndsAreCountedOnce(t *testing.T) {
	const copies = 8
	b, k := keys.Range{}, []byte("k")
	prewrite := func(e *Engine, ctx context.Context, onePC bool) {
		e.Prewrite(ctx, b, &kvrpcpb.PrewriteRequest{StartVersion: 10, PrimaryLock: k, LockTtl: 1, TryOnePc: onePC,
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: k, Value: k}, {Op: kvrpcpb.Op_Put, Key: []byte("j"), Value: k}}})
	}
	for name, c := range map[string]struct {
		end       func(e *Engine, ctx context.Context)
		locked    bool
		committed int64
	}{
		"commit": {func(e *Engine, ctx context.Context) {
			e.Commit(ctx, b, &kvrpcpb.CommitRequest{StartVersion: 10, CommitVersion: 20, Keys: [][]byte{k}})
		}, true, 1},
		"resolve": {func(e *Engine, ctx context.Context) {
			e.ResolveLock(ctx, b, &kvrpcpb.ResolveLockRequest{StartVersion: 10, CommitVersion: 20})
		}, true, 1},
		"one phase": {func(e *Engine, ctx context.Context) { prewrite(e, ctx, true) }, false, 1},
		"rollback": {func(e *Engine, ctx context.Context) {
			e.BatchRollback(ctx, b, &kvrpcpb.BatchRollbackRequest{StartVersion: 10, Keys: [][]byte{k}})
		}, true, 0},
		"status": {func(e *Engine, ctx context.Context) {
			e.CheckTxnStatus(ctx, b, &kvrpcpb.CheckTxnStatusRequest{LockTs: 10, PrimaryKey: k, CurrentTs: maxTS - 1, RollbackIfNotExist: true})
		}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				var commits, rollbacks atomic.Int64
				e := New(storage.NewMemory(), Config{Ended: func(committed bool) {
					if committed {
						commits.Add(1)
					} else {
						rollbacks.Add(1)
					}
				}})
				if c.locked {
					prewrite(e, t.Context(), false)
				}
				if err := task.Each(t.Context(), 0, copies, func(ctx context.Context, _ int) error { c.end(e, ctx); return nil }); err != nil {
					t.Fatal(err)
				}
				if commits.Load() != c.committed || rollbacks.Load() != 1-c.committed {
					t.Fatal(commits.Load(), rollbacks.Load())
				}
			}
		})
	}
}
