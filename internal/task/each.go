package task

import (
	"context"
	"sync"
)

// Each runs fn(ctx, i) for i in [0, n), at most limit at a time (limit < 1: all), and
// waits for all that were started. The first error cancels the context of the others
// and is returned; the rest are not started. One item runs on the caller's goroutine.
func Each(ctx context.Context, limit, n int, fn func(ctx context.Context, i int) error) error {
	switch {
	case n <= 0:
		return nil
	case n == 1:
		return fn(ctx, 0)
	}
	if limit < 1 || limit > n {
		limit = n
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		mu    sync.Mutex
		next  int
		first error
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if first != nil || next == n {
			return 0, false
		}
		next++
		return next - 1, true
	}
	work := func() {
		for i, ok := take(); ok; i, ok = take() {
			if err := fn(ctx, i); err != nil {
				mu.Lock()
				if first == nil {
					first = err
				}
				mu.Unlock()
				cancel(err)
			}
		}
	}
	var wg sync.WaitGroup
	for range limit - 1 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			work()
		}()
	}
	work()
	wg.Wait()
	return first
}
