package mvcc

import (
	"context"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// resolveBatch is how many locks of a region are resolved in one write (TiKV src/
// storage/txn/commands/resolve_lock.rs, RESOLVE_LOCK_BATCH_SIZE).
const resolveBatch = 256

// ResolveLock answers KvResolveLock. With keys it commits or rolls back exactly these,
// all or none; without, every lock in the region of the transactions it names, some
// hundred at a time.
func (e *Engine) ResolveLock(ctx context.Context, bounds keys.Range, req *kvrpcpb.ResolveLockRequest) *kvrpcpb.ResolveLockResponse {
	f := e.effort()
	var err error
	if len(req.Keys) > 0 {
		err = f.resolveKeys(ctx, req)
	} else {
		err = f.resolveRegion(ctx, bounds, req)
	}
	return &kvrpcpb.ResolveLockResponse{Error: keyError(err), ExecDetailsV2: f.details()}
}

// resolveKeys is TiKV src/storage/txn/commands/resolve_lock_lite.rs.
func (f *effort) resolveKeys(ctx context.Context, req *kvrpcpb.ResolveLockRequest) error {
	if req.StartVersion == 0 {
		return check.Other("resolve lock: keys without a start version")
	}
	ks := keysOf(req.Keys)
	return f.update(ctx, req.StartVersion, ks, func(c *change) error {
		for _, k := range ks {
			if err := c.resolve(k, req.CommitVersion); err != nil {
				return err
			}
		}
		return nil
	})
}

// resolve ends the transaction on a key: committed, or rolled back if commitTS is 0.
func (c *change) resolve(k key, commitTS uint64) error {
	if commitTS == 0 {
		return c.cleanup(k, 0, false)
	}
	if err := c.commit(k, commitTS, false); err != nil {
		return err
	}
	c.know(commitTS)
	return nil
}

// resolveRegion is TiKV src/storage/txn/commands/resolve_lock_readphase.rs and
// resolve_lock.rs.
func (f *effort) resolveRegion(ctx context.Context, bounds keys.Range, req *kvrpcpb.ResolveLockRequest) error {
	ends := map[uint64]uint64{req.StartVersion: req.CommitVersion} // by start timestamp
	if req.StartVersion == 0 {
		clear(ends)
		for _, info := range req.TxnInfos {
			ends[info.Txn] = info.Status
		}
	}
	for {
		found := f.locksOf(bounds, ends)
		if len(found) == 0 {
			return nil
		}
		if err := f.resolveFound(ctx, found, ends); err != nil {
			return err
		}
		if len(found) < resolveBatch {
			return nil
		}
		bounds.Start = keys.Next(found[len(found)-1].key.enc)
	}
}

type lockedKey struct {
	key
	*lock
}

// locksOf returns the first locks of the transactions in a range. Those of a shared lock
// are one for each of its holders, and all of them.
func (e *Engine) locksOf(in keys.Range, ends map[uint64]uint64) []lockedKey {
	r := reader{snap: e.store.Snapshot()}
	defer r.snap.Close()
	var found []lockedKey
	for k, l := range r.locks(in, false) {
		for _, l := range l.each() {
			if _, ok := ends[l.ts]; ok {
				found = append(found, lockedKey{k, l})
			}
		}
		if len(found) >= resolveBatch {
			break
		}
	}
	return found
}

func (f *effort) resolveFound(ctx context.Context, found []lockedKey, ends map[uint64]uint64) error {
	ks := make([]key, len(found))
	for i, l := range found {
		ks[i] = l.key
	}
	return f.update(ctx, 0, ks, func(c *change) error {
		for _, l := range found {
			c.startTS = l.ts
			commitTS := ends[l.ts]
			if commitTS != 0 && commitTS <= l.ts {
				return errInvalidTSO(l.ts, commitTS)
			}
			err := c.resolve(l.key, commitTS)
			// A pessimistic lock that went since is none of the committed keys.
			if ke := keyError(err); ke != nil && (ke.TxnLockNotFound == nil || !l.pessimistic()) {
				return err
			}
		}
		return nil
	})
}
