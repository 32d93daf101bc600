package mvcc

import (
	"fmt"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// mutate checks one key of a prewrite and locks it. It returns the key's least commit
// timestamp, 0 unless one is to be calculated, or if the key is locked already without
// (TiKV src/storage/txn/actions/prewrite.rs, prewrite_with_generation).
func (p *prewrite) mutate(m *mutation) (minCommitTS uint64, err error) {
	if p.pessimistic() && m.op == kvrpcpb.Op_CheckNotExists {
		return 0, check.Other("cannot handle checkNotExists in pessimistic prewrite")
	}
	if m.insert() {
		p.observe(p.startTS) // it is a read: nothing may come to exist below
	}
	whole, err := p.lock(m.enc)
	if err != nil {
		return 0, err
	}
	held, err := p.part(m, whole)
	if err != nil {
		return 0, err
	}
	amended, flushed := false, false
	switch {
	case held != nil:
		own, err := p.checkLock(m, held)
		if err != nil {
			return 0, err
		}
		if flushed = own && p.generation > 0; own && !flushed { // a repeated prewrite
			if held.asyncCommit {
				return held.minCommitTS, nil
			}
			return 0, nil
		}
	case m.action == kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK:
		if err := p.amend(m); err != nil {
			return 0, err
		}
		amended = true
	}
	var prev record
	loaded := !p.skipConstraint(m)
	if loaded {
		if prev, err = p.checkNewer(m); err != nil {
			return 0, err
		}
	}
	// Each key is asserted once: by its first flush, or when it was amended.
	if !amended && !flushed {
		if err := p.assert(m, prev, loaded); err != nil {
			return 0, err
		}
	}
	if m.op == kvrpcpb.Op_CheckNotExists {
		if !p.wanted() {
			return 0, nil
		}
		return max(p.req.MinCommitTs, p.startTS+1), nil
	}
	return p.write(m, held, whole)
}

// part returns the lock of a key that a mutation has to do with: the key's, or of a shared
// one the transaction's. Only who shares the lock already may prewrite the key so, and
// nothing else (prewrite_with_generation).
func (p *prewrite) part(m *mutation, whole *lock) (*lock, error) {
	share := m.op == kvrpcpb.Op_SharedLock
	switch {
	case whole == nil && share && m.action == kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK:
		return nil, p.lost(m, "LockMissingAmendFail")
	case whole == nil:
		return nil, nil
	case !whole.shared() && share, whole.shared() && !share && whole.of(p.startTS) == nil:
		return nil, errLocked(whole.info(m.raw)) // with the TTL that it has
	case !whole.shared():
		return whole, nil
	case !share:
		return nil, check.Other("use Op::SharedLock to prewrite on a shared lock")
	}
	own := whole.of(p.startTS)
	if own == nil {
		return nil, p.lost(m, "LockMissingAmendFail")
	}
	return own, nil
}

// checkLock decides on a lock that the key has already: own, if it is this transaction's
// own prewrite. Its own pessimistic lock is to be overwritten.
func (p *prewrite) checkLock(m *mutation, l *lock) (own bool, err error) {
	if l.ts != p.startTS {
		if m.action == kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK {
			return false, p.lost(m, "LockTsMismatch")
		}
		info := l.info(m.raw)
		if p.pessimistic() {
			info.LockTtl = 0 // to be resolved at once: no one may wait for it here
		}
		return false, errLocked(info)
	}
	if !l.pessimistic() {
		switch {
		case p.generation > 0 && l.generation >= p.generation:
			return true, errGeneration
		case l.generation > 0 && m.insert() && l.kind == lockPut:
			return true, errAlreadyExist(m.key)
		}
		return true, nil
	}
	if !p.pessimistic() {
		return false, errLockType(p.startTS, m.key, true)
	}
	if m.expected != nil && l.forUpdateTS != *m.expected {
		return false, p.lost(m, "LockForUpdateTsMismatch")
	}
	return false, nil
}

func (p *prewrite) lost(m *mutation, reason string) error {
	return &errPessimisticLockNotFound{p.startTS, m.key, reason}
}

// skipConstraint tells whether the key's newest version need not be looked at: in a
// pessimistic transaction its lock has kept others away. A repeated request looks all
// the same, because the transaction may be committed and the key free again (prewrite.rs,
// skip_constraint_check).
func (p *prewrite) skipConstraint(m *mutation) bool {
	if !p.pessimistic() {
		return p.skipCheck
	}
	switch m.action {
	case kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK:
		return true
	case kvrpcpb.PrewriteRequest_DO_CONSTRAINT_CHECK:
		return false
	}
	return !p.retry
}

// checkNewer refuses what happened to the key since the transaction began, and returns
// its newest write record (prewrite.rs, check_for_newer_version).
func (p *prewrite) checkNewer(m *mutation) (record, error) {
	for w, err := range p.writes(m.enc, maxTS) {
		switch {
		case err != nil:
			return record{}, err
		case w.commitTS == p.startTS && (w.kind == writeRollback || w.overlapped):
			return record{}, p.conflict(m, w, kvrpcpb.WriteConflict_SelfRolledBack)
		case !p.pessimistic() && w.commitTS > p.startTS:
			return record{}, p.conflict(m, w, kvrpcpb.WriteConflict_Optimistic)
		case m.action == kvrpcpb.PrewriteRequest_DO_CONSTRAINT_CHECK && w.commitTS > p.startTS:
			return record{}, p.conflict(m, w, kvrpcpb.WriteConflict_LazyUniquenessCheck)
		case p.pessimistic() && w.commitTS > p.req.ForUpdateTs && w.kind == writeRollback:
			continue // may be written beside the lock of the key that this one belongs to
		case p.pessimistic() && w.commitTS > p.req.ForUpdateTs:
			return record{}, p.lost(m, "NonLockKeyConflict")
		}
		return w, p.checkAbsent(m.key, m.insert(), w)
	}
	return record{}, nil
}

// checkAbsent refuses an insertion of a key that exists; w is its newest record (TiKV
// src/storage/txn/actions/check_data_constraint.rs).
func (c *change) checkAbsent(k key, insert bool, w record) error {
	if !insert || w.kind == writeDelete || w.fenced && w.fence != 0 {
		return nil
	}
	if w.kind != writePut {
		prev, err := c.version(k.enc, w.commitTS-1, c.startTS)
		if err != nil || prev.write == nil {
			return err
		}
	}
	return errAlreadyExist(k)
}

func (p *prewrite) conflict(m *mutation, w record, reason kvrpcpb.WriteConflict_Reason) error {
	return errConflict(&kvrpcpb.WriteConflict{
		StartTs: p.startTS, ConflictTs: w.startTS, ConflictCommitTs: w.commitTS,
		Key: m.raw, Primary: p.req.PrimaryLock, Reason: reason,
	})
}

// amend lets the prewrite of a key pass whose pessimistic lock was lost, if nothing was
// written to it since the transaction began (prewrite.rs, amend_pessimistic_lock).
func (p *prewrite) amend(m *mutation) error {
	w, err := p.newest(m.enc, maxTS)
	if err != nil {
		return err
	}
	if w.write != nil && w.commitTS >= p.startTS {
		return p.lost(m, "LockMissingAmendFail")
	}
	return p.assert(m, w, true)
}

// assert checks what the client believes of the key's existence. prev is its newest
// write record, if loaded. The fast level checks only what was loaded anyway (prewrite.rs,
// check_assertion).
func (p *prewrite) assert(m *mutation, prev record, loaded bool) error {
	level := p.req.AssertionLevel
	if m.assertion == kvrpcpb.Assertion_None || level == kvrpcpb.AssertionLevel_Off ||
		level != kvrpcpb.AssertionLevel_Strict && !loaded {
		return nil
	}
	if loaded && prev.write != nil && prev.fenced && prev.fence != 0 {
		prev = record{}
	}
	if !loaded || prev.write != nil && !prev.changes() {
		from := maxTS
		if loaded {
			from = prev.commitTS
		}
		var err error
		if prev, err = p.version(m.enc, from, p.startTS); err != nil {
			return err
		}
	}
	failed := &kvrpcpb.AssertionFailed{StartTs: p.startTS, Key: m.raw, Assertion: m.assertion}
	switch {
	case m.assertion == kvrpcpb.Assertion_Exist && prev.write == nil:
	case m.assertion == kvrpcpb.Assertion_Exist && prev.kind == writeDelete,
		m.assertion == kvrpcpb.Assertion_NotExist && prev.write != nil && prev.kind == writePut:
		failed.ExistingStartTs, failed.ExistingCommitTs = prev.startTS, prev.commitTS
	default:
		return nil
	}
	// A rollback of this transaction may be why: then that is the error.
	if p.skipConstraint(m) {
		if _, err := p.checkNewer(m); err != nil {
			return err
		}
	}
	return errAssertion(failed)
}

// write puts the lock, and the value if it does not fit in it. held is this
// transaction's own lock: a pessimistic one, whose TTL and timestamps may have been
// raised, or that of an earlier flush, and a part of whole if that is a shared one. A lock
// whose commit timestamp would be too large is put as one of two phases, with the error
// (prewrite.rs, write_lock).
func (p *prewrite) write(m *mutation, held, whole *lock) (minCommitTS uint64, err error) {
	if whole != nil && whole.shared() {
		return 0, p.writeShared(m, held, whole)
	}
	l := p.locking(m, held)
	pessimistic := held != nil && held.pessimistic()
	switch {
	case l.kind != lockPut:
	case len(m.value) <= maxShortValue:
		l.short = append([]byte{}, m.value...) // not nil, even if it is empty
	default:
		p.batch.Put(storage.Default, at(m.enc, p.startTS), m.value)
	}
	if !p.wanted() {
		p.putLock(m.key, l)
		return 0, nil
	}
	if p.async {
		l.asyncCommit = true
		if string(l.primary) == string(m.raw) {
			l.secondaries = p.req.Secondaries
		}
	} else {
		l.onePC = true
	}
	if !p.manager.propose(m.key, l, max(p.startTS, p.req.ForUpdateTs), p.req.MaxCommitTs) {
		l.asyncCommit, l.secondaries, l.onePC = false, nil, false
		p.putLock(m.key, l)
		return 0, errCommitTSTooLarge
	}
	p.inMemory = append(p.inMemory, m.key)
	if p.onePC {
		p.direct = append(p.direct, directLock{m.key, l, pessimistic})
	} else {
		p.putLock(m.key, l)
	}
	return l.minCommitTS, nil
}

// locking is the lock that a mutation makes, without a value.
func (p *prewrite) locking(m *mutation, held *lock) *lock {
	l := &lock{
		kind:        m.kind(),
		primary:     p.req.PrimaryLock,
		ts:          p.startTS,
		ttl:         p.req.LockTtl,
		forUpdateTS: p.req.ForUpdateTs,
		txnSize:     p.req.TxnSize,
		minCommitTS: p.req.MinCommitTs,
		txnSource:   p.req.GetContext().GetTxnSource(),
		generation:  p.generation,
	}
	if held != nil && held.pessimistic() {
		l.ttl = max(l.ttl, held.ttl)
		l.minCommitTS = max(l.minCommitTS, held.minCommitTS)
		l.forUpdateTS = max(l.forUpdateTS, held.forUpdateTS)
	}
	return l
}

// writeShared puts the transaction's part of a shared lock, which is not meant for a
// commit timestamp of the server's choice. One that would be too large is told first
// (prewrite.rs, write_lock).
func (p *prewrite) writeShared(m *mutation, held, whole *lock) error {
	l := p.locking(m, held)
	tooLarge := p.wanted() && p.req.MaxCommitTs != 0 &&
		max(l.minCommitTS, max(p.manager.MaxTS(), p.startTS, p.req.ForUpdateTs)+1) > p.req.MaxCommitTs
	switch {
	case p.generation > 0:
		return check.Other(fmt.Sprintf("shared lock prewrite does not support non-zero generation, generation: %d", p.generation))
	case p.onePC && !tooLarge:
		return check.Other("shared lock prewrite is incompatible with one-phase commit")
	case p.wanted() && !tooLarge:
		return check.Other("shared lock prewrite cannot use async-commit, falling back to 2PC")
	}
	p.putLock(m.key, whole.with(l))
	if tooLarge {
		return errCommitTSTooLarge
	}
	return nil
}
