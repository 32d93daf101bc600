package lock

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/tikv-go/tikv/internal/router"
)

// errAlive is an answer against TiKV's rules.
var errAlive = errors.New("lock: a transaction lives on although it had to end")

// Settle finds out how a transaction ended whose client is done with it, and sees to it
// that it has ended: what is undecided is rolled back. others are keys beside the primary
// one that may be locked: those locks are removed behind the caller's back.
//
// Asking decides: without a trace of the transaction, or with a lock that is not of an
// asynchronous commit, the primary key gets a rollback record that no request under way
// can pass (TiKV src/storage/txn/actions/check_txn_status.rs); else all of its locks are
// there, or one key is rolled back in the same way (commands/check_secondary_locks.rs).
// How long the locks would live does not matter.
func (r *Resolver) Settle(ctx context.Context, call *router.Call, start uint64, primary []byte, others [][]byte) (Status, error) {
	if s, ok := r.known.get(start); ok {
		return s, nil
	}
	t := &txn{start: start, primary: primary, settle: true}
	q := query{now: math.MaxUint64, rollback: true}
	err := r.check(ctx, call, t, q)
	if err == errShared {
		err = r.checkShared(ctx, call, t)
	}
	if err == nil && t.async != nil {
		others = t.async.GetSecondaries()
		if err = r.recover(ctx, call, t); errors.Is(err, errNotAsync) {
			q.forceSync = true
			err = r.check(ctx, call, t, q)
		}
	}
	switch {
	case err != nil:
		return Status{}, ruled(call, err)
	case !t.status.final():
		return Status{}, ruled(call, fmt.Errorf("%w: %d", errAlive, start))
	case t.all != nil: // the primary key has its lock still
		others = t.all
	}
	r.sweeps.add(r, call, ending{start: start, commit: t.status.CommitTS, keys: others})
	return t.status, nil
}
