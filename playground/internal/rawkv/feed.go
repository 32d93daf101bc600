package rawkv

import (
	"iter"
	"sync"

	"github.com/pingcap/kvproto/pkg/cdcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// rawPrefix is what API V2 puts before raw keys (TiKV components/api_version/src/api_v2.
// rs, RAW_KEY_PREFIX).
const rawPrefix = 'r'

// Rows is what a batch tells a change feed of raw keys, which have versions in V2 alone
// (TiKV components/cdc/src/delegate.rs, sink_raw_put).
func (e *Engine) Rows(b *storage.Batch) []*cdcpb.Event_Row {
	var rows []*cdcpb.Event_Row
	for p := range b.Puts() {
		if p.CF != storage.Default {
			continue
		}
		if row, ok := e.row(p.Key, p.Value); ok {
			rows = append(rows, row)
		}
	}
	return rows
}

// row is that of a version (decode_rawkv); false of what is none.
func (e *Engine) row(at, stored []byte) (*cdcpb.Event_Row, bool) {
	if e.format != formatV2 || len(at) == 0 || at[0] != rawPrefix {
		return nil, false
	}
	enc, ts, ok := splitVersion(at)
	if !ok {
		return nil, false
	}
	key, rest, err := keys.Decode(enc)
	if err != nil || len(rest) > 0 {
		return nil, false
	}
	v, err := e.format.decode(stored)
	if err != nil {
		return nil, false
	}
	row := &cdcpb.Event_Row{
		Type: cdcpb.Event_COMMITTED, OpType: cdcpb.Event_Row_PUT, Key: key, Value: v.data,
		StartTs: ts, CommitTs: ts, ExpireTsUnixSecs: v.expires,
	}
	if v.deleted {
		row.OpType = cdcpb.Event_Row_DELETE
	}
	return row, true
}

// Delta iterates over the keys in a range whose newest version is after a timestamp, and
// gives that version: deletions and what has expired, too (TiKV components/cdc/src/
// initializer.rs, do_scan).
func (e *Engine) Delta(snap storage.Snapshot, in keys.Range, after uint64) iter.Seq[*cdcpb.Event_Row] {
	return func(yield func(*cdcpb.Event_Row) bool) {
		var last []byte
		raw := keys.Range{Start: []byte{rawPrefix}, End: []byte{rawPrefix + 1}}
		for at, stored := range snap.Scan(storage.Default, in.Intersect(raw), false) {
			row, ok := e.row(at, stored)
			if !ok || last != nil && string(row.Key) == string(last) {
				continue
			}
			last = row.Key
			if row.CommitTs > after && !yield(row) {
				return
			}
		}
	}
}

// flying are the timestamps of the versions that are being written.
type flying struct {
	mu sync.Mutex
	at map[uint64]int
}

// take asks for a timestamp, which is flying until land.
func (f *flying) take(timestamp func() (uint64, error)) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ts, err := timestamp()
	if err != nil {
		return 0, err
	}
	if f.at == nil {
		f.at = make(map[uint64]int)
	}
	f.at[ts]++
	return ts, nil
}

func (f *flying) land(ts uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at[ts]--; f.at[ts] <= 0 {
		delete(f.at, ts)
	}
}

// Landed is the largest timestamp at or below which no version is being written, the
// largest number if none is. A later write has a timestamp above those that were given
// before the call (TiKV src/storage/mod.rs, get_raw_key_guard: while a key is written a
// lock in memory has a timestamp that is less than the version's).
func (e *Engine) Landed() uint64 {
	e.flying.mu.Lock()
	defer e.flying.mu.Unlock()
	landed := ^uint64(0)
	for ts := range e.flying.at {
		landed = min(landed, ts-1)
	}
	return landed
}
