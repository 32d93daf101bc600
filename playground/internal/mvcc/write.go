package mvcc

import (
	"bytes"
	"encoding/binary"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

type writeKind byte

// The kinds of write records (TiKV components/txn_types/src/write.rs, WriteType).
const (
	writePut      writeKind = 'P'
	writeDelete   writeKind = 'D'
	writeLock     writeKind = 'L'
	writeRollback writeKind = 'R'
)

// The optional fields of a write record, after the short value, in the order in which
// they are written (same file, WriteRef::to_bytes).
const (
	writeOverlapped = 'R'
	writeGCFence    = 'F'
	writeTxnSource  = 'S'
)

// protectedRollback is the short value of a rollback record that must not be collapsed.
const protectedRollback = "p"

// write is the record of how a transaction ended on a key. It is at the encoded key and
// the commit timestamp in the write family; a rollback's is the start timestamp.
type write struct {
	kind    writeKind
	startTS uint64
	short   []byte // nil: none; the value is in the default family, at the start timestamp
	// overlapped marks that at this record's commit timestamp another transaction,
	// which began then, was rolled back.
	overlapped bool
	// fence is, of a record rewritten to set overlapped, the commit timestamp of the
	// next version then, 0 if there was none: a reader that finds this record newest
	// although the next version must be visible knows that it was collected.
	fenced     bool
	fence      uint64
	lastChange lastChange
	txnSource  uint64
}

func newRollback(startTS uint64, protected bool) *write {
	w := &write{kind: writeRollback, startTS: startTS}
	if protected {
		w.short = []byte(protectedRollback)
	}
	return w
}

func (w *write) isProtected() bool {
	return w.kind == writeRollback && bytes.Equal(w.short, []byte(protectedRollback))
}

// changes tells whether the record is a version: of a value, or of its absence.
func (w *write) changes() bool { return w.kind == writePut || w.kind == writeDelete }

// collected tells that the record, found newest at ts, is one that garbage collection
// removed and a late rollback brought back (write.rs, check_gc_fence_as_latest_version).
func (w *write) collected(ts uint64) bool { return w.fenced && w.fence != 0 && w.fence <= ts }

func (w *write) encode() []byte {
	b := make([]byte, 0, 24+len(w.short))
	b = binary.AppendUvarint(append(b, byte(w.kind)), w.startTS)
	if w.short != nil {
		b = appendShortValue(b, w.short)
	}
	if w.overlapped {
		b = append(b, writeOverlapped)
	}
	if w.fenced {
		b = binary.BigEndian.AppendUint64(append(b, writeGCFence), w.fence)
	}
	b = w.lastChange.append(b)
	if w.txnSource != 0 {
		b = binary.AppendUvarint(append(b, writeTxnSource), w.txnSource)
	}
	return b
}

func parseWrite(b []byte) (*write, error) {
	d := decoder{b: b}
	w := &write{kind: writeKind(d.byte())}
	switch w.kind {
	case writePut, writeDelete, writeLock, writeRollback:
	default:
		return nil, errFormat
	}
	w.startTS = d.uvarint()
	for len(d.b) > 0 && w.parseField(&d) {
	}
	if d.failed {
		return nil, errFormat
	}
	return w, nil
}

// parseField reads one optional field, and reports false if it does not know it.
func (w *write) parseField(d *decoder) bool {
	switch d.byte() {
	case fieldShortValue:
		w.short = d.take(uint64(d.byte()))
	case writeOverlapped:
		w.overlapped = true
	case writeGCFence:
		w.fenced, w.fence = true, d.uint64()
	case fieldLastChange:
		w.lastChange = lastChange{d.uint64(), d.uvarint()}
	case writeTxnSource:
		w.txnSource = d.uvarint()
	default:
		return false
	}
	return true
}

func (w *write) op() kvrpcpb.Op {
	switch w.kind {
	case writePut:
		return kvrpcpb.Op_Put
	case writeDelete:
		return kvrpcpb.Op_Del
	case writeRollback:
		return kvrpcpb.Op_Rollback
	}
	return kvrpcpb.Op_Lock
}
