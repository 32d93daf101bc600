package pd

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pingcap/kvproto/pkg/pdpb"
)

// Kind is a class of PD errors.
type Kind uint8

// The kinds.
const (
	Unavailable  Kind = iota + 1 // no member answered as wanted within the call's time
	Rejected                     // PD answered with an error that asking again does not change
	NotFound                     // PD has no such keyspace, store or resource group
	WrongCluster                 // members, or a member and the client, belong to different clusters
	Closed                       // the client is closed
)

// String is the kind's name.
func (k Kind) String() string {
	switch k {
	case Unavailable:
		return "unavailable"
	case Rejected:
		return "rejected"
	case NotFound:
		return "not found"
	case WrongCluster:
		return "wrong cluster"
	case Closed:
		return "closed"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Error is a failed call to PD. Every error of a Client is one.
type Error struct {
	Op      string // PD's name of the call: "GetRegion", "Tso", ...
	Addr    string // the member asked last; empty if none was
	Kind    Kind
	Code    pdpb.ErrorType // of the answer's header; OK where it has no error
	Message string         // what the last attempt came to
	Err     error          // the cause: a sentinel, or context.Cause of the caller's context
	Ended   error          // Err of the caller's context, if that is what ended the call

	Tried    int       // attempts that failed, where there is a list of them
	Attempts []Attempt // the last of these, oldest first

	sent bool // what was sent may have been done, and must not be twice
}

// Attempt is one that failed.
type Attempt struct {
	Addr    string // the member asked, or the service
	Message string
}

// maxAttempts is how many an error tells of.
const maxAttempts = 8

// noted returns the attempts and e's, without touching what errors share already.
func noted(attempts []Attempt, e *Error) []Attempt {
	if len(attempts) == maxAttempts {
		attempts = attempts[1:]
	}
	return append(slices.Clip(attempts), Attempt{Addr: e.Addr, Message: e.Message})
}

// Error says what happened, where.
func (e *Error) Error() string {
	s := "pd: " + e.Op
	if e.Addr != "" {
		s += " at " + e.Addr
	}
	s += ": " + e.Kind.String()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// The sentinels that errors of a Client match.
var (
	ErrKeyspaceNotFound = errors.New("no such keyspace")
	ErrStoreNotFound    = errors.New("no such store")
	ErrGroupNotFound    = errors.New("no such resource group")
	ErrWrongCluster     = errors.New("wrong cluster id")
	ErrClosed           = errors.New("client closed")
	ErrNoAnswer         = errors.New("no answer in time") // the default bound of a call without a deadline
)

// retryable reports whether another attempt may have another outcome.
func (e *Error) retryable() bool { return e.Kind == Unavailable && !e.sent }
