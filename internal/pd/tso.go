package pd

import (
	"context"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
)

// retryLimit bounds the delay between two attempts at a timestamp: one request serves
// all callers, so that trying often costs PD little.
const retryLimit = 500 * time.Millisecond

// run is the oracle's task: it has a stream while somebody wants timestamps, receives,
// and replaces a stream that has ended.
func (o *oracle) run(ctx context.Context) {
	c := o.client
	defer o.end()
	retry, moved := backoff.New(0), false
	for o.await(ctx) {
		m := c.members.Load()
		c.freshen(m)
		s, e := o.dial(ctx, m)
		if e == nil {
			e = o.serve(s)
		}
		switch {
		case ctx.Err() != nil:
			return
		case s != nil && s.used:
			retry, moved = backoff.New(0), false
		}
		if e.Err == errMoved {
			continue
		}
		if e.Kind == Rejected && m.tso() != nil {
			e.Kind = Unavailable // the service may be gone, which is found out
		}
		if !o.settle(e) {
			continue
		}
		if e.Addr != m.leader {
			c.shun(e.Addr)
		}
		c.cfg.Logger.Warn("no timestamp", "err", e)
		if moved = !moved && c.follow(ctx, m); moved {
			continue
		}
		retry.WaitAtMost(ctx, backoff.PD, retryLimit) // ctx is looked at next
	}
}

// await waits until somebody wants timestamps, or returns false when ctx ends.
func (o *oracle) await(ctx context.Context) bool {
	for ctx.Err() == nil {
		o.mu.Lock()
		work := o.work()
		o.mu.Unlock()
		if work {
			return true
		}
		select {
		case <-o.wake:
		case <-ctx.Done():
		}
	}
	return false
}

// dial opens a stream from whom the timestamps are to come.
func (o *oracle) dial(ctx context.Context, m *members) (*tsoStream, *Error) {
	to, e := o.client.timestampTarget(ctx, m)
	if e != nil {
		return nil, e
	}
	return o.connect(ctx, m, to)
}

// serve uses a stream until it ends, and takes back what is not answered then.
func (o *oracle) serve(s *tsoStream) *Error {
	o.mu.Lock()
	o.stream = s
	stale := o.stale(s)
	if !stale {
		o.flush()
	}
	o.mu.Unlock()
	if stale {
		s.cancel(errMoved)
	}
	e := o.receive(s)
	s.cancel(nil)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stream = nil
	o.queue = append(s.inFlight, o.queue...)
	return e
}

// stale reports whether s is not from whom timestamps are to come any more.
func (o *oracle) stale(s *tsoStream) bool {
	now := o.client.members.Load()
	if s.group != nil || now.tso() != nil {
		return (s.group == nil) != (now.tso() == nil)
	}
	if s.members.leader != now.leader {
		return true
	}
	chosen := s.forward != "" && !s.relayed // to pass requests on
	return !chosen && s.addr != now.route().addr
}

// relaying reports whether somebody waits for an answer through the relay.
func (o *oracle) relaying() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stream != nil && o.stream.relayed && len(o.stream.inFlight) > 0
}

// moved makes a stream end that is stale by now; what it has not answered is asked again.
func (o *oracle) moved() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.stream; s != nil && o.stale(s) {
		s.cancel(errMoved)
	}
}

// leave ends a stream of a service, to choose again.
func (o *oracle) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.stream; s != nil && s.group != nil {
		s.cancel(errMoved)
	}
}

// settle notes a failed attempt. It reports whether there is another to be made: not
// where nobody waits any more, nor after an error that stays, which all get.
func (o *oracle) settle(e *Error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tried++
	o.attempts = noted(o.attempts, e)
	e.Tried, e.Attempts = o.tried, o.attempts
	if !e.retryable() {
		o.failAll(e)
	}
	o.sweep()
	return o.work()
}

// sweep forgets the batches that nobody waits for.
func (o *oracle) sweep() {
	if b := o.open.Load(); b.callers() > 0 && b.left.Load() >= int64(b.callers()) {
		o.queue = append(o.queue, o.seal()) // who joined just now counts
	}
	rest := o.queue[:0]
	for _, b := range o.queue {
		if !b.over && !b.abandoned() {
			rest = append(rest, b)
		}
	}
	clear(o.queue[len(rest):])
	o.queue = rest
}

// end fails all that wait, and all that come.
func (o *oracle) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.watchdog.Stop()
	o.spacer.Stop()
	o.failAll(&Error{Op: opTso, Kind: Closed, Err: ErrClosed})
}
