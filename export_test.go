package tikv

import "time"

// Idle says what of a client's is at work, for tests: requests that wait to be written
// or to be answered, and the tasks that run under it by name.
func (c *Client) Idle() (queued, pending int, tasks []string) {
	queued, pending = c.engine.pool.Load()
	return queued, pending, append(c.engine.tasks.Running(), c.engine.owed.Running()...)
}

// SlowScore is what a client makes of a store's speed, for tests: from 1, which is well,
// to 100; 0 for a store that it does not know.
func (c *Client) SlowScore(store uint64) float64 {
	if s := c.engine.regions.Load().KnownStore(store); s != nil {
		return s.SlowScore(time.Now())
	}
	return 0
}

// Owed are the tasks that a client owes the cluster, by name.
func (c *Client) Owed() []string { return c.engine.owed.Running() }

// Causes of ends that come from without, for tests.
var (
	ErrTxnDropped  = errDropped
	ErrNotReturned = errNotReturned
)
