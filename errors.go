package tikv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/txn"
)

// Sentinels, for errors.Is; the page of the package says what to do with each. A typed
// error below (each a pointer with Error and Is) matches the sentinel of its name;
// ArgumentError, ErrInvalid; ServerError, ErrRejected.
var (
	ErrNotFound       = errors.New("tikv: key not found")
	ErrInvalid        = errors.New("tikv: invalid argument") // nothing was sent
	ErrUnsupported    = errors.New("tikv: not supported by this cluster or API version")
	ErrClosed         = errors.New("tikv: client closed") // with ErrUndetermined where a write was under way
	ErrTxnDone        = errors.New("tikv: transaction already ended")
	ErrTxnBusy        = errors.New("tikv: transaction in use by another call")
	ErrUndetermined   = errors.New("tikv: outcome unknown: the write may or may not have happened")
	ErrWriteConflict  = errors.New("tikv: write conflict")
	ErrAlreadyExists  = errors.New("tikv: key already exists")
	ErrLocked         = errors.New("tikv: key is locked")
	ErrDeadlock       = errors.New("tikv: deadlock")
	ErrAssertion      = errors.New("tikv: assertion failed")
	ErrCommitTSLag    = errors.New("tikv: timestamps are behind the one to commit after") // WithCommitAfter
	ErrTxnAborted     = errors.New("tikv: transaction aborted by the cluster")
	ErrSnapshotTooOld = errors.New("tikv: timestamp is behind the GC safe point")
	ErrTooLarge       = errors.New("tikv: entry or transaction too large")
	ErrDiskFull       = errors.New("tikv: store has no space left")
	ErrRejected       = errors.New("tikv: rejected by the server") // never retried
	ErrUnavailable    = errors.New("tikv: no replica answered")
)

// IsRetryable reports whether running the whole transaction again may succeed.
// It is false for ErrUndetermined.
func IsRetryable(err error) bool {
	if errors.Is(err, ErrUndetermined) {
		return false
	}
	return errors.Is(err, ErrWriteConflict) || errors.Is(err, ErrTxnAborted) || errors.Is(err, ErrDeadlock)
}

// NotSent reports that the failed call certainly changed nothing, because no request
// that could was sent or all were refused.
func NotSent(err error) bool {
	var batch *BatchError
	var rng *RangeError
	var canceled *canceledError
	var refused *refusedError
	switch {
	case err == nil || errors.Is(err, ErrUndetermined):
		return false
	case errors.As(err, &batch):
		return !slices.Contains(batch.Outcomes, OutcomeDone)
	case errors.As(err, &rng):
		return rng.untouched
	case errors.As(err, &canceled), errors.As(err, &refused):
		return true
	}
	return slices.ContainsFunc(changedNothing[:], func(s error) bool { return errors.Is(err, s) })
}

// changedNothing is the errors after which nothing was or will be changed, provided
// they do not match ErrUndetermined too.
var changedNothing = [...]error{
	ErrNotFound, ErrInvalid, ErrUnsupported, ErrClosed, ErrTxnDone, ErrTxnBusy, ErrWriteConflict,
	ErrAlreadyExists, ErrLocked, ErrDeadlock, ErrAssertion, ErrCommitTSLag, ErrTxnAborted, ErrSnapshotTooOld, ErrTooLarge, ErrDiskFull, ErrRejected, ErrUnavailable,
}

// ArgumentError is a caller's mistake; several come joined.
type ArgumentError struct{ Op, Arg, Reason string }

// Error names the call, the argument and what is wrong with it.
func (e *ArgumentError) Error() string {
	return "tikv: " + e.Op + ": " + e.Arg + " " + e.Reason
}

// Is matches ErrInvalid.
func (e *ArgumentError) Is(target error) bool { return target == ErrInvalid }

// unsupportedError is a call that the cluster's API version lacks.
type unsupportedError struct{ op, what string }

func (e *unsupportedError) Error() string        { return "tikv: " + e.op + ": " + e.what }
func (e *unsupportedError) Is(target error) bool { return target == ErrUnsupported }

// canceledError is a call that its context's cancellation ended, having changed
// nothing.
type canceledError struct {
	op     string
	causes []error
}

func (e *canceledError) Error() string   { return "tikv: " + e.op + ": " + e.causes[0].Error() }
func (e *canceledError) Unwrap() []error { return e.causes }

// refusedError is a call that an interceptor refused before anything was sent.
type refusedError struct {
	op  string
	err error // the interceptor's
}

func (e *refusedError) Error() string {
	return "tikv: " + e.op + ": refused by an interceptor: " + e.err.Error()
}
func (e *refusedError) Unwrap() error { return e.err }

// closedError is ErrClosed with the call that met it.
type closedError struct{ op string }

func (e *closedError) Error() string        { return "tikv: " + e.op + ": client closed" }
func (e *closedError) Is(target error) bool { return target == ErrClosed }

// ServerError is a refusal that TiKV explains only in words.
type ServerError struct {
	Op, Addr string
	RegionID uint64
	Message  string

	also error // a sentinel that the words stand for
}

// Error is the server's message and where it came from.
func (e *ServerError) Error() string {
	by := ""
	if e.Addr != "" {
		by = " by " + e.Addr
	}
	return "tikv: " + e.Op + ": rejected" + by + ": " + e.Message
}

// Is matches ErrRejected, and ErrUnsupported or ErrTooLarge where that is what the
// server means.
func (e *ServerError) Is(target error) bool {
	return target == ErrRejected || e.also != nil && target == e.also
}

// UndeterminedError is a deciding write whose answer was lost. Key is set for a raw
// write; StartTS and Primary for a transaction, with the Secondaries of an asynchronous
// commit: what Client.ResolveOutcome asks by.
type UndeterminedError struct {
	Op           string
	Key, Primary []byte
	Secondaries  [][]byte
	StartTS      Timestamp
	Causes       []error

	home string // the cluster and keyspace of a transaction
	keys keys.Printer
}

// Error says which write it is, and what befell it.
func (e *UndeterminedError) Error() string {
	var b strings.Builder
	b.WriteString("tikv: " + e.Op + ": outcome unknown")
	if e.Key != nil {
		b.WriteString(" of key " + e.keys.Key(e.Key))
	}
	if e.StartTS != 0 {
		b.WriteString(" of transaction " + strconv.FormatUint(uint64(e.StartTS), 10))
	}
	for i, cause := range e.Causes {
		b.WriteString([]string{": ", "; "}[min(i, 1)] + cause.Error())
	}
	return b.String()
}

// Is matches ErrUndetermined.
func (e *UndeterminedError) Is(target error) bool { return target == ErrUndetermined }

// Unwrap returns what lost the answers, and what ended the call.
func (e *UndeterminedError) Unwrap() []error { return e.Causes }

// UnavailableError is a call that ran out of retries or time. It unwraps to the
// errors of its last attempts and to the context's cause.
type UnavailableError struct {
	Op       string
	Key      []byte
	RegionID uint64
	Elapsed  time.Duration
	Attempts []Attempt // the last ones, in order
	Total    int

	keys  keys.Printer
	cause []error
}

// Error gives the numbers and the attempts that are known.
func (e *UnavailableError) Error() string {
	var b strings.Builder
	attempts := "attempts"
	if e.Total == 1 {
		attempts = "attempt"
	}
	fmt.Fprintf(&b, "tikv: %s: no answer after %d %s", e.Op, e.Total, attempts)
	if e.Elapsed > 0 {
		fmt.Fprintf(&b, " in %v", e.Elapsed.Round(time.Millisecond))
	}
	if e.RegionID != 0 {
		fmt.Fprintf(&b, " at region %d", e.RegionID)
	}
	if e.Key != nil {
		b.WriteString(", key " + e.keys.Key(e.Key))
	}
	for i, a := range e.Attempts {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		b.WriteString(a.Reason.String())
		if a.StoreID != 0 {
			fmt.Fprintf(&b, " (%s)", a.where())
		}
	}
	if n := len(e.Attempts); n > 0 && e.Attempts[n-1].Err != nil {
		b.WriteString("; the last error: " + e.Attempts[n-1].Err.Error())
	}
	return b.String()
}

// where is who was asked, and how.
func (a *Attempt) where() string {
	text := fmt.Sprintf("store %d at %s", a.StoreID, a.Addr)
	if a.Asked != AskedLeader {
		text += " as " + a.Asked.String()
	}
	if a.Via != 0 {
		text += fmt.Sprintf(" through store %d", a.Via)
	}
	return text + ", " + a.Elapsed.Round(time.Millisecond).String()
}

// Is matches ErrUnavailable, and ErrDiskFull if that was the last answer.
func (e *UnavailableError) Is(target error) bool {
	n := len(e.Attempts)
	return target == ErrUnavailable || target == ErrDiskFull && n > 0 && e.Attempts[n-1].Reason == ReasonDiskFull
}

// Unwrap returns the errors of the last attempts, and the context's cause.
func (e *UnavailableError) Unwrap() []error {
	var errs []error
	for _, a := range e.Attempts {
		if a.Err != nil {
			errs = append(errs, a.Err)
		}
	}
	return append(errs, e.cause...)
}

// Attempt is one try of a call that brought no answer.
type Attempt struct {
	StoreID uint64
	Addr    string
	Asked   Asked
	Via     uint64 // the store that was to pass it on; 0: it was asked itself
	Reason  Reason
	Elapsed time.Duration
	Delay   time.Duration // the wait that followed
	Err     error
}

// Asked is as what a store was asked.
type Asked uint8

// The ways to ask.
const (
	AskedLeader  Asked = iota // as the leader of its region
	AskedReplica              // as any replica: for what was committed by then
	AskedStale                // as any replica: for what it knew to be complete
)

// String is the way in a word.
func (a Asked) String() string { return router.Asked(a).String() }

// BatchError is a raw batch that was not wholly applied: Outcomes and Errs are in the
// order of its keys. It matches ErrUndetermined if an outcome is OutcomeUnknown.
type BatchError struct {
	Outcomes []Outcome
	Errs     []error

	op string
}

// Error counts the outcomes and shows the first error.
func (e *BatchError) Error() string {
	var n [3]int
	for _, o := range e.Outcomes {
		n[min(o, OutcomeUnknown)]++
	}
	text := fmt.Sprintf("tikv: %s: of %d keys %d done, %d failed, %d unknown", e.op, len(e.Outcomes),
		n[OutcomeDone], n[OutcomeFailed], n[OutcomeUnknown])
	if errs := e.Unwrap(); len(errs) > 0 {
		text += ": " + errs[0].Error()
	}
	return text
}

// Is matches ErrUndetermined if an outcome is unknown.
func (e *BatchError) Is(target error) bool {
	return target == ErrUndetermined && slices.Contains(e.Outcomes, OutcomeUnknown)
}

// Unwrap returns the errors, each once.
func (e *BatchError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil && !slices.Contains(errs, err) {
			errs = append(errs, err)
		}
	}
	return errs
}

// Outcome is what became of one key of a batch.
type Outcome uint8

// The outcomes.
const (
	OutcomeDone Outcome = iota
	OutcomeFailed
	OutcomeUnknown
)

// String is the outcome in a word.
func (o Outcome) String() string {
	switch o {
	case OutcomeDone:
		return "done"
	case OutcomeFailed:
		return "failed"
	case OutcomeUnknown:
		return "unknown"
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// RangeError is a call over a range that stopped at Cause; Rest is not done, or not
// certainly.
type RangeError struct {
	Op    string
	Rest  []Range
	Cause error

	untouched bool
	keys      keys.Printer
}

// Error says where it stopped, and why.
func (e *RangeError) Error() string {
	text := "tikv: " + e.Op + ": stopped"
	if len(e.Rest) > 0 {
		text += " before key " + e.keys.Key(e.Rest[0].Start)
	}
	return text + ": " + e.Cause.Error()
}

// Unwrap returns Cause.
func (e *RangeError) Unwrap() error { return e.Cause }

// Reason is why an attempt brought no answer: the region errors of TiKV, then what the
// client itself met.
type Reason uint8

// The reasons.
const (
	ReasonNone Reason = iota
	ReasonNotLeader
	ReasonRegionNotFound
	ReasonKeyNotInRegion
	ReasonEpochNotMatch
	ReasonServerBusy
	ReasonStaleCommand
	ReasonStoreNotMatch
	ReasonEntryTooLarge
	ReasonMaxTSNotSynced
	ReasonReadIndexNotReady
	ReasonMerging
	ReasonDataNotReady
	ReasonRegionNotInitialized
	ReasonDiskFull
	ReasonRecovery
	ReasonFlashback
	ReasonFlashbackNotPrepared
	ReasonWitness
	ReasonMismatchPeer
	ReasonBucketVersion
	ReasonUndetermined
	ReasonOtherRegionError
	ReasonLock
	ReasonDial
	ReasonConnLost
	ReasonTimeout
	ReasonQueueFull
	ReasonNoStore // PD does not know the store
	ReasonRefused // an error status instead of an answer
	ReasonPD
	ReasonStoreDown // nothing was sent: the store is known to be away
)

// String is the reason in words.
func (r Reason) String() string { return router.Reason(r).String() }

// errorContext is what it takes to make a public error: the name of the call and how
// its keys are encoded and shown.
type errorContext struct {
	op      string
	codec   codec.Codec
	keys    keys.Printer
	cluster uint64
}

// key returns the user key of a wire key in a new slice, nil if there is none.
func (ec errorContext) key(wire []byte) []byte {
	if len(wire) == 0 {
		return nil
	}
	user, err := ec.codec.UserKey(wire)
	if err != nil {
		return nil
	}
	return append([]byte{}, user...)
}

// mapError turns an error of the engine into a public one. It is the only place that
// does. Public errors pass unchanged.
func mapError(ec errorContext, err error) error {
	if err == nil {
		return nil
	}
	if mapped, ok := mapTxnError(ec, err); ok {
		return mapped
	}
	switch e := err.(type) {
	case *router.Undetermined:
		return ec.undetermined(e)
	case *router.Unavailable:
		return ec.unavailable(e)
	case *router.Refused:
		return ec.refused(e)
	case *router.Vetoed:
		return &refusedError{op: ec.op, err: e.Err}
	case *router.Canceled:
		return &canceledError{op: ec.op, causes: ec.causes(e.Causes)}
	case *pd.Error:
		return ec.pd(e)
	}
	if errors.Is(err, router.ErrClosed) {
		return &closedError{op: ec.op}
	}
	return err
}

// causes makes the errors inside of another public.
func (ec errorContext) causes(errs []error) []error {
	out := make([]error, len(errs))
	for i, err := range errs {
		mapped, ok := mapTxnError(ec, err)
		switch err.(type) {
		case *router.Vetoed, *router.Refused:
			mapped, ok = mapError(ec, err), true
		}
		switch {
		case errors.Is(err, router.ErrClosed):
			out[i] = ErrClosed
		case ok:
			out[i] = mapped
		default:
			out[i] = public(err)
		}
	}
	return out
}

// causeError is an error from inside of the client: its words, and what a caller may
// know of what it comes from.
type causeError struct {
	text  string
	under error
}

func (e *causeError) Error() string { return e.text }
func (e *causeError) Unwrap() error { return e.under }

// met is what ended an attempt.
func (ec errorContext) met(err error) error {
	if l, ok := err.(*txn.Locked); ok {
		return ec.locked(l)
	}
	return public(err)
}

// public keeps the types of the engine and of gRPC out of what an error unwraps to: they
// are nobody's to depend on. Others, the caller's own and those of the standard library,
// stay.
func public(err error) error {
	var under error
	switch e := err.(type) {
	case *transport.Error:
		under = public(e.Err)
	case *pd.Error:
		under = public(e.Err)
	case *router.RegionError:
	case interface{ GRPCStatus() *status.Status }:
	default:
		return err
	}
	return &causeError{text: err.Error(), under: under}
}

func (ec errorContext) undetermined(e *router.Undetermined) error {
	return &UndeterminedError{Op: ec.op, Key: ec.key(e.Key), Causes: ec.causes(e.Causes), keys: ec.keys}
}

func (ec errorContext) unavailable(e *router.Unavailable) error {
	out := &UnavailableError{
		Op: ec.op, Key: ec.key(e.Key), RegionID: e.RegionID, Elapsed: e.Elapsed, Total: e.Total,
		keys: ec.keys, cause: ec.causes(e.Causes),
	}
	for _, a := range e.Attempts {
		out.Attempts = append(out.Attempts, Attempt{
			StoreID: a.StoreID, Addr: a.Addr, Asked: Asked(a.Asked), Via: a.Via, Reason: Reason(a.Reason),
			Elapsed: a.Elapsed, Delay: a.Delay, Err: ec.met(a.Err),
		})
	}
	return out
}

func (ec errorContext) refused(e *router.Refused) error {
	out := &ServerError{Op: ec.op, Addr: e.Addr, RegionID: e.RegionID, Message: e.Message}
	switch e.Class {
	case router.ClassUnsupported:
		out.also = ErrUnsupported
	case router.ClassTooLarge:
		out.also = ErrTooLarge
	}
	return out
}

// pd maps an error of a call to PD.
func (ec errorContext) pd(e *pd.Error) error {
	switch {
	case e.Kind == pd.Closed || errors.Is(e.Err, router.ErrClosed):
		return &closedError{op: ec.op}
	case e.Kind != pd.Unavailable:
		return &ServerError{Op: ec.op, Addr: e.Addr, Message: e.Error()}
	}
	var causes []error // the context's cause and, if it is another, its error
	if e.Ended != nil {
		if causes = []error{e.Err}; e.Err != e.Ended {
			causes = append(causes, e.Ended)
		}
	}
	if errors.Is(e.Ended, context.Canceled) {
		return &canceledError{op: ec.op, causes: causes}
	}
	u := &UnavailableError{Op: ec.op, Total: max(e.Tried, 1), keys: ec.keys, cause: causes}
	for i, a := range e.Attempts {
		if i < len(e.Attempts)-1 {
			u.Attempts = append(u.Attempts, Attempt{Addr: a.Addr, Reason: ReasonPD, Err: public(&pd.Error{Op: e.Op, Addr: a.Addr, Kind: e.Kind, Message: a.Message})})
		}
	}
	u.Attempts = append(u.Attempts, Attempt{Addr: e.Addr, Reason: ReasonPD, Err: public(e)})
	return u
}

// firstOf returns the first error that is not nil.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
