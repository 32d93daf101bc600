package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// TestLists lets workers read lists and append to them in transactions while the cluster
// is disturbed, and checks what they were told.
func TestLists(t *testing.T) {
	histories(t, Lists, 120, func(r *run) {
		r.mode, r.methods = playground.KeyTxn, append(listsMethods[:len(listsMethods):len(listsMethods)], pdMethods...)
		r.make((*worker).txn, r.readLists)
	})
}

// readLists is the last transaction, which reads all.
func (r *run) readLists(ctx context.Context, c *tikv.Client) error {
	t := Txn{Worker: -1, Begin: r.tick(), Outcome: Done}
	snap, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	t.Began, t.StartTS = r.tick(), uint64(snap.Timestamp())
	all := make([]int, keys)
	for i := range all {
		all[i] = i
	}
	if err := readBatch(ctx, snap, &t, all); err != nil {
		return fmt.Errorf("the last read: %w", err)
	}
	r.add(&t)
	return nil
}

// add puts a transaction into the history.
func (r *run) add(t *Txn) {
	r.did(len(t.Ops))
	if len(t.Ops) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Txns = append(r.history.Txns, *t)
}

// step is a part of a transaction.
type step struct {
	do   stepKind
	keys []int
}

type stepKind uint8

const (
	get stepKind = iota
	batchGet
	scan
	scanBack
	appendTo
	insertInto // as appendTo, but claims that an empty list is absent
	lock
)

// script is what a transaction will do.
func (w *worker) script(reads bool) []step {
	steps := make([]step, 1+w.rng.IntN(3))
	for i := range steps {
		s := &steps[i]
		s.keys = []int{w.key()}
		switch n := w.rng.IntN(20); {
		case n < 12 && !reads:
			s.do = appendTo + stepKind(n%2)
		case n == 12 && !reads:
			s.do = lock
		default:
			s.do = stepKind(n % int(scanBack+1))
		}
		if s.do == batchGet {
			for range 1 + w.rng.IntN(3) {
				s.keys = append(s.keys, w.key())
			}
		}
	}
	return steps
}

// txn makes one transaction, of one kind or another.
func (w *worker) txn() error {
	ctx, cancel := w.timeout()
	defer cancel()
	switch n := w.rng.IntN(20); {
	case n < 2:
		return w.latest(ctx)
	case n < 6:
		return w.snapshot(ctx)
	case n < 12:
		return w.begin(ctx)
	}
	return w.runTxn(ctx)
}

// latest reads a key without a timestamp.
func (w *worker) latest(ctx context.Context) error {
	t := Txn{Worker: w.id, Begin: w.tick(), Outcome: Done, Latest: true}
	err := readOne(ctx, w.client().Latest(), &t, w.key())
	t.Began, t.Note = w.tick(), note(err)
	w.add(&t)
	return unexpected(err)
}

// snapshot reads at one moment, from any replica.
func (w *worker) snapshot(ctx context.Context) error {
	t := Txn{Worker: w.id, Begin: w.tick(), Outcome: Done}
	var opts []tikv.SnapshotOption
	if w.rng.IntN(2) == 0 {
		opts = append(opts, tikv.WithReplicaRead(tikv.ReplicaPolicy(w.rng.IntN(int(tikv.ReadAny)+1))))
	}
	snap, err := w.client().Snapshot(ctx, opts...)
	if err != nil {
		return unexpected(err)
	}
	t.Began, t.StartTS = w.tick(), uint64(snap.Timestamp())
	for _, s := range w.script(true) {
		if err = read(ctx, snap, &t, s); err != nil {
			break
		}
	}
	t.Note = note(err)
	w.add(&t)
	return unexpected(err)
}

// protocol is how a transaction is to commit.
func (w *worker) protocol() (opts []tikv.CommitOption, causal bool) {
	opts = append(opts, tikv.WithCommitMode(tikv.CommitMode(w.rng.IntN(int(tikv.CommitTwoPhase)+1))))
	if causal = w.rng.IntN(4) == 0; causal {
		opts = append(opts, tikv.WithCausalConsistency())
	}
	return opts, causal
}

// begin makes a transaction by hand.
func (w *worker) begin(ctx context.Context) error {
	opts, causal := w.protocol()
	t := Txn{Worker: w.id, Begin: w.tick(), Outcome: Failed, Causal: causal}
	tx, err := w.client().Begin(ctx)
	if err != nil {
		return unexpected(err)
	}
	t.Began, t.StartTS = w.tick(), uint64(tx.StartTS())
	if err := w.play(ctx, tx, &t, w.script(false)); err != nil {
		t.Note = note(err)
		w.add(&t)
		return errors.Join(unexpected(err), tx.Rollback(ctx))
	}
	t.Commit = w.tick()
	err = tx.Commit(ctx, opts...)
	w.ended(&t, tx, err)
	return unexpected(err)
}

// ended notes how a commit ended.
func (w *worker) ended(t *Txn, tx *tikv.Txn, err error) {
	t.Done, t.Outcome, t.Note = w.tick(), outcome(err), note(err)
	if ts, ok := tx.CommitTS(); ok {
		t.CommitTS = uint64(ts)
	}
	if t.Outcome == Unknown && w.rng.IntN(2) == 0 {
		w.ask(t, err)
	}
	w.add(t)
}

// ask finds out what became of a commit whose answer was lost.
func (w *worker) ask(t *Txn, lost error) {
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	defer cancel()
	ts, err := w.client().ResolveOutcome(ctx, lost)
	if err != nil {
		return
	}
	t.Done, t.Outcome, t.CommitTS = w.tick(), Failed, uint64(ts)
	t.Note = "asked; " + t.Note
	if ts != 0 {
		t.Outcome = Done
	}
}

// runTxn lets the client repeat what conflicts. Each attempt is a transaction of its own,
// and has failed when another follows it.
func (w *worker) runTxn(ctx context.Context) error {
	var (
		t     *Txn
		tx    *tikv.Txn
		next  = w.tick()
		steps = w.script(false)
		opts  = []tikv.RunOption{tikv.WithMaxAttempts(1 + w.rng.IntN(5))}
	)
	protocol, causal := w.protocol()
	for _, o := range protocol {
		opts = append(opts, o)
	}
	err := w.client().RunTxn(ctx, func(ctx context.Context, now *tikv.Txn) error {
		if t != nil {
			t.Done, t.Note = w.tick(), "tried again"
			w.add(t)
		}
		tx = now
		t = &Txn{Worker: w.id, Begin: next, Began: w.tick(), StartTS: uint64(tx.StartTS()), Outcome: Failed, Causal: causal}
		err := w.play(ctx, tx, t, steps)
		if next = w.tick(); err == nil {
			t.Commit = next
		}
		return err
	}, opts...)
	switch {
	case t == nil:
	case t.Commit == 0:
		t.Note = note(err)
		w.add(t)
	default:
		w.ended(t, tx, err)
	}
	return unexpected(err)
}

// play does the steps and notes what they show.
func (w *worker) play(ctx context.Context, tx *tikv.Txn, t *Txn, steps []step) error {
	for _, s := range steps {
		var err error
		switch s.do {
		case appendTo, insertInto:
			err = w.append(ctx, tx, t, s.keys[0], s.do == insertInto)
		case lock:
			err = tx.Lock(ctx, [][]byte{keyOf(s.keys[0])})
		default:
			err = read(ctx, tx, t, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// append reads a list and writes it with one element more.
func (w *worker) append(ctx context.Context, tx *tikv.Txn, t *Txn, key int, insert bool) error {
	if err := readOne(ctx, tx, t, key); err != nil {
		return err
	}
	list := t.Ops[len(t.Ops)-1].Read
	value := int(w.value.Add(1))
	t.Ops = append(t.Ops, Op{Key: key, Append: value})
	data := encodeList(append(list[:len(list):len(list)], value))
	if insert && len(list) == 0 {
		return tx.Insert(keyOf(key), data)
	}
	return tx.Put(keyOf(key), data)
}

func read(ctx context.Context, from tikv.Reader, t *Txn, s step) error {
	switch s.do {
	case batchGet:
		return readBatch(ctx, from, t, s.keys)
	case scan, scanBack:
		return readRange(ctx, from, t, s.keys[0], min(s.keys[0]+3, keys), s.do == scanBack)
	}
	return readOne(ctx, from, t, s.keys[0])
}

func readOne(ctx context.Context, from tikv.Reader, t *Txn, key int) error {
	data, err := tikv.Optional(from.Get(ctx, keyOf(key)))
	if err != nil {
		return err
	}
	return t.saw(key, data)
}

func readBatch(ctx context.Context, from tikv.Reader, t *Txn, wanted []int) error {
	names := make([][]byte, len(wanted))
	for i, key := range wanted {
		names[i] = keyOf(key)
	}
	values, err := from.BatchGet(ctx, names)
	if err != nil {
		return err
	}
	for i, key := range wanted {
		if err := t.saw(key, values[i]); err != nil {
			return err
		}
	}
	return nil
}

// readRange reads some keys by scanning; those that do not come have empty lists.
func readRange(ctx context.Context, from tikv.Reader, t *Txn, low, high int, back bool) error {
	values := make(map[string][]byte)
	opts := []tikv.ScanOption{tikv.WithPageSize(2)}
	if back {
		opts = append(opts, tikv.WithReverse())
	}
	for kv, err := range from.Scan(ctx, tikv.Range{Start: keyOf(low), End: keyOf(high)}, opts...) {
		if err != nil {
			return err
		}
		values[string(kv.Key)] = kv.Value
	}
	for key := low; key < high; key++ {
		if err := t.saw(key, values[string(keyOf(key))]); err != nil {
			return err
		}
	}
	return nil
}

// saw notes a read.
func (t *Txn) saw(key int, data []byte) error {
	list, err := decodeList(data)
	if err != nil {
		return fmt.Errorf("key %d: %w", key, err)
	}
	t.Ops = append(t.Ops, Op{Key: key, Read: list})
	return nil
}

func encodeList(list []int) []byte {
	var data []byte
	for _, v := range list {
		data = append(strconv.AppendInt(data, int64(v), 10), ' ')
	}
	return data
}

func decodeList(data []byte) ([]int, error) {
	var list []int
	for field := range bytes.FieldsSeq(data) {
		v, err := strconv.Atoi(string(field))
		if err != nil {
			return nil, fmt.Errorf("%q is no list", data)
		}
		list = append(list, v)
	}
	return list, nil
}

// unexpected is err, if no disturbance explains it.
func unexpected(err error) error {
	switch {
	case err == nil, errors.Is(err, tikv.ErrUndetermined), errors.Is(err, tikv.ErrWriteConflict), errors.Is(err, tikv.ErrTxnAborted),
		errors.Is(err, tikv.ErrUnavailable), errors.Is(err, tikv.ErrAlreadyExists), errors.Is(err, tikv.ErrClosed), errors.Is(err, tikv.ErrDiskFull),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return nil
	}
	return err
}
