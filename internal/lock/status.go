package lock

import "sync"

// State is what is known of a transaction.
type State uint8

// The states. Alive is the only one that changes; Gone is a transaction that holds no
// locks now, but may take more: nothing may be concluded from it but that pessimistic
// locks of its that were met are left over.
const (
	Alive State = iota
	Committed
	RolledBack
	Gone
)

// Status is a transaction's state.
type Status struct {
	State    State
	CommitTS uint64 // Committed, else 0
	TTL      uint64 // Alive
	Pushed   bool   // Alive, and will commit above the timestamp of the one who asked
}

// final reports whether the status can never change.
func (s Status) final() bool { return s.State == Committed || s.State == RolledBack }

// maxStatuses bounds the memory of final states; the oldest go first.
const maxStatuses = 2048

// statuses remembers final states by start timestamp, which PD gives out once.
type statuses struct {
	mu    sync.Mutex
	known map[uint64]Status
	order []uint64 // a ring, once full
	next  int
}

func (c *statuses) get(startTS uint64) (Status, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.known[startTS]
	return s, ok
}

func (c *statuses) put(startTS uint64, s Status) {
	if !s.final() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[startTS]; ok {
		return
	}
	if c.known == nil {
		c.known = make(map[uint64]Status)
	}
	if len(c.order) < maxStatuses {
		c.order = append(c.order, startTS)
	} else {
		delete(c.known, c.order[c.next])
		c.order[c.next] = startTS
		c.next = (c.next + 1) % maxStatuses
	}
	c.known[startTS] = s
}
