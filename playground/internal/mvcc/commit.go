package mvcc

import (
	"context"
	"slices"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// Commit answers KvCommit: all keys or none (TiKV src/storage/txn/commands/commit.rs).
func (e *Engine) Commit(ctx context.Context, _ keys.Range, req *kvrpcpb.CommitRequest) *kvrpcpb.CommitResponse {
	ks := keysOf(req.Keys)
	err := e.update(ctx, req.StartVersion, ks, func(c *change) error {
		if req.CommitVersion <= req.StartVersion {
			return errInvalidTSO(req.StartVersion, req.CommitVersion)
		}
		for _, k := range ks {
			if err := c.commit(k, req.CommitVersion); err != nil {
				return err
			}
		}
		c.know(req.CommitVersion)
		return nil
	})
	if err != nil {
		return &kvrpcpb.CommitResponse{Error: keyError(err)}
	}
	return &kvrpcpb.CommitResponse{CommitVersion: req.CommitVersion}
}

// commit turns the transaction's lock of a key into a write record (TiKV src/storage/
// txn/actions/commit.rs). A key that is committed already passes; a pessimistic lock,
// which is left over, is removed.
func (c *change) commit(k key, commitTS uint64) error {
	held, err := c.current(k)
	if err != nil {
		return err
	}
	l := held.of(c.startTS)
	if l == nil {
		end, err := c.ending(k.enc, c.startTS)
		if err != nil {
			return err
		}
		if _, ok := end.committed(); !ok {
			return errTxnLockNotFound(c.startTS, commitTS, k)
		}
		return nil
	}
	if commitTS < l.minCommitTS {
		return errCommitTSExpired(c.startTS, commitTS, l.minCommitTS, k)
	}
	c.release(k, held)
	if l.pessimistic() {
		return nil
	}
	c.decide(k, l.primary, true)
	w := l.committed()
	w.overlapped = slices.Contains(l.rollbackTS, commitTS)
	c.putWrite(k, commitTS, w)
	return nil
}

// committed is the record that a prewritten lock becomes.
func (l *lock) committed() *write {
	return &write{
		kind:       writeKind(l.kind), // the letters are the same
		startTS:    l.ts,
		short:      l.short,
		lastChange: l.lastChange,
		txnSource:  l.txnSource,
	}
}
