package mvcc

import (
	"context"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// CheckTxnStatus answers KvCheckTxnStatus: what became of a transaction, asked of its
// primary key; one that has expired is rolled back (TiKV src/storage/txn/commands/
// check_txn_status.rs).
func (e *Engine) CheckTxnStatus(ctx context.Context, _ keys.Range, req *kvrpcpb.CheckTxnStatusRequest) *kvrpcpb.CheckTxnStatusResponse {
	for _, ts := range []uint64{req.LockTs, req.CurrentTs, req.CallerStartTs} {
		e.observe(ts)
	}
	k := keyOf(req.PrimaryKey)
	var resp *kvrpcpb.CheckTxnStatusResponse
	f := e.effort()
	err := f.update(ctx, req.LockTs, []key{k}, func(c *change) error {
		l, err := c.lock(k.enc)
		if err != nil {
			return err
		}
		s := &statusCheck{c, req, k}
		switch {
		case l != nil && l.shared(): // no primary key is locked in share mode
			err = errPrimaryMismatch(l.info(k.raw))
		case l.of(req.LockTs) != nil:
			resp, err = s.locked(l)
		default:
			resp, err = s.missing(l)
		}
		return err
	})
	if err != nil {
		resp = &kvrpcpb.CheckTxnStatusResponse{Error: keyError(err)}
	}
	resp.ExecDetailsV2 = f.details()
	return resp
}

type statusCheck struct {
	*change
	req *kvrpcpb.CheckTxnStatusRequest
	key key
}

func action(a kvrpcpb.Action) *kvrpcpb.CheckTxnStatusResponse {
	return &kvrpcpb.CheckTxnStatusResponse{Action: a}
}

// locked is the case of a primary key that has the transaction's lock (TiKV src/storage/
// txn/actions/check_txn_status.rs, check_txn_status_lock_exists).
func (s *statusCheck) locked(l *lock) (*kvrpcpb.CheckTxnStatusResponse, error) {
	if s.req.VerifyIsPrimary && string(l.primary) != string(s.key.raw) {
		return s.notPrimary(l)
	}
	// Whether an async commit has succeeded is for its secondaries to say.
	if l.asyncCommit && !s.req.ForceSyncCommit {
		return s.alive(l, false), nil
	}
	if l.pessimistic() {
		if resp, err := s.pessimisticPrimary(l); resp != nil || err != nil {
			return resp, err
		}
	} else if l.expired(s.req.CurrentTs) {
		return action(kvrpcpb.Action_TTLExpireRollback), s.rollbackLock(s.key, l, true)
	}
	return s.push(l), nil
}

// notPrimary is the case of a lock that names another key as its primary. If a prewrite
// lock pointed here and this one is pessimistic, this one is stale.
func (s *statusCheck) notPrimary(l *lock) (*kvrpcpb.CheckTxnStatusResponse, error) {
	if s.req.ResolvingPessimisticLock || !l.pessimistic() {
		return nil, errPrimaryMismatch(l.info(s.key.raw))
	}
	resp, err := s.missing(nil)
	if err == nil {
		s.unlock(s.key)
	}
	return resp, err
}

// pessimisticPrimary decides on a primary that is not prewritten; nil: it is alive
// (same file, check_txn_status_from_pessimistic_primary_lock).
func (s *statusCheck) pessimisticPrimary(l *lock) (*kvrpcpb.CheckTxnStatusResponse, error) {
	if l.withConflict { // it may be a late copy, of a transaction that has ended
		end, err := s.ending(s.key.enc, s.startTS)
		if err != nil {
			return nil, err
		}
		if end.known() {
			s.unlock(s.key)
			return s.over(end), nil
		}
	}
	if !l.expired(s.req.CurrentTs) {
		return nil, nil
	}
	if s.req.ResolvingPessimisticLock { // the transaction may still take another primary
		s.unlock(s.key)
		return action(kvrpcpb.Action_TTLExpirePessimisticRollback), nil
	}
	return action(kvrpcpb.Action_TTLExpireRollback), s.rollbackLock(s.key, l, true)
}

// push raises the least commit timestamp of a live transaction above the caller's
// start, so that the caller may read below its locks; one without a least commit
// timestamp does not know of this.
func (s *statusCheck) push(l *lock) *kvrpcpb.CheckTxnStatusResponse {
	caller := s.req.CallerStartTs
	if l.minCommitTS != 0 && caller != maxTS && caller >= l.minCommitTS {
		l.minCommitTS = max(caller+1, s.req.CurrentTs)
		s.putLock(s.key, l)
	}
	return s.alive(l, caller != 0 && l.minCommitTS > caller || caller == maxTS)
}

func (s *statusCheck) alive(l *lock, pushed bool) *kvrpcpb.CheckTxnStatusResponse {
	// The key of the lock is its primary (src/server/service/kv.rs,
	// future_check_txn_status).
	resp := &kvrpcpb.CheckTxnStatusResponse{LockTtl: l.ttl, LockInfo: l.info(l.primary)}
	if pushed {
		resp.Action = kvrpcpb.Action_MinCommitTSPushed
	}
	return resp
}

// over is the answer for a transaction that has ended.
func (s *statusCheck) over(end ending) *kvrpcpb.CheckTxnStatusResponse {
	commitTS, ok := end.committed()
	if ok {
		s.know(commitTS)
	}
	return &kvrpcpb.CheckTxnStatusResponse{CommitVersion: commitTS}
}

// missing is the case of a primary key without the transaction's lock; other is the one
// it has (same file, check_txn_status_missing_lock).
func (s *statusCheck) missing(other *lock) (*kvrpcpb.CheckTxnStatusResponse, error) {
	end, err := s.ending(s.key.enc, s.startTS)
	switch {
	case err != nil:
		return nil, err
	case end.known():
		return s.over(end), nil
	case !s.req.RollbackIfNotExist:
		return nil, errTxnNotFound(s.startTS, s.key)
	case s.req.ResolvingPessimisticLock:
		return action(kvrpcpb.Action_LockNotExistDoNothing), nil
	}
	if end.occupied.write == nil {
		s.markRollback(s.key, other)
	}
	s.decide(s.key, s.key.raw, false)
	s.putRollback(s.key, true, end)
	return action(kvrpcpb.Action_LockNotExistRollback), nil
}

// TxnHeartBeat answers KvTxnHeartBeat: it raises the TTL of the transaction's lock of a
// key, and returns what it is then; of a pipelined transaction also its least commit
// timestamp (TiKV src/storage/txn/commands/txn_heart_beat.rs).
func (e *Engine) TxnHeartBeat(ctx context.Context, _ keys.Range, req *kvrpcpb.TxnHeartBeatRequest) *kvrpcpb.TxnHeartBeatResponse {
	k := keyOf(req.PrimaryLock)
	resp := &kvrpcpb.TxnHeartBeatResponse{}
	f := e.effort()
	err := f.update(ctx, req.StartVersion, []key{k}, func(c *change) error {
		l, err := c.lock(k.enc)
		if err != nil {
			return err
		}
		switch {
		case l.of(req.StartVersion) == nil:
			return errTxnNotFound(req.StartVersion, k)
		case l.shared():
			return errPrimaryMismatch(l.info(k.raw))
		}
		old := *l
		l.ttl = max(l.ttl, req.AdviseLockTtl)
		if !l.asyncCommit && l.generation > 0 {
			l.minCommitTS = max(l.minCommitTS, req.MinCommitTs)
		}
		if l.ttl != old.ttl || l.minCommitTS != old.minCommitTS {
			c.putLock(k, l)
		}
		resp.LockTtl = l.ttl
		return nil
	})
	if err != nil {
		resp = &kvrpcpb.TxnHeartBeatResponse{Error: keyError(err)}
	}
	resp.ExecDetailsV2 = f.details()
	return resp
}
