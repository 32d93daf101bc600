package mvcc

import (
	"context"
	"errors"
	"fmt"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// BatchRollback answers KvBatchRollback: all keys or none. It does not look at the
// locks' TTL (TiKV src/storage/txn/commands/rollback.rs).
func (e *Engine) BatchRollback(ctx context.Context, _ keys.Range, req *kvrpcpb.BatchRollbackRequest) *kvrpcpb.BatchRollbackResponse {
	ks := keysOf(req.Keys)
	f := e.effort()
	err := f.update(ctx, req.StartVersion, ks, func(c *change) error {
		for _, k := range ks {
			if err := c.cleanup(k, 0, false); err != nil {
				return err
			}
		}
		return nil
	})
	return &kvrpcpb.BatchRollbackResponse{Error: keyError(err), ExecDetailsV2: f.details()}
}

// Cleanup answers KvCleanup: it rolls a key back, unless its lock is still alive, and
// tells the commit timestamp if it is committed (TiKV src/storage/txn/commands/cleanup.rs,
// src/server/service/kv.rs, future_cleanup).
func (e *Engine) Cleanup(ctx context.Context, _ keys.Range, req *kvrpcpb.CleanupRequest) *kvrpcpb.CleanupResponse {
	e.observe(req.StartVersion) // nothing may commit onto the record
	k := keyOf(req.Key)
	err := e.update(ctx, req.StartVersion, []key{k}, func(c *change) error { return c.cleanup(k, req.CurrentTs, true) })
	var done *errCommitted
	if errors.As(err, &done) {
		return &kvrpcpb.CleanupResponse{CommitVersion: done.commitTS}
	}
	return &kvrpcpb.CleanupResponse{Error: keyError(err)}
}

// cleanup rolls a key back; if it is not locked it leaves a record, so that a late
// prewrite fails. A lock that is alive at now stays, unless now is 0. The record that
// protect asks for is not collapsed later, nor does it collapse another (TiKV src/storage/
// txn/actions/cleanup.rs, and check_txn_status.rs, check_txn_status_missing_lock).
func (c *change) cleanup(k key, now uint64, protect bool) error {
	l, err := c.current(k)
	if err != nil {
		return err
	}
	if own := l.of(c.startTS); own != nil {
		if now != 0 && !own.expired(now) {
			return errLocked(l.info(k.raw))
		}
		return c.rollbackLock(k, l, !protect)
	}
	end, err := c.ending(k.enc, c.startTS)
	if err != nil {
		return err
	}
	if commitTS, ok := end.committed(); ok {
		return &errCommitted{c.startTS, commitTS, k}
	}
	if end.known() {
		return nil
	}
	if protect {
		if end.occupied.write == nil {
			c.markRollback(k, l)
		}
	} else if err := c.collapse(k); err != nil {
		return err
	}
	c.putRollback(k, protect, end)
	return nil
}

// rollbackLock removes the transaction's own lock, which is held or a part of that, and
// leaves a record, protected on the primary key (TiKV src/storage/txn/actions/
// check_txn_status.rs, rollback_lock). That of a shared lock is not protected: TiKV ends
// its process if such a one is its own primary (rollback_shared_lock).
func (c *change) rollbackLock(k key, held *lock, collapse bool) error {
	l := held.of(c.startTS)
	end, err := c.ending(k.enc, c.startTS)
	if err != nil {
		return err
	}
	if commitTS, ok := end.committed(); ok {
		// TiKV panics here: the lock and the commit record exclude each other.
		return check.Other(fmt.Sprintf("key %x is locked by a transaction committed at %d", k.raw, commitTS))
	}
	c.release(k, held)
	if end.known() {
		return nil
	}
	if l.kind == lockPut && l.short == nil {
		c.batch.Delete(storage.Default, at(k.enc, l.ts))
	}
	c.decide(k, l.primary, false)
	c.putRollback(k, !held.shared() && (string(l.primary) == string(k.raw) || l.generation > 0), end)
	if collapse {
		return c.collapse(k)
	}
	return nil
}

// putRollback writes the rollback record. Where another transaction's record has its
// place, a protected one becomes a flag on that and another is left out (same file,
// make_rollback).
func (c *change) putRollback(k key, protected bool, end ending) {
	if end.occupied.write == nil {
		c.putWrite(k, c.startTS, newRollback(c.startTS, protected))
		return
	}
	if protected {
		w := *end.occupied.write
		w.overlapped, w.fenced, w.fence = true, true, end.fence
		c.putWrite(k, c.startTS, &w)
	}
}

// collapse removes the previous rollback record, unless it is protected (same file,
// collapse_prev_rollback).
func (c *change) collapse(k key) error {
	w, err := c.newest(k.enc, c.startTS)
	if err != nil {
		return err
	}
	if w.write != nil && w.kind == writeRollback && !w.isProtected() {
		c.batch.Delete(storage.Write, at(k.enc, w.commitTS))
	}
	return nil
}

// markRollback tells another transaction's lock of this one's rollback, if it might
// commit onto it: an async commit, whose timestamp is calculated (TiKV src/storage/
// mvcc/txn.rs, mark_rollback_on_mismatching_lock).
func (c *change) markRollback(k key, other *lock) {
	if other == nil || !other.asyncCommit || c.startTS < other.minCommitTS {
		return
	}
	marked := *other
	marked.rollbackTS = append(append([]uint64{}, other.rollbackTS...), c.startTS)
	c.putLock(k, &marked)
}
