package lock

import (
	"context"
	"log/slog"
	"sync"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

const (
	// sweepers is how many tasks remove locks behind readers' backs.
	sweepers = 8
	// maxSwept bounds the keys that wait for it; beyond, readers do it themselves.
	maxSwept = 1 << 14
)

// sweeps are the removals of locks that nobody waits for. Many readers meet the same
// locks: each is removed once, and those of a transaction that were met while its turn
// had not come, together.
type sweeps struct {
	tasks *task.Group

	mu      sync.Mutex
	waiting map[uint64]*sweep // by start timestamp
	queue   []*sweep          // those, in order
	running map[uint64]*sweep // one a transaction
	keys    int               // of waiting
	busy    int               // tasks
}

// sweep is the removal of one transaction's locks.
type sweep struct {
	ending
	call *router.Call
	has  map[string]struct{} // the keys
}

func (s *sweep) covers(key []byte) bool {
	if s == nil {
		return false
	}
	_, ok := s.has[string(key)]
	return ok
}

// add makes a removal be done, and reports false if the caller has to do it.
func (s *sweeps) add(r *Resolver, call *router.Call, e ending) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	running, waiting := s.running[e.start], s.waiting[e.start]
	for _, key := range e.keys {
		if running.covers(key) || waiting.covers(key) {
			continue
		}
		if s.keys >= maxSwept {
			return false
		}
		if waiting == nil {
			waiting = s.enqueue(r, call, e)
		}
		waiting.keys = append(waiting.keys, key)
		waiting.has[string(key)] = struct{}{}
		waiting.wide = waiting.wide || e.wide
		s.keys++
	}
	return true
}

// enqueue makes a sweep wait for its turn, and sees to it that it comes: where the client
// closes, its locks are left to others.
func (s *sweeps) enqueue(r *Resolver, call *router.Call, e ending) *sweep {
	w := &sweep{
		ending: ending{start: e.start, commit: e.commit},
		call:   &router.Call{Op: call.Op, Codec: call.Codec, Resend: true, Priority: call.Priority, RequestSource: call.RequestSource},
		has:    make(map[string]struct{}, len(e.keys)),
	}
	if s.waiting == nil {
		s.waiting, s.running = make(map[uint64]*sweep), make(map[uint64]*sweep)
	}
	s.waiting[e.start] = w
	s.queue = append(s.queue, w)
	if s.busy < sweepers && s.tasks.Go("resolve locks", func(ctx context.Context) { s.work(ctx, r) }) {
		s.busy++
	}
	return w
}

// work removes locks until none are left to be removed.
func (s *sweeps) work(ctx context.Context, r *Resolver) {
	for w := s.next(); w != nil; w = s.next() {
		if err := r.end(ctx, w.call, w.ending); err != nil {
			r.log.LogAttrs(ctx, slog.LevelDebug, "locks left behind", slog.Uint64("start_ts", w.start), slog.Any("err", err))
		}
		s.mu.Lock()
		delete(s.running, w.start)
		s.mu.Unlock()
	}
}

// next takes the first sweep whose transaction is not being swept; nil: the task ends.
func (s *sweeps) next() *sweep {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.queue {
		if s.running[w.start] != nil {
			continue
		}
		s.queue = append(s.queue[:i], s.queue[i+1:]...)
		delete(s.waiting, w.start)
		s.running[w.start] = w
		s.keys -= len(w.keys)
		return w
	}
	s.busy--
	return nil
}
