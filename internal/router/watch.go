package router

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/transport"
)

// Extra is what a view asks for beyond what every call has. It is not changed once it is
// in use; nil is nothing.
type Extra struct {
	ResourceGroup string
	Tag           []byte
	TaskID        uint64
	Watch         *Watcher // nil: nobody
}

// Watch sees the attempts of calls, on the goroutine that makes them, and the waits
// between them. It must not panic.
type Watch interface {
	// Begin comes before an attempt, which runs under the context that it returns. It may
	// change a's Fields. An error refuses the attempt, and so ends the call.
	Begin(ctx context.Context, a *Watched) (context.Context, error)
	// End comes after an attempt that was not refused.
	End(ctx context.Context, a *Watched, o Outcome)
	// Pause comes before a wait.
	Pause(ctx context.Context, p Pause)
	// Count says that a figure has grown by n, and what a retry or a wait is about. RPCs and
	// RPCTime are told by End.
	Count(f Figure, why Reason, n int64)
}

// Watcher is a Watch in use. It is made by NewWatcher alone, so that a program that
// watches nothing does not link what that takes.
type Watcher struct {
	watch Watch
	show  func(ctx context.Context, r *Router, w Watch, call *Call, to transport.Target, req transport.Message, resp Answer, t try) (*sight, error)
}

// NewWatcher returns what makes w see attempts.
func NewWatcher(w Watch) *Watcher { return &Watcher{watch: w, show: show} }

// Watched is an attempt, about to be made.
type Watched struct {
	Fields
	Method            string // of TiKV's service: "KvGet"
	Addr              string
	StoreID, RegionID uint64 // RegionID is 0 for a call to a store
	Asked             Asked
	Via               uint64 // the store that is to pass it on; 0: none
	Number            int    // of the call's attempts, from 1
	Request           transport.Message

	State any // Begin's, for End
	// Peek, if Begin sets it, sees the encoded answer, which is valid while it runs.
	Peek func(answer []byte)
}

// Fields are what a Watch may change of a request.
type Fields struct {
	Priority      kvrpcpb.CommandPri
	ResourceGroup string
	RequestSource string
	Tag           []byte
	Deadline      time.Time // zero: none
}

// Outcome is what came of an attempt.
type Outcome struct {
	Reason        Reason // ReasonNone: answered
	Err           error
	ResponseBytes int
	Elapsed       time.Duration
	Sent          bool // it was handed to the transport
}

// Pause is a wait before another attempt. Method is empty where no attempt was made yet: a
// store or PD is waited for.
type Pause struct {
	Op     string
	Method string
	Reason Reason
	Number int // of the attempt that is waited for
	Delay  time.Duration
	Err    error
}

// Vetoed is a call that a Watch refused.
type Vetoed struct {
	Op  string
	Err error
}

// Error is the Watch's.
func (e *Vetoed) Error() string { return e.Op + ": refused: " + e.Err.Error() }

// Unwrap returns the Watch's error.
func (e *Vetoed) Unwrap() error { return e.Err }

// watching returns who sees the call's attempts, or nil.
func (c *Call) watching() *Watcher {
	if c.Extra == nil {
		return nil
	}
	return c.Extra.Watch
}

// sight is one attempt under the eyes of a Watch.
type sight struct {
	Watched
	watch Watch
	end   func(*sight, try)
	to    transport.Target
	ctx   context.Context // of the attempt
	began time.Time
	count counter

	request *kvrpcpb.Context // nil: it has none
	tag     []byte           // its own, as the group is
	group   *kvrpcpb.ResourceControlContext
}

// watched is deliver under the eyes of w.
func (r *Router) watched(ctx context.Context, w *Watcher, call *Call, to transport.Target, req transport.Message, resp Answer, t *try) {
	if s := r.look(ctx, w, call, to, req, resp, t); s != nil {
		r.deliver(s.ctx, call, s.to, req, resp, &s.count, t)
		s.end(s, *t)
	}
}

// look shows w an attempt before it is made. nil: it is refused, and t tells why. What w
// gets is a copy, so that an attempt which nobody watches stays on the stack.
func (r *Router) look(ctx context.Context, w *Watcher, call *Call, to transport.Target, req transport.Message, resp Answer, t *try) *sight {
	s, err := w.show(ctx, r, w.watch, call, to, req, resp, *t)
	if err != nil {
		t.rule, t.err = madeUp(RefusedCall), err
	}
	return s
}

// show shows an attempt before it is made. An error refuses it.
func show(ctx context.Context, r *Router, w Watch, call *Call, to transport.Target, req transport.Message, resp Answer, t try) (*sight, error) {
	s := &sight{watch: w, end: (*sight).tell, to: to, began: time.Now(), count: counter{Answer: resp}, Watched: Watched{
		Method: cmp.Or(call.Method, r.method(req)), Addr: t.addr, StoreID: t.storeID, RegionID: t.regionID, Asked: t.asked, Via: t.via,
		Number: call.attempts.total + 1, Request: req,
	}}
	call.method = s.Method
	rc := contextOf(req)
	s.take(ctx, rc)
	if rc != nil {
		s.request, s.tag, s.group = rc, rc.ResourceGroupTag, rc.ResourceControlContext
	}
	var err error
	if s.ctx, err = w.Begin(ctx, &s.Watched); err == nil {
		err = s.give(rc, &s.to)
	}
	if err != nil {
		return nil, &Vetoed{Op: call.Op, Err: err}
	}
	s.count.peek = s.Peek
	return s, nil
}

// tell tells what came of the attempt. What the Watch has changed of the request holds for
// that attempt alone; what is not filled in for each is as it was.
func (s *sight) tell(t try) {
	if s.request != nil {
		s.request.ResourceGroupTag, s.request.ResourceControlContext = s.tag, s.group
	}
	o := Outcome{Err: t.err, ResponseBytes: s.count.n, Elapsed: time.Since(s.began), Sent: !t.ended.IsZero()}
	if t.rule != nil {
		o.Reason = t.rule.reason
	}
	s.watch.End(s.ctx, &s.Watched, o)
}

// take reads the fields that may be changed.
func (a *Watched) take(ctx context.Context, c *kvrpcpb.Context) {
	a.Deadline, _ = ctx.Deadline()
	if c != nil {
		a.Priority, a.RequestSource, a.Tag = c.Priority, c.RequestSource, c.ResourceGroupTag
		a.ResourceGroup = c.GetResourceControlContext().GetResourceGroupName()
	}
}

// give writes them back. A deadline of its own ends the attempt, and the one after it.
func (a *Watched) give(c *kvrpcpb.Context, to *transport.Target) error {
	if !a.Deadline.IsZero() {
		left := time.Until(a.Deadline)
		if left <= 0 {
			return context.DeadlineExceeded
		}
		if to.Timeout == 0 || left < to.Timeout {
			to.Timeout = left
		}
		if ms := uint64(max(1, left.Milliseconds())); c != nil {
			c.MaxExecutionDurationMs = min(c.MaxExecutionDurationMs, ms)
		}
	}
	if c == nil {
		return nil
	}
	c.Priority, c.RequestSource, c.ResourceGroupTag = a.Priority, a.RequestSource, a.Tag
	if a.ResourceGroup != c.GetResourceControlContext().GetResourceGroupName() {
		c.ResourceControlContext = &kvrpcpb.ResourceControlContext{ResourceGroupName: a.ResourceGroup}
	}
	return nil
}

// fill sets what a view asks for in a request's context.
func (e *Extra) fill(c *kvrpcpb.Context) {
	if e.ResourceGroup != "" {
		c.ResourceControlContext = &kvrpcpb.ResourceControlContext{ResourceGroupName: e.ResourceGroup}
	}
	if e.Tag != nil {
		c.ResourceGroupTag = e.Tag
	}
	if e.TaskID != 0 {
		c.TaskId = e.TaskID
	}
}

// veto is the error of a call that was refused.
func (c *Call) veto(ctx context.Context, v *Vetoed, regionID uint64) error {
	switch {
	case errors.Is(v.Err, context.DeadlineExceeded):
		return c.end(ctx, context.DeadlineExceeded, regionID)
	case c.Lost():
		return c.Undetermined(v)
	}
	return v
}

// counter counts the bytes of an answer.
type counter struct {
	Answer
	n    int
	peek func(answer []byte)
}

// Unmarshal implements transport.Decoder.
func (c *counter) Unmarshal(data []byte) error {
	c.n += len(data)
	if c.peek != nil {
		c.peek(data)
	}
	return c.Answer.Unmarshal(data)
}

// contextOf is a request's context, nil if it has none.
func contextOf(req transport.Message) *kvrpcpb.Context {
	if q, ok := req.(transport.Request); ok {
		return q.GetContext()
	}
	return nil
}

// method is the name of a request's method.
func (r *Router) method(req transport.Message) string {
	if n, ok := r.cfg.Transport.(interface {
		Method(transport.Message) string
	}); ok {
		return n.Method(req)
	}
	return ""
}

// pausing returns who is to be told of a wait, or nil.
func (c *Call) pausing(ctx context.Context) func(time.Duration) {
	w := c.watching()
	if w == nil {
		return nil
	}
	return func(d time.Duration) {
		p := Pause{Op: c.Op, Method: c.method, Number: c.attempts.total + 1, Delay: d}
		last := c.attempts.newest()
		p.Reason, p.Err = last.Reason, last.Err
		w.watch.Pause(ctx, p)
	}
}
