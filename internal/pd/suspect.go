package pd

import (
	"context"
	"sync"

	"github.com/tikv-go/tikv/internal/backoff"
)

// suspect is an attempt that has been silent for a while.
type suspect struct {
	members *members // by which it was sent
	way     func(*members) target
	cancel  context.CancelCauseFunc
	ended   bool // under the mutex of all: the attempt is over
}

// suspects are all of them. While there are any, one task asks the members each second who
// leads them, and ends those that went another way than they would now.
type suspects struct {
	client *Client

	mu      sync.Mutex
	all     map[*suspect]struct{}
	running bool
}

func (s *suspects) add(one *suspect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one.ended {
		return
	}
	if s.all == nil {
		s.all = make(map[*suspect]struct{})
	}
	s.all[one] = struct{}{}
	if !s.running {
		s.running = s.client.tasks.Go("pd suspicion", s.run)
	}
}

func (s *suspects) remove(one *suspect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.ended = true
	delete(s.all, one)
}

func (s *suspects) run(ctx context.Context) {
	for s.some() {
		s.client.follow(ctx, s.client.members.Load())
		s.clear(s.client.members.Load())
		if backoff.Sleep(ctx, suspicion) != nil {
			return
		}
	}
}

// some reports whether there are any; if not, the task ends.
func (s *suspects) some() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = len(s.all) > 0
	return s.running
}

// clear ends those that should go another way.
func (s *suspects) clear(now *members) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.all {
		if one.way(now) != one.way(one.members) {
			one.cancel(errMoved)
			delete(s.all, one)
		}
	}
}
