package lock

import (
	"context"
	"errors"
	"math"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/router"
)

// What a primary key may answer instead of a status.
var (
	errNotFound = errors.New("lock: the primary key knows nothing of the transaction")
	errMismatch = errors.New("lock: the lock's primary key is not the transaction's")
	errNotAsync = errors.New("lock: not a lock of an asynchronous commit")
)

// check sends one CheckTxnStatus.
func (r *Resolver) check(ctx context.Context, call *router.Call, t *txn, q query, rollback bool) (Status, error) {
	req := &kvrpcpb.CheckTxnStatusRequest{
		Context:                  &kvrpcpb.Context{},
		PrimaryKey:               t.primary,
		LockTs:                   t.start,
		CallerStartTs:            q.caller,
		CurrentTs:                t.now,
		RollbackIfNotExist:       rollback,
		ForceSyncCommit:          q.forceSync,
		ResolvingPessimisticLock: !t.settle,
		VerifyIsPrimary:          true,
	}
	if t.ttl == 0 {
		// The prewrite of a pessimistic transaction reports the locks in its way with
		// no TTL: they go, alive or not.
		req.CurrentTs = math.MaxUint64
	}
	resp, err := send[*kvrpcpb.CheckTxnStatusResponse](ctx, r.router, call, t.primary, req)
	if err != nil {
		return Status{}, err
	}
	switch ke := resp.GetError(); {
	case ke == nil:
		return statusOf(resp), nil
	case ke.GetTxnNotFound() != nil:
		return Status{}, errNotFound
	case ke.GetPrimaryMismatch() != nil:
		return Status{}, errMismatch
	default:
		return Status{}, Refused(call, ke)
	}
}
