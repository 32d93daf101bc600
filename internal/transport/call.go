package transport

// state is where a batched call is. It changes under its endpoint's mutex only.
type state uint8

const (
	idle    state = iota // nobody's but its caller's
	queued               // in the queue
	writing              // in the frame that is being written
	sent                 // written, without an answer yet
	done                 // answered or failed; ready has a token
)

// call is one batched call. Its caller takes it back when it is idle or done, and then
// nobody else refers to it: the writer knows calls by their ids.
type call struct {
	id    uint64
	cmd   *command
	data  *[]byte // encoded; nil once it is in a frame
	ready chan struct{}

	state      state
	stream     *stream // from writing on
	prev, next *call   // in the queue

	resp Message
	err  *Error
}

// finish gives c its result.
func (c *call) finish(resp Message, err *Error) {
	c.state, c.resp, c.err = done, resp, err
	c.ready <- struct{}{} // has room for one and gets one
}

// queue is the calls that wait to be written, in order, of which any may leave.
type queue struct {
	first, last *call
	n           int
}

func (q *queue) push(c *call) {
	c.prev, c.next = q.last, nil
	if q.last == nil {
		q.first = c
	} else {
		q.last.next = c
	}
	q.last = c
	q.n++
}

func (q *queue) remove(c *call) {
	if c.prev == nil {
		q.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		q.last = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	q.n--
}
