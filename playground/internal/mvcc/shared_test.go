package mvcc

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

func share(req *kvrpcpb.PessimisticLockRequest) *kvrpcpb.PessimisticLockRequest {
	for _, m := range req.Mutations {
		m.Op = kvrpcpb.Op_SharedPessimisticLock
	}
	return req
}

// The last of those who share a lock wakes who waits for it, and of those who want it in
// share mode all that are next (lock_waiting_queue.rs, pop_for_waking_up_impl). One who
// takes the lock in force mode fails if he meets a shared one when he is resumed.
func TestWaitsForSharedLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waiting(t, storage.NewMemory(), func(e *Engine, tasks *task.Group) {
			ctx, b, k := t.Context(), keys.Range{}, []byte("k")
			unlock := func(startTS uint64) {
				e.PessimisticRollback(ctx, b, &kvrpcpb.PessimisticRollbackRequest{StartVersion: startTS, ForUpdateTs: 99, Keys: [][]byte{k}})
			}
			began := time.Now()
			var mu sync.Mutex
			ends := make(map[uint64]string)
			ask := func(startTS uint64, shared, force bool) {
				req := lockRequest(startTS, 1000, force, "k")
				if shared {
					share(req)
				}
				tasks.Go("asks", func(ctx context.Context) {
					text := showErrors(e.PessimisticLock(ctx, b, req).Errors)
					mu.Lock()
					defer mu.Unlock()
					ends[startTS] = time.Since(began).String() + " " + text
				})
				synctest.Wait()
			}
			expect := func(startTS uint64, want string) {
				t.Helper()
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if got := ends[startTS]; got != want {
					t.Errorf("%d: got %q, want %q", startTS, got, want)
				}
			}
			ask(10, true, false)
			ask(11, true, false)
			ask(20, false, false) // which closes the lock, and does not wait
			expect(20, "0s locked(k:[PessimisticLock@10,ttl=3000,fut=10 PessimisticLock@11,ttl=3000,fut=11])")
			ask(20, false, false)
			ask(21, true, false)
			unlock(10)
			mu.Lock()
			ends[20] = ""
			mu.Unlock()
			expect(20, "")
			unlock(11)
			expect(20, "0s conflict(PessimisticRetry,k@20,by 11-0)")
			expect(21, "")
			<-time.After(20 * time.Millisecond)
			expect(21, "20ms conflict(PessimisticRetry,k@21,by 11-0)")

			ask(30, false, false)
			expect(30, "20ms ok")
			ask(31, true, false)
			ask(32, true, false)
			ask(33, false, false)
			ask(34, true, false)
			unlock(30)
			expect(31, "20ms conflict(PessimisticRetry,k@31,by 30-0)")
			expect(32, "20ms conflict(PessimisticRetry,k@32,by 30-0)")
			expect(33, "")
			expect(34, "")
			<-time.After(20 * time.Millisecond)
			expect(33, "40ms conflict(PessimisticRetry,k@33,by 30-0)")
			expect(34, "40ms conflict(PessimisticRetry,k@34,by 30-0)")

			ask(40, false, false)
			ask(41, false, false)
			ask(42, false, true)
			unlock(40)
			expect(41, "40ms conflict(PessimisticRetry,k@41,by 40-0)")
			ask(43, true, false) // comes first
			expect(43, "40ms ok")
			<-time.After(20 * time.Millisecond)
			expect(42, "60ms locked(k:[PessimisticLock@43,ttl=3000,fut=43])")
			ask(44, true, false) // the lock was not closed by that
			expect(44, "60ms ok")
			unlock(43)
			unlock(44)
		})
	})
}

// A circle through one of those who share a lock is found.
func TestDeadlockOverSharedLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waiting(t, storage.NewMemory(), func(e *Engine, tasks *task.Group) {
			ctx, b := t.Context(), keys.Range{}
			for _, ts := range []uint64{10, 20, 30} {
				e.PessimisticLock(ctx, b, share(lockRequest(ts, -1, false, "k")))
			}
			e.PessimisticLock(ctx, b, lockRequest(40, -1, false, "own"))
			ends := make(chan string, 2)
			ask := func(startTS uint64, k string) {
				tasks.Go("asks", func(ctx context.Context) {
					ends <- showErrors(e.PessimisticLock(ctx, b, lockRequest(startTS, 1000, false, k)).Errors)
				})
				synctest.Wait()
			}
			ask(20, "own")
			ask(40, "k")
			<-ends // the lock is closed
			if p := e.PessimisticLock(ctx, b, lockRequest(40, 1000, false, "k")); len(p.Errors) != 1 || p.Errors[0].Deadlock == nil {
				t.Fatal(p)
			} else if d := p.Errors[0].Deadlock; d.LockTs != 20 || len(d.WaitChain) != 2 || d.WaitChain[1].WaitForTxn != 20 || d.WaitChain[0].Txn != 20 {
				t.Error(d)
			}
			// Nothing is left of the holders before it: no other circle is seen.
			if p := e.PessimisticLock(ctx, b, lockRequest(10, 5, false, "own")); p.Errors[0].Locked == nil {
				t.Error(p)
			}
			e.PessimisticRollback(ctx, b, &kvrpcpb.PessimisticRollbackRequest{StartVersion: 40, ForUpdateTs: 99, Keys: [][]byte{[]byte("own")}})
			<-ends
		})
	})
}
