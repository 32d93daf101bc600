package lock

import (
	"context"
	"log/slog"
	"sync"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// maxSweeps is how many removals run behind readers' backs at a time; beyond it they
// are done by the readers.
const maxSweeps = 256

// sweeps are the removals of locks that nobody waits for.
type sweeps struct {
	tasks *task.Group

	mu      sync.Mutex
	running map[sweepID]struct{}
}

// sweepID is one removal: many readers meet the same lock, and one is enough.
type sweepID struct {
	start uint64
	keys  int
	first string
}

// start runs work in the background, unless it runs already. It reports false if work
// has to be done by the caller.
func (s *sweeps) start(r *Resolver, call *router.Call, start uint64, keys [][]byte, work func(context.Context, *router.Call) error) bool {
	id := sweepID{start, len(keys), string(keys[0])}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.running[id]; ok {
		return true
	}
	if len(s.running) >= maxSweeps {
		return false
	}
	own := &router.Call{Op: call.Op, Codec: call.Codec, Resend: true, Priority: call.Priority}
	if !s.tasks.Go("resolve locks", func(ctx context.Context) {
		if err := work(ctx, own); err != nil {
			r.log.LogAttrs(ctx, slog.LevelDebug, "locks left behind", slog.Uint64("start_ts", start), slog.Any("err", err))
		}
		s.mu.Lock()
		delete(s.running, id)
		s.mu.Unlock()
	}) {
		return true // the client closes: the locks are left to others
	}
	if s.running == nil {
		s.running = make(map[sweepID]struct{})
	}
	s.running[id] = struct{}{}
	return true
}
