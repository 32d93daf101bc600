package mvcc

import (
	"encoding/binary"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

type lockKind byte

// The kinds of locks (TiKV components/txn_types/src/lock.rs, LockType). Shared locks
// are of another format (shared.go).
const (
	lockPut         lockKind = 'P'
	lockDelete      lockKind = 'D'
	lockLock        lockKind = 'L'
	lockPessimistic lockKind = 'S'
	lockShared      lockKind = 'H'
)

// The optional fields of a lock, in the order in which they are written (same file,
// Lock::to_bytes). A reader stops at a field it does not know.
const (
	lockForUpdateTS  = 'f'
	lockTxnSize      = 't'
	lockMinCommitTS  = 'c'
	lockAsyncCommit  = 'a'
	lockRollbackTS   = 'r'
	lockTxnSource    = 's'
	lockWithConflict = 'F'
	lockGeneration   = 'g'
)

// lock is the record of a key that a transaction has prewritten, or holds
// pessimistically. It is at the encoded key in the lock family.
type lock struct {
	kind         lockKind
	primary      []byte // as requests have it, not encoded
	ts           uint64 // the transaction's start timestamp
	ttl          uint64 // milliseconds, from ts
	short        []byte // the value, if it is short; nil: none
	forUpdateTS  uint64 // 0: an optimistic transaction
	txnSize      uint64
	minCommitTS  uint64
	asyncCommit  bool
	secondaries  [][]byte // of an async-commit primary
	rollbackTS   []uint64 // rollbacks that this lock's commit might fall onto
	lastChange   lastChange
	txnSource    uint64
	withConflict bool   // taken in spite of a newer version
	generation   uint64 // of the flush that wrote it last; 0: an ordinary prewrite
	// onePC marks the lock, in memory only, of a one-phase commit.
	onePC bool
	// A shared lock has nothing but its kind and these: its holders' locks, by start
	// timestamp, and whether there may be no more of them.
	holders    []*lock
	shrinkOnly bool
}

func (l *lock) pessimistic() bool { return l.kind == lockPessimistic }

// passable tells that reads do not care for the lock: it will not change the key (TiKV
// components/txn_types/src/lock.rs, check_ts_conflict_si).
func (l *lock) passable() bool { return l.kind == lockLock || l.pessimistic() || l.shared() }

// expired tells whether the lock's time to live has ended, strictly before now (TiKV
// src/storage/txn/actions/check_txn_status.rs).
func (l *lock) expired(now uint64) bool {
	end := physical(l.ts) + l.ttl
	return end >= l.ttl && end < physical(now)
}

func (l *lock) encode() []byte {
	if l.shared() {
		return l.encodeShared()
	}
	b := make([]byte, 0, 64+len(l.primary)+len(l.short))
	b = appendBytes(append(b, byte(l.kind)), l.primary)
	b = binary.AppendUvarint(binary.AppendUvarint(b, l.ts), l.ttl)
	if l.short != nil {
		b = appendShortValue(b, l.short)
	}
	for _, f := range []struct {
		name  byte
		value uint64
	}{{lockForUpdateTS, l.forUpdateTS}, {lockTxnSize, l.txnSize}, {lockMinCommitTS, l.minCommitTS}} {
		if f.value != 0 {
			b = binary.BigEndian.AppendUint64(append(b, f.name), f.value)
		}
	}
	if l.asyncCommit {
		b = binary.AppendUvarint(append(b, lockAsyncCommit), uint64(len(l.secondaries)))
		for _, k := range l.secondaries {
			b = appendBytes(b, k)
		}
	}
	if len(l.rollbackTS) > 0 {
		b = binary.AppendUvarint(append(b, lockRollbackTS), uint64(len(l.rollbackTS)))
		for _, ts := range l.rollbackTS {
			b = binary.BigEndian.AppendUint64(b, ts)
		}
	}
	b = l.lastChange.append(b)
	if l.txnSource != 0 {
		b = binary.AppendUvarint(append(b, lockTxnSource), l.txnSource)
	}
	if l.withConflict {
		b = append(b, lockWithConflict)
	}
	if l.generation != 0 {
		b = binary.BigEndian.AppendUint64(append(b, lockGeneration), l.generation)
	}
	return b
}

func parseLock(b []byte) (*lock, error) {
	d := decoder{b: b}
	l := &lock{kind: lockKind(d.byte())}
	switch l.kind {
	case lockPut, lockDelete, lockLock, lockPessimistic:
	case lockShared:
		return l, l.parseShared(&d)
	default:
		return nil, errFormat
	}
	l.primary, l.ts = d.bytes(), d.uvarint()
	if len(d.b) > 0 {
		l.ttl = d.uvarint()
	}
	for len(d.b) > 0 && l.parseField(&d) {
	}
	if d.failed {
		return nil, errFormat
	}
	return l, nil
}

// parseField reads one optional field, and reports false if it does not know it.
func (l *lock) parseField(d *decoder) bool {
	switch d.byte() {
	case fieldShortValue:
		l.short = d.take(uint64(d.byte()))
	case lockForUpdateTS:
		l.forUpdateTS = d.uint64()
	case lockTxnSize:
		l.txnSize = d.uint64()
	case lockMinCommitTS:
		l.minCommitTS = d.uint64()
	case lockAsyncCommit:
		l.asyncCommit, l.secondaries = true, nil
		for n := d.uvarint(); n > 0 && !d.failed; n-- {
			l.secondaries = append(l.secondaries, d.bytes())
		}
	case lockRollbackTS:
		l.rollbackTS = nil
		for n := d.uvarint(); n > 0 && !d.failed; n-- {
			l.rollbackTS = append(l.rollbackTS, d.uint64())
		}
	case fieldLastChange:
		l.lastChange = lastChange{d.uint64(), d.uvarint()}
	case lockTxnSource:
		l.txnSource = d.uvarint()
	case lockWithConflict:
		l.withConflict = true
	case lockGeneration:
		l.generation = d.uint64()
	default:
		return false
	}
	return true
}

// info is the lock as answers carry it (lock.rs, into_lock_info).
func (l *lock) info(raw []byte) *kvrpcpb.LockInfo {
	if l.shared() {
		return l.sharedInfo(raw)
	}
	return &kvrpcpb.LockInfo{
		PrimaryLock:     l.primary,
		LockVersion:     l.ts,
		Key:             raw,
		LockTtl:         l.ttl,
		TxnSize:         l.txnSize,
		LockType:        l.op(),
		LockForUpdateTs: l.forUpdateTS,
		UseAsyncCommit:  l.asyncCommit,
		MinCommitTs:     l.minCommitTS,
		Secondaries:     l.secondaries,
	}
}

func (l *lock) op() kvrpcpb.Op {
	switch l.kind {
	case lockPut:
		return kvrpcpb.Op_Put
	case lockDelete:
		return kvrpcpb.Op_Del
	case lockPessimistic:
		return kvrpcpb.Op_PessimisticLock
	case lockShared:
		return kvrpcpb.Op_SharedLock
	}
	return kvrpcpb.Op_Lock
}
