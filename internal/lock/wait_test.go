package lock

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// Calls that wait are listed as long as they do, and wait no longer than the lock lives.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Router: newCluster(), Logger: slog.New(slog.DiscardHandler)})
		tasks := task.New(t.Context())
		began := time.Now()
		wait := func(op string, by uint64, limit time.Duration) {
			tasks.Go(op, func(ctx context.Context) {
				call := &router.Call{Op: op, Retry: backoff.New(0)}
				if err := r.Await(ctx, call, backoff.Kind{Base: time.Second, Cap: time.Second}, by, lockOf("a", "p", 100, 300), limit); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wait("first", 7, 0)
		backoff.Sleep(t.Context(), 100*time.Millisecond)
		wait("second", 8, 300*time.Millisecond)
		all := r.Waiting()
		if len(all) != 2 || all[0].Op != "first" || all[1].Op != "second" || all[0].By != 7 || all[0].Lock.StartTS != ts(100) || !all[0].Since.Equal(began) {
			t.Fatalf("%+v", all)
		}
		backoff.Sleep(t.Context(), 301*time.Millisecond)
		if all := r.Waiting(); len(all) != 1 || all[0].Op != "first" {
			t.Fatalf("%+v", all)
		}
		if err := tasks.Wait(t.Context()); err != nil || len(r.Waiting()) != 0 || time.Since(began) != time.Second {
			t.Fatal(err, r.Waiting(), time.Since(began))
		}
	})
}
