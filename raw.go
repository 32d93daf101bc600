package tikv

import (
	"bytes"
	"context"
	"iter"
	"time"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/raw"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/wire"
)

// Raw is the non-transactional view of the cluster, safe for concurrent use. Put and
// Delete are resent after a lost answer: they happen at least once, and a delayed copy
// may overtake a later write. A write ended by ctx after it was sent matches
// ErrUndetermined too.
type Raw struct {
	client *Client
	kv     *raw.KV
	err    error // what is wrong with the view
}

// AtomicRaw is a Raw whose writes are linearizable with CompareAndSwap.
type AtomicRaw struct{ Raw }

// Raw returns the raw key-value view, without I/O.
func (c *Client) Raw(opts ...RawOption) *Raw {
	r := c.rawView("Client.Raw", opts, false)
	return &r
}

// AtomicRaw returns a raw view that can compare and swap. Every writer of a key that
// is compared must use one. Its writes are not resent after a lost answer:
// ErrUndetermined.
func (c *Client) AtomicRaw(opts ...RawOption) *AtomicRaw {
	return &AtomicRaw{c.rawView("Client.AtomicRaw", opts, true)}
}

func (c *Client) rawView(op string, opts []RawOption, atomic bool) Raw {
	cfg := rawConfig{view: c.cfg.view}
	err := apply(op, opts, &cfg, func(o RawOption) { o.applyRaw(&cfg) })
	if err == nil && cfg.cf != "" && c.cfg.api == APIV2 {
		err = &unsupportedError{op, "API V2 has no column families"}
	}
	kv := &raw.KV{Router: c.engine.router, Pool: &c.engine.rawOps, Call: c.call("", &cfg.view, cfg.replica, c.engine.raw), CF: cfg.cf, Atomic: atomic}
	return Raw{client: c, kv: kv, err: err}
}

// ready refuses a call on a view that is wrong, or whose client is closed.
func (r *Raw) ready(op string) error {
	if r.err != nil {
		return r.err
	}
	return r.client.check(op)
}

func (r *Raw) codec() codec.Codec { return r.kv.Call.Codec }

func (r *Raw) fail(op string, err error) error {
	return mapError(r.client.errorContext(op, r.codec()), err)
}

// Get returns the value of key, which is the caller's, or ErrNotFound.
func (r *Raw) Get(ctx context.Context, key []byte) ([]byte, error) {
	const op = "Raw.Get"
	if err := r.ready(op); err != nil {
		return nil, err
	}
	value, found, err := r.kv.Get(ctx, op, r.codec().Key(key))
	switch {
	case err != nil:
		return nil, r.fail(op, err)
	case !found:
		return nil, ErrNotFound
	}
	return value, nil
}

// BatchGet returns values in the order of keys: nil for an absent key, non-nil and
// perhaps empty for a present one. Each key is read at its own moment. On error there
// are no values.
func (r *Raw) BatchGet(ctx context.Context, keys [][]byte) ([][]byte, error) {
	const op = "Raw.BatchGet"
	if err := r.ready(op); err != nil {
		return nil, err
	}
	values, err := r.kv.BatchGet(ctx, op, r.wire(keys))
	if err != nil {
		return nil, r.fail(op, err)
	}
	return values, nil
}

func (r *Raw) wire(keys [][]byte) [][]byte {
	return r.kv.Call.Codec.Keys(keys)
}

// Scan yields the pairs of rg in key order. An error is yielded once, last, with a
// zero Pair. Each page of it has its own moment.
func (r *Raw) Scan(ctx context.Context, rg Range, opts ...ScanOption) iter.Seq2[Pair, error] {
	return r.scan(ctx, "Raw.Scan", rg, opts)
}

func (r *Raw) scan(ctx context.Context, op string, rg Range, opts []ScanOption) iter.Seq2[Pair, error] {
	s := &rawScan{r: r, ctx: ctx}
	s.bad = apply(op, opts, &s.cfg, func(o ScanOption) { o.applyScan(&s.cfg) })
	s.rg = Range{Start: bytes.Clone(rg.Start), End: bytes.Clone(rg.End)} // the loop comes later
	return s.all
}

// rawScan is a scan that was asked for.
type rawScan struct {
	r   *Raw
	ctx context.Context
	cfg scanConfig
	rg  Range
	bad error
}

func (s *rawScan) all(yield func(Pair, error) bool) {
	r, op := s.r, s.cfg.op
	if err := firstOf(s.bad, s.rg.check(op), r.ready(op)); err != nil {
		yield(Pair{}, err)
		return
	}
	if s.rg.empty() {
		return
	}
	pages := r.kv.Pages(op, raw.Scan{
		Range: r.codec().Range(keys.Range(s.rg)), Limit: s.cfg.limit, PageSize: s.cfg.pageSize, Reverse: s.cfg.reverse, KeysOnly: s.cfg.keysOnly,
	})
	defer pages.End()
	for {
		page, err := pages.Next(s.ctx)
		if err != nil {
			yield(Pair{}, r.fail(op, err))
			return
		}
		if len(page) == 0 || !s.show(page, yield) {
			return
		}
	}
}

// show yields a page, and reports whether more is wanted.
func (s *rawScan) show(page []wire.Pair, yield func(Pair, error) bool) bool {
	op, of := s.cfg.op, s.r.codec()
	for i := range page {
		key, err := of.UserKey(page[i].Key)
		if err != nil {
			yield(Pair{}, s.r.fail(op, err))
			return false
		}
		if !yield(Pair{Key: key, Value: page[i].Value}, nil) {
			return false
		}
		if err := s.r.client.check(op); err != nil {
			yield(Pair{}, err)
			return false
		}
	}
	return true
}

// batchScanTasks is how many ranges of a BatchScan are read at a time.
const batchScanTasks = 16

// BatchScan returns up to eachLimit pairs of every range, in the order of ranges.
func (r *Raw) BatchScan(ctx context.Context, ranges []Range, eachLimit int, opts ...ScanOption) ([][]Pair, error) {
	const op = "Raw.BatchScan"
	if err := r.ready(op); err != nil {
		return nil, err
	}
	if eachLimit < 1 {
		return nil, &ArgumentError{Op: op, Arg: "eachLimit", Reason: "must be at least one"}
	}
	var cfg scanConfig
	_ = apply(op, opts, &cfg, func(o ScanOption) { o.applyScan(&cfg) })
	if cfg.limit != 0 {
		cfg.add("WithLimit", "does not go with eachLimit")
	}
	if err := cfg.err(); err != nil {
		return nil, err
	}
	opts = append(opts[:len(opts):len(opts)], WithLimit(eachLimit))
	out := make([][]Pair, len(ranges))
	err := task.Each(ctx, batchScanTasks, len(ranges), func(ctx context.Context, i int) (err error) {
		out[i], err = Collect(r.scan(ctx, op, ranges[i], opts))
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// TTL returns the time key has left, in whole seconds; expires is false for a key that has no
// TTL. An absent key is ErrNotFound, a cluster of APIV1 ErrUnsupported.
func (r *Raw) TTL(ctx context.Context, key []byte) (left time.Duration, expires bool, err error) {
	const op = "Raw.TTL"
	if err := r.ready(op); err != nil {
		return 0, false, err
	}
	if r.client.cfg.api == APIV1 { // TiKV would panic (src/storage/raw/store.rs)
		return 0, false, noTTLs(op)
	}
	seconds, found, err := r.kv.TTL(ctx, op, r.codec().Key(key))
	switch {
	case err != nil:
		return 0, false, r.fail(op, err)
	case !found:
		return 0, false, ErrNotFound
	}
	return time.Duration(seconds) * time.Second, seconds > 0, nil
}

func noTTLs(op string) error { return &unsupportedError{op, "API V1 has no TTLs"} }

// putOptions reads and checks the options of one write.
func (r *Raw) putOptions(op string, opts []PutOption) (putConfig, error) {
	var cfg putConfig
	err := apply(op, opts, &cfg, func(o PutOption) { o.applyPut(&cfg) })
	return cfg, firstOf(err, r.checkTTLs(op, &cfg))
}

func (r *Raw) checkTTLs(op string, cfg *putConfig) error {
	given := 0
	for _, is := range []bool{cfg.ttl != 0, cfg.hasTTLs, cfg.keepTTL} {
		if is {
			given++
		}
	}
	if given > 1 {
		return &ArgumentError{Op: op, Arg: "options", Reason: "ask for more than one of WithTTL, WithTTLs and WithKeepTTL"}
	}
	if given > 0 && r.client.cfg.api == APIV1 {
		return noTTLs(op)
	}
	return nil
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

// Put stores value, which may be empty. Without a TTL option the key never expires,
// whatever TTL it had.
func (r *Raw) Put(ctx context.Context, key, value []byte, opts ...PutOption) error {
	const op = "Raw.Put"
	if err := r.ready(op); err != nil {
		return err
	}
	cfg, err := r.putOptions(op, opts)
	if err != nil {
		return err
	}
	if cfg.keepTTL {
		return r.fail(op, r.kv.PutKeepTTL(ctx, op, r.codec().Key(key), value))
	}
	return r.fail(op, r.kv.Put(ctx, op, r.codec().Key(key), value, seconds(cfg.ttl)))
}

// Delete removes key; an absent key is no error.
func (r *Raw) Delete(ctx context.Context, key []byte) error {
	const op = "Raw.Delete"
	if err := r.ready(op); err != nil {
		return err
	}
	return r.fail(op, r.kv.Delete(ctx, op, r.codec().Key(key)))
}

// BatchPut is not atomic. Unless all was applied, the error is a *BatchError with the
// outcome of each key. Of equal keys the last wins.
func (r *Raw) BatchPut(ctx context.Context, pairs []Pair, opts ...BatchPutOption) error {
	const op = "Raw.BatchPut"
	if err := r.ready(op); err != nil {
		return err
	}
	var cfg putConfig
	_ = apply(op, opts, &cfg, func(o BatchPutOption) { o.applyBatchPut(&cfg) })
	if cfg.hasTTLs && len(cfg.ttls) != len(pairs) {
		cfg.add("WithTTLs", "must have one for each pair")
	}
	if err := firstOf(cfg.err(), r.checkTTLs(op, &cfg)); err != nil {
		return err
	}
	wire, values := make([][]byte, len(pairs)), make([][]byte, len(pairs))
	for i, p := range pairs {
		wire[i], values[i] = r.codec().Key(p.Key), p.Value
	}
	ttls, err := r.batchTTLs(ctx, op, wire, &cfg)
	if err != nil {
		return r.fail(op, err)
	}
	return r.failBatch(op, r.kv.BatchPut(ctx, op, wire, values, ttls))
}

// batchTTLs is the seconds of each pair, nil if none has a TTL.
func (r *Raw) batchTTLs(ctx context.Context, op string, wire [][]byte, cfg *putConfig) ([]uint64, error) {
	if cfg.ttl == 0 && !cfg.hasTTLs && !cfg.keepTTL {
		return nil, nil
	}
	ttls := make([]uint64, len(wire))
	if cfg.keepTTL {
		return ttls, task.Each(ctx, batchScanTasks, len(wire), func(ctx context.Context, i int) (err error) {
			ttls[i], _, err = r.kv.TTL(ctx, op, wire[i])
			return err
		})
	}
	for i := range ttls {
		if ttls[i] = seconds(cfg.ttl); cfg.hasTTLs {
			ttls[i] = seconds(cfg.ttls[i])
		}
	}
	return ttls, nil
}

// BatchDelete is not atomic. Unless all was applied, the error is a *BatchError with
// the outcome of each key.
func (r *Raw) BatchDelete(ctx context.Context, keys [][]byte) error {
	const op = "Raw.BatchDelete"
	if err := r.ready(op); err != nil {
		return err
	}
	return r.failBatch(op, r.kv.BatchDelete(ctx, op, r.wire(keys)))
}

// failBatch makes the public error of a batch; keys that share an error still do.
func (r *Raw) failBatch(op string, err error) error {
	b, ok := err.(*raw.BatchError)
	if !ok {
		return r.fail(op, err)
	}
	out := &BatchError{op: op, Outcomes: make([]Outcome, len(b.Errs)), Errs: make([]error, len(b.Errs))}
	mapped := make(map[error]error)
	for i, err := range b.Errs {
		if err == nil {
			continue
		}
		if mapped[err] == nil {
			mapped[err] = r.fail(op, err)
		}
		out.Errs[i], out.Outcomes[i] = mapped[err], OutcomeFailed
		if raw.Unknown(err) {
			out.Outcomes[i] = OutcomeUnknown
		}
	}
	return out
}

// DeleteRange removes every key of rg, region by region. It refuses a range with no
// upper bound unless WithUnbounded is given. If it stops half way the error is a
// *RangeError with what is left.
func (r *Raw) DeleteRange(ctx context.Context, rg Range, opts ...DestroyOption) error {
	const op = "Raw.DeleteRange"
	if err := r.ready(op); err != nil {
		return err
	}
	var cfg destroyConfig
	err := apply(op, opts, &cfg, func(o DestroyOption) { o.applyDestroy(&cfg) })
	if err := firstOf(err, rg.check(op)); err != nil {
		return err
	}
	if len(rg.End) == 0 && !cfg.unbounded {
		return &ArgumentError{Op: op, Arg: "range", Reason: "has no end, and WithUnbounded is not given"}
	}
	if rg.empty() {
		return nil
	}
	whole := r.codec().Range(keys.Range(rg))
	e, ok := r.kv.DeleteRange(ctx, op, whole).(*raw.RangeError)
	if !ok {
		return nil
	}
	ec := r.client.errorContext(op, r.codec())
	rest := Range{Start: ec.key(e.Rest.Start), End: append([]byte(nil), rg.End...)}
	return &RangeError{Op: op, Rest: []Range{rest}, Cause: mapError(ec, e.Err), untouched: !e.Begun, keys: ec.keys}
}

// Checksum is the XOR of the CRC-64 of every pair, and their number and size, as TiKV
// adds them up: on API V2 keys count with their prefix of 4 bytes.
type Checksum struct{ CRC64XOR, Pairs, Bytes uint64 }

// Checksum adds up rg, of the default column family, each region at its own moment.
func (r *Raw) Checksum(ctx context.Context, rg Range) (Checksum, error) {
	const op = "Raw.Checksum"
	if err := firstOf(r.ready(op), rg.check(op)); err != nil {
		return Checksum{}, err
	}
	if rg.empty() {
		return Checksum{}, nil
	}
	sum, err := r.kv.Checksum(ctx, op, r.codec().Range(keys.Range(rg)))
	return Checksum(sum), r.fail(op, err)
}

// CompareAndSwap stores new, which may be empty, if the value is old (nil: if the key
// is absent). prev is what was there, nil for an absent key. After ErrUndetermined,
// read the key.
func (r *AtomicRaw) CompareAndSwap(ctx context.Context, key, old, new []byte, opts ...PutOption) (prev []byte, swapped bool, err error) {
	return r.cas(ctx, "AtomicRaw.CompareAndSwap", key, old, new, opts)
}

// PutIfAbsent stores value unless the key is present, with prev.
func (r *AtomicRaw) PutIfAbsent(ctx context.Context, key, value []byte, opts ...PutOption) (prev []byte, stored bool, err error) {
	return r.cas(ctx, "AtomicRaw.PutIfAbsent", key, nil, value, opts)
}

func (r *AtomicRaw) cas(ctx context.Context, op string, key, old, new []byte, opts []PutOption) (prev []byte, done bool, err error) {
	if err := r.ready(op); err != nil {
		return nil, false, err
	}
	cfg, err := r.putOptions(op, opts)
	if err != nil {
		return nil, false, err
	}
	wire, ttl := r.codec().Key(key), seconds(cfg.ttl)
	if cfg.keepTTL && old != nil {
		if ttl, _, err = r.kv.TTL(ctx, op, wire); err != nil {
			return nil, false, r.fail(op, err)
		}
	}
	prev, done, err = r.kv.CompareAndSwap(ctx, op, wire, old, new, ttl)
	return prev, done, r.fail(op, err)
}

// DeleteIfEquals deletes key if its value is old. prev is what was there, nil for an absent
// key.
func (r *AtomicRaw) DeleteIfEquals(ctx context.Context, key, old []byte) (prev []byte, deleted bool, err error) {
	const op = "AtomicRaw.DeleteIfEquals"
	if err := r.ready(op); err != nil {
		return nil, false, err
	}
	if old == nil {
		return nil, false, &ArgumentError{Op: op, Arg: "old", Reason: "is nil, which is no value"}
	}
	prev, deleted, err = r.kv.DeleteIfEquals(ctx, op, r.codec().Key(key), old)
	return prev, deleted, r.fail(op, err)
}
