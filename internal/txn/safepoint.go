package txn

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/router"
)

const (
	// safePointAge is how long a safe point counts as fresh.
	safePointAge = 10 * time.Second
	// safePointMaxAge is how long one is good at all. Data behind the safe point go
	// no sooner than 100 s after it was set (client-go tikv/kv.go).
	safePointMaxAge = 90 * time.Second
	// safePointWait bounds one fetch.
	safePointWait = 10 * time.Second
)

// safePoint is the transactional safe point, fetched in the background while there are
// reads and not else.
type safePoint struct {
	known atomic.Pointer[knownPoint] // what was fetched last; nil: nothing yet

	mu      sync.Mutex
	running chan struct{} // closed when the fetch that runs has ended
	err     error         // of the last fetch
}

type knownPoint struct {
	value uint64
	at    time.Time
}

// younger reports whether k is there, and at a moment younger than age.
func (k *knownPoint) younger(age time.Duration, now time.Time) bool {
	return k != nil && now.Sub(k.at) < age
}

// touch starts a fetch if it is time.
func (e *Engine) touch() {
	s := &e.safe
	now := time.Now()
	if s.known.Load().younger(safePointAge, now) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil || s.known.Load().younger(safePointAge, now) {
		return
	}
	done := make(chan struct{})
	if e.tasks.Go("safe point", func(ctx context.Context) { e.fetchSafePoint(ctx, done) }) {
		s.running = done
	}
}

func (e *Engine) fetchSafePoint(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeoutCause(ctx, safePointWait, pd.ErrNoAnswer)
	defer cancel()
	at := time.Now()
	value, _, err := e.pd.GCState(ctx, e.codec.KeyspaceID())
	s := &e.safe
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err == nil {
		if old := s.known.Load(); old != nil {
			value = max(value, old.value)
		}
		s.known.Store(&knownPoint{value, at})
	}
	s.running = nil
	close(done)
}

// checkSafe reports a read as of ts whose data may be gone. It is called when the read
// has been answered: it is the safe point of then that counts.
func (e *Engine) checkSafe(ctx context.Context, ts uint64, answered time.Time) error {
	s := &e.safe
	for asked := false; ; asked = true {
		known := s.known.Load()
		switch {
		case known != nil && ts < known.value:
			return &TooOld{ReadTS: ts, SafePoint: known.value}
		case known.younger(safePointMaxAge, answered):
			return nil
		}
		s.mu.Lock()
		running, err, newer := s.running, s.err, s.known.Load() != known
		s.mu.Unlock()
		switch {
		case newer: // a fetch has ended since known was loaded
		case running != nil:
			select {
			case <-running:
			case <-ctx.Done():
				return new(router.Call).Ended(ctx)
			}
		case !asked:
			e.touch()
		case err == nil:
			return router.ErrClosed // nothing is started any more
		default:
			return err
		}
	}
}
