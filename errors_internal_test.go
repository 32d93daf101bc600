package tikv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/router"
)

// Reason and router.Reason are the same list.
func TestReasons(t *testing.T) {
	for public, engine := range map[Reason]router.Reason{
		ReasonNone: router.ReasonNone, ReasonNotLeader: router.NotLeader, ReasonServerBusy: router.ServerBusy,
		ReasonStaleCommand: router.StaleCommand, ReasonDiskFull: router.DiskFull, ReasonFlashbackNotPrepared: router.FlashbackNotPrepared,
		ReasonUndetermined: router.UndeterminedResult, ReasonOtherRegionError: router.OtherRegionError, ReasonLock: router.Lock,
		ReasonDial: router.Dial, ReasonConnLost: router.ConnLost, ReasonTimeout: router.Timeout, ReasonQueueFull: router.QueueFull,
		ReasonNoStore: router.NoStore, ReasonRefused: router.RefusedCall, ReasonPD: router.PD,
		ReasonStoreDown: router.StoreDown,
	} {
		if router.Reason(public) != engine {
			t.Errorf("%v is %v", public, engine)
		}
	}
	if s := (ReasonStoreDown + 1).String(); !strings.HasPrefix(s, "Reason(") {
		t.Errorf("a reason has no public name: %s", s)
	}
}

// What the engine's errors become.
func TestMapError(t *testing.T) {
	v2 := errorContext{op: "Op", codec: codec.New(codec.V2, codec.Raw, 5)}
	wire := v2.codec.Key([]byte("key"))
	lost := errors.New("reset")
	for _, c := range []struct {
		err     error
		is      []error // of these sentinels, exactly these
		notSent bool
	}{
		{&router.Undetermined{Key: wire, Causes: []error{lost}}, []error{ErrUndetermined}, false},
		{&router.Undetermined{Key: wire, Causes: []error{lost, router.ErrClosed}}, []error{ErrUndetermined, ErrClosed}, false},
		{&router.Undetermined{Causes: []error{&router.Refused{Class: router.ClassTooLarge}}}, []error{ErrUndetermined, ErrRejected, ErrTooLarge}, false},
		{&router.Unavailable{Causes: []error{backoff.ErrExhausted}}, []error{ErrUnavailable}, true},
		{&router.Unavailable{Attempts: []router.Attempt{{Reason: router.DiskFull}}, Causes: []error{lost}}, []error{ErrUnavailable, ErrDiskFull}, true},
		{&router.Refused{}, []error{ErrRejected}, true},
		{&router.Refused{Class: router.ClassUnsupported}, []error{ErrRejected, ErrUnsupported}, true},
		{&router.Refused{Class: router.ClassTooLarge}, []error{ErrRejected, ErrTooLarge}, true},
		{&router.Canceled{Causes: []error{lost, context.Canceled}}, nil, true},
		{router.ErrClosed, []error{ErrClosed}, true},
		{&pd.Error{Kind: pd.Closed}, []error{ErrClosed}, true},
		{&pd.Error{Kind: pd.Unavailable, Err: pd.ErrNoAnswer}, []error{ErrUnavailable}, true},
		{&pd.Error{Kind: pd.Unavailable, Err: lost}, []error{ErrUnavailable}, true},
		{&pd.Error{Kind: pd.Unavailable, Err: lost, Ended: context.DeadlineExceeded}, []error{ErrUnavailable}, true},
		{&pd.Error{Kind: pd.Unavailable, Err: lost, Ended: context.Canceled}, nil, true},
		{&pd.Error{Kind: pd.Unavailable, Err: router.ErrClosed, Ended: context.Canceled}, []error{ErrClosed}, true},
		{&pd.Error{Kind: pd.WrongCluster}, []error{ErrRejected}, true},
		{lost, nil, false},
	} {
		got := mapError(v2, c.err)
		for _, s := range append(slices.Clone(changedNothing[:]), ErrUndetermined) {
			if errors.Is(got, s) != slices.Contains(c.is, s) {
				t.Errorf("%T: matches %q: %v", c.err, s, errors.Is(got, s))
			}
		}
		if NotSent(got) != c.notSent || IsRetryable(got) {
			t.Errorf("%T: NotSent %v, IsRetryable %v", c.err, NotSent(got), IsRetryable(got))
		}
		if !strings.HasPrefix(got.Error(), "tikv: Op: ") && got != lost {
			t.Errorf("%T: %q", c.err, got)
		}
	}
	if mapError(v2, nil) != nil || NotSent(nil) || IsRetryable(nil) {
		t.Error("no error is an error")
	}
}

// Keys in errors are the user's, in new slices; texts redact them.
func TestErrorsShowUserKeys(t *testing.T) {
	for _, plain := range []bool{false, true} {
		ec := errorContext{op: "Op", codec: codec.New(codec.V2, codec.Raw, 5), keys: keys.Printer{Plain: plain}}
		wire := ec.codec.Key([]byte("key"))
		var un *UndeterminedError
		var away *UnavailableError
		if !errors.As(mapError(ec, &router.Undetermined{Key: wire}), &un) ||
			!errors.As(mapError(ec, &router.Unavailable{Key: wire, Causes: []error{backoff.ErrExhausted}}), &away) {
			t.Fatal("types")
		}
		clear(wire)
		rng := &RangeError{Op: "Op", Rest: []Range{{Start: []byte("key")}}, Cause: away, keys: ec.keys}
		if !bytes.Equal(un.Key, []byte("key")) || !bytes.Equal(away.Key, []byte("key")) {
			t.Fatalf("%q %q", un.Key, away.Key)
		}
		for _, err := range []error{un, away, rng} {
			if strings.Contains(err.Error(), "6b6579") != plain || strings.Contains(err.Error(), "key ?3") == plain {
				t.Errorf("plain %v: %s", plain, err)
			}
		}
	}
}

func TestUnavailableError(t *testing.T) {
	dial := errors.New("refused")
	err := mapError(errorContext{op: "Raw.Get"}, &router.Unavailable{
		RegionID: 7, Elapsed: 1500 * time.Millisecond, Total: 12, Causes: []error{context.DeadlineExceeded},
		Attempts: []router.Attempt{{StoreID: 1, Addr: "a:1", Reason: router.NotLeader, Elapsed: time.Millisecond}, {StoreID: 2, Addr: "b:2", Reason: router.Dial, Err: dial}},
	})
	const want = "tikv: Raw.Get: no answer after 12 attempts in 1.5s at region 7: not leader (store 1 at a:1, 1ms); dial (store 2 at b:2, 0s); the last error: refused"
	if err.Error() != want {
		t.Error(err)
	}
	if !errors.Is(err, dial) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error("what is inside does not show")
	}
}

func TestBatchError(t *testing.T) {
	bad := &ServerError{Op: "Op", Message: "no"}
	e := &BatchError{Outcomes: []Outcome{OutcomeDone, OutcomeFailed, OutcomeFailed}, Errs: []error{nil, bad, bad}, op: "Raw.BatchPut"}
	if len(e.Unwrap()) != 1 || errors.Is(e, ErrUndetermined) || !errors.Is(e, ErrRejected) || NotSent(e) {
		t.Error(e)
	}
	if e.Error() != "tikv: Raw.BatchPut: of 3 keys 1 done, 2 failed, 0 unknown: tikv: Op: rejected: no" {
		t.Error(e)
	}
	e.Outcomes[1] = OutcomeUnknown
	if !errors.Is(e, ErrUndetermined) || IsRetryable(e) {
		t.Error(e)
	}
	if e.Outcomes[0] = OutcomeFailed; NotSent(e) {
		t.Error("something may have been written")
	}
	if s := fmt.Sprint(OutcomeDone, OutcomeFailed, OutcomeUnknown, Outcome(9)); s != "done failed unknown Outcome(9)" {
		t.Error(s)
	}
}

func TestIsRetryable(t *testing.T) {
	for err, want := range map[error]bool{
		ErrWriteConflict: true, ErrTxnAborted: true, ErrUndetermined: false, ErrAlreadyExists: false, ErrUnavailable: false,
		fmt.Errorf("at last: %w", ErrWriteConflict):    true,
		errors.Join(ErrWriteConflict, ErrUndetermined): false,
	} {
		if IsRetryable(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}
