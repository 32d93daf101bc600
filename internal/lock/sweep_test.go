package lock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// While one removal of a transaction's locks is under way, what else readers meet of it
// is gathered, and goes in one request.
func TestSweepsGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		tasks := task.New(t.Context())
		r := New(Config{Router: c, Clock: c, Tasks: tasks, Logger: slog.New(slog.DiscardHandler)})
		r.known.put(ts(100), Status{State: Committed, CommitTS: ts(150)})
		r.known.put(ts(200), Status{State: RolledBack})
		read := func(locks ...Lock) {
			if _, err := r.ForRead(t.Context(), &router.Call{}, Reader{TS: ts(500)}, locks); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		read(lockOf("a", "p", 100, 300))
		for _, k := range []string{"a", "b", "c", "b", "a"} {
			read(lockOf(k, "p", 100, 300), lockOf(k, "q", 200, 300))
		}
		tasks.Refuse()
		if err := tasks.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(c.log)
		want := []string{
			"r1 Resolve [a]@100 commit=150", "r1 Resolve [a]@200 commit=0",
			"r1 Resolve [b c]@100 commit=150", "r1 Resolve [b c]@200 commit=0",
		}
		if !slices.Equal(c.log, want) {
			t.Fatal(c.log)
		}
		if s := &r.sweeps; len(s.waiting)+len(s.queue)+len(s.running)+s.keys+s.busy != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

// Sweeps are bounded, in tasks and in keys; what does not fit is done by the readers.
func TestSweepsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		r := New(Config{Router: c, Clock: c, Tasks: tasks, Logger: slog.New(slog.DiscardHandler)})
		add := func(start uint64, keys int) bool {
			e := ending{start: start}
			for i := range keys {
				e.keys = append(e.keys, fmt.Appendf(nil, "%d/%d", start, i))
			}
			return r.sweeps.add(r, &router.Call{}, e)
		}
		for i := range uint64(3 * sweepers) {
			if !add(i+1, 1) {
				t.Fatal(i)
			}
		}
		synctest.Wait()
		if n := len(tasks.Running()); n != sweepers {
			t.Fatalf("%d tasks", n)
		}
		if !add(1000, maxSwept-r.sweeps.keys) || add(1001, 1) {
			t.Fatalf("%d keys wait", r.sweeps.keys)
		}
		backoff.Sleep(t.Context(), time.Second)
		if !add(1001, 1) {
			t.Fatal("no room after all is done")
		}
	})
}

// Of calls that want the same one asks, and the others take its answer; where it fails,
// each asks for itself. A call that ends does not wait.
func TestFlights(t *testing.T) {
	for _, end := range []error{nil, errors.New("failed")} {
		synctest.Test(t, func(t *testing.T) {
			var f flights[int, string]
			var sent atomic.Int32
			errs := make(chan error, 5)
			share := func(ctx context.Context) {
				v, err := f.share(ctx, &router.Call{}, 7, func() (string, error) {
					sent.Add(1)
					backoff.Sleep(t.Context(), time.Second)
					return "v", end
				})
				if err == nil && v != "v" {
					err = errors.New(v)
				}
				errs <- err
			}
			for range 4 {
				go share(t.Context())
			}
			synctest.Wait()
			ctx, cancel := context.WithCancelCause(t.Context())
			left := errors.New("left")
			go share(ctx)
			synctest.Wait()
			cancel(left)
			if err := <-errs; !errors.Is(err, left) || sent.Load() != 1 {
				t.Fatal(err, sent.Load())
			}
			for range 4 {
				if err := <-errs; !errors.Is(err, end) {
					t.Fatal(err)
				}
			}
			if want := map[bool]int32{true: 1, false: 4}[end == nil]; sent.Load() != want || len(f.running) != 0 {
				t.Fatal(sent.Load(), f.running)
			}
		})
	}
}

// A reader that meets a lock whose transaction is known, and which is being removed,
// costs what it is told.
func TestKnownStatusIsCheap(t *testing.T) {
	c := newCluster()
	tasks := task.New(t.Context())
	r := New(Config{Router: c, Clock: c, Tasks: tasks, Logger: slog.New(slog.DiscardHandler)})
	r.known.put(ts(100), Status{State: Committed, CommitTS: ts(150)})
	held := &sweep{ending: ending{start: ts(100)}, has: map[string]struct{}{"a": {}}}
	r.sweeps.running = map[uint64]*sweep{ts(100): held}
	call, locks := &router.Call{}, []Lock{lockOf("a", "p", 100, 300)}
	got := testing.AllocsPerRun(100, func() {
		if v, err := r.ForRead(t.Context(), call, Reader{TS: ts(500)}, locks); err != nil || len(v.Through) != 1 {
			t.Fatal(v, err)
		}
	})
	if got > 3 { // the transaction, its keys, the verdict
		t.Errorf("%v allocations", got)
	}
}
