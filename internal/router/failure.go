package router

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
)

// storeFailure is the rule of a store whose address cannot be had: PD does not know it,
// or cannot be asked.
func storeFailure(err error) *rule {
	if errors.Is(err, region.ErrNoStore) {
		return madeUp(NoStore)
	}
	return madeUp(PD)
}

// The rules of failures after which no attempt can help: a request that is refused for
// what it is, and the end of the client.
var (
	refusedForGood = &rule{reason: RefusedCall, do: fail}
	clientClosed   = &rule{reason: ConnLost, do: fail}
)

// refusal is the rule of a store that is not to be asked now.
func refusal(err error) *rule {
	if errors.Is(err, region.ErrFull) {
		return madeUp(QueueFull)
	}
	return madeUp(StoreDown)
}

// patience is how long a caller must have waited whose own time ended, for that to say
// something of the store.
const patience = 2 * time.Second

// outcomeOf is what the end of an attempt tells of the store that was asked. What was to be
// passed on may have failed behind it; who gave up early tells nothing.
func outcomeOf(ctx context.Context, t *try, forwarded bool) region.Outcome {
	if t.err == nil {
		return region.Answered
	}
	var te *transport.Error
	if !errors.As(t.err, &te) {
		return region.Left
	}
	switch {
	case te.Kind == transport.Dial:
		return region.Refused
	case te.Kind == transport.Refused && te.Sent:
		return region.Answered
	case forwarded:
	case te.Kind == transport.ConnLost:
		return region.Broken
	case te.Kind == transport.Expired && !t.short:
		return region.Silent
	case te.Kind == transport.Timeout && errors.Is(ctx.Err(), context.DeadlineExceeded) && t.ended.Sub(t.began) >= patience:
		return region.Silent
	}
	return region.Left
}

// failureOf finds the rule of an error of the transport, and whether the request may
// have run.
func failureOf(err error) (*rule, bool) {
	var te *transport.Error
	switch {
	case !errors.As(err, &te):
		return madeUp(ConnLost), true
	case errors.Is(te.Err, transport.ErrNotForwarded): // the way is none; the request is good
		return madeUp(StoreDown), false
	case te.Kind == transport.Refused && final(te):
		return refusedForGood, false
	case te.Kind == transport.Closed:
		return clientClosed, te.Sent
	}
	return madeUp(reasonOf(te.Kind)), te.Sent
}

// final reports whether the server refused a request for what it is, before it looked
// at it: asking again would be refused again. A status of UNKNOWN is how TiKV ends a
// call after an error of its own (src/server/service/kv.rs): what became of that, the
// status does not tell.
func final(te *transport.Error) bool {
	if !te.Sent { // it could not be encoded
		return true
	}
	switch status.Code(te.Err) {
	case codes.InvalidArgument, codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied:
		return true
	}
	return false
}

func isClosed(err error) bool {
	var te *transport.Error
	return errors.Is(err, ErrClosed) || errors.Is(err, pd.ErrClosed) || errors.Is(err, task.ErrClosed) ||
		errors.As(err, &te) && te.Kind == transport.Closed
}
