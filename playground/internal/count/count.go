// Package count counts what a cluster's servers did.
package count

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Counter counts. The zero Counter is ready for use.
type Counter struct {
	Commits, Rollbacks, Conflicts, Starts atomic.Int64

	mu    sync.Mutex
	calls map[string]int
	total int
}

// Ended counts a transaction that was committed, or rolled back.
func (c *Counter) Ended(committed bool) {
	if committed {
		c.Commits.Add(1)
	} else {
		c.Rollbacks.Add(1)
	}
}

// Call counts a request.
func (c *Counter) Call(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = make(map[string]int)
	}
	c.calls[method]++
	c.total++
}

// Total is how many requests were counted.
func (c *Counter) Total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// Calls returns the requests by method.
func (c *Counter) Calls() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.calls)
}
