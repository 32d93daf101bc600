package mvcc

import (
	"context"
	"slices"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// view is what a read sees: a snapshot, a timestamp, and how locks are treated.
type view struct {
	reader
	ts           uint64
	isolation    kvrpcpb.IsolationLevel
	bypass       []uint64 // start timestamps of locks to ignore (Context.resolved_locks)
	access       []uint64 // of locks to read through (Context.committed_locks)
	needCommitTS bool
	keyOnly      bool
}

// open raises MaxTS to the read's timestamp and then takes the snapshot: what commits
// after the snapshot at a timestamp of the server's choice, commits above it. A stale
// read, which is below all such timestamps, raises nothing (TiKV src/storage/mod.rs,
// prepare_snap_ctx). The caller closes the view's snapshot.
func (e *Engine) open(ctx *kvrpcpb.Context, ts uint64) view {
	if !ctx.GetStaleRead() {
		e.observe(ts)
	}
	return view{
		reader:    reader{e.store.Snapshot()},
		ts:        ts,
		isolation: ctx.GetIsolationLevel(),
		bypass:    ctx.GetResolvedLocks(),
		access:    ctx.GetCommittedLocks(),
	}
}

// item is a value and its commit timestamp (0: not asked for, or read from a lock).
type item struct {
	value    []byte
	commitTS uint64
}

// get returns what the view shows of a key, nil for nothing (TiKV src/storage/mvcc/
// reader/point_getter.rs).
func (v *view) get(k key) (*item, error) {
	if v.isolation != kvrpcpb.IsolationLevel_RC {
		l, err := v.lock(k.enc)
		if err != nil {
			return nil, err
		}
		if l != nil {
			if it, done, err := v.meet(k, l); done {
				return it, err
			}
		}
	}
	if err := v.checkNewer(k.enc); err != nil {
		return nil, err
	}
	return v.load(k.enc)
}

// load is get without locks.
func (v *view) load(enc []byte) (*item, error) {
	w, err := v.version(enc, v.ts, v.ts)
	if err != nil || w.write == nil {
		return nil, err
	}
	return v.item(enc, w)
}

func (v *view) item(enc []byte, w record) (*item, error) {
	it := new(item)
	if v.needCommitTS {
		it.commitTS = w.commitTS
	}
	if v.keyOnly {
		return it, nil
	}
	var err error
	it.value, err = v.value(enc, w.write)
	return it, err
}

// meet decides on a lock in the way: not done, and the read goes on below the lock; or
// what the lock itself says, or the error.
func (v *view) meet(k key, l *lock) (it *item, done bool, err error) {
	if err = v.conflict(k, l); err == nil {
		return nil, false, nil
	}
	// A value in a lock has no commit timestamp yet, so that one who asks for it waits.
	if v.needCommitTS || !slices.Contains(v.access, l.ts) {
		return nil, true, err
	}
	if l.kind == lockDelete {
		return nil, true, nil
	}
	it = new(item)
	if v.keyOnly {
		return it, true, nil
	}
	if it.value = l.short; it.value == nil {
		it.value, err = v.longValue(k.enc, l.ts)
		return it, true, err
	}
	return it, true, nil
}

// conflict returns the error for a lock that the view may not pass (TiKV components/
// txn_types/src/lock.rs, check_ts_conflict).
func (v *view) conflict(k key, l *lock) error {
	if l.kind == lockLock || l.pessimistic() || slices.Contains(v.bypass, l.ts) {
		return nil
	}
	if v.isolation == kvrpcpb.IsolationLevel_RCCheckTS {
		return errConflict(&kvrpcpb.WriteConflict{
			StartTs: v.ts, ConflictTs: l.ts, Key: k.raw, Primary: l.primary, Reason: kvrpcpb.WriteConflict_RcCheckTs})
	}
	if l.ts > v.ts || l.minCommitTS > v.ts {
		return nil
	}
	// The latest value of a primary key is the one before the lock: it is not
	// committed, unless it is an async commit, which may be. On a replica too: only the
	// leader's locks in memory, of which there are none here, stop that read there.
	if v.ts == maxTS && !l.asyncCommit && string(l.primary) == string(k.raw) {
		return nil
	}
	return errLocked(l.info(k.raw))
}

// checkNewer refuses a key with any newer record, at the isolation level that asks for
// it (point_getter.rs, load_data). The key in the error is the stored one, as in TiKV.
func (v *view) checkNewer(enc []byte) error {
	if v.isolation != kvrpcpb.IsolationLevel_RCCheckTS {
		return nil
	}
	w, err := v.newest(enc, maxTS)
	if err != nil || w.write == nil || w.commitTS <= v.ts {
		return err
	}
	return errConflict(&kvrpcpb.WriteConflict{
		StartTs: v.ts, ConflictCommitTs: w.commitTS, Key: at(enc, w.commitTS), Reason: kvrpcpb.WriteConflict_RcCheckTs})
}

// Get answers KvGet.
func (e *Engine) Get(_ context.Context, _ keys.Range, req *kvrpcpb.GetRequest) *kvrpcpb.GetResponse {
	k := keyOf(req.Key)
	if err := check.Keys(e.cfg.APIVersion, req.Context, "get", k.enc); err != nil {
		return &kvrpcpb.GetResponse{Error: err.KeyError()}
	}
	v := e.open(req.Context, req.Version)
	defer v.snap.Close()
	v.needCommitTS = req.NeedCommitTs
	it, err := v.get(k)
	switch {
	case err != nil:
		return &kvrpcpb.GetResponse{Error: keyError(err)}
	case it == nil:
		return &kvrpcpb.GetResponse{NotFound: true}
	}
	return &kvrpcpb.GetResponse{Value: it.value, CommitTs: it.commitTS}
}

// BatchGet answers KvBatchGet: the pairs that exist, in the order of the keys; a locked
// key is a pair with only an error.
func (e *Engine) BatchGet(_ context.Context, _ keys.Range, req *kvrpcpb.BatchGetRequest) *kvrpcpb.BatchGetResponse {
	ks := keysOf(req.Keys)
	for _, k := range ks {
		if err := check.Keys(e.cfg.APIVersion, req.Context, "batch_get", k.enc); err != nil {
			return &kvrpcpb.BatchGetResponse{Error: err.KeyError(), Pairs: []*kvrpcpb.KvPair{{Error: err.KeyError()}}}
		}
	}
	v := e.open(req.Context, req.Version)
	defer v.snap.Close()
	v.needCommitTS = req.NeedCommitTs
	resp := &kvrpcpb.BatchGetResponse{Pairs: make([]*kvrpcpb.KvPair, 0, len(ks))}
	for _, k := range ks {
		switch it, err := v.get(k); {
		case err != nil:
			resp.Pairs = append(resp.Pairs, &kvrpcpb.KvPair{Error: keyError(err)})
		case it != nil:
			resp.Pairs = append(resp.Pairs, &kvrpcpb.KvPair{Key: k.raw, Value: it.value, CommitTs: it.commitTS})
		}
	}
	return resp
}
