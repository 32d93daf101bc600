// Package router brings one request to the right replica of the right region: it
// locates, sends, reads region errors, waits and sends again, within the budget of one
// call and under the rules of what may be sent twice.
package router

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/transport"
)

// Call is one operation of a caller: its options, its budget, and what has happened to
// it so far, over all its attempts and regions. It belongs to one goroutine at a time;
// each part of a call that is split has its own (Part).
type Call struct {
	Op    string // public name, for errors: "Snapshot.Get"
	Codec codec.Codec

	// Resend: running the request twice is harmless to the caller, so it is sent
	// again, marked as a retry, after its answer was lost.
	Resend bool
	// Decides: the request is a write whose outcome the caller must know. Once its
	// answer was lost, every failure of the call is an *Undetermined. It goes without
	// saying where Resend is false.
	Decides bool
	// Owed: work of the client's own that goes on while the client closes.
	Owed bool

	Timeout       time.Duration // of one attempt, unless the router has one; 0: its default
	Priority      kvrpcpb.CommandPri
	RequestSource string

	// Route is which replicas may answer; nil: the leader.
	Route *Route

	// Extra is what else the view asks for; nil: nothing.
	Extra *Extra
	// Tally counts what the call costs; nil: nobody does.
	Tally *Tally
	// Method is the name of the request's method, where its type does not tell.
	Method string
	// Exchange, if not nil, makes an attempt instead of the transport: it sends req, and
	// decodes the answer, or the first of several.
	Exchange func(ctx context.Context, to transport.Target, req transport.Message, resp transport.Decoder) error

	// RetryFor is the budget of the call where ctx has no deadline; 0: the router's
	// default.
	RetryFor time.Duration
	// Retry paces the call; nil: made when first needed.
	Retry *backoff.Retry

	Key []byte // wire key, for errors; the caller's bytes

	begun    time.Time
	answered time.Time // or failed: the last attempt
	sends    int       // requests that a server can have seen
	attempts attempts
	lost     []error // answers to a deciding write that never came
	plainly  bool    // leaders alone are asked from now on
	patient  bool    // no read has the short time of first attempts any more
	crowded  bool    // busy stores are not avoided any more
	retold   uint8   // answers in a row that told of other regions
	hinted   uint8   // waits in a row that busy stores have asked for
	addr     string  // of the last attempt, with its region
	method   string  // of the last attempt that was watched
	region   uint64
}

// Part returns the call for one part of the work, with what is left of the budget.
// What befalls the part is its own; what was lost before holds for it too.
func (c *Call) Part() *Call {
	part := new(Call)
	c.PartInto(part)
	return part
}

// PartInto is Part for a caller that has a Call to spare.
func (c *Call) PartInto(part *Call) {
	*part = Call{
		Op: c.Op, Codec: c.Codec, Resend: c.Resend, Decides: c.Decides, Owed: c.Owed,
		Timeout: c.Timeout, Priority: c.Priority, RequestSource: c.RequestSource,
		Route: c.Route, Extra: c.Extra, Tally: c.Tally, Method: c.Method, Exchange: c.Exchange, plainly: c.plainly, retold: c.retold, RetryFor: c.RetryFor, Key: c.Key, begun: c.begun, sends: c.sends, lost: slices.Clone(c.lost),
		attempts: attempts{last: slices.Clone(c.attempts.last), total: c.attempts.total},
	}
	if c.Retry != nil {
		retry := c.Retry.Fork()
		part.Retry = &retry
	}
}

// Settled returns the rest of a call that has had a definitive answer: what was sent and
// lost before matters no more; its pace, its budget and what it met go on. The call
// itself is not used any more.
func (c *Call) Settled() *Call {
	rest := *c
	rest.sends, rest.lost = 0, nil
	return &rest
}

// Lost reports whether an answer to the deciding write was lost: unless the answer that
// came in the end is definitive, the outcome is unknown.
func (c *Call) Lost() bool { return len(c.lost) > 0 }

// Undetermined returns the error of a call whose outcome is unknown, because of causes
// and what was lost before.
func (c *Call) Undetermined(causes ...error) error {
	return &Undetermined{Op: c.Op, Key: bytes.Clone(c.Key), Causes: slices.Concat(c.lost, causes)}
}

// Refuse returns the error of an operation that was answered with words: a *Refused, or
// an *Undetermined if an earlier answer was lost, since the words are not about that.
func (c *Call) Refuse(text string) error {
	e := &Refused{Op: c.Op, Addr: c.addr, RegionID: c.region, Class: Classify(text), Message: text}
	if c.Lost() {
		return c.Undetermined(e)
	}
	return e
}

// Note records an attempt that got no answer.
func (c *Call) Note(a Attempt) {
	c.attempts.add(a)
	c.Count(Retries, a.Reason, 1)
}

// begin starts the call's clock, and returns the time.
func (c *Call) begin() time.Time {
	now := time.Now()
	if c.begun.IsZero() {
		c.begun = now
	}
	return now
}

// Began is when the call was first sent or waited, or now.
func (c *Call) Began() time.Time { return c.begin() }

// Answered is when the last attempt of the call ended.
func (c *Call) Answered() time.Time { return c.answered }

// decides reports whether a lost answer leaves something open.
func (c *Call) decides() bool { return c.Decides || !c.Resend }

// pace returns the call's Retry.
func (c *Call) pace(ctx context.Context, budget time.Duration) *backoff.Retry {
	if c.Retry == nil {
		c.Retry = backoff.For(ctx, budget)
	}
	return c.Retry
}
