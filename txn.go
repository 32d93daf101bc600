package tikv

import (
	"context"
	"iter"
	"runtime"
	"time"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/txn"
)

// Txn is a read-write transaction of Client.Begin or Client.RunTxn. Reads show the cluster as
// of StartTS, and the transaction's own writes, which stay in memory until it commits
// (WithPipelined: until they are flushed). Reads may run concurrently with each other; a
// write, lock, Commit or Rollback that overlaps another call returns ErrTxnBusy, a call after
// the end ErrTxnDone. A handle that is dropped lets go of its locks.
type Txn struct {
	c   *Client
	t   *txn.Txn
	cfg *txnConfig // not changed any more

	rec any // its own *Recorder; nil: nobody looks

	attempt int // of RunTxn; 0: it is none of its. Its address keeps the handle alive, without making an interface of it
}

// newTxn is a handle with the transaction that it is of, in one allocation. One that is to
// be ended when its handle is dropped lies by itself.
type newTxn struct {
	Txn
	t txn.Txn
}

// Begin starts a transaction that the caller commits or rolls back, for one timestamp from
// PD. Its options stand above those of Open.
func (c *Client) Begin(ctx context.Context, opts ...BeginOption) (*Txn, error) {
	const op = "Begin"
	if err := c.checkTxn(op); err != nil {
		return nil, err
	}
	cfg := c.cfg.txn
	if len(opts) > 0 {
		own := *cfg
		if err := apply(op, opts, &own, func(o BeginOption) { o.applyBegin(&own) }); err != nil {
			return nil, err
		}
		cfg = &own
	}
	tx, _, err := c.begin(ctx, op, cfg, 0)
	if begun, ok := cfg.handed.(begunFunc); ok && err == nil {
		begun(tx)
	}
	return tx, err
}

// begin begins the attempt of RunTxn, or a transaction of Begin if it is 0. It returns the
// context that hooks have made for it.
func (c *Client) begin(ctx context.Context, op string, cfg *txnConfig, attempt int) (*Txn, context.Context, error) {
	var (
		began = time.Now()
		start = uint64(cfg.startTS)
		age   time.Duration
		err   error

		pipeline any
	)
	if lay, ok := cfg.pipeline.(layFunc); ok {
		if pipeline, err = lay(c, op, cfg); err != nil {
			return nil, ctx, err
		}
	}
	if start == 0 {
		start, err = c.engine.pd.Timestamp(ctx)
	} else {
		var now uint64
		if now, err = c.engine.txns.Issued(ctx, start, time.Second); err == nil {
			age = Timestamp(now).Time().Sub(cfg.startTS.Time())
		}
	}
	if err != nil {
		return nil, ctx, mapError(c.errorContext(op, c.engine.txn), err)
	}
	view, rec := cfg.view, any(nil)
	if view.watch != nil {
		view.watch, rec = view.watch.ofTxn()
	}
	var tx *Txn
	if cfg.pessimism != nil || pipeline != nil || rec != nil {
		tx = &Txn{c: c, cfg: cfg, t: new(txn.Txn)}
	} else {
		n := &newTxn{Txn: Txn{c: c, cfg: cfg}}
		tx, n.Txn.t = &n.Txn, &n.t
	}
	tx.attempt, tx.rec = attempt, rec
	c.engine.txns.BeginIn(tx.t, start, age, txn.Options{
		Read: c.readOptions(view, cfg.route, false), MaxKeys: cfg.maxKeys, MaxBytes: cfg.maxBytes,
		KeyPrefix: len(c.engine.txn.Key(nil)), Assertions: cfg.assertions.wire(),
		Pessimism: cfg.pessimism, Pipeline: pipeline,
	})
	tx.t.Spent(router.TimestampTime, began)
	if rec != nil {
		if start, ok := view.watch.starts().(startTxnFunc); ok {
			ctx = start(ctx, tx)
		}
	}
	return tx, ctx, nil
}

// StartTS is the timestamp reads see.
func (tx *Txn) StartTS() Timestamp { return Timestamp(tx.t.StartTS()) }

// CommitTS reports false until a commit that wrote something has succeeded.
func (tx *Txn) CommitTS() (Timestamp, bool) {
	ts := Timestamp(tx.t.CommitTS())
	return ts, ts != 0
}

// Len counts the buffered keys, without what a pipelined transaction has flushed.
func (tx *Txn) Len() int { return tx.t.Len() }

// Size is the bytes of the buffered keys and values.
func (tx *Txn) Size() int { return tx.t.Size() }

// Snapshot is the view at StartTS without the transaction's own writes. It may be used
// after the transaction has ended.
func (tx *Txn) Snapshot(opts ...ReadOption) *Snapshot {
	s := &Snapshot{c: tx.c, s: tx.t.Snapshot(), cfg: &readConfig{view: tx.cfg.view, route: tx.cfg.route}}
	return s.With(opts...)
}

func (tx *Txn) mapError(op string, err error) error {
	if err == nil {
		return nil
	}
	return mapError(tx.c.errorContext(op, tx.c.engine.txn), err)
}

// Get returns the value of key, the transaction's own if it wrote one, or ErrNotFound. The
// bytes are the caller's.
func (tx *Txn) Get(ctx context.Context, key []byte) ([]byte, error) {
	const op = "Txn.Get"
	if err := firstError(tx.c.check(op), checkKey(op, key)); err != nil {
		return nil, err
	}
	value, err := tx.t.Get(ctx, op, tx.c.engine.txn.Key(key))
	if err != nil {
		return nil, tx.mapError(op, err)
	}
	return value, nil
}

// BatchGet returns values in the order of keys: nil for an absent key, non-nil and
// perhaps empty for a present one. On error there are no values.
func (tx *Txn) BatchGet(ctx context.Context, keys [][]byte) ([][]byte, error) {
	got, err := tx.batchGet(ctx, "Txn.BatchGet", keys, false)
	if err != nil {
		return nil, err
	}
	return values(got), nil
}

// GetVersions is BatchGet with the commit timestamp of each value, 0 for the
// transaction's own.
func (tx *Txn) GetVersions(ctx context.Context, keys [][]byte) ([]Version, error) {
	got, err := tx.batchGet(ctx, "Txn.GetVersions", keys, true)
	if err != nil {
		return nil, err
	}
	return versions(got), nil
}

func (tx *Txn) batchGet(ctx context.Context, op string, keys [][]byte, versions bool) ([]txn.Value, error) {
	if err := tx.c.check(op); err != nil {
		return nil, err
	}
	wire, err := tx.c.wireKeys(op, keys)
	if err != nil {
		return nil, err
	}
	got, err := tx.t.BatchGet(ctx, op, wire, versions)
	if err != nil {
		return nil, tx.mapError(op, err)
	}
	return got, nil
}

// Scan merges the cluster's data with the writes made before the loop began;
// writing inside the loop is allowed and not seen by it.
func (tx *Txn) Scan(ctx context.Context, r Range, opts ...ScanOption) iter.Seq2[Pair, error] {
	const op = "Txn.Scan"
	cfg, err := scanOptions(op, r, opts)
	wire := tx.c.wireRange(r)
	return func(yield func(Pair, error) bool) {
		if err := firstError(tx.c.check(op), err); err != nil {
			yield(Pair{}, err)
			return
		}
		pages, err := tx.t.Pages(op, wire, cfg)
		if err != nil {
			yield(Pair{}, tx.mapError(op, err))
			return
		}
		tx.c.yieldPages(ctx, op, pages.Next, yield)
	}
}

// Put buffers a write, copying key and value; an empty value is legal.
func (tx *Txn) Put(key, value []byte, opts ...WriteOption) error {
	const op = "Txn.Put"
	claim, err := writeClaim(op, opts)
	if err := firstError(err, tx.checkWrite(op, key, value)); err != nil {
		return err
	}
	return tx.mapError(op, tx.t.Put(tx.c.engine.txn.Key(key), value, claim))
}

// Insert is Put of a key that must be absent, as the transaction sees it
// (ErrAlreadyExists): what it wrote or locked itself is checked at once, the rest when it
// is locked, or else at commit.
func (tx *Txn) Insert(key, value []byte, opts ...WriteOption) error {
	const op = "Txn.Insert"
	claim, err := writeClaim(op, opts)
	if claim == txn.AssertExists {
		err = &ArgumentError{Op: op, Arg: "WithAssertion", Reason: "contradicts Insert"}
	}
	if err := firstError(err, tx.checkWrite(op, key, value)); err != nil {
		return err
	}
	return tx.mapError(op, tx.t.Put(tx.c.engine.txn.Key(key), value, txn.MustBeAbsent))
}

// Delete buffers a deletion; the key may be absent.
func (tx *Txn) Delete(key []byte, opts ...WriteOption) error {
	const op = "Txn.Delete"
	claim, err := writeClaim(op, opts)
	if err := firstError(err, tx.checkWrite(op, key, nil)); err != nil {
		return err
	}
	return tx.mapError(op, tx.t.Delete(tx.c.engine.txn.Key(key), claim))
}

// CheckAbsent makes the commit, or locking key before, fail with ErrAlreadyExists if key is
// present, as the transaction sees it, and writes nothing.
func (tx *Txn) CheckAbsent(key []byte) error {
	const op = "Txn.CheckAbsent"
	if err := tx.checkWrite(op, key, nil); err != nil {
		return err
	}
	return tx.mapError(op, tx.t.CheckAbsent(tx.c.engine.txn.Key(key)))
}

// Commit makes the writes durable, all of them, and ends the transaction. An error matching
// ErrUndetermined means the outcome is unknown (Client.ResolveOutcome), also where it matches
// ErrClosed or ctx's error too; after any other error nothing was or will be written, and
// IsRetryable tells whether the whole transaction may be run again. Requests are sent again
// until ctx or the retry budget ends. One that has neither written nor locked sends none.
func (tx *Txn) Commit(ctx context.Context, opts ...CommitOption) error {
	const op = "Txn.Commit"
	cfg := tx.cfg
	var bad error
	if len(opts) > 0 {
		own := *cfg
		bad = apply(op, opts, &own, func(o CommitOption) { o.applyCommit(&own) })
		cfg = &own
	}
	if err := firstError(tx.c.check(op), bad); err != nil {
		return err
	}
	defer runtime.KeepAlive(&tx.attempt)
	return tx.mapError(op, tx.t.Commit(ctx, op, cfg.commitOptions()))
}

// Rollback ends the transaction at once; its unlocks run on under the client, ctx
// bounds only the wait for them. After Commit or Rollback it does nothing and returns
// nil, so it may be deferred.
func (tx *Txn) Rollback(ctx context.Context) error {
	return tx.mapError("Txn.Rollback", tx.t.Rollback(ctx))
}

// The limits of TiKV's defaults: a key of 8 KiB in its memcomparable form
// (storage.max-key-size), a raft entry of 8 MiB (raftstore.raft-entry-max-size).
const (
	maxEncodedKey = 8 << 10
	maxEntry      = 8 << 20
)

// maxKey is the longest user key of a transaction.
func maxKey(cd codec.Codec) int {
	n := (maxEncodedKey/keys.EncodedLen(0))*8 - 1
	return n - len(cd.Key(nil))
}

// checkWrite refuses what TiKV would.
func (tx *Txn) checkWrite(op string, key, value []byte) error {
	if err := firstError(tx.c.check(op), checkKey(op, key)); err != nil {
		return err
	}
	if limit := maxKey(tx.c.engine.txn); len(key) > limit {
		return &tooLargeError{op, "bytes in the key", len(key), limit}
	}
	if n := len(key) + len(value); n > maxEntry {
		return &tooLargeError{op, "bytes in key and value", n, maxEntry}
	}
	return nil
}
