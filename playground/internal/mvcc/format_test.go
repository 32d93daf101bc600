package mvcc

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/tikv-go/tikv/internal/keys"
)

// The stored forms are written out by hand from TiKV components/txn_types/src/lock.rs.
func lockVectors() map[string]*lock {
	return map[string]*lock{
		"P\x04pk\x01\x0a": {kind: lockPut, primary: []byte("pk"), ts: 1, ttl: 10},
		"P\x04pk\x01\x0av\x05value": {kind: lockPut, primary: []byte("pk"), ts: 1, ttl: 10,
			short: []byte("value")},
		"P\x04pk\x01\x0av\x00": {kind: lockPut, primary: []byte("pk"), ts: 1, ttl: 10, short: []byte{}},
		"D\x00\xac\x02\x00":    {kind: lockDelete, primary: []byte{}, ts: 300},
		"S\x04pk\x05\x0af\x00\x00\x00\x00\x00\x00\x00\x0ac\x00\x00\x00\x00\x00\x00\x00\x14F": {kind: lockPessimistic,
			primary: []byte("pk"), ts: 5, ttl: 10, forUpdateTS: 10, minCommitTS: 20, withConflict: true},
		"L\x04pk\x05\x0at\x00\x00\x00\x00\x00\x00\x00\x07": {kind: lockLock, primary: []byte("pk"), ts: 5, ttl: 10, txnSize: 7},
		"P\x04pk\x05\x0aa\x02\x02k\x00": {kind: lockPut, primary: []byte("pk"), ts: 5, ttl: 10, asyncCommit: true,
			secondaries: [][]byte{[]byte("k"), {}}},
		"P\x04pk\x05\x0aa\x00r\x01\x00\x00\x00\x00\x00\x00\x01\x00l\x00\x00\x00\x00\x00\x00\x00\x03\x02s\x81\x01g\x00\x00\x00\x00\x00\x00\x00\x09": {
			kind: lockPut, primary: []byte("pk"), ts: 5, ttl: 10, asyncCommit: true, rollbackTS: []uint64{256},
			lastChange: lastChange{3, 2}, txnSource: 129, generation: 9},
		"Hh\x01\x0cS\x04pk\x01\x0a": {kind: lockShared,
			holders: []*lock{{kind: lockPessimistic, primary: []byte("pk"), ts: 1, ttl: 10}}},
		"Hi\x01h\x02\x0cS\x04pk\x01\x0a\x0cL\x04pk\x02\x0a": {kind: lockShared, shrinkOnly: true,
			holders: []*lock{{kind: lockPessimistic, primary: []byte("pk"), ts: 1, ttl: 10}, {kind: lockLock, primary: []byte("pk"), ts: 2, ttl: 10}}},
	}
}

func TestLockVectors(t *testing.T) {
	for stored, want := range lockVectors() {
		got, err := parseLock([]byte(stored))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q\n got %+v %v\nwant %+v", stored, got, err, want)
		}
		if enc := want.encode(); string(enc) != stored {
			t.Errorf("%+v\n got %q\nwant %q", want, enc, stored)
		}
	}
	// What is behind a field of the future is not read.
	if l, err := parseLock([]byte("P\x04pk\x01\x0a?v\x05")); err != nil || l.short != nil {
		t.Error(l, err)
	}
	if l, err := parseLock([]byte("Hh\x01\x0cS\x04pk\x01\x0a?h\x05")); err != nil || len(l.holders) != 1 {
		t.Error(l, err)
	}
	// The oldest locks have no TTL.
	if l, err := parseLock([]byte("P\x04pk\x01")); err != nil || l.ttl != 0 {
		t.Error(l, err)
	}
	for _, bad := range []string{"", "X", "H", "P", "P\x04p", "P\x03pk\x01\x0a", "P\x04pk", "P\x04pk\x80",
		"P\x04pk\x01\x0av", "P\x04pk\x01\x0av\x05valu", "P\x04pk\x01\x0af\x00", "P\x04pk\x01\x0aa\xff\xff\xff\xff\x0f",
		"P\x04pk\x01\x0ar\x05\x00", "Hh\x00", "Hi\x02h\x01\x0cS\x04pk\x01\x0a", "Hh\x02\x0cS\x04pk\x01\x0a",
		"Hh\x01\x14Hh\x01\x0cS\x04pk\x01\x0a"} {
		if l, err := parseLock([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, l)
		}
	}
}

// The stored forms are written out by hand from TiKV components/txn_types/src/write.rs.
func writeVectors() map[string]*write {
	return map[string]*write{
		"P\x01":           {kind: writePut, startTS: 1},
		"P\xac\x02v\x01x": {kind: writePut, startTS: 300, short: []byte("x")},
		"P\x01v\x00":      {kind: writePut, startTS: 1, short: []byte{}},
		"R\x01":           newRollback(1, false),
		"R\x01v\x01p":     newRollback(1, true),
		"P\x05v\x01xRF\x00\x00\x00\x00\x00\x00\x00\x00": {kind: writePut, startTS: 5, short: []byte("x"),
			overlapped: true, fenced: true},
		"D\x05RF\x00\x00\x00\x00\x00\x00\x00\x09": {kind: writeDelete, startTS: 5, overlapped: true, fenced: true, fence: 9},
		"L\x05l\x00\x00\x00\x00\x00\x00\x00\x03\x02S\x07": {kind: writeLock, startTS: 5, lastChange: lastChange{3, 2},
			txnSource: 7},
	}
}

func TestWriteVectors(t *testing.T) {
	for stored, want := range writeVectors() {
		got, err := parseWrite([]byte(stored))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q\n got %+v %v\nwant %+v", stored, got, err, want)
		}
		if enc := want.encode(); string(enc) != stored {
			t.Errorf("%+v\n got %q\nwant %q", want, enc, stored)
		}
	}
	if w, err := parseWrite([]byte("P\x01?v\x05")); err != nil || w.short != nil {
		t.Error(w, err)
	}
	if !newRollback(1, true).isProtected() || newRollback(1, false).isProtected() ||
		(&write{kind: writePut, short: []byte("p")}).isProtected() {
		t.Error("isProtected")
	}
	for _, bad := range []string{"", "S\x01", "P", "P\x80", "P\x01v", "P\x01v\x02x", "P\x01F\x00", "P\x01l\x00"} {
		if w, err := parseWrite([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, w)
		}
	}
}

func TestVersionKeys(t *testing.T) {
	k := keyOf([]byte("key"))
	if !bytes.Equal(k.enc, keys.Encode([]byte("key"))) {
		t.Fatal(k.enc)
	}
	if got := at(k.enc, 1); string(got[len(k.enc):]) != "\xff\xff\xff\xff\xff\xff\xff\xfe" {
		t.Errorf("%x", got)
	}
	r := versionsFrom(k.enc, 10)
	for ts, in := range map[uint64]bool{0: true, 1: true, 10: true, 11: false, maxTS: false} {
		if r.Contains(at(k.enc, ts)) != in {
			t.Errorf("ts %d: in the range is %v", ts, !in)
		}
		enc, got, err := splitVersion(at(k.enc, ts))
		if err != nil || got != ts || !bytes.Equal(enc, k.enc) {
			t.Error(enc, got, err)
		}
	}
	if _, _, err := splitVersion([]byte("1234567")); err == nil {
		t.Error("too short")
	}
}

// A record that parses is written in a form that parses to the same.
func FuzzParseLock(f *testing.F) {
	for stored := range lockVectors() {
		f.Add([]byte(stored))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLock(b)
		if err != nil {
			return
		}
		l.info([]byte("k"))
		for _, l := range l.each() {
			if l.lastChange.versions == 0 {
				l.lastChange = lastChange{} // unknown, in any form
			}
		}
		again, err := parseLock(l.encode())
		if err != nil || !reflect.DeepEqual(l, again) {
			t.Fatalf("%q\n got %+v\nwant %+v (%v)", b, again, l, err)
		}
	})
}

// A lock of any fields is read as it was written, and shown to clients without what is
// the server's own.
func FuzzLockFields(f *testing.F) {
	f.Add(byte(0), []byte("pk"), uint64(5), uint64(10), []byte("v"), uint64(0), uint64(0), uint64(11), true, []byte("k"), byte(2), uint64(15), byte(1), uint64(0), false)
	f.Add(byte(3), []byte("pk"), uint64(5), uint64(10), []byte{}, uint64(9), uint64(1), uint64(0), false, []byte{}, byte(0), uint64(0), byte(0), uint64(7), true)
	f.Fuzz(func(t *testing.T, kind byte, primary []byte, ts, ttl uint64, short []byte, forUpdate, size, minCommit uint64,
		async bool, secondary []byte, secondaries byte, rollback uint64, rollbacks byte, generation uint64, conflict bool) {
		if len(short) > maxShortValue {
			return
		}
		l := &lock{kind: []lockKind{lockPut, lockDelete, lockLock, lockPessimistic}[kind%4], primary: append([]byte{}, primary...), ts: ts, ttl: ttl,
			forUpdateTS: forUpdate, txnSize: size, minCommitTS: minCommit, asyncCommit: async, generation: generation, withConflict: conflict}
		if l.kind == lockPut {
			l.short = append([]byte{}, short...)
		}
		for i := range secondaries {
			if async {
				l.secondaries = append(l.secondaries, append([]byte{i}, secondary...))
			}
		}
		for i := range uint64(rollbacks) {
			l.rollbackTS = append(l.rollbackTS, rollback+i)
		}
		stored := l.encode()
		got, err := parseLock(stored)
		if err != nil || !reflect.DeepEqual(got, l) {
			t.Fatalf("%q\n got %+v %v\nwant %+v", stored, got, err, l)
		}
		info := got.info([]byte("key"))
		if info.UseAsyncCommit != async || len(info.Secondaries) != len(l.secondaries) || info.MinCommitTs != minCommit || info.LockVersion != ts {
			t.Fatal(info)
		}
		for cut := range min(len(stored), 100) {
			_, _ = parseLock(stored[:len(stored)-cut]) // no panic
		}
	})
}

func FuzzParseWrite(f *testing.F) {
	for stored := range writeVectors() {
		f.Add([]byte(stored))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := parseWrite(b)
		if err != nil {
			return
		}
		if w.lastChange.versions == 0 {
			w.lastChange = lastChange{}
		}
		again, err := parseWrite(w.encode())
		if err != nil || !reflect.DeepEqual(w, again) {
			t.Fatalf("%q\n got %+v\nwant %+v (%v)", b, again, w, err)
		}
	})
}
