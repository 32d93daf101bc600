package transport

import (
	"bytes"
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc/mem"

	"github.com/tikv-go/tikv/internal/wire"
)

// state is where a batched call is. It changes under its endpoint's mutex only.
type state uint8

const (
	idle    state = iota // nobody's but its caller's
	queued               // in the queue
	writing              // in the frame that is being written
	sent                 // written, without an answer yet
	done                 // answered or failed; ready has a token, or gets one at once
)

// call is one batched call. Its caller takes it back when it is idle or done, and then
// nobody else refers to it: the writer knows calls by their ids.
type call struct {
	cmd   *command
	small []byte  // the encoded request, which is copied into a frame; kept for the next
	big   *[]byte // instead of it one that is not copied; nil once it is in a frame
	ready chan struct{}
	timer *time.Timer // of an attempt that is too short for the endpoint's ticks
	timed bool        // timer runs

	abandon context.CancelCauseFunc // of a call that a task makes; nil: it is the stream's

	flight
}

// flight is what a call is on its way: others than its caller write it, and for the next
// one it is cleared.
type flight struct {
	state      state
	class      class
	id         uint64 // on its stream, from writing on
	stream     *stream
	expires    uint64 // the endpoint's tick; 0: never
	prev, next *call  // in the queue

	answer wire.Answer
	frame  mem.Buffer // that holds the answer
	err    *Error
}

// copyLimit is the size up to which a request is copied into its frame: what is bigger
// is sent from where it was encoded.
const copyLimit = 1 << 10

// encode encodes the call's request.
func (c *call) encode(req Message, pool *buffers) error {
	r, size := wire.Measure(c.cmd.number, req)
	if size <= copyLimit {
		data, err := r.Append(c.small[:0])
		c.small = data
		return err
	}
	c.big = pool.Get(size)
	data, err := r.Append((*c.big)[:0])
	*c.big = data
	return err
}

// setTimer makes c end d from now, as its caller waits.
func (c *call) setTimer(d time.Duration) {
	if c.timer == nil {
		c.timer = time.NewTimer(d)
	} else {
		c.timer.Reset(d)
	}
	c.timed = true
}

// fail gives c its end without an answer; the endpoint's mutex is held.
func (c *call) fail(err *Error) {
	c.state, c.err = done, err
	c.ready <- struct{}{} // has room for one and gets one
}

// decode gives the answer, and its frame back.
func (c *call) decode(addr string, resp Decoder) error {
	if c.err != nil {
		return c.err
	}
	defer c.frame.Free()
	if c.answer.Command != c.cmd.number {
		return &Error{Addr: addr, Kind: Refused, Sent: true, Err: errNoAnswer}
	}
	body := c.answer.Body
	if c.cmd.shares {
		body = bytes.Clone(body)
	}
	if err := resp.Unmarshal(body); err != nil {
		return &Error{Addr: addr, Kind: Refused, Sent: true, Err: err}
	}
	return nil
}

// Pending is a call that was started. It must be waited for, once, or cancelled.
type Pending struct {
	e *endpoint
	c *call
}

// Wait decodes the answer into resp, which must be empty. It returns as soon as ctx
// ends. Every error is an *Error.
func (p Pending) Wait(ctx context.Context, resp Decoder) error {
	c, e := p.c, p.e
	var expired <-chan time.Time
	if c.timed {
		expired = c.timer.C
	}
	if end := ctx.Done(); end == nil && expired == nil {
		<-c.ready
	} else {
		select {
		case <-c.ready:
		case <-end:
			if taken, wasSent := e.withdraw(c); taken {
				e.pool.giveCall(c)
				return &Error{Addr: e.addr, Kind: Timeout, Sent: wasSent, Err: context.Cause(ctx)}
			}
			c.leave(context.Cause(ctx))
			<-c.ready // the answer came first
		case <-expired:
			if taken, wasSent := e.withdraw(c); taken {
				e.pool.giveCall(c)
				return &Error{Addr: e.addr, Kind: Expired, Sent: wasSent, Err: ErrNoAnswer}
			}
			<-c.ready
		}
	}
	err := c.decode(e.addr, resp)
	e.pool.giveCall(c)
	return err
}

// Cancel gives the call up. It tells whether the server can have seen the request.
func (p Pending) Cancel() (wasSent bool) {
	taken, wasSent := p.e.withdraw(p.c)
	if !taken {
		p.c.leave(errAbandoned)
		<-p.c.ready
		if wasSent = p.c.err == nil || p.c.err.Sent; p.c.err == nil {
			p.c.frame.Free()
		}
	}
	p.e.pool.giveCall(p.c)
	return wasSent
}

// queue is the calls that wait to be written, those of a higher priority first, else in
// order. Any may leave.
type queue struct {
	first *call
	last  [classes]*call // of each class, which stand one behind the other
	n     int
}

// class is a call's priority in the queue. It counts where calls have to wait: for a
// connection, or for a server that does not take them as quickly as they come.
type class uint8

const (
	high class = iota
	normal
	low
	classes
)

// classOf is by the priority that the server sees.
func classOf(req Message) class {
	if r, ok := req.(Request); ok {
		switch r.GetContext().GetPriority() {
		case kvrpcpb.CommandPri_High:
			return high
		case kvrpcpb.CommandPri_Low:
			return low
		}
	}
	return normal
}

func (q *queue) push(c *call) {
	var prev *call
	for k := int(c.class); k >= 0 && prev == nil; k-- {
		prev = q.last[k]
	}
	next := q.first
	if prev != nil {
		next, prev.next = prev.next, c
	} else {
		q.first = c
	}
	if c.prev, c.next = prev, next; next != nil {
		next.prev = c
	}
	q.last[c.class] = c
	q.n++
}

func (q *queue) remove(c *call) {
	if q.last[c.class] == c {
		if q.last[c.class] = c.prev; c.prev != nil && c.prev.class != c.class {
			q.last[c.class] = nil
		}
	}
	if c.prev == nil {
		q.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	q.n--
}
