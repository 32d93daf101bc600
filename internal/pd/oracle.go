package pd

import (
	"context"
	"sync"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
)

const opTso = "Tso"

// batchLimit is the most callers that share a request. The logical part of a timestamp
// has 18 bits.
const batchLimit = 10000

// oracle collects the callers that want a timestamp. While one request is under way the
// next is filled, so that any number of callers need one at a time, and one caller alone
// waits for nobody. One task, the owner, sends.
type oracle struct {
	client *Client
	wake   chan struct{} // waiting is no longer empty
	free   sync.Pool     // *waiter

	mu      sync.Mutex
	owned   bool // the owner runs
	waiting line
	failed  *Error    // the last failure since the last success
	last    uint64    // the highest timestamp received
	asked   time.Time // when that was asked for
}

func (o *oracle) init(c *Client) { o.client, o.wake = c, make(chan struct{}, 1) }

// place is where a waiter is. It changes under the oracle's mutex only.
type place uint8

const (
	outside  place = iota
	inLine         // waiting
	inFlight       // in the owner's batch
	served         // ready has a token
)

// waiter is one caller.
type waiter struct {
	ready      chan struct{}
	timer      *time.Timer // of a caller without a deadline
	place      place
	prev, next *waiter
	ts         uint64
	err        error
}

// Timestamp returns a timestamp above every one that was returned before the call
// began. Concurrent calls share a round trip.
func (c *Client) Timestamp(ctx context.Context) (uint64, error) {
	o := &c.oracle
	if ctx.Err() != nil {
		return 0, c.late(ctx, &Error{Op: opTso})
	}
	w, _ := o.free.Get().(*waiter)
	if w == nil {
		w = &waiter{ready: make(chan struct{}, 1)}
	}
	if err := o.join(w); err != nil {
		return 0, err
	}
	var late <-chan time.Time
	if _, ok := ctx.Deadline(); !ok {
		if w.timer == nil {
			w.timer = time.NewTimer(c.cfg.TimestampTimeout)
		} else {
			w.timer.Reset(c.cfg.TimestampTimeout)
		}
		late = w.timer.C
	}
	cause := ErrNoAnswer
	select {
	case <-w.ready:
		return o.leave(w)
	case <-late:
	case <-ctx.Done():
		cause = context.Cause(ctx)
	}
	if e := o.quit(w); e != nil {
		e.Err, e.Ended = cause, ctx.Err()
		return 0, e
	}
	<-w.ready // served just now
	return o.leave(w)
}

// RecentTimestamp returns a timestamp that PD gave out at most maxAge ago, the last one
// received if it is.
func (c *Client) RecentTimestamp(ctx context.Context, maxAge time.Duration) (uint64, error) {
	o := &c.oracle
	o.mu.Lock()
	ts, asked := o.last, o.asked
	o.mu.Unlock()
	if ts != 0 && maxAge > 0 && time.Since(asked) <= maxAge {
		return ts, nil
	}
	return c.Timestamp(ctx)
}

// join puts w in line.
func (o *oracle) join(w *waiter) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.owned {
		if o.owned = o.client.tasks.Go("pd oracle", o.own); !o.owned {
			return &Error{Op: opTso, Kind: Closed, Err: ErrClosed}
		}
	}
	if cause := o.client.tasks.Context().Err(); cause != nil { // the owner may have ended
		return &Error{Op: opTso, Kind: Closed, Err: ErrClosed}
	}
	w.place = inLine
	o.waiting.push(w)
	if o.waiting.n == 1 {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// leave takes the outcome of w, which is served and whose token was taken.
func (o *oracle) leave(w *waiter) (uint64, error) {
	if w.timer != nil {
		w.timer.Stop()
	}
	ts, err := w.ts, w.err
	*w = waiter{ready: w.ready, timer: w.timer}
	o.free.Put(w)
	return ts, err
}

// quit takes w out of where it waits and returns the error that says so, or nil if it
// is served.
func (o *oracle) quit(w *waiter) *Error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch w.place {
	case inLine:
		o.waiting.remove(w)
	case inFlight: // the owner finds it gone; the others of the batch are not touched
	default:
		return nil
	}
	w.place = outside
	if w.timer != nil {
		w.timer.Stop()
	}
	e := &Error{Op: opTso, Addr: o.client.Leader(), Kind: Unavailable}
	if o.failed != nil {
		e.Addr, e.Message = o.failed.Addr, o.failed.Message
	}
	return e
}

// own is the owner's loop.
func (o *oracle) own(ctx context.Context) {
	c := o.client
	var s *tsoStream
	defer func() { s.close() }()
	var batch []*waiter
	for {
		select {
		case <-o.wake:
		case <-ctx.Done():
			o.fail(nil, &Error{Op: opTso, Kind: Closed, Err: ErrClosed})
			return
		}
		retry, moved := backoff.New(0), false
		for ctx.Err() == nil {
			if batch = o.take(batch[:0]); len(batch) == 0 {
				break
			}
			var e *Error
			if s, e = s.follow(ctx, c); e == nil {
				asked := time.Now()
				var first uint64
				if first, e = s.fetch(uint32(len(batch)), o.newest()); e == nil {
					o.serve(batch, first, asked)
					retry, moved = backoff.New(0), false
					continue
				}
			}
			s.close()
			s = nil
			if ctx.Err() != nil || !e.retryable() {
				o.fail(batch, e)
				continue
			}
			leader := e.Addr
			o.takeBack(batch, e)
			c.cfg.Logger.Warn("no timestamp", "err", e)
			if moved = !moved && c.follow(ctx, leader); moved {
				continue
			}
			retry.WaitAtMost(ctx, backoff.PD, retryLimit) // ctx is looked at next
		}
	}
}

// retryLimit bounds the delay between two attempts at a timestamp: one request serves
// all callers, so that trying often costs PD little.
const retryLimit = 500 * time.Millisecond

func (o *oracle) newest() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// take moves the head of the line into a batch.
func (o *oracle) take(batch []*waiter) []*waiter {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.waiting.n > 0 && len(batch) < batchLimit {
		w := o.waiting.first
		o.waiting.remove(w)
		w.place = inFlight
		batch = append(batch, w)
	}
	return batch
}

// takeBack puts those of a batch that still wait back to the head of the line.
func (o *oracle) takeBack(batch []*waiter, e *Error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = e
	for i := len(batch) - 1; i >= 0; i-- {
		if w := batch[i]; w.place == inFlight {
			w.place = inLine
			o.waiting.pushFront(w)
		}
	}
	clear(batch)
}

// serve gives each of a batch its timestamp, from first on.
func (o *oracle) serve(batch []*waiter, first uint64, asked time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed, o.last, o.asked = nil, first+uint64(len(batch)-1), asked
	for i, w := range batch {
		if w.place == inFlight {
			w.place, w.ts = served, first+uint64(i)
			w.ready <- struct{}{} // has room for one and gets one
		}
	}
	clear(batch)
}

// fail gives an error to a batch and to all in line.
func (o *oracle) fail(batch []*waiter, e *Error) {
	if o.client.tasks.Context().Err() != nil {
		e = &Error{Op: opTso, Kind: Closed, Err: ErrClosed}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range batch {
		if w.place == inFlight {
			w.place, w.err = served, e
			w.ready <- struct{}{}
		}
	}
	clear(batch)
	for w := o.waiting.first; w != nil; w = o.waiting.first {
		o.waiting.remove(w)
		w.place, w.err = served, e
		w.ready <- struct{}{}
	}
}

// line is waiters in order, of which any may leave.
type line struct {
	first, last *waiter
	n           int
}

func (l *line) push(w *waiter) {
	w.prev, w.next = l.last, nil
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
	l.n++
}

func (l *line) pushFront(w *waiter) {
	w.prev, w.next = nil, l.first
	if l.first == nil {
		l.last = w
	} else {
		l.first.prev = w
	}
	l.first = w
	l.n++
}

func (l *line) remove(w *waiter) {
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
	l.n--
}
