package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"
)

// Open connects a client and makes the operation of s's workload over d. stop ends the
// client.
type Open func(ctx context.Context, s Spec, d Data) (op Op, stop func() error, err error)

// connecting operations come before everything that counts: they dial and fill caches.
const connecting = 3

// Serve is the life of a client's process: a Spec from in, a Result to out.
func Serve(ctx context.Context, client string, in io.Reader, out io.Writer, open Open) error {
	var s Spec
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return fmt.Errorf("reading what to run: %w", err)
	}
	prepare(s)
	r, err := Measure(ctx, s, open)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Workload, err)
	}
	r.Client = client
	return json.NewEncoder(out).Encode(r)
}

// prepare sets what holds for the whole process, before much is allocated.
func prepare(s Spec) {
	if s.Procs > 0 {
		runtime.GOMAXPROCS(s.Procs)
	}
	if s.MemProfile != "" {
		runtime.MemProfileRate = 512
	}
	if s.MutexProfile != "" {
		runtime.SetMutexProfileFraction(5)
	}
}

// Measure opens a client, runs s and stops the client.
func Measure(ctx context.Context, s Spec, open Open) (Result, error) {
	before := runtime.NumGoroutine()
	op, stop, err := open(ctx, s, NewData(s))
	if err != nil {
		return Result{}, err
	}
	r, err := connected(ctx, s, op)
	r.Idle = settled(ctx) - before
	if stopErr := stop(); err == nil {
		err = stopErr
	}
	return r, err
}

// settled is the number of goroutines when those that only finish something are gone: no
// fewer for a while.
func settled(ctx context.Context) int {
	least := runtime.NumGoroutine()
	for same := 0; same < 5 && ctx.Err() == nil; same++ {
		wait(ctx, 4*time.Millisecond, nil)
		if n := runtime.NumGoroutine(); n < least {
			least, same = n, 0
		}
	}
	return least
}

func connected(ctx context.Context, s Spec, op Op) (Result, error) {
	for i := range connecting {
		if err := op(0, i); err != nil {
			return Result{}, fmt.Errorf("the first operation: %w", err)
		}
	}
	return Run(ctx, s, op)
}
