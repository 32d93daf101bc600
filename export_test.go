package tikv

// Idle says what of a client's is at work, for tests: requests that wait to be written
// or to be answered, and the tasks that run under it by name.
func (c *Client) Idle() (queued, pending int, tasks []string) {
	queued, pending = c.engine.pool.Load()
	return queued, pending, append(c.engine.tasks.Running(), c.engine.owed.Running()...)
}
