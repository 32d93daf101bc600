package pd

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const opTso = "Tso"

// oracle gathers the callers that want a timestamp into batches. While a request is under
// way the next batch fills, so that any number of callers need one at a time, and one
// caller alone waits for nobody: it sends by itself. Where the network is slow several
// requests are under way, a fraction of its round trip apart.
//
// Who finds something to send sends it (flush). One task connects and receives (run).
// A timer that runs only while somebody waits watches over both (watch).
type oracle struct {
	client *Client
	wake   chan struct{} // there is work, for a task without a stream
	free   sync.Pool     // *batch
	open   atomic.Pointer[batch]

	// The newest timestamp, when it was asked for and when it came, in nanoseconds since
	// epoch: written in this order and read in the other, so that who reads a time has a
	// timestamp that is not older.
	newest  atomic.Uint64
	askedAt atomic.Int64
	cameAt  atomic.Int64
	epoch   time.Time

	mu       sync.Mutex
	running  bool
	closed   bool
	sending  bool
	stream   *tsoStream // nil while there is none
	queue    []*batch   // sealed, to be sent before the open one
	crowd    int        // callers of the last batch answered
	lastSent time.Time
	trip     tripTime
	watching bool
	watchdog *time.Timer
	spacer   *time.Timer
	attempts []Attempt // that failed since the last answer
	tried    int       // how many
}

func (o *oracle) init(c *Client) {
	o.client, o.wake, o.epoch = c, make(chan struct{}, 1), time.Now()
	o.watchdog = time.AfterFunc(time.Hour, o.watch)
	o.watchdog.Stop()
	o.spacer = time.AfterFunc(time.Hour, o.space)
	o.spacer.Stop()
	o.open.Store(o.newBatch())
}

// Timestamp returns a timestamp above every one that was returned before the call
// began. Concurrent calls share a round trip.
func (c *Client) Timestamp(ctx context.Context) (uint64, error) {
	o := &c.oracle
	if ctx.Err() != nil {
		return 0, c.late(ctx, &Error{Op: opTso})
	}
	for {
		b, place := o.join()
		select {
		case <-b.done:
		case <-ctx.Done():
			b.left.Add(1)
			return 0, o.gaveUp(ctx)
		}
		if b.err == nil {
			ts := b.first + uint64(place)
			o.give(b)
			return ts, nil
		}
		if _, bounded := ctx.Deadline(); !b.late || !bounded {
			return 0, b.err
		}
	}
}

// join finds the caller a place in a batch. The first of a batch sees to it that it is
// sent.
func (o *oracle) join() (*batch, int64) {
	for {
		b := o.open.Load()
		place, ok := b.join()
		switch {
		case !ok:
			o.overflow(b)
		case place == 0:
			o.begin(b)
			fallthrough
		default:
			return b, place
		}
	}
}

// begin is what the first caller of a batch does for it.
func (o *oracle) begin(b *batch) {
	o.mu.Lock()
	if b.opened.IsZero() {
		b.opened = time.Now()
	}
	if !o.running && !o.closed {
		o.running = o.client.tasks.Go("pd timestamps", o.run)
		o.closed = !o.running
	}
	if o.closed {
		o.failAll(&Error{Op: opTso, Kind: Closed, Err: ErrClosed})
		o.mu.Unlock()
		return
	}
	if !o.watching {
		o.watching = true
		o.watchdog.Reset(suspicion)
	}
	o.flush()
	o.mu.Unlock()
}

// overflow makes room where b, which took no more, is the open batch still.
func (o *oracle) overflow(b *batch) {
	o.mu.Lock()
	if o.open.Load() == b && b.callers() == batchLimit {
		o.queue = append(o.queue, o.seal())
		o.flush()
	}
	o.mu.Unlock()
}

// gaveUp is the error of a caller whose ctx has ended.
func (o *oracle) gaveUp(ctx context.Context) *Error {
	o.mu.Lock()
	e := o.failure()
	o.mu.Unlock()
	e.Err, e.Ended = context.Cause(ctx), ctx.Err()
	return e
}

// failure tells of the attempts that failed since the last answer. Under mu.
func (o *oracle) failure() *Error {
	e := &Error{Op: opTso, Addr: o.client.Leader(), Kind: Unavailable, Tried: o.tried, Attempts: o.attempts}
	if n := len(o.attempts); n > 0 {
		e.Addr, e.Message = o.attempts[n-1].Addr, o.attempts[n-1].Message
	}
	return e
}

// answered takes the answer to the oldest request of a stream.
func (o *oracle) answered(s *tsoStream, a tsoAnswer) *Error {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(s.inFlight) == 0 {
		return &Error{Op: opTso, Addr: s.addr, Kind: Unavailable, Message: "answer without a request"}
	}
	b := s.inFlight[0]
	first, err := a.first(uint32(b.count), o.newest.Load())
	if err != nil {
		return &Error{Op: opTso, Addr: s.addr, Kind: Unavailable, Message: err.Error()}
	}
	s.inFlight = append(s.inFlight[:0], s.inFlight[1:]...)
	s.used = true
	o.newest.Store(first + uint64(b.count) - 1)
	o.askedAt.Store(int64(b.sent.Sub(o.epoch)))
	o.cameAt.Store(int64(now.Sub(o.epoch)))
	o.trip.add(now.Sub(b.sent))
	o.crowd, o.attempts, o.tried = b.count, nil, 0
	if !b.over {
		b.first = first
		b.finish()
	}
	o.flush()
	return nil
}

// failAll gives an error to all that wait to be sent. Under mu.
func (o *oracle) failAll(e *Error) {
	if o.open.Load().callers() > 0 {
		o.queue = append(o.queue, o.seal())
	}
	for _, b := range o.queue {
		if !b.over {
			b.err = e
			b.finish()
		}
	}
	o.queue = nil
}
