package mvcc

import (
	"context"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// CheckSecondaryLocks answers KvCheckSecondaryLocks: the locks, if every key has one of
// the transaction; else, of the first that has none, how it ended, which the call sees
// to: a key without a trace is rolled back (TiKV src/storage/txn/commands/
// check_secondary_locks.rs).
func (e *Engine) CheckSecondaryLocks(ctx context.Context, _ keys.Range, req *kvrpcpb.CheckSecondaryLocksRequest) *kvrpcpb.CheckSecondaryLocksResponse {
	e.observe(req.StartVersion)
	ks := keysOf(req.Keys)
	resp := &kvrpcpb.CheckSecondaryLocksResponse{}
	f := e.effort()
	err := f.update(ctx, req.StartVersion, ks, func(c *change) error {
		var locks []*kvrpcpb.LockInfo
		for _, k := range ks {
			l, err := c.lock(k.enc)
			if err != nil {
				return err
			}
			if l != nil && l.shared() { // whose holders do not commit asynchronously
				l = nil
			}
			if l != nil && l.ts == c.startTS && !l.pessimistic() {
				locks = append(locks, l.info(k.raw))
				continue
			}
			resp.CommitTs, err = c.settleSecondary(k, l)
			return err
		}
		resp.Locks = locks
		return nil
	})
	if err != nil {
		resp = &kvrpcpb.CheckSecondaryLocksResponse{Error: keyError(err)}
	}
	resp.ExecDetailsV2 = f.details()
	return resp
}

// settleSecondary returns the commit timestamp of a key that the transaction has not
// prewritten, 0 if it is rolled back, as it is hereafter. l is the lock that it has.
func (c *change) settleSecondary(k key, l *lock) (commitTS uint64, err error) {
	end, err := c.ending(k.enc, c.startTS)
	if err != nil {
		return 0, err
	}
	if l != nil && l.ts == c.startTS { // its own pessimistic one
		c.unlock(k)
		l = nil
	}
	if end.known() {
		if commitTS, committed := end.committed(); committed {
			c.know(commitTS)
			return commitTS, nil
		}
		return 0, nil
	}
	c.markRollback(k, l)
	c.putRollback(k, true, end)
	return 0, c.collapse(k)
}
