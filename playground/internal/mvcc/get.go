package mvcc

import (
	"context"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// view is what a read sees: a snapshot, a timestamp, and how locks are treated.
type view struct {
	reader
	ts           uint64
	isolation    kvrpcpb.IsolationLevel
	bypass       []uint64 // start timestamps of locks to ignore (Context.resolved_locks)
	access       []uint64 // of locks to read through (Context.committed_locks)
	replicaRead  bool
	needCommitTS bool
	began        time.Time // when it had its snapshot
	keyOnly      bool
}

// blocked looks for locks in memory that the view may not pass.
type blocked func(m *Manager, check func(key, *lock) error) error

func blockedKeys(ks ...key) blocked {
	return func(m *Manager, check func(key, *lock) error) error {
		for _, k := range ks {
			if err := m.checkKey(k, check); err != nil {
				return err
			}
		}
		return nil
	}
}

func blockedRange(in keys.Range) blocked {
	return func(m *Manager, check func(key, *lock) error) error { return m.checkRange(in, check) }
}

// open raises MaxTS to the read's timestamp, then looks at the locks in memory, then
// takes the snapshot: what it shows, was written before, and what commits after it at a
// timestamp of the server's choice, commits above the read's. A stale read, which is
// below all such timestamps, raises nothing (TiKV src/storage/mod.rs, prepare_snap_ctx).
// A replica read has the region's leader do the first two, with its read index (src/
// server/raftkv/mod.rs, ReplicaReadLockChecker). The caller closes the view's snapshot.
func (e *Engine) open(ctx context.Context, q *kvrpcpb.Context, ts uint64, in blocked) (view, error) {
	v := view{
		ts:          ts,
		isolation:   q.GetIsolationLevel(),
		bypass:      q.GetResolvedLocks(),
		access:      q.GetCommittedLocks(),
		replicaRead: q.GetReplicaRead(),
	}
	m := e.manager
	if v.replicaRead && !q.GetStaleRead() && e.leader != nil {
		if l := e.leader(q.GetRegionId()); l != nil {
			m = l
		}
	}
	if !q.GetStaleRead() {
		e.observe(ts)
		m.Observe(ts)
	}
	if v.isolation != kvrpcpb.IsolationLevel_RC {
		if err := in(m, v.conflictInMemory); err != nil {
			return view{}, err
		}
	}
	v.reader, v.began = reader{snap: storage.Look(ctx, e.store)}, e.now()
	return v, nil
}

// conflictInMemory is conflict for a lock that is not written yet. That of a replica
// read is the leader's answer, which knows neither what the read may pass nor whose
// primary key it reads (TiKV components/txn_types/src/lock.rs,
// check_ts_conflict_for_replica_read).
func (v *view) conflictInMemory(k key, l *lock) error {
	if !v.replicaRead || v.isolation != kvrpcpb.IsolationLevel_SI {
		return v.conflict(k, l)
	}
	if l.passable() || l.ts > v.ts || l.minCommitTS > v.ts {
		return nil
	}
	return errLocked(l.info(k.raw))
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
	if v.found++; v.needCommitTS {
		it.commitTS = w.commitTS
	}
	if v.keyOnly {
		return it, nil
	}
	var err error
	it.value, err = v.value(enc, w.write)
	v.size += len(enc) + len(it.value)
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
	if it.value, err = l.short, nil; it.value == nil {
		it.value, err = v.longValue(k.enc, l.ts)
	}
	v.size += len(k.enc) + len(it.value)
	return it, true, err
}

// conflict returns the error for a lock that the view may not pass (TiKV components/
// txn_types/src/lock.rs, check_ts_conflict).
func (v *view) conflict(k key, l *lock) error {
	if l.passable() || slices.Contains(v.bypass, l.ts) {
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
	// committed, unless it is an async commit or a one-phase one, which may be.
	if v.ts == maxTS && !l.asyncCommit && !l.onePC && string(l.primary) == string(k.raw) {
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
	if err != nil {
		return err
	}
	if w.write == nil || w.commitTS <= v.ts {
		v.moves-- // the read goes on from there
		return nil
	}
	return errConflict(&kvrpcpb.WriteConflict{
		StartTs: v.ts, ConflictCommitTs: w.commitTS, Key: at(enc, w.commitTS), Reason: kvrpcpb.WriteConflict_RcCheckTs})
}

// Get answers KvGet.
func (e *Engine) Get(ctx context.Context, _ keys.Range, req *kvrpcpb.GetRequest) *kvrpcpb.GetResponse {
	k := keyOf(req.Key)
	if err := check.Keys(e.cfg.APIVersion, req.Context, "get", k.enc); err != nil {
		return &kvrpcpb.GetResponse{Error: err.KeyError()}
	}
	v, err := e.open(ctx, req.Context, req.Version, blockedKeys(k))
	if err != nil {
		return &kvrpcpb.GetResponse{Error: keyError(err)}
	}
	defer v.snap.Close()
	v.needCommitTS = req.NeedCommitTs
	it, err := v.get(k)
	switch {
	case err != nil:
		return &kvrpcpb.GetResponse{Error: keyError(err)}
	case it == nil:
		return &kvrpcpb.GetResponse{NotFound: true, ExecDetailsV2: v.details(e, -1)}
	}
	return &kvrpcpb.GetResponse{Value: it.value, CommitTs: it.commitTS, ExecDetailsV2: v.details(e, -1)}
}

// BatchGet answers KvBatchGet: the pairs that exist, in the order of the keys; a locked
// key is a pair with only an error. A lock in memory fails the whole request, and the
// pair that it then has is for old clients (TiKV src/server/service/kv.rs,
// future_batch_get).
func (e *Engine) BatchGet(ctx context.Context, _ keys.Range, req *kvrpcpb.BatchGetRequest) *kvrpcpb.BatchGetResponse {
	ks := keysOf(req.Keys)
	for _, k := range ks {
		if err := check.Keys(e.cfg.APIVersion, req.Context, "batch_get", k.enc); err != nil {
			return &kvrpcpb.BatchGetResponse{Error: err.KeyError(), Pairs: []*kvrpcpb.KvPair{{Error: err.KeyError()}}}
		}
	}
	v, err := e.open(ctx, req.Context, req.Version, blockedKeys(ks...))
	if err != nil {
		ke := keyError(err)
		return &kvrpcpb.BatchGetResponse{Error: ke, Pairs: []*kvrpcpb.KvPair{{Error: ke}}}
	}
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
	resp.ExecDetailsV2 = v.details(e, len(ks))
	return resp
}
