package transport

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// A frame takes requests up to either limit; TiKV answers with at most as many (TiKV
// src/server/service/kv.rs, GRPC_MSG_MAX_BATCH_SIZE).
const (
	frameCalls = 128
	frameBytes = 1 << 20
)

// endpoint is one address: its connection, the calls that wait to be written, and the
// stream they are written to. One task, the owner, opens streams and writes; each
// stream has one that reads.
type endpoint struct {
	pool    *Pool
	addr    string
	sockets sockets
	conn    *grpc.ClientConn
	ctx     context.Context // of the streams; ends with close
	cancel  context.CancelCauseFunc
	lastID  atomic.Uint64
	wake    chan struct{} // the queue is no longer empty

	mu      sync.Mutex
	owned   bool // the owner runs
	over    *Error
	queue   queue
	pending int     // calls that are writing or sent
	stream  *stream // the one to write to; nil: open one
}

func newEndpoint(p *Pool, addr string) (*endpoint, error) {
	e := &endpoint{pool: p, addr: addr, wake: make(chan struct{}, 1)}
	var err error
	if e.conn, err = newConn(p.cfg, addr, e.sockets.dialer(p.cfg.dialer())); err != nil {
		return nil, &Error{Addr: addr, Kind: Dial, Err: err}
	}
	e.ctx, e.cancel = context.WithCancelCause(p.tasks.Context())
	return e, nil
}

// call sends req on the stream and waits for the answer.
func (e *endpoint) call(ctx context.Context, cmd *command, req Message) (Message, error) {
	c := e.pool.takeCall()
	c.id, c.cmd = e.lastID.Add(1), cmd
	if err := e.pool.encode(c, req); err != nil {
		e.pool.giveCall(c)
		return nil, &Error{Addr: e.addr, Kind: Refused, Err: err}
	}
	if err := e.enqueue(c); err != nil {
		mem.DefaultBufferPool().Put(c.data)
		e.pool.giveCall(c)
		return nil, err
	}
	select {
	case <-c.ready:
	case <-ctx.Done():
		if taken, wasSent := e.withdraw(c); taken {
			e.pool.giveCall(c)
			return nil, &Error{Addr: e.addr, Kind: Timeout, Sent: wasSent, Err: context.Cause(ctx)}
		}
		<-c.ready // the answer came first
	}
	resp, err := c.resp, c.err
	e.pool.giveCall(c)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// enqueue puts c at the end of the queue.
func (e *endpoint) enqueue(c *call) error {
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
	c.state = queued
	e.queue.push(c)
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
	switch c.state {
	case queued:
		e.queue.remove(c)
		mem.DefaultBufferPool().Put(c.data)
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
	delete(c.stream.calls, c.id)
	e.pending--
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
		// The callers that are about to send get to do so first: their requests then
		// share a frame, at no cost for one that is alone.
		runtime.Gosched()
		for e.flush() {
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
	parts, more := e.take(s)
	if len(parts) == 0 {
		return false
	}
	s.written(s.grpc.SendMsg(join(parts)))
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

// take moves calls from the queue into a frame for s, and returns their requests, valid
// until the next take, and whether there are more.
func (e *endpoint) take(s *stream) (parts []*[]byte, more bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	parts, s.frame = s.parts[:0], s.frame[:0]
	for size := 0; e.queue.n > 0 && len(parts) < frameCalls && size < frameBytes; {
		c := e.queue.first
		e.queue.remove(c)
		size += len(*c.data)
		parts = append(parts, c.data)
		s.frame = append(s.frame, c.id)
		c.state, c.stream, c.data = writing, s, nil
		s.calls[c.id] = c
		e.pending++
	}
	s.parts = parts
	return parts, e.queue.n > 0
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
		mem.DefaultBufferPool().Put(c.data)
		c.finish(nil, err)
	}
}

// close ends the endpoint: its calls fail with kind and cause.
func (e *endpoint) close(kind Kind, cause error) {
	e.mu.Lock()
	if e.over == nil {
		e.over = &Error{Addr: e.addr, Kind: kind, Err: cause}
	}
	e.mu.Unlock()
	e.cancel(cause)
	e.sockets.close()
	if err := e.conn.Close(); err != nil {
		e.pool.cfg.Logger.Debug("close", "addr", e.addr, "err", err)
	}
}

// failure makes the error of a call that ended with err from grpc.
func (e *endpoint) failure(kind Kind, wasSent bool, err error) *Error {
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
