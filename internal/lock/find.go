package lock

import (
	"context"
	"errors"
	"math"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/router"
)

// What a primary key may answer instead of a status.
var (
	errNotFound = errors.New("lock: the primary key knows nothing of the transaction")
	errMismatch = errors.New("lock: the lock's primary key is not the transaction's")
	errShared   = errors.New("lock: others share the transaction's primary key")
	errNotAsync = errors.New("lock: not a lock of an asynchronous commit")
)

// query is how a transaction's status is asked for.
type query struct {
	caller    uint64
	now       uint64
	forceSync bool
	rollback  bool // if the primary key knows nothing of it
}

// question is what calls that meet the same transaction at the same time ask alike.
type question struct {
	start, caller uint64
	primary       string
	ttl           uint64
	settle        bool
}

// judge finds out what became of t.
func (r *Resolver) judge(ctx context.Context, call *router.Call, t *txn, caller uint64) (err error) {
	q := question{start: t.start, caller: caller, primary: string(t.primary), ttl: t.ttl, settle: t.settle}
	t.judgement, err = r.asking.share(ctx, call, q, func() (judgement, error) {
		err := r.find(ctx, call, t, caller)
		return t.judgement, err
	})
	return err
}

// find asks the primary key, and, where that is not enough, the others.
func (r *Resolver) find(ctx context.Context, call *router.Call, t *txn, caller uint64) error {
	err := r.ask(ctx, call, t, query{caller: caller})
	if err != nil || t.async == nil || t.left() > 0 {
		return err
	}
	err = r.recover(ctx, call, t)
	if errors.Is(err, errNotAsync) {
		// One of its locks says that the transaction fell back to two phases.
		return r.ask(ctx, call, t, query{caller: caller, forceSync: true})
	}
	return err
}

// ask queries the primary key until there is an answer. A transaction of which the
// primary key knows nothing is either still writing its locks, and left alone as long
// as the lock met lives, or it is rolled back there, so that its primary lock can never
// come.
func (r *Resolver) ask(ctx context.Context, call *router.Call, t *txn, q query) error {
	for {
		now, err := r.clock.RecentTimestamp(ctx, clockAge)
		if err != nil {
			return err
		}
		t.now, q.now = now, now
		if t.ttl == 0 {
			// The prewrite of a pessimistic transaction reports the locks in its way
			// with no TTL: they go, alive or not.
			q.now = math.MaxUint64
		}
		over := t.ttl == 0 || left(t.start, t.ttl, now) == 0
		if err = r.check(ctx, call, t, q); err == errShared && t.settle && over {
			err = r.checkShared(ctx, call, t)
		}
		switch {
		case (err == errMismatch || err == errShared) && !t.settle:
			// The transaction chose another primary key since, or has lost this one: the
			// lock is left over.
			t.status, t.orphan = Status{State: Gone}, true
			return nil
		case err == errShared:
			// Who shares it may let go of it before the lock that was met is over.
		case !errors.Is(err, errNotFound):
			return err
		case over:
			if q.rollback {
				return err
			}
			q.rollback = true
			continue
		case !t.settle:
			t.status = Status{State: Alive, TTL: t.ttl}
			return nil
		}
		if err := r.router.Wait(ctx, call, backoff.TxnNotFound); err != nil {
			return err
		}
	}
}

// check sends one CheckTxnStatus and takes over the answer.
func (r *Resolver) check(ctx context.Context, call *router.Call, t *txn, q query) error {
	req := &kvrpcpb.CheckTxnStatusRequest{
		Context:                  &kvrpcpb.Context{},
		PrimaryKey:               t.primary,
		LockTs:                   t.start,
		CallerStartTs:            q.caller,
		CurrentTs:                q.now,
		RollbackIfNotExist:       q.rollback,
		ForceSyncCommit:          q.forceSync,
		ResolvingPessimisticLock: !t.settle,
		VerifyIsPrimary:          true,
	}
	resp, err := send[*kvrpcpb.CheckTxnStatusResponse](ctx, r.router, call, t.primary, req)
	if err != nil {
		return err
	}
	switch ke := resp.GetError(); {
	case ke == nil:
		t.take(resp)
		r.known.put(t.start, t.status)
		return nil
	case ke.GetTxnNotFound() != nil:
		return errNotFound
	case ke.GetPrimaryMismatch().GetLockInfo().GetLockType() == kvrpcpb.Op_SharedLock:
		return errShared
	case ke.GetPrimaryMismatch() != nil:
		return errMismatch
	default:
		return Refused(call, ke)
	}
}

// checkShared decides a transaction whose primary key has a shared lock of others, and so none
// of its own any more: of such a key CheckTxnStatus tells nothing (TiKV src/storage/txn/
// commands/check_txn_status.rs), but asked as if it were a secondary one it says how the
// transaction ended there, and is rolled back if that is not known (commands/
// check_secondary_locks.rs). It returns errShared where that is not so any more.
func (r *Resolver) checkShared(ctx context.Context, call *router.Call, t *txn) error {
	var end outcome
	err := r.regroup(ctx, call, [][]byte{t.primary}, func(g router.Group, keys [][]byte) error {
		return r.checkSecondaries(ctx, call, t.start, keys, g, &end)
	})
	switch {
	case errors.Is(err, errNotAsync), err == nil && !end.missing:
		return errShared
	case err != nil:
		return err
	}
	t.status, t.async, t.fresh = Status{State: RolledBack}, nil, true
	if end.commitTS != 0 {
		t.status = Status{State: Committed, CommitTS: end.commitTS}
	}
	r.known.put(t.start, t.status)
	return nil
}

// take takes over an answer that is no error. A TTL means alive, a commit version
// committed; what is neither was rolled back, except where only a pessimistic lock was
// removed (facts section 26, "CheckTxnStatus").
func (t *txn) take(resp *kvrpcpb.CheckTxnStatusResponse) {
	t.async, t.fresh = nil, true
	switch {
	case resp.GetLockTtl() > 0:
		t.status = Status{State: Alive, TTL: resp.GetLockTtl(), Pushed: resp.GetAction() == kvrpcpb.Action_MinCommitTSPushed}
		if resp.GetLockInfo().GetUseAsyncCommit() {
			t.async = resp.GetLockInfo()
		}
		return
	case resp.GetCommitVersion() > 0:
		t.status = Status{State: Committed, CommitTS: resp.GetCommitVersion()}
		return
	}
	switch resp.GetAction() {
	case kvrpcpb.Action_NoAction, kvrpcpb.Action_TTLExpireRollback, kvrpcpb.Action_LockNotExistRollback:
		t.status = Status{State: RolledBack}
	default:
		t.status = Status{State: Gone}
	}
}
