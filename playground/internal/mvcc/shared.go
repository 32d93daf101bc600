package mvcc

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// A key that several transactions have locked in share mode has one record, of kind
// lockShared, which holds a lock of each: a pessimistic one, or, once it is prewritten,
// one of kind lockLock (TiKV components/txn_types/src/lock.rs, SharedLocks). A record
// without holders is not stored.

// The fields of a shared lock's record.
const (
	sharedFlags   = 'i'
	sharedHolders = 'h'
)

// flagShrinkOnly is set when somebody wanted the key for itself: from then on the holders
// only become fewer.
const flagShrinkOnly = 1

func (l *lock) shared() bool { return l.kind == lockShared }

// of returns the lock that a transaction has of the key: this one, or its part of a
// shared one; nil if it has none.
func (l *lock) of(startTS uint64) *lock {
	switch {
	case l == nil:
	case l.shared():
		if i, ok := l.holder(startTS); ok {
			return l.holders[i]
		}
	case l.ts == startTS:
		return l
	}
	return nil
}

func (l *lock) holder(startTS uint64) (int, bool) {
	return slices.BinarySearchFunc(l.holders, startTS, func(h *lock, ts uint64) int { return cmp.Compare(h.ts, ts) })
}

// with returns the shared lock with a holder's lock added, or in the place of the one that
// it had. A nil lock is one that nobody holds.
func (l *lock) with(h *lock) *lock {
	all := &lock{kind: lockShared}
	if l != nil {
		all.shrinkOnly, all.holders = l.shrinkOnly, slices.Clone(l.holders)
	}
	i, again := all.holder(h.ts)
	if again {
		all.holders[i] = h
	} else {
		all.holders = slices.Insert(all.holders, i, h)
	}
	return all
}

// without returns what is left of a lock that a transaction gives up: the shared lock of
// the others, nil if there are none.
func (l *lock) without(startTS uint64) *lock {
	i, ok := l.holder(startTS)
	if !ok || len(l.holders) == 1 {
		return nil
	}
	return &lock{kind: lockShared, shrinkOnly: l.shrinkOnly, holders: slices.Delete(slices.Clone(l.holders), i, i+1)}
}

// filter returns a shared lock with those holders, at most limit, that keep says; nil if
// they are none. The oldest come first (lock.rs, filter_shared_locks and truncate_to).
func (l *lock) filter(keep func(*lock) bool, limit int) *lock {
	some := &lock{kind: lockShared, shrinkOnly: l.shrinkOnly}
	for _, h := range l.holders {
		if keep(h) && len(some.holders) < limit {
			some.holders = append(some.holders, h)
		}
	}
	if len(some.holders) == 0 {
		return nil
	}
	return some
}

// each returns the locks that a lock consists of: itself, or those of its holders.
func (l *lock) each() []*lock {
	if l.shared() {
		return l.holders
	}
	return []*lock{l}
}

// encodeShared is SharedLocks::to_bytes.
func (l *lock) encodeShared() []byte {
	b := []byte{byte(lockShared)}
	if l.shrinkOnly {
		b = append(b, sharedFlags, flagShrinkOnly)
	}
	b = binary.AppendUvarint(append(b, sharedHolders), uint64(len(l.holders)))
	for _, h := range l.holders {
		b = appendBytes(b, h.encode())
	}
	return b
}

// parseShared is SharedLocks::parse; d is behind the kind.
func (l *lock) parseShared(d *decoder) error {
	for len(d.b) > 0 {
		switch d.byte() {
		case sharedFlags:
			flags := d.byte()
			if flags&^flagShrinkOnly != 0 {
				return errFormat
			}
			l.shrinkOnly = flags != 0
		case sharedHolders:
			for n := d.uvarint(); n > 0 && !d.failed; n-- {
				h, err := parseLock(d.bytes())
				if err != nil || h.shared() {
					return errFormat
				}
				*l = *l.with(h)
			}
		default:
			d.b = nil // a field that is not known, nor what comes after it
		}
	}
	if d.failed || len(l.holders) == 0 {
		return errFormat
	}
	return nil
}

// sharedInfo is SharedLocks::into_lock_info: a wrapper, of whose own fields only kind and
// key say anything.
func (l *lock) sharedInfo(raw []byte) *kvrpcpb.LockInfo {
	info := &kvrpcpb.LockInfo{LockType: kvrpcpb.Op_SharedLock, Key: raw}
	for _, h := range l.holders {
		info.SharedLockInfos = append(info.SharedLockInfos, h.info(raw))
	}
	return info
}
