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
	cleared bool  // what it left in the cluster is being dealt with
	failure error // what ended it, if that was none of its own calls
	end     End   // how it ended, once it is done
	told    bool  // to those who asked for it
	ask     *asker
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

// write admits a call that must be alone, which ends with leave.
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

// leave is the end of the call inside, or of the transaction, or of both: with an end all
// further calls are refused. An end from outside that is a failure is their error, and ends
// the call inside if that can be cut. leave reports, once, that the transaction has ended
// and that nobody is inside who might yet end it in another way: who learns it tells.
func (g *guard) leave(inside bool, e *End) (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if inside {
		g.busy = false
	}
	if e != nil && (inside || !g.done) {
		if g.done, g.end = true, *e; !inside && e.Fate == Failed {
			g.failure = e.Err
		}
	}
	if !inside && g.failure != nil && g.cut != nil {
		g.cut(g.failure)
	}
	last = g.done && !g.busy && !g.told
	g.told = g.told || last
	return last
}

// over is the error of calls that come too late. g.mu is held.
func (g *guard) over() error {
	if g.failure != nil {
		return g.failure
	}
	return ErrDone
}

// cuttable makes a failure end the call that is inside by cut; nil: no more.
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

// finished reports whether a call of the transaction's has ended it.
func (g *guard) finished() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.done && g.failure == nil
}
