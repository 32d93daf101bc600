package router

import (
	"sync/atomic"
	"time"
)

// Figure is something that is counted of calls.
type Figure uint8

// The figures. Those whose names end in Time, and LockWait, are nanoseconds.
const (
	RPCs          Figure = iota // attempts that were sent to a store
	RPCTime                     // of those, from their beginnings to their ends
	Retries                     // what is noted as an Attempt
	BackoffTime                 // waits before another attempt, but for locks
	LockWait                    // waits for locks
	LocksMet                    // locks that were in the way
	ResolveTime                 // finding out about them, and removing them
	LookupTime                  // until PD has told of regions
	TimestampTime               // until PD has given a timestamp
	LockTime                    // calls that lock keys
	LatchTime                   // waits for commits of the same client
	PrewriteTime                // writing what is to be committed
	CommitTime                  // committing it, after that
	Figures                     // how many there are
)

// Tally sums figures. It is safe for concurrent use; nil counts nothing.
type Tally [Figures]atomic.Int64

// Add adds to a figure.
func (t *Tally) Add(f Figure, n int64) {
	if t != nil {
		t[f].Add(n)
	}
}

// Count adds to a figure of the call's, for all who count. why is what a retry or a wait is
// about.
func (c *Call) Count(f Figure, why Reason, n int64) {
	c.Tally.Add(f, n)
	c.Extra.Count(f, why, n)
}

// Count tells who watches that a figure has grown.
func (e *Extra) Count(f Figure, why Reason, n int64) {
	if e != nil && e.Watch != nil {
		e.Watch.watch.Count(f, why, n)
	}
}

// sent counts an attempt. Who watches sees it by itself.
func (c *Call) sent(took time.Duration) {
	if c.Tally != nil {
		c.Tally.Add(RPCs, 1)
		c.Tally.Add(RPCTime, int64(took))
	}
}

// waited counts a wait.
func (c *Call) waited(d time.Duration) {
	f, why := BackoffTime, c.attempts.newest().Reason
	if why == Lock {
		f = LockWait
	}
	c.Count(f, why, int64(d))
}
