package pd

import (
	"context"
	"time"
)

// suspicion is how long an answer may take before the members are asked whether another
// leads by now. It ends no attempt, but the one at a leader that is none any more.
const suspicion = time.Second

// watch looks after those that wait for timestamps, and after itself as long as there are
// any: it suspects and breaks a stream that is silent, and ends a wait of
// TimestampTimeout. It never waits itself.
func (o *oracle) watch() {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.client.freshen(o.client.members.Load())
	o.rotate(now)
	o.expire(now)
	next := o.listen(now)
	for _, b := range o.waiting() {
		next = earlier(next, b.opened.Add(o.client.cfg.TimestampTimeout))
	}
	if o.open.Load().callers() > 0 {
		next = earlier(next, now.Add(suspicion))
	}
	if o.watching = !next.IsZero() && !o.closed; o.watching {
		o.watchdog.Reset(max(next.Sub(now), time.Millisecond))
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// waiting are all batches without an outcome but the open one.
func (o *oracle) waiting() []*batch {
	var all []*batch
	if o.stream != nil {
		all = append(all, o.stream.inFlight...)
	}
	return append(all, o.queue...)
}

// rotate closes an open batch that has waited, so that those who come later have about
// all of TimestampTimeout before them.
func (o *oracle) rotate(now time.Time) {
	if b := o.open.Load(); b.callers() > 0 && !b.opened.IsZero() && now.Sub(b.opened) >= suspicion {
		o.queue = append(o.queue, o.seal())
	}
}

// expire ends the waits that are over.
func (o *oracle) expire(now time.Time) {
	for _, b := range o.waiting() {
		if !b.over && now.Sub(b.opened) >= o.client.cfg.TimestampTimeout {
			b.err, b.late = o.failure(), true
			b.err.Err = ErrNoAnswer
			b.finish()
		}
	}
}

// listen looks at the oldest request under way and returns when to look again.
func (o *oracle) listen(now time.Time) (next time.Time) {
	s := o.stream
	if s == nil || len(s.inFlight) == 0 {
		return next
	}
	sent, patience := s.inFlight[0].sent, o.client.cfg.AttemptTimeout
	age := now.Sub(sent)
	switch {
	case age >= patience:
		s.cancel(errSilent) // the task goes on
		return now.Add(suspicion)
	case age >= suspicion:
		c, m := o.client, s.members
		c.tasks.Go("pd leader", func(ctx context.Context) {
			if s.group != nil {
				c.regroup(ctx, s)
			}
			c.follow(ctx, m)
		})
	}
	return earlier(sent.Add((age/suspicion+1)*suspicion), sent.Add(patience))
}

// space sends what was held back for a while.
func (o *oracle) space() {
	o.client.tasks.Go("pd timestamps spaced", func(context.Context) {
		o.mu.Lock()
		o.flush()
		o.mu.Unlock()
	})
}

// tripTime keeps the shortest of the last round trips: how far the server is, whatever it
// or this process has to do just now.
type tripTime struct {
	now, before time.Duration
	n           int
}

const tripSamples = 256

func (t *tripTime) add(d time.Duration) {
	if t.n == 0 || d < t.now {
		t.now = d
	}
	if t.n++; t.n == tripSamples {
		t.before, t.now, t.n = t.now, 0, 0
	}
}

// least is 0 before the first.
func (t *tripTime) least() time.Duration {
	switch {
	case t.before == 0:
		return t.now
	case t.n == 0:
		return t.before
	}
	return min(t.now, t.before)
}
