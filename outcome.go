package tikv

import (
	"context"
	"errors"
	"math"
	"strconv"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/txn"
)

// ResolveOutcome asks the cluster what became of the transaction whose error matches
// ErrUndetermined: its commit timestamp, or 0 if it did not commit. Asking settles it:
// what had not been decided is rolled back, and no request of the commit that is still
// under way can change that. It may be asked again, and by any client of the cluster and
// keyspace, with the error or another UndeterminedError of the same StartTS and Primary.
// It is retried like any call.
//
// For a raw write, which leaves nothing to ask, it is ErrUnsupported; for an error that
// is not of a lost commit, ErrInvalid; ErrSnapshotTooOld if garbage collection may have
// taken what would tell.
func (c *Client) ResolveOutcome(ctx context.Context, err error) (Timestamp, error) {
	const op = "Client.ResolveOutcome"
	if err := c.checkTxn(op); err != nil {
		return 0, err
	}
	var e *UndeterminedError
	switch {
	case !errors.As(err, &e):
		return 0, &ArgumentError{Op: op, Arg: "err", Reason: "is not of a write whose outcome is unknown"}
	case e.StartTS == 0:
		return 0, &unsupportedError{op: op, what: "a write that is no transaction's leaves nothing to ask for"}
	case e.home != "" && e.home != home(c.ClusterID(), c.engine.txn):
		return 0, &ArgumentError{Op: op, Arg: "err", Reason: "is of another cluster or keyspace"}
	}
	if err := checkInquiry(op, e); err != nil {
		return 0, err
	}
	q := txn.Inquiry{StartTS: uint64(e.StartTS), Primary: c.engine.txn.Key(e.Primary)}
	if len(e.Secondaries) > 0 {
		if q.Secondaries, err = c.wireKeys(op, e.Secondaries); err != nil {
			return 0, err
		}
	}
	ts, err := c.engine.txns.Outcome(ctx, op, c.readOptions(c.cfg.view, routeConfig{}, false).CallOptions, q)
	if err != nil {
		return 0, mapError(c.errorContext(op, c.engine.txn), err)
	}
	return Timestamp(ts), nil
}

// checkInquiry refuses what no transaction left.
func checkInquiry(op string, e *UndeterminedError) error {
	switch {
	case len(e.Primary) == 0:
		return &ArgumentError{Op: op, Arg: "err", Reason: "names no primary key"}
	case e.StartTS == math.MaxUint64:
		return &ArgumentError{Op: op, Arg: "err", Reason: "has no start timestamp"}
	}
	return nil
}

// home is where a transaction's keys are.
func home(cluster uint64, cd codec.Codec) string {
	return strconv.FormatUint(cluster, 10) + "/" + string(cd.Key(nil))
}
