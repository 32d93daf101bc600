package fault

import (
	"context"
	"slices"
)

// Step is something to do once At requests have reached the cluster.
type Step struct {
	At int
	Do func()
}

// script is the steps that are left, in order.
type script struct {
	steps []Step        // guarded by the set's lock
	busy  int           // calls that are neither held nor delayed; guarded by the set's lock
	turn  chan struct{} // taken by who does steps
}

// Schedule adds steps after those that are left. Each is done before the request after
// its count is handled, or earlier: as soon as no request is being handled, held ones
// left aside.
func (s *Set) Schedule(steps []Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script.steps = append(s.script.steps, steps...)
	s.activate()
}

// Settle does the steps that are due at a moment at which nothing is being handled.
func (s *Set) Settle(ctx context.Context) error { return s.steps(ctx, s.requests()) }

// enter begins a call, or goes on with one that waited.
func (s *Set) enter() {
	s.mu.Lock()
	s.script.busy++
	s.mu.Unlock()
}

// leave ends a call, or has it wait, and does what is due when it was the last.
func (s *Set) leave(ctx context.Context) error {
	s.mu.Lock()
	s.script.busy--
	idle := s.script.busy == 0
	s.mu.Unlock()
	if !idle {
		return nil
	}
	return s.steps(ctx, s.requests())
}

// steps does the steps up to a count, one after the other.
func (s *Set) steps(ctx context.Context, count int) error {
	if !s.due(count) {
		return nil
	}
	return s.callback(ctx, func() {
		s.script.turn <- struct{}{}
		defer func() { <-s.script.turn }()
		for {
			s.mu.Lock()
			if len(s.script.steps) == 0 || s.script.steps[0].At > count {
				s.mu.Unlock()
				return
			}
			step := s.script.steps[0]
			s.script.steps = slices.Delete(s.script.steps, 0, 1)
			s.activate()
			s.mu.Unlock()
			step.Do()
		}
	})
}

func (s *Set) due(count int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.script.steps) > 0 && s.script.steps[0].At <= count
}
