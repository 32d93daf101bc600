package region

import (
	"context"
	"sync"

	"github.com/tikv-go/tikv/internal/task"
)

// flights shares loads between the callers that want the same thing at the same time.
// A load is a task of the client, so the end of one caller does not end it for the
// others; when the last one has left, it is cancelled.
type flights[V any] struct {
	mu  sync.Mutex
	now map[string]*flight[V]
}

type flight[V any] struct {
	done    chan struct{}
	cancel  context.CancelCauseFunc
	waiters int
	value   V
	err     error
}

// do returns what load returns, for the first caller or another with the same key. load
// may outlive the caller, so it sees nothing of the caller's but the key.
func (f *flights[V]) do(ctx context.Context, tasks *task.Group, name, key string, load func(ctx context.Context, key string) (V, error)) (V, error) {
	var none V
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	fl, err := f.join(tasks, name, key, load)
	if err != nil {
		return none, err
	}
	select {
	case <-fl.done:
		return fl.value, fl.err
	case <-ctx.Done():
		f.leave(key, fl)
		return none, context.Cause(ctx)
	}
}

func (f *flights[V]) join(tasks *task.Group, name, key string, load func(ctx context.Context, key string) (V, error)) (*flight[V], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.now[key]; fl != nil {
		fl.waiters++
		return fl, nil
	}
	if f.now == nil {
		f.now = make(map[string]*flight[V])
	}
	ctx, cancel := context.WithCancelCause(tasks.Context())
	fl := &flight[V]{done: make(chan struct{}), cancel: cancel, waiters: 1}
	started := tasks.Go(name, func(context.Context) {
		defer cancel(nil)
		fl.value, fl.err = load(ctx, key)
		f.forget(key, fl)
		close(fl.done)
	})
	if !started {
		cancel(nil)
		if err := context.Cause(tasks.Context()); err != nil {
			return nil, err
		}
		return nil, task.ErrClosed
	}
	f.now[key] = fl
	return fl, nil
}

// leave gives up waiting. The last to leave ends the load, and who asks from then on
// begins another.
func (f *flights[V]) leave(key string, fl *flight[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.waiters--; fl.waiters == 0 {
		if f.now[key] == fl {
			delete(f.now, key)
		}
		fl.cancel(context.Canceled)
	}
}

func (f *flights[V]) forget(key string, fl *flight[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now[key] == fl {
		delete(f.now, key)
	}
}
