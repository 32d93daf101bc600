package txn

import "sync"

// guard admits the calls of one transaction: reads together, everything else alone,
// nothing after its end. Nobody waits.
type guard struct {
	mu      sync.Mutex
	readers int
	busy    bool
	done    bool
}

// read admits a reading call, which ends with endRead.
func (g *guard) read() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.done:
		return ErrDone
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
		return ErrDone
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

// finish refuses all further calls.
func (g *guard) finish() {
	g.mu.Lock()
	g.done = true
	g.mu.Unlock()
}

// ended reports whether the transaction has ended.
func (g *guard) ended() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.done
}
