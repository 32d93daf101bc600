package region

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
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
// while, or PD says that it is gone or has moved. PD is asked after the store itself, so
// that one which is back does not wait for a PD that is not.
func (c *Cache) watch(ctx context.Context, s *Store) {
	for asked := -probeAsks; ; {
		in, wanted := s.health.probeIn(c.now())
		if !wanted || backoff.Sleep(ctx, in) != nil || backoff.Sleep(ctx, c.gate.reserve(c.now())) != nil {
			return
		}
		if c.probe(ctx, s) == nil {
			s.health.learn(probedWell, c.now(), nil)
			continue
		}
		s.health.learn(probedIll, c.now(), nil)
		if now := c.now(); now-asked >= probeAsks {
			if asked = now; c.isGone(ctx, s) {
				return // nobody asks this one for leave again
			}
		}
	}
}

// isGone asks PD whether a store is no more, or is elsewhere.
func (c *Cache) isGone(ctx context.Context, s *Store) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	known, err := c.loadStore(ctx, s.ID)
	return errors.Is(err, ErrNoStore) || err == nil && known.health != s.health
}

func (c *Cache) probe(ctx context.Context, s *Store) error {
	if c.cfg.Probe == nil { // the next request will show
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	return c.cfg.Probe(ctx, s.Addr)
}

// probeIn returns how long it is until the next probe, and whether one is wanted at all; if
// not, the store is not watched any more.
func (h *health) probeIn(now time.Duration) (in time.Duration, wanted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.breaker.state != away || now-h.wanted > wantedFor {
		h.watched = false
		return 0, false
	}
	return h.breaker.due - now, true
}
