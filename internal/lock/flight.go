package lock

import (
	"context"
	"sync"

	"github.com/tikv-go/tikv/internal/router"
)

// flights share requests that several calls want at the same time: one sends it, and the
// others wait for what it learns.
type flights[K comparable, V any] struct {
	mu      sync.Mutex
	running map[K]*flight[V]
}

type flight[V any] struct {
	done  chan struct{}
	value V // set before done is closed
	err   error
}

// share returns what send does, or what another call's of the same id returned, if that
// is no error.
func (f *flights[K, V]) share(ctx context.Context, call *router.Call, id K, send func() (V, error)) (V, error) {
	f.mu.Lock()
	if other := f.running[id]; other != nil {
		f.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			var none V
			return none, call.Ended(ctx)
		}
		if other.err == nil {
			return other.value, nil
		}
		return send()
	}
	mine := &flight[V]{done: make(chan struct{})}
	if f.running == nil {
		f.running = make(map[K]*flight[V])
	}
	f.running[id] = mine
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.running, id)
		f.mu.Unlock()
		close(mine.done)
	}()
	mine.value, mine.err = send()
	return mine.value, mine.err
}
