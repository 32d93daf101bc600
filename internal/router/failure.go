package router

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
)

// failures is the table of attempts that brought no reply of TiKV. Whether the request
// may have run is for the error to tell (transport.Error.Sent).
var failures = [...]struct {
	kind transport.Kind
	rule rule
}{
	{transport.Dial, rule{reason: Dial, do: other, wait: backoff.RPC}},
	{transport.ConnLost, rule{reason: ConnLost, do: other, wait: backoff.RPC}},
	{transport.Timeout, rule{reason: Timeout, do: other, wait: backoff.RPC}},
	{transport.QueueFull, rule{reason: QueueFull, do: again, wait: backoff.RPC}},
	{transport.Refused, rule{reason: RefusedCall, do: other, wait: backoff.RPC}},
	{transport.Closed, rule{reason: ConnLost, do: fail}},
}

// storeFailure is the rule of a store whose address cannot be had: PD does not know it,
// or cannot be asked.
func storeFailure(err error) rule {
	if errors.Is(err, region.ErrNoStore) {
		return rule{reason: NoStore, do: relocate, wait: backoff.RegionMiss}
	}
	return rule{reason: PD, do: again, wait: backoff.PD}
}

// failureOf finds the rule of an error of the transport, and whether the request may
// have run.
func failureOf(err error) (rule, bool) {
	unknown := rule{reason: ConnLost, do: other, wait: backoff.RPC}
	var te *transport.Error
	if !errors.As(err, &te) {
		return unknown, true
	}
	if te.Kind == transport.Refused && final(te) {
		return rule{reason: RefusedCall, do: fail}, false
	}
	for i := range failures {
		if failures[i].kind == te.Kind {
			return failures[i].rule, te.Sent
		}
	}
	return unknown, te.Sent
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

// errAttempt is the end of one attempt's time.
var errAttempt = errors.New("router: no answer within the time of one attempt")

func isClosed(err error) bool {
	var te *transport.Error
	return errors.Is(err, ErrClosed) || errors.Is(err, pd.ErrClosed) || errors.Is(err, task.ErrClosed) ||
		errors.As(err, &te) && te.Kind == transport.Closed
}
