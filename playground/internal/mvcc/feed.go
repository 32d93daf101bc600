package mvcc

import (
	"bytes"
	"iter"

	"github.com/pingcap/kvproto/pkg/cdcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// Row is a row of the change feed.
type Row struct {
	cdcpb.Event_Row
	// Stored is the key as locks are stored by it.
	Stored []byte
	// OldAt is the timestamp to read the value before at; 0: the row has none, or has it.
	OldAt uint64

	long    []byte // of the default family
	hasLong bool
	blank   bool
}

// Rows is what a batch tells a change feed of transactions, a row for each key: the last
// write of a key counts, as in TiKV. Locks that will be no value and no deletion are left
// out, and so is a prewrite whose value is not in the batch; their commits are rows without
// a type and a key. In a batch of one phase a commit is a row that needs no prewrite (TiKV
// components/cdc/src/delegate.rs, sink_txn_put and RowsBuilder).
func Rows(b *storage.Batch) []*Row {
	var (
		rows  []*Row
		byKey = make(map[string]*Row)
	)
	of := func(enc []byte) *Row {
		row := byKey[string(enc)]
		if row == nil {
			row = &Row{Stored: enc}
			byKey[string(enc)] = row
			rows = append(rows, row)
		}
		return row
	}
	for p := range b.Puts() {
		switch p.CF {
		case storage.Lock:
			if k, l, ok := changingLock(p.Key, p.Value); ok {
				of(k.enc).prewrite(k, l)
			}
		case storage.Write:
			if k, w, ok := versionRecord(p.Key, p.Value); ok {
				of(k.enc).end(k, w, b.OnePC())
			}
		case storage.Default:
			if enc, _, err := splitVersion(p.Key); err == nil {
				row := of(enc)
				row.long, row.hasLong = p.Value, true
			}
		}
	}
	told := rows[:0]
	for _, row := range rows {
		if row.finish() {
			told = append(told, row)
		}
	}
	return told
}

// changingLock is a stored lock that will be a value or a deletion. Others are not told
// of, nor is what is no lock: in V1 raw data may be in the family.
func changingLock(enc, stored []byte) (key, *lock, bool) {
	raw, rest, err := keys.Decode(enc)
	if err != nil || len(rest) > 0 {
		return key{}, nil, false
	}
	l, err := parseLock(stored)
	if err != nil || l.kind != lockPut && l.kind != lockDelete {
		return key{}, nil, false
	}
	return key{raw, enc}, l, true
}

// versionRecord is a stored write record.
func versionRecord(at, stored []byte) (key, record, bool) {
	enc, commitTS, err := splitVersion(at)
	if err != nil {
		return key{}, record{}, false
	}
	raw, rest, err := keys.Decode(enc)
	if err != nil || len(rest) > 0 {
		return key{}, record{}, false
	}
	w, err := parseWrite(stored)
	return key{raw, enc}, record{commitTS, w}, err == nil
}

// prewrite makes the row that of a lock (decode_lock).
func (row *Row) prewrite(k key, l *lock) {
	row.Event_Row = cdcpb.Event_Row{
		Type: cdcpb.Event_PREWRITE, OpType: opOf(writeKind(l.kind)), Key: k.raw, StartTs: l.ts,
		Value: l.short, TxnSource: l.txnSource,
	}
	row.OldAt = max(l.ts, l.forUpdateTS)
	row.hasLong = row.hasLong || l.short != nil
}

// end makes the row that of a write record. One that was rewritten to remember that
// another transaction was rolled back at its place tells of that rollback (decode_write).
// Of a record of the lock kind nothing is told but that there is one.
func (row *Row) end(k key, w record, onePC bool) {
	if w.fenced {
		row.Event_Row = cdcpb.Event_Row{Type: cdcpb.Event_ROLLBACK, Key: k.raw, StartTs: w.commitTS}
		row.OldAt = 0
		return
	}
	if row.blank = w.kind == writeLock; row.blank {
		return
	}
	row.Event_Row = cdcpb.Event_Row{
		Type: cdcpb.Event_COMMIT, OpType: opOf(w.kind), Key: k.raw, StartTs: w.startTS, CommitTs: w.commitTS,
		Value: w.short, TxnSource: w.txnSource,
	}
	row.OldAt = 0
	switch {
	case w.kind == writeRollback:
		row.Type, row.CommitTs = cdcpb.Event_ROLLBACK, 0
	case onePC:
		row.Type, row.OldAt = cdcpb.Event_COMMITTED, w.commitTS-1
	}
}

func opOf(kind writeKind) cdcpb.Event_Row_OpType {
	switch kind {
	case writePut:
		return cdcpb.Event_Row_PUT
	case writeDelete:
		return cdcpb.Event_Row_DELETE
	}
	return cdcpb.Event_Row_UNKNOWN
}

// finish completes the row, and tells whether there is anything to tell.
func (row *Row) finish() bool {
	if len(row.long) > 0 {
		row.Value = row.long
	}
	row.long = nil
	return (row.Type != cdcpb.Event_UNKNOWN || row.blank) &&
		(row.Type != cdcpb.Event_PREWRITE || row.OpType != cdcpb.Event_Row_PUT || row.hasLong)
}

// OldValue reads the value that a key has at a timestamp, nil if it has none (TiKV
// components/cdc/src/old_value.rs, near_seek_old_value).
func OldValue(snap storage.Snapshot, raw []byte, ts uint64) ([]byte, error) {
	r := reader{snap: snap}
	return r.oldValue(keyOf(raw).enc, ts, ts)
}

func (r *reader) oldValue(enc []byte, ts, seen uint64) ([]byte, error) {
	w, err := r.version(enc, ts, seen)
	if err != nil || w.write == nil {
		return nil, err
	}
	return r.value(enc, w.write)
}

// Delta iterates over what a change feed has to tell at its beginning of the keys in a
// range, in their order: of each its lock, whenever that was made, and its versions after
// a timestamp, the newest first, all with the values before (TiKV src/storage/mvcc/reader/
// scanner/forward.rs, DeltaEntryPolicy, and components/cdc/src/delegate.rs, convert_to_
// grpc_events).
func Delta(snap storage.Snapshot, in keys.Range, after uint64) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		d := delta{reader: reader{snap: snap}, after: after, yield: yield}
		d.scan(in)
	}
}

type delta struct {
	reader
	after uint64
	yield func(*Row, error) bool
}

func (d *delta) scan(in keys.Range) {
	next, stop := iter.Pull2(d.snap.Scan(storage.Lock, in, false))
	defer stop()
	enc, stored, more := next()
	locksTo := func(end []byte) bool { // nil: all
		for ; more && (end == nil || bytes.Compare(enc, end) <= 0); enc, stored, more = next() {
			if !d.lock(enc, stored) {
				return false
			}
		}
		return true
	}
	var last []byte
	for at, record := range d.snap.Scan(storage.Write, in, false) {
		k, w, ok := versionRecord(at, record)
		if !ok {
			continue
		}
		if !bytes.Equal(k.enc, last) {
			if last = k.enc; !locksTo(last) {
				return
			}
		}
		if w.commitTS > d.after && w.changes() && !d.version(k, w) {
			return
		}
	}
	locksTo(nil)
}

func (d *delta) lock(enc, stored []byte) bool {
	k, l, ok := changingLock(enc, stored)
	if !ok {
		return true
	}
	row := new(Row)
	row.prewrite(k, l)
	var err error
	if l.kind == lockPut && l.short == nil {
		row.Value, err = d.longValue(k.enc, l.ts)
	}
	return d.tell(row, k, row.OldAt, err)
}

func (d *delta) version(k key, w record) bool {
	row := new(Row)
	row.end(k, record{w.commitTS, &write{kind: w.kind, startTS: w.startTS, short: w.short, txnSource: w.txnSource}}, true)
	var err error
	if w.kind == writePut && w.short == nil {
		row.Value, err = d.longValue(k.enc, w.startTS)
	}
	return d.tell(row, k, w.commitTS-1, err)
}

func (d *delta) tell(row *Row, k key, old uint64, err error) bool {
	if err == nil {
		row.OldValue, err = d.oldValue(k.enc, old, d.after)
	}
	row.OldAt = 0
	return d.yield(row, err)
}
