package transport

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A frame takes requests up to either limit; TiKV answers with at most as many (TiKV
// src/server/service/kv.rs, GRPC_MSG_MAX_BATCH_SIZE).
const (
	frameCalls = 128
	frameBytes = 1 << 20
)

// tick is how exact the end of an attempt's time is: it is noticed up to two ticks late.
// Attempts shorter than exactBelow have a timer of their own instead.
const (
	tick       = 100 * time.Millisecond
	exactBelow = time.Second
)

// endpoint is one address: its connection, the calls that wait to be written, and the
// stream they are written to. One task, the owner, opens streams and writes; each
// stream has one that reads.
type endpoint struct {
	pool   *Pool
	to     Target
	addr   string // to's
	conn   *link
	ctx    context.Context // of the streams; ends with close
	cancel context.CancelCauseFunc
	wake   chan struct{} // the queue is no longer empty

	condition condition
	version   atomic.Int64 // of the credentials that all of its connections go by
	calls     atomic.Int64 // queued and pending, nearly
	gone      atomic.Bool  // not found any more
	next      atomic.Pointer[endpoint]
	alone     atomic.Int64 // until when there are no streams (Unix time in ns); 0: there are

	woken   atomic.Int32 // callers, by the last frame of answers
	mu      sync.Mutex
	owned   bool // the owner runs
	over    *Error
	queue   queue
	pending int     // calls that are writing or sent
	stream  *stream // the one to write to; nil: open one

	ticks   uint64 // counted while there are calls
	clock   *time.Timer
	ticking bool
	idle    *time.Timer // runs out when there may have been no calls for long
	rested  time.Time   // when the last of them ended
}

func newEndpoint(p *Pool, to Target) (*endpoint, error) {
	e := &endpoint{pool: p, to: Target{Addr: to.Addr, Forward: to.Forward, member: to.member, lane: to.lane}, addr: to.Addr, wake: make(chan struct{}, 1)}
	e.version.Store(p.version.Load())
	e.condition.failed = p.suspectFiles
	opts := p.cfg.StoreOptions
	if to.member {
		opts = p.cfg.PDOptions
	}
	var err error
	if e.conn, err = newLink(p.cfg, e.addr, &p.buffers, &e.condition, opts...); err != nil {
		return nil, &Error{Addr: e.addr, Kind: Dial, Err: err}
	}
	e.ctx, e.cancel = context.WithCancelCause(p.tasks.Context())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rest() // perhaps for ever, or for single calls alone
	return e, nil
}

// start puts req into the queue of the stream.
func (e *endpoint) start(cmd *command, req Message, timeout time.Duration) (Pending, error) {
	c := e.pool.takeCall()
	c.cmd, c.class = cmd, classOf(req)
	if err := c.encode(req, &e.pool.buffers); err != nil {
		e.pool.giveCall(c)
		return Pending{}, &Error{Addr: e.addr, Kind: Refused, Err: err}
	}
	if timeout > 0 && timeout < exactBelow {
		c.setTimer(timeout)
		timeout = 0
	}
	if err := e.enqueue(c, timeout); err != nil {
		e.pool.giveCall(c)
		return Pending{}, err
	}
	return Pending{e, c}, nil
}

// enqueue puts c at the end of the queue.
func (e *endpoint) enqueue(c *call, timeout time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.over != nil:
		return e.over
	case e.queue.n >= e.pool.cfg.QueueLimit:
		return &Error{Addr: e.addr, Kind: QueueFull}
	case !e.owned:
		if e.owned = e.pool.tasks.Go("transport owner", e.own); !e.owned {
			return &Error{Addr: e.addr, Kind: Closed, Err: ErrClosed}
		}
	}
	e.startClock()
	if timeout > 0 {
		c.expires = e.ticks + 1 + uint64((timeout+tick-1)/tick)
	}
	c.state = queued
	e.queue.push(c)
	e.count()
	if e.queue.n == 1 {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// withdraw takes c from wherever it waits, and tells whether the server can have seen
// it. It reports false for a call that is done.
func (e *endpoint) withdraw(c *call) (taken, wasSent bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.remove(c)
}

// remove is withdraw; the mutex is held.
func (e *endpoint) remove(c *call) (taken, wasSent bool) {
	switch c.state {
	case queued:
		e.queue.remove(c)
	case writing, sent:
		e.forget(c)
		wasSent = true
	default:
		return false, false
	}
	c.state = idle
	return true, wasSent
}

// forget removes c from those that wait for an answer; e.mu is held.
func (e *endpoint) forget(c *call) {
	c.stream.calls.remove(c)
	e.pending--
}

// startClock makes the ticks count; e.mu is held.
func (e *endpoint) startClock() {
	if e.ticking {
		return
	}
	e.ticking = true
	if e.clock == nil {
		e.clock = time.AfterFunc(tick, e.onTick)
	} else {
		e.clock.Reset(tick)
	}
}

// onTick ends the calls whose time is over. It ticks on while there are calls.
func (e *endpoint) onTick() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ticks++
	for c := e.queue.first; c != nil; {
		next := c.next
		e.expire(c)
		c = next
	}
	if e.stream != nil {
		for _, c := range e.stream.calls.places {
			e.expire(c)
		}
	}
	e.ticking = e.over == nil && e.queue.n+e.pending > 0
	e.count()
	if e.ticking {
		e.clock.Reset(tick)
	} else {
		e.rest()
	}
}

func (e *endpoint) expire(c *call) {
	if c == nil || c.expires == 0 || c.expires > e.ticks {
		return
	}
	_, wasSent := e.remove(c)
	c.fail(&Error{Addr: e.addr, Kind: Expired, Sent: wasSent, Err: ErrNoAnswer})
}

// own is the owner's loop: whenever there are calls, write them.
func (e *endpoint) own(context.Context) {
	for {
		select {
		case <-e.wake:
		case <-e.ctx.Done():
			e.failQueue(&Error{Addr: e.addr, Kind: Closed, Err: ErrClosed})
			return
		}
		e.gather()
		for e.flush() {
			e.gather()
		}
	}
}

// Bounds of gather: what it waits for, and how long in vain.
const (
	crowd      = 64
	vainYields = 16
	mostYields = 64
)

// gather lets the callers that are about to send do so first: their requests then share a
// frame, at no cost for one that is alone. Those whom the last frame of answers woke are
// about to, as many as come back while this task lets others run.
func (e *endpoint) gather() {
	want := min(int(e.woken.Load()), crowd)
	for i, last, vain := 0, 0, 0; i < mostYields && vain < vainYields; i++ {
		runtime.Gosched()
		n, _ := e.load()
		if n >= want {
			return
		}
		if vain++; n > last {
			last, vain = n, 0
		}
	}
}

// flush writes one frame and reports whether there was more to write then; what comes
// later wakes the owner.
func (e *endpoint) flush() bool {
	s := e.current()
	if s == nil {
		if e.empty() {
			return false // all withdrawn
		}
		var err *Error
		if s, err = e.open(); err != nil {
			e.failQueue(err)
			return false
		}
	}
	f, more := e.take(s)
	if f == nil {
		return false
	}
	s.written(s.grpc.SendMsg(f))
	return more
}

func (e *endpoint) current() *stream {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stream
}

func (e *endpoint) empty() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.queue.n == 0
}

// take moves calls from the queue into a frame for s, nil if there are none, and
// reports whether there are more. What is copied is little: see copyLimit.
func (e *endpoint) take(s *stream) (f *frame, more bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.ids = s.ids[:0]
	a := assembly{pool: &e.pool.buffers, hint: s.copied}
	for e.queue.n > 0 && len(s.ids) < frameCalls && a.size < frameBytes {
		c := e.queue.first
		e.queue.remove(c)
		a.add(c)
		s.calls.add(c)
		s.ids = append(s.ids, c.id)
		c.state, c.stream = writing, s
		e.pending++
	}
	if len(s.ids) == 0 {
		return nil, false
	}
	s.copied = a.copied
	return a.frame(s.ids), e.queue.n > 0
}

// failQueue fails all calls of the queue, none of which was sent, with what the
// endpoint ended with, else with err.
func (e *endpoint) failQueue(err *Error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over != nil {
		err = e.over
	}
	for c := e.queue.first; c != nil; c = e.queue.first {
		e.queue.remove(c)
		c.fail(err)
	}
}

// close ends the endpoint: its calls fail with kind and cause.
func (e *endpoint) close(kind Kind, cause error) {
	e.mu.Lock()
	if e.over == nil {
		e.over = &Error{Addr: e.addr, Kind: kind, Err: cause}
	}
	if e.clock != nil {
		e.clock.Stop()
	}
	if e.idle != nil {
		e.idle.Stop()
	}
	e.mu.Unlock()
	e.cancel(cause)
	if err := e.conn.Close(); err != nil {
		e.pool.cfg.Logger.Debug("close", "addr", e.addr, "err", err)
	}
}

// failure makes the error of a call that ended with err from grpc.
func (e *endpoint) failure(kind Kind, wasSent bool, err error) *Error {
	if kind == Dial {
		if err = e.condition.reason(err); err == errDialTimeout {
			err = &DialError{Advertised: e.addr, Dialled: e.pool.cfg.mapped(e.addr), Err: err}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over != nil {
		return &Error{Addr: e.addr, Kind: e.over.Kind, Sent: wasSent, Err: e.over.Err}
	}
	return &Error{Addr: e.addr, Kind: kind, Sent: wasSent, Err: err}
}

func (e *endpoint) load() (queued, pending int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.queue.n, e.pending
}
