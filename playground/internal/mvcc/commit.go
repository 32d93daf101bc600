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
	f := e.effort()
	err := f.update(ctx, req.StartVersion, ks, func(c *change) error {
		if req.CommitVersion <= req.StartVersion {
			return errInvalidTSO(req.StartVersion, req.CommitVersion)
		}
		for _, k := range ks {
			if err := c.commit(k, req.CommitVersion, req.CommitRole == kvrpcpb.CommitRole_Secondary); err != nil {
				return err
			}
		}
		c.know(req.CommitVersion)
		return nil
	})
	if err != nil {
		return &kvrpcpb.CommitResponse{Error: keyError(err), ExecDetailsV2: f.details()}
	}
	return &kvrpcpb.CommitResponse{CommitVersion: req.CommitVersion, ExecDetailsV2: f.details()}
}

// commit turns the transaction's lock of a key into a write record (TiKV src/storage/
// txn/actions/commit.rs). A key that is committed already passes; a pessimistic lock,
// which is left over, is removed. A lock of a secondary key that the client counts on, and
// one that may not be committed so early although its primary was, should not be: then the
// error shows the records.
func (c *change) commit(k key, commitTS uint64, secondary bool) error {
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
			return c.explain(k, secondary, errTxnLockNotFound(c.startTS, commitTS, k))
		}
		return nil
	}
	if commitTS < l.minCommitTS {
		return c.explain(k, string(l.primary) != string(k.raw), errCommitTSExpired(c.startTS, commitTS, l.minCommitTS, k))
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

// explain adds a key's records to an error, but for its long values (TiKV src/storage/
// errors.rs, add_debug_mvcc_for_key_error).
func (c *change) explain(k key, unexpected bool, f failure) error {
	if !unexpected {
		return f
	}
	info, err := c.info(k)
	if err != nil {
		return f
	}
	info.Values = nil
	f.DebugInfo = &kvrpcpb.DebugInfo{MvccInfo: []*kvrpcpb.MvccDebugInfo{{Key: k.raw, Mvcc: info}}}
	return f
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
