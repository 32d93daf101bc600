package mvcc

import (
	"iter"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// reader reads records from one snapshot (TiKV src/storage/mvcc/reader/reader.rs).
type reader struct {
	snap storage.Snapshot
	work
}

// lock returns the lock of a key, nil if it has none.
func (r *reader) lock(enc []byte) (*lock, error) {
	b, ok := r.snap.Get(storage.Lock, enc)
	if !ok {
		return nil, nil
	}
	return parseLock(b)
}

// record is a write record and where it is.
type record struct {
	commitTS uint64
	*write
}

// writes iterates over a key's write records at or below ts, newest first.
func (r *reader) writes(enc []byte, ts uint64) iter.Seq2[record, error] {
	return func(yield func(record, error) bool) {
		r.moves++
		for stored, b := range r.snap.Scan(storage.Write, versionsFrom(enc, ts), false) {
			_, commitTS, err := splitVersion(stored)
			if err != nil {
				yield(record{}, err)
				return
			}
			w, err := parseWrite(b)
			if !yield(record{commitTS, w}, err) || err != nil {
				return
			}
			r.moves++
		}
	}
}

// newest returns the newest write record at or below ts, of any kind; its write is nil
// if there is none.
func (r *reader) newest(enc []byte, ts uint64) (record, error) {
	for w, err := range r.writes(enc, ts) {
		return w, err
	}
	return record{}, nil
}

// version returns the newest value at or below ts; its write is nil if the key is
// absent then. seen is the timestamp that a garbage-collection fence is compared with
// (reader.rs, get_write_with_commit_ts).
func (r *reader) version(enc []byte, ts, seen uint64) (record, error) {
	for w, err := range r.writes(enc, ts) {
		switch {
		case err != nil:
			return record{}, err
		case w.collected(seen) || w.kind == writeDelete:
			return record{}, nil
		case w.kind == writePut:
			return w, nil
		}
	}
	return record{}, nil
}

// value returns the value of a record of kind writePut.
func (r *reader) value(enc []byte, w *write) ([]byte, error) {
	if w.short != nil {
		return w.short, nil
	}
	return r.longValue(enc, w.startTS)
}

func (r *reader) longValue(enc []byte, startTS uint64) ([]byte, error) {
	stored := at(enc, startTS)
	v, ok := r.snap.Get(storage.Default, stored)
	if !ok {
		return nil, errDefaultNotFound(stored)
	}
	return v, nil
}

// ending is what a key's write records say of a transaction (reader.rs,
// get_txn_commit_record).
type ending struct {
	// record is the transaction's own, of a commit or a rollback.
	record record
	// rolledBack: there is no record of its own, but the flag on another's, which was
	// committed when this transaction began.
	rolledBack bool
	// occupied is that other record, if it has no such flag yet, and fence the commit
	// timestamp of the next version after it.
	occupied record
	fence    uint64
}

// committed returns the commit timestamp, if the transaction is committed.
func (e ending) committed() (uint64, bool) {
	if e.record.write == nil || e.record.kind == writeRollback {
		return 0, false
	}
	return e.record.commitTS, true
}

// known tells whether the transaction has ended on this key.
func (e ending) known() bool { return e.record.write != nil || e.rolledBack }

// ending looks for how the transaction that began at startTS ended on a key. It looks
// at all records down to startTS: one that began earlier may have committed later.
func (r *reader) ending(enc []byte, startTS uint64) (ending, error) {
	var fence uint64
	for w, err := range r.writes(enc, maxTS) {
		switch {
		case err != nil:
			return ending{}, err
		case w.startTS == startTS:
			return ending{record: w}, nil
		case w.commitTS == startTS && w.overlapped:
			return ending{rolledBack: true}, nil
		case w.commitTS == startTS:
			return ending{occupied: w, fence: fence}, nil
		case w.commitTS < startTS:
			return ending{}, nil
		}
		if w.changes() {
			fence = w.commitTS
		}
	}
	return ending{}, nil
}

// locks iterates over the locks in a range of encoded keys.
func (r *reader) locks(in keys.Range, reverse bool) iter.Seq2[key, *lock] {
	return func(yield func(key, *lock) bool) {
		for enc, b := range r.snap.Scan(storage.Lock, in, reverse) {
			raw, rest, err := keys.Decode(enc)
			if err != nil || len(rest) > 0 {
				continue // not of a transaction: raw data may be in this family, in V1
			}
			l, err := parseLock(b)
			if err != nil {
				continue
			}
			if !yield(key{raw, enc}, l) {
				return
			}
		}
	}
}
