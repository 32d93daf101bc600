package mvcc

import (
	"context"
	"fmt"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// Ranges reads the pairs of ranges, one range after the other, from a snapshot: what a
// coprocessor computes from (TiKV src/coprocessor/dag/storage_impl.rs).
type Ranges struct {
	// Newer: a record above the timestamp was met, or a lock, so that others may read
	// something else without another write.
	Newer bool
	// Processed and ProcessedBytes are the pairs that were read, Versions the records
	// that were met.
	Processed, ProcessedBytes, Versions int

	view   view
	bounds keys.Range
	left   []keys.Range // of encoded keys
	scan   *scanner
}

// OpenRanges opens ranges of wire keys in a region's bounds. Locks in memory are looked
// for in each (TiKV src/coprocessor/endpoint.rs, check_memory_locks_for_ranges: an empty
// bound is none there, while a scan takes it for the smallest key). The caller closes it.
func (e *Engine) OpenRanges(ctx context.Context, q *kvrpcpb.Context, ts uint64, in []keys.Range, bounds keys.Range) (*Ranges, error) {
	v, err := e.open(ctx, q, ts, func(m *Manager, check func(key, *lock) error) error {
		for _, r := range in {
			encoded := keys.Range{Start: keys.Encode(r.Start)}
			if len(r.End) > 0 {
				encoded.End = keys.Encode(r.End)
			}
			if err := m.checkRange(encoded, check); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r := &Ranges{view: v, bounds: bounds}
	for _, one := range in {
		r.left = append(r.left, keys.Range{Start: keys.Encode(one.Start), End: keys.Encode(one.End)})
	}
	return r, nil
}

// Close ends the reading.
func (r *Ranges) Close() { r.view.snap.Close() }

// Next returns the next pair, a nil key at the end.
func (r *Ranges) Next() (key, value []byte, err error) {
	for {
		if r.scan == nil {
			if len(r.left) == 0 {
				return nil, nil, nil
			}
			if err := r.begin(); err != nil {
				return nil, nil, err
			}
		}
		key, value, err = r.next()
		if key != nil || err != nil {
			return key, value, err
		}
		r.scan = nil
	}
}

func (r *Ranges) begin() error {
	in := r.left[0]
	if r.left = r.left[1:]; verifyRange(in, r.bounds) != nil {
		bound := func(b []byte) string {
			if len(b) == 0 {
				return "(none)"
			}
			return fmt.Sprintf("%X", b)
		}
		return abort(fmt.Sprintf("Request range exceeds bound, request range:[%X, %X), physical bound:[%s, %s)",
			in.Start, in.End, bound(r.bounds.Start), bound(r.bounds.End)))
	}
	r.scan = newScanner(&r.view, in, false)
	return nil
}

// next returns the next pair of the range at hand.
func (r *Ranges) next() ([]byte, []byte, error) {
	for {
		seen := r.scan.writes.passed
		enc, l, w, err := r.scan.step()
		r.Versions += r.scan.writes.passed - seen
		if err != nil || enc == nil {
			return nil, nil, err
		}
		if r.Newer = r.Newer || l != nil; w != nil && !r.Newer {
			_, commitTS, err := splitVersion(w.key)
			if err != nil {
				return nil, nil, err
			}
			r.Newer = commitTS > r.view.ts
		}
		raw, _, err := keys.Decode(enc)
		if err != nil {
			return nil, nil, err
		}
		it, err := r.scan.item(key{raw, enc}, l, w)
		if err != nil {
			return nil, nil, err
		}
		if it != nil {
			r.Processed++
			r.ProcessedBytes += len(enc) + len(it.value)
			return append([]byte{}, raw...), it.value, nil
		}
	}
}

// AsText is a failed read as a coprocessor's answer has it: the lock that was in the
// way, or else words (TiKV src/coprocessor/error.rs; src/storage/mvcc/mod.rs,
// ErrorInner).
func AsText(err error) (*kvrpcpb.LockInfo, string) {
	ke := keyError(err)
	switch c := ke.GetConflict(); {
	case ke.GetLocked() != nil:
		return ke.Locked, ""
	case c != nil:
		return nil, fmt.Sprintf("write conflict, start_ts:%d, conflict_start_ts:%d, conflict_commit_ts:%d, key:%X, primary:%X, reason: %v",
			c.StartTs, c.ConflictTs, c.ConflictCommitTs, c.Key, c.Primary, c.Reason)
	}
	return nil, errorText(err)
}
