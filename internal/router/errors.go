package router

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"time"
)

// ErrRegionChanged is Send's answer when the request does not fit the region any more:
// locate or group again. Send has waited as needed.
var ErrRegionChanged = errors.New("router: the region has changed")

// ErrClosed is the end of calls that were in flight when the client closed.
var ErrClosed = errors.New("router: client closed")

// Reason is why an attempt got no answer: the region errors of TiKV, then what the
// client itself met.
type Reason uint8

// The reasons.
const (
	ReasonNone Reason = iota
	NotLeader
	RegionNotFound
	KeyNotInRegion
	EpochNotMatch
	ServerBusy
	StaleCommand
	StoreNotMatch
	EntryTooLarge
	MaxTSNotSynced
	ReadIndexNotReady
	Merging
	DataNotReady
	RegionNotInitialized
	DiskFull
	Recovery
	Flashback
	FlashbackNotPrepared
	Witness
	MismatchPeer
	BucketVersion
	UndeterminedResult
	OtherRegionError
	Lock
	Dial
	ConnLost
	Timeout
	QueueFull
	NoStore
	RefusedCall
	PD
	StoreDown
	lastReason
)

var reasonNames = [lastReason]string{
	"none", "not leader", "region not found", "key not in region", "epoch not match", "server busy",
	"stale command", "store not match", "entry too large", "max timestamp not synced",
	"read index not ready", "merging", "data not ready", "region not initialized", "disk full",
	"recovery", "flashback", "flashback not prepared", "witness", "mismatched peer",
	"bucket version", "undetermined result", "other region error", "lock", "dial",
	"connection lost", "timeout", "queue full", "no such store", "refused", "pd", "store down",
}

// String is the reason in words.
func (r Reason) String() string {
	if r < lastReason {
		return reasonNames[r]
	}
	return "Reason(" + strconv.Itoa(int(r)) + ")"
}

// Attempt is one try that got no answer.
type Attempt struct {
	StoreID uint64
	Addr    string
	Asked   Asked
	Via     uint64 // the store that was to pass it on; 0: none
	Reason  Reason
	Elapsed time.Duration
	Delay   time.Duration // the wait that followed
	Err     error
}

// Asked is as what a store was asked.
type Asked uint8

// The ways to ask.
const (
	AskedLeader  Asked = iota // as its region's leader
	AskedReplica              // as a replica: for what was committed by then
	AskedStale                // for what it knows to be complete
	lastAsked
)

var askedNames = [lastAsked]string{"leader", "replica", "stale"}

// String is the way in a word.
func (a Asked) String() string {
	if a < lastAsked {
		return askedNames[a]
	}
	return "Asked(" + strconv.Itoa(int(a)) + ")"
}

// attempts keeps the last few.
type attempts struct {
	last  []Attempt
	total int
}

const keptAttempts = 8

func (a *attempts) add(at Attempt) {
	if len(a.last) == keptAttempts {
		copy(a.last, a.last[1:])
		a.last = a.last[:keptAttempts-1]
	}
	a.last = append(a.last, at)
	a.total++
}

// newest is the last attempt, an empty one if there was none.
func (a *attempts) newest() (at Attempt) {
	if n := len(a.last); n > 0 {
		at = a.last[n-1]
	}
	return at
}

// delayed notes the wait after the last attempt.
func (a *attempts) delayed(d time.Duration) {
	if n := len(a.last); n > 0 {
		a.last[n-1].Delay += d
	}
}

// Undetermined is a deciding write whose answer was lost. Causes are the lost answers
// and what ended the call.
type Undetermined struct {
	Op     string
	Key    []byte // wire key, if the call has one
	Causes []error
}

// Error says what is not known.
func (e *Undetermined) Error() string { return e.Op + ": outcome unknown" }

// Unwrap returns the causes.
func (e *Undetermined) Unwrap() []error { return e.Causes }

// Unavailable is a call that ran out of retries or of time.
type Unavailable struct {
	Op       string
	Key      []byte // wire key, if the call has one
	RegionID uint64 // of the last attempt
	Elapsed  time.Duration
	Attempts []Attempt // the last ones, in order
	Total    int
	Causes   []error // the context's, or backoff.ErrExhausted
}

// Error gives the numbers, and the last attempt's reason.
func (e *Unavailable) Error() string {
	text := e.Op + ": no answer after " + strconv.Itoa(e.Total) + " attempts"
	if n := len(e.Attempts); n > 0 {
		text += ", the last: " + e.Attempts[n-1].Reason.String()
	}
	return text
}

// Unwrap returns the errors of the attempts and the cause.
func (e *Unavailable) Unwrap() []error {
	errs := make([]error, 0, len(e.Attempts)+1)
	for _, a := range e.Attempts {
		if a.Err != nil {
			errs = append(errs, a.Err)
		}
	}
	return append(errs, e.Causes...)
}

// Refused is a refusal that is final.
type Refused struct {
	Op, Addr string
	RegionID uint64
	Reason   Reason // ReasonNone: the answer of the operation itself
	Class    Class
	Message  string // the server's
}

// Error is the server's message.
func (e *Refused) Error() string { return e.Op + ": refused by " + e.Addr + ": " + e.Message }

// RegionError is a region error as an attempt's error.
type RegionError struct {
	Reason  Reason
	Message string // the server's
}

// Error names the error; the message may hold keys and is left out.
func (e *RegionError) Error() string { return "region error: " + e.Reason.String() }

// Canceled is a call that was cancelled. Nothing that decides was sent.
type Canceled struct{ Causes []error }

// Error is the first cause's.
func (e *Canceled) Error() string { return e.Causes[0].Error() }

// Unwrap returns the causes: the context's cause and, if it is another, its error.
func (e *Canceled) Unwrap() []error { return e.Causes }

// Ended is the error of a call that ctx ended while it waited for something else than
// an answer.
func (c *Call) Ended(ctx context.Context) error {
	c.begin()
	return c.end(ctx, context.Cause(ctx), 0)
}

// end returns the error of a call that ends because of cause, without an answer.
func (c *Call) end(ctx context.Context, cause error, regionID uint64) error {
	causes := []error{cause}
	// What the client's end cancels its caller did not.
	if err := ctx.Err(); err != nil && err != cause && !errors.Is(cause, ErrClosed) {
		causes = append(causes, err)
	}
	switch {
	case c.Lost():
		return c.Undetermined(causes...)
	case errors.Is(cause, ErrClosed):
		return ErrClosed
	case errors.Is(ctx.Err(), context.Canceled):
		return &Canceled{Causes: causes}
	}
	return &Unavailable{
		Op: c.Op, Key: bytes.Clone(c.Key), RegionID: regionID, Elapsed: time.Since(c.begun),
		Attempts: c.attempts.last, Total: c.attempts.total, Causes: causes,
	}
}
