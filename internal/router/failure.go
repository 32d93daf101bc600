package router

import (
	"errors"

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

// failureOf finds the rule of an error of the transport, and whether the request may
// have run.
func failureOf(err error) (*rule, bool) {
	var te *transport.Error
	switch {
	case !errors.As(err, &te):
		return madeUp(ConnLost), true
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
