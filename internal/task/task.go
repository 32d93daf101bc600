// Package task runs goroutines that have an owner. A Group starts them by name, ends
// them by cancelling one context with a cause, and waits for them; nothing else in the
// library starts a goroutine.
package task

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrClosed is the cause given to tasks of a group that was closed without another.
var ErrClosed = errors.New("task: group closed")

// Group is a set of goroutines under one context.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	closed  bool
	running map[string]int
	total   int
	idle    chan struct{} // non-nil while someone waits; closed when total is 0
}

// New returns a group whose context is derived from ctx.
func New(ctx context.Context) *Group {
	g := &Group{running: make(map[string]int)}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// Root returns a group of a new root context, for an owner that outlives every call:
// a client, a cluster, a server. values are ctx's, its end is not.
func Root(ctx context.Context) *Group { return New(context.WithoutCancel(ctx)) }

// Context is what the group's tasks run under.
func (g *Group) Context() context.Context { return g.ctx }

// Go runs fn in a goroutine of the group and reports true, or reports false, without
// running it, when the group is closed. Name shows in Running.
func (g *Group) Go(name string, fn func(ctx context.Context)) bool {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return false
	}
	g.running[name]++
	g.total++
	g.mu.Unlock()
	go func() {
		defer g.done(name)
		fn(g.ctx)
	}()
	return true
}

func (g *Group) done(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running[name]--; g.running[name] == 0 {
		delete(g.running, name)
	}
	if g.total--; g.total == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// Running lists the names of the tasks that have not ended, sorted, each once for
// every goroutine of that name.
func (g *Group) Running() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var names []string
	for name, n := range g.running {
		for range n {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Refuse makes later Go calls report false; the tasks that run go on.
func (g *Group) Refuse() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

// Wait waits until no task runs, or ctx ends, and returns context.Cause(ctx) then.
func (g *Group) Wait(ctx context.Context) error {
	g.mu.Lock()
	if g.total == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Cancel ends the group's context with cause (ErrClosed if nil). Tasks may still start.
func (g *Group) Cancel(cause error) {
	if cause == nil {
		cause = ErrClosed
	}
	g.cancel(cause)
}

// Close refuses new tasks, cancels the ones that run with cause, and waits for all of
// them to end. It may be called again, and by several goroutines; never by a task of
// the group.
func (g *Group) Close(cause error) {
	g.Refuse()
	g.Cancel(cause)
	for {
		g.mu.Lock()
		if g.total == 0 {
			g.mu.Unlock()
			return
		}
		if g.idle == nil {
			g.idle = make(chan struct{})
		}
		idle := g.idle
		g.mu.Unlock()
		<-idle
	}
}
