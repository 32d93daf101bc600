// Package fault delays, holds, refuses and loses the requests that reach a cluster's
// servers, as rules say.
package fault

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tikv-go/tikv/internal/task"
)

// Kind is what a node is.
type Kind uint8

// The kinds of node; Any is a rule's that does not ask.
const (
	Any Kind = iota
	Store
	Member
	Client // every process but the cluster's
)

// Node is a party: a store by id, a member of PD by index.
type Node struct {
	Kind Kind
	ID   uint64
}

// Call is a request that reached a node.
type Call struct {
	Method  string
	Node    Node
	Region  uint64
	StartTS uint64
	Mode    uint8 // of its keys, as the rules'; 0: neither
	// Keys are the request's user keys; asked for only when a rule wants them.
	Keys func() [][]byte
}

func (c *Call) keys() [][]byte {
	if c.Keys == nil {
		return nil
	}
	return c.Keys()
}

// Rule is a fault: which calls it is for, and what it does to them. See the fields of
// playground.Fault, which these are.
type Rule struct {
	Method      string
	Node        Node
	Region      uint64
	Mode        uint8
	Key         []byte
	StartTS     uint64
	Skip, Times int
	Chance      float64

	Delay       time.Duration
	Hold        bool
	Before      func()
	DropRequest bool
	Duplicate   bool
	RegionError uint8
	KeyError    uint8

	After      func()
	DropAnswer bool
	Disconnect bool
	Mangle     func(encoded []byte) []byte
}

// Injected is a rule at work.
type Injected struct {
	set  *Set
	rule Rule

	// Guarded by the set's lock.
	seen, hits int
	waiting    map[*Call]time.Time // since when
	release    chan struct{}
	removed    bool
}

// Set is the rules at work in a cluster.
type Set struct {
	active  atomic.Int32
	dropped atomic.Int64

	tasks *task.Group // that callbacks run in

	mu     sync.Mutex
	rules  []*Injected
	traces []*Trace
	random *rand.Rand
	script script

	requests func() int // how many reached the cluster
}

// NewSet returns an empty set whose chances are drawn from seed and whose callbacks run
// in tasks.
func NewSet(seed uint64, tasks *task.Group) *Set {
	return &Set{
		tasks: tasks, random: rand.New(rand.NewPCG(seed, 0x66617573)),
		script: script{turn: make(chan struct{}, 1)}, requests: func() int { return 0 },
	}
}

// CountBy tells how many requests reached the cluster, those that are being handled
// included; Schedule's steps are done by it. It comes before all else.
func (s *Set) CountBy(requests func() int) { s.requests = requests }

// Inject puts a rule to work, after those there are.
func (s *Set) Inject(r Rule) *Injected {
	r.Key = slices.Clone(r.Key)
	i := &Injected{set: s, rule: r, release: make(chan struct{}), waiting: make(map[*Call]time.Time)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append(s.rules, i)
	s.activate()
	return i
}

// activate tells whether there is anything to do at all. Callers hold the lock.
func (s *Set) activate() { s.active.Store(int32(len(s.rules) + len(s.traces) + len(s.script.steps))) }

// Hits is how many calls the rule was applied to.
func (i *Injected) Hits() int {
	i.set.mu.Lock()
	defer i.set.mu.Unlock()
	return i.hits
}

// Waiting is how many calls it holds or delays now.
func (i *Injected) Waiting() int {
	i.set.mu.Lock()
	defer i.set.mu.Unlock()
	return len(i.waiting)
}

// Release lets the calls go on that are held now; later ones are held.
func (i *Injected) Release() {
	i.set.mu.Lock()
	defer i.set.mu.Unlock()
	i.letGo()
}

func (i *Injected) letGo() {
	close(i.release)
	i.release = make(chan struct{})
}

// Remove ends the rule and lets the calls go on that it holds.
func (i *Injected) Remove() {
	i.set.mu.Lock()
	defer i.set.mu.Unlock()
	if !i.removed {
		i.removed = true
		i.set.rules = slices.DeleteFunc(i.set.rules, func(o *Injected) bool { return o == i })
		i.set.activate()
		i.letGo()
	}
}

// Dropped is how many requests and answers were lost.
func (s *Set) Dropped() int { return int(s.dropped.Load()) }

// Active reports whether there is a rule or trace at all.
func (s *Set) Active() bool { return s.active.Load() > 0 }

// ErrDropped means that the caller never hears; ErrDisconnect that its connection is
// to be closed besides.
var (
	ErrDropped    = errors.New("fault: answer dropped")
	ErrDisconnect = errors.New("fault: connection cut")
)

// match returns the rules that apply to c, in the order they were injected.
func (s *Set) match(c *Call) []*Injected {
	s.mu.Lock()
	defer s.mu.Unlock()
	var hit []*Injected
	for _, i := range s.rules {
		if i.rule.wants(c) && i.turn() {
			i.hits++
			hit = append(hit, i)
		}
	}
	return hit
}

// turn reports whether a call that the rule wants is one that it applies to.
func (i *Injected) turn() bool {
	r := &i.rule
	i.seen++
	return i.seen > r.Skip && (r.Times == 0 || i.hits < r.Times) && (r.Chance == 0 || i.set.random.Float64() < r.Chance)
}

func (r *Rule) wants(c *Call) bool {
	switch {
	case r.Method != "" && r.Method != c.Method,
		r.Node.Kind != Any && r.Node != c.Node,
		r.Region != 0 && r.Region != c.Region,
		r.Mode != 0 && r.Mode != c.Mode,
		r.StartTS != 0 && r.StartTS != c.StartTS:
		return false
	case r.Key == nil:
		return true
	}
	return slices.ContainsFunc(c.keys(), func(k []byte) bool { return bytes.Equal(k, r.Key) })
}

// Do runs handle under the rules for c, and records it in the traces. ctx is the node's
// life. refuse makes the answer that is a region error or a key error, whichever is not
// 0, or nil for a call whose answers have none; it is nil where no answer has. The answer
// may be a Mangled.
func (s *Set) Do(ctx context.Context, c *Call, refuse func(region, key uint8) any, handle func() any) (any, error) {
	if !s.Active() {
		return handle(), nil
	}
	began := time.Now()
	if err := s.steps(ctx, s.requests()-1); err != nil {
		return nil, err
	}
	s.enter()
	answer, err := s.do(ctx, c, refuse, handle)
	s.record(c, began, answer, err)
	if stop := s.leave(ctx); stop != nil {
		return nil, stop
	}
	return answer, err
}

func (s *Set) do(ctx context.Context, c *Call, refuse func(region, key uint8) any, handle func() any) (any, error) {
	hit := s.match(c)
	var answer any
	for _, i := range hit {
		a, err := i.before(ctx, c, refuse, handle)
		if err != nil {
			return nil, err
		}
		if a != nil && answer == nil {
			answer = a
		}
	}
	if answer == nil {
		answer = handle()
	}
	var lost error
	for _, i := range hit {
		if err := s.callback(ctx, i.rule.After); err != nil {
			return nil, err
		}
		switch {
		case i.rule.Disconnect:
			lost = ErrDisconnect
		case i.rule.DropAnswer && lost == nil:
			lost = ErrDropped
		case i.rule.Mangle != nil:
			answer = mangle(answer, i.rule.Mangle)
		}
	}
	if lost != nil {
		s.dropped.Add(1)
		return nil, lost
	}
	return answer, nil
}

// callback runs f to its end, or, in the background, beyond the end of the node: f may
// be what ends it.
func (s *Set) callback(ctx context.Context, f func()) error {
	if f == nil {
		return nil
	}
	done := make(chan struct{})
	if !s.tasks.Go("callback", func(context.Context) {
		defer close(done)
		f()
	}) {
		return task.ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// before does what the rule says for before a call is handled, and returns the answer
// that it gives instead, if it does.
func (i *Injected) before(ctx context.Context, c *Call, refuse func(region, key uint8) any, handle func() any) (any, error) {
	r := &i.rule
	if r.Delay > 0 {
		t := time.NewTimer(r.Delay)
		defer t.Stop()
		if err := i.wait(ctx, c, t.C, nil); err != nil {
			return nil, err
		}
	}
	if r.Hold {
		if err := i.wait(ctx, c, nil, func() chan struct{} { return i.release }); err != nil {
			return nil, err
		}
	}
	if err := i.set.callback(ctx, r.Before); err != nil {
		return nil, err
	}
	if r.DropRequest {
		i.set.dropped.Add(1)
		return nil, ErrDropped
	}
	if r.Duplicate {
		handle()
	}
	switch {
	case refuse == nil:
	case r.RegionError != 0:
		return refuse(r.RegionError, 0), nil
	case r.KeyError != 0:
		return refuse(0, r.KeyError), nil
	}
	return nil, nil
}

// wait waits for the timer, or for the rule's release.
func (i *Injected) wait(ctx context.Context, c *Call, timer <-chan time.Time, release func() chan struct{}) error {
	s := i.set
	var released chan struct{}
	s.mu.Lock()
	if release != nil {
		if i.removed {
			s.mu.Unlock()
			return nil
		}
		released = release()
	}
	i.waiting[c] = time.Now()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(i.waiting, c)
		s.mu.Unlock()
		s.enter()
	}()
	if err := s.leave(ctx); err != nil {
		return err
	}
	select {
	case <-timer:
	case <-released:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
