package router

import (
	"errors"

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
	{transport.Refused, rule{reason: RefusedCall, do: fail}},
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

// failureOf finds the rule of an error of the transport, and whether the server can
// have seen the request.
func failureOf(err error) (rule, bool) {
	var te *transport.Error
	if !errors.As(err, &te) {
		return rule{reason: ConnLost, do: other, wait: backoff.RPC}, true
	}
	for i := range failures {
		if failures[i].kind == te.Kind {
			return failures[i].rule, te.Sent
		}
	}
	return rule{reason: ConnLost, do: other, wait: backoff.RPC}, te.Sent
}

// errAttempt is the end of one attempt's time.
var errAttempt = errors.New("router: no answer within the time of one attempt")

func isClosed(err error) bool {
	var te *transport.Error
	return errors.Is(err, ErrClosed) || errors.Is(err, pd.ErrClosed) || errors.Is(err, task.ErrClosed) ||
		errors.As(err, &te) && te.Kind == transport.Closed
}
