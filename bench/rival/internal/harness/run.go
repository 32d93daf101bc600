package harness

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Op is one operation: the i-th of a caller, both counted from 0.
type Op func(caller, i int) error

// Run measures op as s says. It fails when the counters cannot be read or ctx ends; what
// operations return is in the result.
func Run(ctx context.Context, s Spec, op Op) (Result, error) {
	l := &loop{spec: s, op: op, callers: make([]caller, s.Callers)}
	if s.Ops > 0 {
		return l.counted(ctx)
	}
	return l.timed(ctx)
}

// loop is a run's callers.
type loop struct {
	spec    Spec
	op      Op
	callers []caller
	phase   atomic.Int32
	budget  atomic.Int64 // operations left, where a run has a number of them

	errs       atomic.Uint64
	firstError atomic.Pointer[string]
}

const (
	warming = iota
	measuring
	over
)

// tooMany errors end a caller's part in a run: it only measures errors by then.
const tooMany = 1000

// caller is one goroutine's counters, on cache lines of their own.
type caller struct {
	hist       histogram
	ops        uint64
	goroutines int
	_          [64]byte
}

func (c *caller) done(took time.Duration) {
	c.hist.add(int64(took))
	c.ops++
}

// timed lets the callers run through warm-up and measurement without a pause.
func (l *loop) timed(ctx context.Context) (Result, error) {
	most := l.most()
	l.budget.Store(most)
	var all sync.WaitGroup
	for w := range l.callers {
		all.Go(func() { l.untilOver(w, most > 0) })
	}
	ended := make(chan struct{})
	defer all.Wait()
	defer l.phase.Store(over)

	wait(ctx, l.spec.Warm, nil)
	m, err := begin(l.spec)
	if err != nil {
		return Result{}, err
	}
	l.phase.Store(measuring)
	go func() { all.Wait(); close(ended) }()
	wait(ctx, l.spec.Dur, ended)
	if err := m.end(); err != nil {
		return Result{}, err
	}
	l.phase.Store(over)
	<-ended
	return l.result(m), ctx.Err()
}

// most is the number of operations at which a timed run ends early.
func (l *loop) most() int64 {
	w, err := Find(l.spec.Workload)
	if err != nil {
		return 0
	}
	return int64(w.Most)
}

func (l *loop) untilOver(w int, limited bool) {
	c := &l.callers[w]
	for i := 0; ; i++ {
		before := l.phase.Load()
		if before == over || before == measuring && limited && l.budget.Add(-1) < 0 {
			return
		}
		start := time.Now()
		err := l.op(w, i)
		took := time.Since(start)
		if err != nil {
			if l.failed(err) {
				return
			}
			continue
		}
		// What ends while it is measured counts, whenever it began: unbiased in a steady
		// state. Where operations are limited, those that also began there.
		if l.phase.Load() == measuring && (before == measuring || !limited) {
			c.done(took)
			c.goroutines = max(c.goroutines, runtime.NumGoroutine())
		}
	}
}

// counted runs a number of operations to warm up, waits for all, and measures exactly Ops.
func (l *loop) counted(ctx context.Context) (Result, error) {
	next := make([]int, l.spec.Callers) // operations go on where the warm-up stopped
	l.share(ctx, l.spec.WarmOps, next)
	clear(l.callers)
	m, err := begin(l.spec)
	if err != nil {
		return Result{}, err
	}
	l.share(ctx, l.spec.Ops, next)
	if err := m.end(); err != nil {
		return Result{}, err
	}
	return l.result(m), ctx.Err()
}

// share divides n operations evenly over the callers, who begin together and stay until
// the last is done: the number of goroutines does not depend on who is quick.
func (l *loop) share(ctx context.Context, n int, next []int) {
	var ready, working, all sync.WaitGroup
	begin := make(chan struct{})
	ready.Add(len(l.callers))
	working.Add(len(l.callers))
	for w := range l.callers {
		mine := n / len(l.callers)
		if w < n%len(l.callers) {
			mine++
		}
		all.Go(func() {
			ready.Done()
			<-begin
			l.times(ctx, w, mine, next)
			working.Done()
			working.Wait()
		})
	}
	ready.Wait()
	close(begin)
	all.Wait()
}

// times is a caller's n operations.
func (l *loop) times(ctx context.Context, w, n int, next []int) {
	c := &l.callers[w]
	for range n {
		start := time.Now()
		err := l.op(w, next[w])
		next[w]++
		if err != nil {
			if l.failed(err) || ctx.Err() != nil {
				return
			}
			continue
		}
		c.done(time.Since(start))
		c.goroutines = max(c.goroutines, runtime.NumGoroutine())
	}
}

func (l *loop) failed(err error) (enough bool) {
	if text := err.Error(); l.errs.Add(1) == 1 {
		l.firstError.Store(&text)
	}
	return l.errs.Load() > tooMany
}

func (l *loop) result(m *meter) Result {
	var hist histogram
	r := Result{Errors: l.errs.Load()}
	for i := range l.callers {
		c := &l.callers[i]
		hist.merge(&c.hist)
		r.Ops += c.ops
		r.Goroutines = max(r.Goroutines, c.goroutines)
	}
	if text := l.firstError.Load(); text != nil {
		r.FirstError = *text
	}
	r.P50, r.P99 = hist.quantile(.5), hist.quantile(.99)
	m.report(&r)
	return r
}

// wait returns after d, or when ended is closed, or ctx.
func wait(ctx context.Context, d time.Duration, ended <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ended:
	case <-ctx.Done():
	}
}
