package mvcc

import (
	"sync"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// Resolved returns the resolved timestamp of a range: nothing commits at or below it any
// more. now is a timestamp that PD gave before the call. The caller's store leads the
// range's region and is in it until Resolved returns; a later leader first asks PD for a
// timestamp, which is above now. The result may be below an earlier one, which holds
// nevertheless: a pessimistic transaction may have prewritten since, under an older
// start timestamp.
//
// MaxTS is raised first, then the locks in memory are looked at, then those that are
// stored (TiKV components/resolved_ts/src/advance.rs, advance_ts_for_regions, and
// resolver.rs, resolve). What is neither of the two by then commits at a timestamp of
// PD's after now, or of this store's above MaxTS. What a lock in memory announces may be
// stored by the time it is gone, so that one who passes on what is stored does so before
// it asks for Resolved.
//
// Only locks that will be values or deletions count: a pessimistic lock is not prewritten
// yet, and a record of the lock kind is none that is passed on (components/resolved_ts/
// src/scanner.rs, scan_locks; components/cdc/src/delegate.rs likewise).
func (e *Engine) Resolved(in keys.Range, now uint64) uint64 {
	bound := e.manager.Bound(now)
	snap := e.store.Snapshot()
	defer snap.Close()
	return unlocked(snap, in, bound, func(l *lock) uint64 { return l.ts })
}

// Safe is Resolved for stale reads, which look at locks themselves: pipelined transactions
// hold it back no further than what they said of themselves, to the store that m is of
// (resolver.rs, oldest_transaction). It is that of a snapshot, where bound is what Manager.
// Bound returned before the snapshot was taken.
func Safe(m *Manager, snap storage.Snapshot, in keys.Range, bound uint64) uint64 {
	return unlocked(snap, in, bound, m.before)
}

// unlocked is bound, or what before says of a lock in the range, if that is less.
func unlocked(snap storage.Snapshot, in keys.Range, bound uint64, before func(*lock) uint64) uint64 {
	for _, l := range (&reader{snap: snap}).locks(in, false) {
		if l.kind == lockPut || l.kind == lockDelete {
			bound = min(bound, before(l))
		}
	}
	return bound
}

// Bound raises MaxTS to a timestamp that PD gave, and returns it, or what is less, the
// least start timestamp of a lock in memory: at or below that the store lets nothing more
// commit but what is locked in the storage.
func (m *Manager) Bound(now uint64) uint64 {
	m.Observe(now)
	return min(now, m.minLock())
}

// minLock is the least start timestamp of the locks in memory, the largest number if
// there are none (TiKV components/concurrency_manager/src/lib.rs, global_min_lock_ts).
func (m *Manager) minLock() uint64 {
	least := maxTS
	if m.inMemory.Load() == 0 {
		return least
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.locks {
		least = min(least, l.lock.ts)
	}
	return least
}

// pipelinedTxns is what pipelined transactions have told a store of themselves: their locks
// stay for long, but each commits not before the timestamp that it says, so that safe
// timestamps need not wait for it (TiKV src/storage/txn/txn_status_cache.rs).
type pipelinedTxns struct {
	mu   sync.Mutex
	seen map[uint64]pipelinedTxn // by start timestamp
}

type pipelinedTxn struct {
	minCommitTS uint64
	ended       bool // committed or rolled back
}

// before is a timestamp at or below which a lock's transaction does not commit: the start
// of an ordinary one, of a pipelined one the timestamp before the least that it may commit
// at, and of one that has ended the largest (components/resolved_ts/src/resolver.rs,
// oldest_transaction and lookup_min_commit_ts).
func (m *Manager) before(l *lock) uint64 {
	if l.generation == 0 {
		return l.ts
	}
	if m.committed.has(l.ts) {
		return maxTS
	}
	m.pipelined.mu.Lock()
	defer m.pipelined.mu.Unlock()
	x, ok := m.pipelined.seen[l.ts]
	switch {
	case !ok:
		return l.ts - 1
	case x.ended:
		return maxTS
	}
	return x.minCommitTS - 1
}

// hear takes one report (src/storage/mod.rs, update_txn_status_cache). What has ended stays
// so, until it is completed: then no lock is left.
func (t *pipelinedTxns) hear(s *kvrpcpb.TxnStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.GetIsCompleted() {
		delete(t.seen, s.GetStartTs())
		return
	}
	if t.seen == nil {
		t.seen = make(map[uint64]pipelinedTxn)
	}
	x := t.seen[s.GetStartTs()]
	x.ended = x.ended || s.GetRolledBack() || s.GetCommitTs() != 0
	x.minCommitTS = max(x.minCommitTS, s.GetStartTs(), s.GetMinCommitTs())
	t.seen[s.GetStartTs()] = x
}
