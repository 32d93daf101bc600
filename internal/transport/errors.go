package transport

import (
	"errors"
	"fmt"
)

// Kind is why a call has no answer.
type Kind uint8

// The kinds.
const (
	Dial      Kind = iota + 1 // no connection, or no stream on it, could be opened
	ConnLost                  // the connection or the stream broke, or was dropped
	Timeout                   // the caller's context ended
	QueueFull                 // too many calls wait for this address already
	Refused                   // the server answered, with an error status or without a usable reply
	Closed                    // the pool is closed
	Expired                   // no answer within the attempt's own time
)

// String is the kind's name.
func (k Kind) String() string {
	switch k {
	case Dial:
		return "dial"
	case ConnLost:
		return "connection lost"
	case Timeout:
		return "timeout"
	case QueueFull:
		return "queue full"
	case Refused:
		return "refused"
	case Closed:
		return "closed"
	case Expired:
		return "no answer"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Error is a call without an answer. Every error of Call and Health is one.
type Error struct {
	Addr string
	Kind Kind
	Sent bool  // whether the server can have seen the request; false is certain
	Err  error // the cause; for Timeout context.Cause of the caller's context
}

// Error says what happened, where.
func (e *Error) Error() string {
	s := "transport: " + e.Addr + ": " + e.Kind.String()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrClosed is the cause of errors of a pool that was closed.
var ErrClosed = errors.New("pool closed")

// ErrDropped is the cause of errors of an address that was dropped.
var ErrDropped = errors.New("address dropped")

// ErrNoAnswer is the cause of errors of an attempt whose own time ended.
var ErrNoAnswer = errors.New("no answer within the time of one attempt")
