package txn

import (
	"context"
	"sync"
)

// inflight counts the commits that may have left locks and may yet owe their removal.
// While the code of the caller runs they do not count: it may be what waits.
type inflight struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // non-nil while someone waits; closed when n is 0
}

func (f *inflight) add(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n += n; f.n == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// wait waits until there are none, or ctx ends, and returns how many there are then.
func (f *inflight) wait(ctx context.Context) int {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return 0
	}
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	idle := f.idle
	f.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// Settle waits, when the router was shut, until the commits in flight have ended and
// what they owe is known, or until ctx ends. It returns how many are left.
func (e *Engine) Settle(ctx context.Context) int { return e.commits.wait(ctx) }
