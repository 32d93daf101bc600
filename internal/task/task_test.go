package task

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCloseCancelsAndWaits(t *testing.T) {
	g := New(t.Context())
	cause := errors.New("over")
	var ended atomic.Int32
	for range 10 {
		if !g.Go("worker", func(ctx context.Context) {
			<-ctx.Done()
			if context.Cause(ctx) == cause {
				ended.Add(1)
			}
		}) {
			t.Fatal("not started")
		}
	}
	if got := g.Running(); len(got) != 10 || got[0] != "worker" {
		t.Fatal(got)
	}
	g.Close(cause)
	if ended.Load() != 10 {
		t.Fatalf("%d tasks saw the cause", ended.Load())
	}
	if g.Go("late", func(context.Context) {}) {
		t.Fatal("a closed group started a task")
	}
	g.Close(nil)
}

func TestRootOutlivesItsMaker(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := Root(ctx)
	defer g.Close(nil)
	cancel()
	if g.Context().Err() != nil {
		t.Fatal("cancelled with its maker")
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(t.Context())
		g.Go("sleeper", func(ctx context.Context) { <-ctx.Done() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		g.Cancel(nil)
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(context.Cause(g.Context()), ErrClosed) {
			t.Fatal(context.Cause(g.Context()))
		}
	})
}

func TestEach(t *testing.T) {
	var now, most atomic.Int32
	var seen [100]atomic.Int32
	err := Each(t.Context(), 7, len(seen), func(_ context.Context, i int) error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		seen[i].Add(1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if most.Load() > 7 {
		t.Fatalf("%d at a time", most.Load())
	}
	for i := range seen {
		if seen[i].Load() != 1 {
			t.Fatalf("item %d ran %d times", i, seen[i].Load())
		}
	}
}

func TestEachStopsAtTheFirstError(t *testing.T) {
	bad := errors.New("bad")
	var ran []int
	err := Each(t.Context(), 1, 10, func(ctx context.Context, i int) error {
		ran = append(ran, i)
		if i == 3 {
			return bad
		}
		return nil
	})
	if err != bad || !slices.Equal(ran, []int{0, 1, 2, 3}) {
		t.Fatal(err, ran)
	}
	err = Each(t.Context(), 0, 3, func(ctx context.Context, i int) error {
		if i == 1 {
			return bad
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if err != bad {
		t.Fatal(err)
	}
}
