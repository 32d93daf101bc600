package tikv

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"math"
	"strconv"
	"time"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/txn"
)

var (
	_ Reader = (*Snapshot)(nil)
	_ Reader = (*Txn)(nil)
)

// Snapshot is an immutable view of the cluster as of one moment, safe for concurrent use,
// with nothing to close. Reads are retried until ctx or the retry budget ends; locks met are
// resolved, or waited for as long as their transactions live. One that is older than what
// garbage collection has kept is ErrSnapshotTooOld.
type Snapshot struct {
	c   *Client
	s   *txn.Snapshot
	cfg *readConfig
	err error // of the options: each call returns it
}

// Version is a value and when it was committed. A nil Value is an absent key. CommitTS
// is 0 for a transaction's own write.
type Version struct {
	Value    []byte
	CommitTS Timestamp
}

// Snapshot returns a consistent view as of now, for one timestamp from PD (none with
// WithMaxStaleness).
func (c *Client) Snapshot(ctx context.Context, opts ...SnapshotOption) (*Snapshot, error) {
	const op = "Snapshot"
	if err := c.checkTxn(op); err != nil {
		return nil, err
	}
	r, err := readingOf(c, op, opts, SnapshotOption.applySnapshot)
	if err != nil {
		return nil, err
	}
	if r.cfg.staleness > 0 {
		ts, err := c.engine.pd.StaleTimestamp(ctx, r.cfg.staleness)
		if err != nil {
			return nil, mapError(c.errorContext(op, c.engine.txn), err)
		}
		// The client's clock has a part in it: the first read makes sure that it is past.
		return c.view(ts, false, r, nil), nil
	}
	began := time.Now()
	ts, err := c.engine.pd.Timestamp(ctx)
	if w := r.cfg.view.watch; w != nil {
		w.Count(router.TimestampTime, router.ReasonNone, int64(time.Since(began)))
	}
	if err != nil {
		return nil, mapError(c.errorContext(op, c.engine.txn), err)
	}
	return c.view(ts, true, r, nil), nil
}

// SnapshotAt returns a view as of ts, without I/O. A ts in the future is refused by
// the first call on the view (ErrInvalid), one behind the safe point by each
// (ErrSnapshotTooOld).
func (c *Client) SnapshotAt(ts Timestamp, opts ...SnapshotAtOption) *Snapshot {
	const op = "SnapshotAt"
	r, err := readingOf(c, op, opts, SnapshotAtOption.applySnapshotAt)
	if ts == 0 || ts == math.MaxUint64 {
		err = errors.Join(&ArgumentError{Op: op, Arg: "ts", Reason: "is not a timestamp"}, err)
	}
	return c.view(uint64(ts), false, r, err)
}

// Latest returns a view in which each page of a scan, and each region's part of a
// batch, sees the newest committed data of its own moment and costs no timestamp. It
// waits for live locks.
func (c *Client) Latest(opts ...ReadOption) *Snapshot {
	r, err := readingOf(c, "Latest", opts, ReadOption.applyLatest)
	return c.view(txn.Latest, true, r, err)
}

// readingOf is how a view with opts reads; err is what is wrong with them.
func readingOf[O any](c *Client, op string, opts []O, one func(O, *readConfig)) (r *reading, err error) {
	if len(opts) == 0 {
		return &c.reads, nil
	}
	r = &reading{cfg: readConfig{view: c.cfg.view}}
	err = apply(op, opts, &r.cfg, func(o O) { one(o, &r.cfg) })
	r.opts = c.readOptions(r.cfg.view, r.cfg.route, r.cfg.stale)
	return r, err
}

// view returns a view as of ts, which with all that it needs is one allocation.
func (c *Client) view(ts uint64, issued bool, r *reading, err error) *Snapshot {
	v := &struct {
		Snapshot
		room txn.Room
	}{Snapshot: Snapshot{c: c, cfg: &r.cfg, err: err}}
	v.s = c.engine.txns.SnapshotIn(&v.room, ts, issued, &r.opts)
	if by := r.cfg.bypass; by != nil {
		v.s.Bypass(by.ignore, by.through)
	}
	return &v.Snapshot
}

// Timestamp is the moment the view shows, or 0 for Latest.
func (s *Snapshot) Timestamp() Timestamp {
	if s.s.TS() == txn.Latest {
		return 0
	}
	return Timestamp(s.s.TS())
}

// With returns the same view with more options; it shares what s has learned about
// locks.
func (s *Snapshot) With(opts ...ReadOption) *Snapshot {
	r := &reading{cfg: *s.cfg}
	r.cfg.errs = nil
	err := apply("Snapshot.With", opts, &r.cfg, func(o ReadOption) { o.applyLatest(&r.cfg) })
	r.opts = s.c.readOptions(r.cfg.view, r.cfg.route, r.cfg.stale)
	return &Snapshot{c: s.c, s: s.s.With(&r.opts), cfg: &r.cfg, err: errors.Join(s.err, err)}
}

// check refuses a call that cannot be right.
func (s *Snapshot) check(op string) error {
	if err := s.c.checkTxn(op); err != nil {
		return err
	}
	return s.err
}

func (s *Snapshot) mapError(op string, err error) error {
	return mapError(s.c.errorContext(op, s.c.engine.txn), err)
}

// Get returns the value of key, which is the caller's, or ErrNotFound.
func (s *Snapshot) Get(ctx context.Context, key []byte) ([]byte, error) {
	const op = "Snapshot.Get"
	if err := s.check(op); err != nil {
		return nil, err
	}
	if err := checkKey(op, key); err != nil {
		return nil, err
	}
	value, err := s.s.Get(ctx, op, s.c.engine.txn.Key(key))
	if err != nil {
		return nil, s.mapError(op, err)
	}
	return value, nil
}

// BatchGet returns values in the order of keys: nil for an absent key, non-nil and
// perhaps empty for a present one. On error there are no values.
func (s *Snapshot) BatchGet(ctx context.Context, keys [][]byte) ([][]byte, error) {
	const op = "Snapshot.BatchGet"
	if err := s.check(op); err != nil {
		return nil, err
	}
	wire, err := s.c.wireKeys(op, keys)
	if err != nil {
		return nil, err
	}
	got := make([][]byte, len(keys))
	if err := s.s.BatchGet(ctx, op, wire, false, func(i int, v txn.Value) { got[i] = v.Bytes }); err != nil {
		return nil, s.mapError(op, err)
	}
	return got, nil
}

// GetVersions is BatchGet with the commit timestamp of each value. It waits for a
// transaction that has committed but not yet written its timestamp everywhere.
func (s *Snapshot) GetVersions(ctx context.Context, keys [][]byte) ([]Version, error) {
	const op = "Snapshot.GetVersions"
	if err := s.check(op); err != nil {
		return nil, err
	}
	wire, err := s.c.wireKeys(op, keys)
	if err != nil {
		return nil, err
	}
	got := make([]Version, len(keys))
	if err := s.s.BatchGet(ctx, op, wire, true, func(i int, v txn.Value) {
		got[i] = Version{Value: v.Bytes, CommitTS: Timestamp(v.CommitTS)}
	}); err != nil {
		return nil, s.mapError(op, err)
	}
	return got, nil
}

// Scan yields the pairs of r in key order. An error is yielded once, last, with a zero
// Pair. The scan's resources live exactly as long as the loop.
func (s *Snapshot) Scan(ctx context.Context, r Range, opts ...ScanOption) iter.Seq2[Pair, error] {
	const op = "Snapshot.Scan"
	cfg, err := scanOptions(op, r, opts)
	if err == nil {
		err = s.err
	}
	wire := s.c.wireRange(r)
	return func(yield func(Pair, error) bool) {
		if err := firstError(s.check(op), err); err != nil {
			yield(Pair{}, err)
			return
		}
		pages := s.s.Pages(op, wire, cfg)
		s.c.yieldPages(ctx, op, pages.Next, yield)
	}
}

// yieldPages yields the pairs of all pages, until there is none, an error, or the loop
// ends.
func (c *Client) yieldPages(ctx context.Context, op string, next func(context.Context) ([]txn.Pair, error), yield func(Pair, error) bool) {
	for {
		page, err := next(ctx)
		if err != nil {
			yield(Pair{}, mapError(c.errorContext(op, c.engine.txn), err))
			return
		}
		if len(page) == 0 {
			return
		}
		for _, pair := range page {
			user, err := c.engine.txn.UserKey(pair.Key)
			if err != nil {
				yield(Pair{}, err)
				return
			}
			if !yield(Pair{Key: user, Value: pair.Value}, nil) {
				return
			}
		}
		if err := c.check(op); err != nil {
			yield(Pair{}, err)
			return
		}
	}
}

// scanOptions reads the options of a scan.
func scanOptions(op string, r Range, opts []ScanOption) (txn.ScanOptions, error) {
	var cfg scanConfig
	err := firstError(r.check(op), apply(op, opts, &cfg, func(o ScanOption) { o.applyScan(&cfg) }))
	return txn.ScanOptions{Limit: cfg.limit, PageSize: cfg.pageSize, Reverse: cfg.reverse, KeysOnly: cfg.keysOnly}, err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkTxn refuses a transactional call on a closed client, and on a cluster that has
// no transactions.
func (c *Client) checkTxn(op string) error {
	if err := c.check(op); err != nil {
		return err
	}
	if c.cfg.api == APIV1TTL {
		return &unsupportedError{op: op, what: "a cluster of " + APIV1TTL.String() + " has no transactions"}
	}
	return nil
}

// checkKey refuses the empty key, which ranges take for no bound.
func checkKey(op string, key []byte) error {
	if len(key) == 0 {
		return &ArgumentError{Op: op, Arg: "key", Reason: "is empty"}
	}
	return nil
}

// wireKeys checks and encodes the keys of a call.
func (c *Client) wireKeys(op string, keys [][]byte) ([][]byte, error) {
	for i, key := range keys {
		if len(key) == 0 {
			return nil, &ArgumentError{Op: op, Arg: "key " + strconv.Itoa(i), Reason: "is empty"}
		}
	}
	return c.engine.txn.Keys(keys), nil
}

// wireRange encodes a range, whose bytes the caller may reuse.
func (c *Client) wireRange(r Range) keys.Range {
	return c.engine.txn.Range(keys.Range{Start: bytes.Clone(r.Start), End: bytes.Clone(r.End)})
}

func values(got []txn.Value) [][]byte {
	out := make([][]byte, len(got))
	for i := range got {
		out[i] = got[i].Bytes
	}
	return out
}

func versions(got []txn.Value) []Version {
	out := make([]Version, len(got))
	for i := range got {
		out[i] = Version{Value: got[i].Bytes, CommitTS: Timestamp(got[i].CommitTS)}
	}
	return out
}
