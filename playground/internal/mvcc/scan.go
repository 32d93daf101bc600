package mvcc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// Scan answers KvScan: the pairs in [start_key, end_key), or, in reverse, those in
// [end_key, start_key) from above; a locked key is a pair with only an error. A range
// that goes beyond the region is refused (TiKV src/storage/txn/store.rs, verify_range).
func (e *Engine) Scan(ctx context.Context, bounds keys.Range, req *kvrpcpb.ScanRequest) *kvrpcpb.ScanResponse {
	pairs, err := e.scan(ctx, bounds, req)
	if err != nil {
		// The pair is for old clients (TiKV src/server/service/kv.rs, future_scan).
		ke := keyError(err)
		return &kvrpcpb.ScanResponse{Error: ke, Pairs: []*kvrpcpb.KvPair{{Error: ke}}}
	}
	return &kvrpcpb.ScanResponse{Pairs: pairs}
}

func (e *Engine) scan(ctx context.Context, bounds keys.Range, req *kvrpcpb.ScanRequest) ([]*kvrpcpb.KvPair, error) {
	start, end := keys.Encode(req.StartKey), []byte(nil)
	if len(req.EndKey) > 0 {
		end = keys.Encode(req.EndKey)
	}
	if err := check.Range(e.cfg.APIVersion, req.Context, "scan", start, end); err != nil {
		return nil, err
	}
	in := keys.Range{Start: start, End: end}
	if req.Reverse {
		in.Start, in.End = in.End, in.Start
	}
	v, err := e.open(ctx, req.Context, req.Version, blockedRange(in))
	if err != nil {
		return nil, err
	}
	defer v.snap.Close()
	v.keyOnly = req.KeyOnly
	if err := verifyRange(in, bounds); err != nil {
		return nil, err
	}
	s := newScanner(&v, in.Intersect(bounds), req.Reverse)
	var pairs []*kvrpcpb.KvPair
	for n := 0; len(pairs) < int(req.Limit); {
		pair, err := s.next()
		var f failure
		switch {
		case errors.As(err, &f) && f.Locked != nil:
			pairs = append(pairs, &kvrpcpb.KvPair{Error: f.KeyError})
			continue
		case err != nil:
			return nil, err
		case pair == nil:
			return pairs, nil
		}
		if n++; req.SampleStep > 0 && (n-1)%int(req.SampleStep) != 0 {
			continue
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

// verifyRange refuses a scan's bound outside the region; an absent one is the region's.
func verifyRange(in, bounds keys.Range) error {
	if len(in.Start) > 0 && bytes.Compare(in.Start, bounds.Start) < 0 ||
		len(in.End) > 0 && keys.CompareEnds(in.End, bounds.End) > 0 {
		return abort(rustTxn("InvalidReqRange { start: %s, end: %s, lower_bound: %s, upper_bound: %s }",
			rustOption(in.Start), rustOption(in.End), rustOption(bounds.Start), rustOption(bounds.End)))
	}
	return nil
}

func rustOption(b []byte) string {
	if len(b) == 0 {
		return "None"
	}
	return fmt.Sprintf("Some(%v)", list(b))
}

// scanner walks the locks and the write records of a range together, key by key (TiKV
// src/storage/mvcc/reader/scanner).
type scanner struct {
	view    *view
	reverse bool
	locks   *cursor
	writes  *cursor
}

func newScanner(v *view, in keys.Range, reverse bool) *scanner {
	s := &scanner{view: v, reverse: reverse, writes: newCursor(v.snap, storage.Write, in, reverse)}
	if v.isolation != kvrpcpb.IsolationLevel_RC {
		s.locks = newCursor(v.snap, storage.Lock, in, reverse)
	}
	return s
}

// next returns the next pair, nil at the end. After the error of a locked key the scan
// goes on behind it.
func (s *scanner) next() (*kvrpcpb.KvPair, error) {
	for {
		enc, l, w, err := s.step()
		if err != nil || enc == nil {
			return nil, err
		}
		raw, _, err := keys.Decode(enc)
		if err != nil {
			return nil, err
		}
		it, err := s.item(key{raw, enc}, l, w)
		if err != nil {
			return nil, err
		}
		if it != nil {
			return &kvrpcpb.KvPair{Key: raw, Value: it.value}, nil
		}
	}
}

// step takes the next key off the cursors: its lock, if it has one, and the stored
// record that came first, if it has any. A nil key is the end.
func (s *scanner) step() (enc []byte, l, w *entry, err error) {
	if l, w = s.locks.peek(), s.writes.peek(); l == nil && w == nil {
		return nil, nil, nil, nil
	}
	var wenc []byte
	if w != nil {
		if wenc, _, err = splitVersion(w.key); err != nil {
			return nil, nil, nil, err
		}
	}
	order := 0 // of the lock's key to the record's, in the direction of the scan
	switch {
	case l == nil:
		order = 1
	case w == nil:
		order = -1
	default:
		if order = bytes.Compare(l.key, wenc); s.reverse {
			order = -order
		}
	}
	enc = wenc
	if order > 0 {
		l = nil
	} else {
		enc = l.key
		s.locks.advance()
	}
	if order < 0 {
		w = nil
	} else {
		s.skip(wenc)
	}
	return enc, l, w, nil
}

// skip moves the records' cursor past a key.
func (s *scanner) skip(enc []byte) {
	for e := s.writes.peek(); e != nil && len(e.key) == len(enc)+tsLen && bytes.HasPrefix(e.key, enc); e = s.writes.peek() {
		s.writes.advance()
	}
}

func (s *scanner) item(k key, l, w *entry) (*item, error) {
	v := s.view
	if l != nil {
		parsed, err := parseLock(l.value)
		if err != nil {
			return nil, err
		}
		if it, done, err := v.meet(k, parsed); done {
			return it, err
		}
	}
	if w == nil {
		return nil, nil
	}
	if err := v.checkNewer(k.enc); err != nil {
		return nil, err
	}
	if !s.reverse { // the newest record came first, and mostly is the one to read
		_, commitTS, err := splitVersion(w.key)
		if err != nil {
			return nil, err
		}
		newest, err := parseWrite(w.value)
		if err != nil {
			return nil, err
		}
		if commitTS <= v.ts && newest.kind == writePut && !newest.fenced {
			return v.item(k.enc, record{commitTS, newest})
		}
	}
	return v.load(k.enc)
}

// cursor is a range of stored entries, read a page at a time.
type cursor struct {
	snap    storage.Snapshot
	cf      storage.CF
	left    keys.Range
	reverse bool
	page    []entry
	size    int
	passed  int // entries so far
	done    bool
}

type entry struct{ key, value []byte }

const (
	firstPage = 16
	lastPage  = 256
)

func newCursor(snap storage.Snapshot, cf storage.CF, in keys.Range, reverse bool) *cursor {
	return &cursor{snap: snap, cf: cf, left: in, reverse: reverse, size: firstPage, done: in.Empty()}
}

// peek returns the entry that the cursor is at, nil at the end or of a nil cursor.
func (c *cursor) peek() *entry {
	if c == nil || len(c.page) == 0 && !c.fill() {
		return nil
	}
	return &c.page[0]
}

func (c *cursor) advance() {
	c.page = c.page[1:]
	c.passed++
}

func (c *cursor) fill() bool {
	if c.done {
		return false
	}
	c.page = make([]entry, 0, c.size)
	for k, v := range c.snap.Scan(c.cf, c.left, c.reverse) {
		c.page = append(c.page, entry{k, v})
		if len(c.page) == c.size {
			break
		}
	}
	if c.done = len(c.page) < c.size; !c.done {
		last := c.page[len(c.page)-1].key
		if c.reverse {
			c.left.End = last
			c.done = len(last) == 0
		} else {
			c.left.Start = keys.Next(last)
		}
	}
	c.size = min(2*c.size, lastPage)
	return len(c.page) > 0
}

// ScanLock answers KvScanLock: the locks of transactions that began at or before
// max_version, of every kind; a limit of 0 is none, and each holder of a shared lock
// counts. One in memory fails the request (TiKV src/storage/mod.rs, scan_lock, and
// src/storage/mvcc/reader/reader.rs, scan_locks_from_storage).
func (e *Engine) ScanLock(_ context.Context, bounds keys.Range, req *kvrpcpb.ScanLockRequest) *kvrpcpb.ScanLockResponse {
	in := keys.Range{}
	if len(req.StartKey) > 0 {
		in.Start = keys.Encode(req.StartKey)
	}
	if len(req.EndKey) > 0 {
		in.End = keys.Encode(req.EndKey)
	}
	e.observe(req.MaxVersion)
	err := e.manager.checkRange(in, func(k key, l *lock) error {
		if l.ts > req.MaxVersion {
			return nil
		}
		return errLocked(l.info(k.raw))
	})
	if err != nil {
		return &kvrpcpb.ScanLockResponse{Error: keyError(err)}
	}
	r := reader{snap: e.store.Snapshot()}
	defer r.snap.Close()
	resp := &kvrpcpb.ScanLockResponse{}
	old := func(l *lock) bool { return l.ts <= req.MaxVersion }
	left := int(req.Limit)
	if left == 0 {
		left = math.MaxInt
	}
	for k, l := range r.locks(in.Intersect(bounds), false) {
		if l.shared() {
			l = l.filter(old, left)
		} else if !old(l) {
			continue
		}
		if l == nil {
			continue
		}
		resp.Locks = append(resp.Locks, l.info(k.raw))
		if left -= len(l.each()); left == 0 {
			break
		}
	}
	return resp
}

// Locks returns the locks in a range of encoded keys, for the cluster's inspection.
func (e *Engine) Locks(in keys.Range) []*kvrpcpb.LockInfo {
	r := reader{snap: e.store.Snapshot()}
	defer r.snap.Close()
	var infos []*kvrpcpb.LockInfo
	for k, l := range r.locks(in, false) {
		infos = append(infos, l.info(k.raw))
	}
	return slices.Clip(infos)
}
