package mvcc

import (
	"context"
	"iter"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// A flashback gives the keys of a range the values of an old version again, as new
// versions of one transaction. Nothing else runs in the region while it lasts, which is
// the caller's to see to. The first key that has changed since the version is prewritten
// before and committed after all others; these are committed at once (TiKV src/storage/
// txn/commands/flashback_to_version*.rs, src/storage/txn/actions/flashback_to_version.rs).

// flashbackBatch is how many keys are written at a time (FLASHBACK_BATCH_SIZE).
const flashbackBatch = 256

// PrepareFlashback answers KvPrepareFlashbackToVersion: it rolls back all locks of the
// range but its own, whatever their time to live, and prewrites the first key.
func (e *Engine) PrepareFlashback(ctx context.Context, bounds keys.Range, req *kvrpcpb.PrepareFlashbackToVersionRequest) *kvrpcpb.PrepareFlashbackToVersionResponse {
	in := flashbackRange(bounds, req.StartKey, req.EndKey)
	err := e.rollbackAll(ctx, in, req.StartTs)
	if err == nil {
		if first, ok := e.firstChanged(in, req.Version); ok {
			err = e.flash(ctx, req.StartTs, []key{first}, func(c *change) error { return c.lockForFlashback(first, req.Version) })
		}
	}
	return &kvrpcpb.PrepareFlashbackToVersionResponse{Error: errorText(err)}
}

func flashbackRange(bounds keys.Range, start, end []byte) keys.Range {
	in := keys.Range{Start: keys.Encode(start)}
	if len(end) > 0 {
		in.End = keys.Encode(end)
	}
	return in.Intersect(bounds)
}

// flash is update for a flashback, of whose locks nobody who waits is told.
func (e *Engine) flash(ctx context.Context, startTS uint64, ks []key, command func(*change) error) error {
	return e.update(ctx, startTS, ks, func(c *change) error {
		c.watched = false
		return command(c)
	})
}

// rollbackAll rolls back the locks of a range but those of one transaction
// (flashback_to_version_read_lock, rollback_locks).
func (e *Engine) rollbackAll(ctx context.Context, in keys.Range, but uint64) error {
	for {
		var ks []key
		for k, l := range e.locksIn(in) {
			if l.shared() || l.ts != but {
				ks = append(ks, k)
			}
			if len(ks) == flashbackBatch {
				break
			}
		}
		if len(ks) == 0 {
			return nil
		}
		err := e.flash(ctx, 0, ks, func(c *change) error {
			for _, k := range ks {
				if err := c.rollbackHolders(k, but); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		in.Start = keys.Next(ks[len(ks)-1].enc)
	}
}

// locksIn iterates over the locks of a range, at one moment.
func (e *Engine) locksIn(in keys.Range) iter.Seq2[key, *lock] {
	return func(yield func(key, *lock) bool) {
		r := reader{snap: e.store.Snapshot()}
		defer r.snap.Close()
		r.locks(in, false)(yield)
	}
}

func (c *change) rollbackHolders(k key, but uint64) error {
	held, err := c.lock(k.enc)
	if err != nil || held == nil {
		return err
	}
	for _, l := range held.each() {
		if l.ts == but {
			continue
		}
		c.startTS = l.ts
		now, err := c.current(k)
		if err != nil {
			return err
		}
		if err := c.rollbackLock(k, now, true); err != nil {
			return err
		}
	}
	return nil
}

// changed iterates over the keys of a range whose latest version, a value or a deletion,
// is newer than another (src/storage/mvcc/reader/reader.rs, scan_latest_user_keys).
func (r *reader) changed(in keys.Range, version uint64) iter.Seq2[key, uint64] {
	return func(yield func(key, uint64) bool) {
		var last []byte
		for stored, b := range r.snap.Scan(storage.Write, in, false) {
			enc, commitTS, err := splitVersion(stored)
			if err != nil || string(enc) == string(last) {
				continue
			}
			raw, rest, err := keys.Decode(enc)
			if err != nil || len(rest) > 0 {
				continue // not of a transaction
			}
			if w, err := parseWrite(b); err != nil || !w.changes() {
				continue
			}
			last = enc
			if commitTS > version && !yield(key{raw, enc}, commitTS) {
				return
			}
		}
	}
}

func (e *Engine) firstChanged(in keys.Range, version uint64) (first key, ok bool) {
	r := reader{snap: e.store.Snapshot()}
	defer r.snap.Close()
	for k := range r.changed(in, version) {
		return k, true
	}
	return key{}, false
}

// lockForFlashback prewrites the value that a key had at a version. As TiKV writes it, the
// lock has no time to live, and its primary is encoded (prewrite_flashback_key).
func (c *change) lockForFlashback(k key, version uint64) error {
	if l, err := c.lock(k.enc); err != nil || l != nil {
		return err
	}
	w, err := c.restored(k, version)
	if err != nil {
		return err
	}
	c.putLock(k, &lock{kind: lockKind(w.kind), primary: k.enc, ts: c.startTS, short: w.short, txnSize: 1})
	return nil
}

// restored is the record that gives a key the value again which it had at a version. A
// long value is written again too.
func (c *change) restored(k key, version uint64) (*write, error) {
	old, err := c.version(k.enc, version, 0)
	switch {
	case err != nil:
		return nil, err
	case old.write == nil:
		return &write{kind: writeDelete, startTS: c.startTS}, nil
	case old.short == nil:
		v, err := c.longValue(k.enc, old.startTS)
		if err != nil {
			return nil, err
		}
		c.batch.Put(storage.Default, at(k.enc, c.startTS), v)
	}
	return &write{kind: writePut, startTS: c.startTS, short: old.short}, nil
}

// Flashback answers KvFlashbackToVersion: it writes all keys of the range that have changed
// since the version, and commits the one that PrepareFlashback has prewritten. closed tells
// that the region takes what a flashback writes.
func (e *Engine) Flashback(ctx context.Context, bounds keys.Range, closed bool, req *kvrpcpb.FlashbackToVersionRequest) *kvrpcpb.FlashbackToVersionResponse {
	in := flashbackRange(bounds, req.StartKey, req.EndKey)
	resp := &kvrpcpb.FlashbackToVersionResponse{}
	if req.CommitTs <= req.StartTs {
		resp.Error = errInvalidTSOText(req.StartTs, req.CommitTs)
		return resp
	}
	first, ok := e.firstChanged(in, req.Version)
	if !ok {
		return resp
	}
	done, prepared, err := e.flashbackState(first, req)
	if err == nil && !done {
		if !prepared || !closed {
			id := req.GetContext().GetRegionId()
			resp.RegionError = &errorpb.Error{FlashbackNotPrepared: &errorpb.FlashbackNotPrepared{RegionId: id}}
			return resp
		}
		err = e.flashbackWrites(ctx, in, first, req)
	}
	resp.Error = errorText(err)
	return resp
}

// flashbackState tells whether the flashback has been done, as in a late copy of the
// request, or prepared (check_flashback_commit).
func (e *Engine) flashbackState(first key, req *kvrpcpb.FlashbackToVersionRequest) (done, prepared bool, err error) {
	r := reader{snap: e.store.Snapshot()}
	defer r.snap.Close()
	l, err := r.lock(first.enc)
	if err != nil || l != nil {
		return false, l != nil && l.ts == req.StartTs && !l.shared(), err
	}
	w, err := r.newest(first.enc, req.CommitTs)
	return w.write != nil && w.commitTS == req.CommitTs && w.startTS == req.StartTs, false, err
}

// flashbackWrites commits what is to be written, some hundred keys at a time, and then the
// first key. One that has a version at or above the commit timestamp has been written
// already (flashback_to_version_write, commit_flashback_key).
func (e *Engine) flashbackWrites(ctx context.Context, in keys.Range, first key, req *kvrpcpb.FlashbackToVersionRequest) error {
	for left := in; ; {
		ks := e.flashbackKeys(left, first, req)
		if len(ks) == 0 {
			break
		}
		err := e.flash(ctx, req.StartTs, ks, func(c *change) error {
			for _, k := range ks {
				w, err := c.restored(k, req.Version)
				if err != nil {
					return err
				}
				c.putWrite(k, req.CommitTs, w)
			}
			c.batch.MarkOnePC() // no prewrite was told of (FlashbackToVersion, process_write)
			return nil
		})
		if err != nil {
			return err
		}
		left.Start = at(ks[len(ks)-1].enc, 0)
	}
	return e.flash(ctx, req.StartTs, []key{first}, func(c *change) error {
		l, err := c.lock(first.enc)
		switch {
		case err != nil:
			return err
		case l == nil:
			return errTxnLockNotFound(req.StartTs, req.CommitTs, first)
		}
		c.unlock(first)
		c.putWrite(first, req.CommitTs, l.committed())
		return nil
	})
}

func (e *Engine) flashbackKeys(in keys.Range, first key, req *kvrpcpb.FlashbackToVersionRequest) (ks []key) {
	r := reader{snap: e.store.Snapshot()}
	defer r.snap.Close()
	for k, commitTS := range r.changed(in, req.Version) {
		if string(k.enc) == string(first.enc) || commitTS >= req.CommitTs {
			continue
		}
		if ks = append(ks, k); len(ks) == flashbackBatch {
			break
		}
	}
	return ks
}
