package region

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Bounds of probes. A client probes at most ten times a second, whatever is away, and one
// store as the breaker says; only stores that a request has wanted of late.
const (
	probeApart = 100 * time.Millisecond // from one probe to the next, over all stores
	probeTime  = 3 * time.Second        // of one
	wantedFor  = 30 * time.Second       // a store is wanted, after a request to it was refused
	probeAsks  = 30 * time.Second       // PD is asked whether the store is still there
)

// gate keeps probes apart.
type gate struct {
	mu   sync.Mutex
	next time.Duration
}

// reserve takes the next place, and returns how long it is until then.
func (g *gate) reserve(now time.Duration) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := max(now, g.next)
	g.next = at + probeApart
	return at - now
}

// watch looks after a store that is away, until it is back, nobody has wanted it for a
// while, or PD says that it is gone or has moved.
func (c *Cache) watch(ctx context.Context, s *Store) {
	for asked := -probeAsks; ; {
		in, wanted := s.health.probeIn(c.now())
		if !wanted || !pause(ctx, in) || !pause(ctx, c.gate.reserve(c.now())) {
			s.health.unwatched()
			return
		}
		if now := c.now(); now-asked >= probeAsks {
			asked = now
			if known, err := c.loadStore(ctx, s.ID); errors.Is(err, ErrNoStore) || err == nil && known.health != s.health {
				return // nobody asks this one for leave again
			}
		}
		e := probedWell
		if err := c.probe(ctx, s); err != nil {
			e = probedIll
		}
		s.health.learn(e, c.now(), nil)
	}
}

func (c *Cache) probe(ctx context.Context, s *Store) error {
	if c.cfg.Probe == nil { // the next request will show
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	return c.cfg.Probe(ctx, s.Addr)
}

// pause waits, and reports false if ctx ends meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// probeIn returns how long it is until the next probe, and whether one is wanted at all.
func (h *health) probeIn(now time.Duration) (in time.Duration, wanted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.breaker.state != away || now-h.wanted > wantedFor {
		h.watched = false
		return 0, false
	}
	return h.breaker.due - now, true
}

func (h *health) unwatched() {
	h.mu.Lock()
	h.watched = false
	h.mu.Unlock()
}
