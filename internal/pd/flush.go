package pd

import (
	"runtime"
	"time"
)

// seal closes the open batch to callers and opens another. Under mu.
func (o *oracle) seal() *batch {
	b := o.open.Load()
	o.open.Store(o.newBatch())
	b.seal()
	if b.opened.IsZero() {
		b.opened = time.Now()
	}
	return b
}

// work reports whether anybody waits to be sent. Under mu.
func (o *oracle) work() bool { return len(o.queue) > 0 || o.open.Load().callers() > 0 }

// flush sends what may be sent now. One at a time does it: who finds another at it leaves
// the rest to him, who looks again after each request. mu is held on entry and on return,
// and not while sending, which does not wait: the requests under way are too few and too
// small to fill what a stream takes.
func (o *oracle) flush() {
	if o.sending {
		return
	}
	o.sending = true
	for b := o.next(); b != nil; b = o.next() {
		s := o.stream
		b.sent = time.Now()
		o.lastSent = b.sent
		s.inFlight = append(s.inFlight, b)
		if s.relayed {
			o.client.relayUsed.Store(true)
		}
		o.mu.Unlock()
		err := s.send(uint32(b.count))
		o.mu.Lock()
		if err != nil {
			s.cancel(nil) // the receiver finds out why
		}
	}
	o.sending = false
}

// next takes the batch that may be sent now, sealed, or returns nil.
func (o *oracle) next() *batch {
	for gathered := false; o.work(); {
		s := o.stream
		switch {
		case s == nil:
			select {
			case o.wake <- struct{}{}:
			default:
			}
			return nil
		case len(o.queue) > 0:
			if len(s.inFlight) >= window {
				return nil
			}
			b := o.queue[0]
			o.queue = o.queue[1:]
			if !b.over && !b.abandoned() {
				return b
			}
		case !o.may(s):
			return nil
		case !gathered:
			gathered = true
			o.gather(s)
		default:
			return o.seal()
		}
	}
	return nil
}

// window is the most requests under way. A second one is sent only where the round trip
// is networkBound, and a window's part of it after the one before: with a server that is
// near, fewer and larger requests cost less and are as quick.
const (
	window       = 4
	networkBound = 500 * time.Microsecond
)

// may reports whether another request may be sent now on s; if only later, the spacer
// tries again then.
func (o *oracle) may(s *tsoStream) bool {
	trip := o.trip.least()
	switch {
	case len(s.inFlight) == 0:
		return true
	case len(s.inFlight) >= window || trip < networkBound:
		return false // who takes the answer goes on
	}
	wait := trip/window - time.Since(o.lastSent)
	if wait > 0 {
		o.spacer.Reset(wait)
	}
	return wait <= 0
}

// gather lets those join who were woken by the last answer and are about to ask again, as
// long as that helps. It costs a lone caller nothing.
func (o *oracle) gather(s *tsoStream) {
	for range 8 {
		n := o.open.Load().callers()
		if n >= o.crowd || len(s.inFlight) > 0 {
			return
		}
		o.mu.Unlock()
		runtime.Gosched()
		o.mu.Lock()
		if o.open.Load().callers() <= n {
			return
		}
	}
}
