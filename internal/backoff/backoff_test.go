package backoff

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDelaysGrowToTheCap(t *testing.T) {
	r := New(0)
	var got []time.Duration
	for range 10 {
		got = append(got, r.Next(RegionMiss))
	}
	for i, want := range []time.Duration{2, 4, 8, 16, 32, 64, 128, 256, 500, 500} {
		if got[i] != want*time.Millisecond {
			t.Errorf("delay %d is %v", i, got[i])
		}
	}
	if d := r.Next(Scheduling); d != 2*time.Millisecond {
		t.Errorf("kinds share their count: %v", d)
	}
}

func TestJitterStaysInTheUpperHalf(t *testing.T) {
	for range 1000 {
		if d := New(0).Next(RPC); d < RPC.Base/2 || d > RPC.Base {
			t.Fatal(d)
		}
	}
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, start := New(time.Second), time.Now()
		var err error
		for err == nil {
			err = r.Wait(t.Context(), RPC)
		}
		if !errors.Is(err, ErrExhausted) {
			t.Fatal(err)
		}
		if d := time.Since(start); d != time.Second || r.Slept() != d {
			t.Fatalf("slept %v of 1s, says %v", d, r.Slept())
		}
		fork := r.Fork()
		if d := fork.Next(RPC); d < r.Next(RPC)/2 || d <= RPC.Base {
			t.Fatal("a fork's delays begin anew:", d)
		}
		fork = r.Fork()
		if err := fork.Wait(t.Context(), Lock); !errors.Is(err, ErrExhausted) {
			t.Fatal("a fork has a budget of its own:", err)
		}
	})
}

func TestDeadlineReplacesBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r, start := For(ctx, time.Second), time.Now()
		var err error
		for err == nil {
			err = r.Wait(ctx, RPC)
		}
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Fatal(err, time.Since(start))
		}
	})
}

func TestCancelEndsTheWaitAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		over, start := errors.New("over"), time.Now()
		got := make(chan error)
		go func() { got <- New(0).Wait(ctx, Witness) }()
		synctest.Wait()
		cancel(over)
		if err := <-got; err != over || time.Since(start) != 0 {
			t.Fatal(err, time.Since(start))
		}
	})
}
