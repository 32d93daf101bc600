package txn

import (
	"context"
	"sync"
)

// guard admits the calls of one transaction: reads together, everything else alone,
// nothing after its end. Nobody waits.
type guard struct {
	mu      sync.Mutex
	readers int
	busy    bool
	done    bool
	cleared bool                    // what it left in the cluster is being dealt with
	failure error                   // what ended it, if that was none of its own calls
	cut     context.CancelCauseFunc // ends the call that is inside
}

// read admits a reading call, which ends with endRead.
func (g *guard) read() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.done:
		return g.over()
	case g.busy:
		return ErrBusy
	}
	g.readers++
	return nil
}

func (g *guard) endRead() {
	g.mu.Lock()
	g.readers--
	g.mu.Unlock()
}

// write admits a call that must be alone, which ends with endWrite.
func (g *guard) write() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.done:
		return g.over()
	case g.busy || g.readers > 0:
		return ErrBusy
	}
	g.busy = true
	return nil
}

func (g *guard) endWrite() {
	g.mu.Lock()
	g.busy = false
	g.mu.Unlock()
}

// over is the error of calls that come too late. g.mu is held.
func (g *guard) over() error {
	if g.failure != nil {
		return g.failure
	}
	return ErrDone
}

// finish refuses all further calls.
func (g *guard) finish() {
	g.mu.Lock()
	g.done = true
	g.mu.Unlock()
}

// fail refuses all further calls, and ends the one that can be cut, with err.
func (g *guard) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.done {
		g.done, g.failure = true, err
	}
	if g.cut != nil {
		g.cut(err)
	}
}

// cuttable makes fail end the call that is inside by cut; nil: no more.
func (g *guard) cuttable(cut context.CancelCauseFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cut = cut; cut != nil && g.failure != nil {
		cut(g.failure)
	}
}

// failed is what ended the transaction, if that was none of its own calls.
func (g *guard) failed() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failure
}

// clear reports, once, that the transaction has ended and that nobody is inside who might
// yet change what it has left in the cluster.
func (g *guard) clear() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.done || g.busy || g.cleared {
		return false
	}
	g.cleared = true
	return true
}

// settled says that there is nothing to be cleared.
func (g *guard) settled() {
	g.mu.Lock()
	g.cleared = true
	g.mu.Unlock()
}

// ended reports whether the transaction has ended.
func (g *guard) ended() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.done
}
