package mvcc

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/lockwait"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// slow is a storage whose writes take a while, so that commands come between.
type slow struct {
	storage.Engine
	takes time.Duration
}

func (s *slow) Apply(b *storage.Batch) error {
	if s.takes > 0 {
		<-time.After(s.takes)
	}
	return s.Engine.Apply(b)
}

// waiting is an engine with queues, under fake time.
func waiting(t *testing.T, s storage.Engine, f func(e *Engine, tasks *task.Group)) {
	t.Helper()
	tasks := task.Root(t.Context())
	defer tasks.Close(nil)
	waits := lockwait.New(lockwait.Config{
		Leader: func([]byte) uint64 { return 1 }, Tasks: tasks,
		Detector: lockwait.NewDetector(func() lockwait.Seat { return lockwait.Seat{Store: 1} }),
	})
	f(New(s, Config{Waits: waits}), tasks)
	if !waits.Empty() {
		t.Error("something waits on")
	}
}

func lockRequest(startTS uint64, wait int64, force bool, ks ...string) *kvrpcpb.PessimisticLockRequest {
	req := &kvrpcpb.PessimisticLockRequest{StartVersion: startTS, ForUpdateTs: startTS, LockTtl: 3000, WaitTimeout: wait, PrimaryLock: []byte(ks[0])}
	if force {
		req.WakeUpMode = kvrpcpb.PessimisticLockWakeUpMode_WakeUpModeForceLock
	}
	for _, k := range ks {
		req.Mutations = append(req.Mutations, &kvrpcpb.Mutation{Op: kvrpcpb.Op_PessimisticLock, Key: []byte(k)})
	}
	return req
}

// The lock passes to the one who waits for it, also if others have asked before it was
// released and run next.
func TestLockIsHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{Engine: storage.NewMemory()}
		waiting(t, s, func(e *Engine, tasks *task.Group) {
			b := keys.Range{}
			e.PessimisticLock(t.Context(), b, lockRequest(10, 0, false, "k"))
			ends := make(chan string, 10)
			ask := func(startTS uint64) {
				tasks.Go("asks", func(ctx context.Context) {
					p := e.PessimisticLock(ctx, b, lockRequest(startTS, 100, true, "k"))
					ends <- fmt.Sprintf("%d %s", startTS, showErrors(p.Errors))
				})
				synctest.Wait()
			}
			ask(30)
			s.takes = time.Millisecond
			tasks.Go("releases", func(ctx context.Context) {
				e.PessimisticRollback(ctx, b, &kvrpcpb.PessimisticRollbackRequest{StartVersion: 10, ForUpdateTs: 10, Keys: [][]byte{[]byte("k")}})
			})
			synctest.Wait()
			ask(20) // an older one, which is at the latch when the lock is released
			<-time.After(2 * time.Millisecond)
			synctest.Wait()
			if got := <-ends; got != "30 ok" || len(ends) != 0 {
				t.Fatal(got, len(ends))
			}
			e.PessimisticRollback(t.Context(), b, &kvrpcpb.PessimisticRollbackRequest{StartVersion: 30, ForUpdateTs: 30, Keys: [][]byte{[]byte("k")}})
			if got := <-ends; got != "20 ok" {
				t.Fatal(got)
			}
		})
	})
}

// A key that a command names twice is released once; the keys are in the order in which
// the command has them.
func TestReleasesOfOneCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waiting(t, storage.NewMemory(), func(e *Engine, tasks *task.Group) {
			b := keys.Range{}
			e.PessimisticLock(t.Context(), b, lockRequest(10, 0, false, "a", "b", "c"))
			ends := make(chan string, 10)
			for i, k := range []string{"b", "b", "a", "c"} {
				tasks.Go("asks", func(ctx context.Context) {
					began := time.Now()
					p := e.PessimisticLock(ctx, b, lockRequest(uint64(20+i), 100, false, k))
					ends <- fmt.Sprintf("%d %s %v", 20+i, showErrors(p.Errors), time.Since(began))
				})
				synctest.Wait()
			}
			e.PessimisticRollback(t.Context(), b, &kvrpcpb.PessimisticRollbackRequest{StartVersion: 10, ForUpdateTs: 10,
				Keys: [][]byte{[]byte("b"), []byte("a"), []byte("b")}})
			got := map[string]bool{}
			for range 4 {
				got[<-ends] = true
			}
			for _, want := range []string{
				"20 conflict(PessimisticRetry,b@20,by 10-0) 0s", "22 conflict(PessimisticRetry,a@22,by 10-0) 0s",
				"21 conflict(PessimisticRetry,b@21,by 10-0) 20ms", "23 locked(c:PessimisticLock@10/a,ttl=3000,fut=10) 100ms",
			} {
				if !got[want] {
					t.Errorf("no %q in %v", want, got)
				}
			}
		})
	})
}
