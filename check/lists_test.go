package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// TestLists lets workers read lists and append to them in transactions while the cluster
// is disturbed, and checks what they were told.
func TestLists(t *testing.T) {
	histories(t, Lists, 100, func(r *run) {
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

// pipeline makes a transaction flush when it has written a few keys.
func (w *worker) pipeline() []tikv.TxnOption {
	p := tikv.Pipeline{FlushConcurrency: w.rng.IntN(3), ResolveConcurrency: w.rng.IntN(3)}
	if w.rng.IntN(4) == 0 {
		p.Throttle = 0.5
	}
	return []tikv.TxnOption{tikv.WithPipelined(p), tikv.WithTxnLimits(1+w.rng.IntN(2), 1<<20)}
}

// begin makes a transaction by hand.
func (w *worker) begin(ctx context.Context) error {
	opts, causal := w.protocol()
	how := optimisticWay
	switch n := w.rng.IntN(16); {
	case n < 2:
		how = pipelinedWay
	case n < 9:
		how = pessimisticWay
	}
	t := Txn{Worker: w.id, Begin: w.tick(), Outcome: Failed, Causal: causal, Pessimistic: how == pessimisticWay, Pipelined: how == pipelinedWay}
	var begin []tikv.BeginOption
	switch how {
	case pessimisticWay:
		begin = append(begin, tikv.WithPessimistic())
	case pipelinedWay:
		for _, o := range w.pipeline() {
			begin = append(begin, o)
		}
	}
	tx, err := w.client().Begin(ctx, begin...)
	if err != nil {
		return unexpected(err)
	}
	t.Began, t.StartTS = w.tick(), uint64(tx.StartTS())
	if err := w.play(ctx, tx, &t, w.scriptOf(how)); err != nil {
		t.Note = note(err)
		w.add(&t)
		return errors.Join(unexpected(err), unexpected(tx.Rollback(ctx)))
	}
	t.Commit = w.tick()
	err = tx.Commit(ctx, opts...)
	w.ended(&t, tx, err)
	return unexpected(err)
}

// ended notes how a commit ended.
func (w *worker) ended(t *Txn, tx *tikv.Txn, err error) {
	t.Done, t.Outcome, t.Note = w.tick(), outcome(err), note(err)
	switch ts, ok := tx.CommitTS(); {
	case ok:
		t.CommitTS = uint64(ts)
	case err == nil && t.writes():
		w.fail(fmt.Errorf("a transaction has committed, and has no commit timestamp: %v", t))
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
		t    *Txn
		tx   *tikv.Txn
		next = w.tick()
		how  way
		opts = []tikv.RunOption{tikv.WithMaxAttempts(1 + w.rng.IntN(5))}
	)
	switch w.rng.IntN(8) {
	case 0, 1, 2:
		how, opts = pessimisticWay, append(opts, tikv.WithPessimistic())
	case 3:
		how, opts = pessimisticWay, append(opts, tikv.WithPessimisticAfter(1+w.rng.IntN(2)))
	case 4:
		how = pipelinedWay
		for _, o := range w.pipeline() {
			opts = append(opts, o)
		}
	}
	steps := w.scriptOf(how)
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
		t = &Txn{
			Worker: w.id, Begin: next, Began: w.tick(), StartTS: uint64(tx.StartTS()), Outcome: Failed,
			Causal: causal, Pessimistic: how == pessimisticWay, Pipelined: how == pipelinedWay,
		}
		err := w.play(ctx, tx, t, steps)
		if how == pipelinedWay && w.rng.IntN(2) == 0 { // a flush may end meanwhile
			<-time.After(time.Duration(w.rng.IntN(20)) * time.Millisecond)
		}
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

// play does the steps and notes what they show. A transaction whose lock was not to be had
// may go on without.
func (w *worker) play(ctx context.Context, tx *tikv.Txn, t *Txn, steps []step) error {
	var done []step
	for _, s := range steps {
		s = s.fit(done)
		var err error
		switch s.do {
		case appendTo, insertInto:
			err = w.append(ctx, tx, t, s)
		case rewrite:
			err = w.rewrite(ctx, tx, t, s)
		case lock, lockRead, share:
			err = w.lock(ctx, tx, t, s)
		default:
			err = read(ctx, tx, t, s)
		}
		if err == nil || s.do == share { // which may come late, and is removed in a while
			done = append(done, s)
		}
		if err != nil && (s.hurry == 0 || ctx.Err() != nil || !goesOn(err)) {
			return err
		}
	}
	return nil
}

// goesOn reports whether a transaction may go on after an error of a lock.
func goesOn(err error) bool {
	return errors.Is(err, tikv.ErrLocked) || errors.Is(err, tikv.ErrDeadlock) || errors.Is(err, tikv.ErrUnavailable) ||
		errors.Is(err, context.DeadlineExceeded)
}

// append reads a list and writes it with one element more.
func (w *worker) append(ctx context.Context, tx *tikv.Txn, t *Txn, s step) error {
	key := s.keys[0]
	var err error
	if t.Pessimistic && !s.late {
		err = w.lock(ctx, tx, t, s)
	} else {
		err = readOne(ctx, tx, t, key)
	}
	if err != nil {
		return err
	}
	list := t.Ops[len(t.Ops)-1].Read
	data := w.longer(t, key, list)
	if s.do == insertInto && len(list) == 0 {
		return tx.Insert(keyOf(key), data)
	}
	return tx.Put(keyOf(key), data)
}

// longer notes that the transaction appends to a list, and returns that.
func (w *worker) longer(t *Txn, key int, list []int) []byte {
	value := int(w.value.Add(1))
	t.Ops = append(t.Ops, Op{Key: key, Append: value})
	return encodeList(append(list[:len(list):len(list)], value))
}

// rewrite reads lists and writes each with one element more, but first deletes them or
// makes them empty. Nobody else must ever see that; the transaction must.
func (w *worker) rewrite(ctx context.Context, tx *tikv.Txn, t *Txn, s step) error {
	if err := readBatch(ctx, tx, t, s.keys); err != nil {
		return err
	}
	reads := slices.Clone(t.Ops[len(t.Ops)-len(s.keys):])
	names := make([][]byte, len(s.keys))
	for i, key := range s.keys {
		names[i] = keyOf(key)
		t.Ops = append(t.Ops, Op{Key: key, Empty: true})
		empty := func() error { return tx.Put(names[i], nil) }
		if w.rng.IntN(2) == 0 {
			empty = func() error { return tx.Delete(names[i]) }
		}
		if err := empty(); err != nil {
			return err
		}
	}
	if err := readBatch(ctx, tx, t, s.keys); err != nil {
		return err
	}
	for i, key := range s.keys {
		if err := tx.Put(names[i], w.longer(t, key, reads[i].Read)); err != nil {
			return err
		}
	}
	return nil
}

// lock locks lists and, but for a step that is only this, reads them.
func (w *worker) lock(ctx context.Context, tx *tikv.Txn, t *Txn, s step) error {
	patient := ctx
	if s.hurry > 0 {
		short, cancel := context.WithTimeout(ctx, s.hurry)
		defer cancel()
		ctx = short
	}
	var got []tikv.Locked
	var err error
	if s.fair {
		got, err = w.lockFairly(ctx, patient, tx, s)
	} else {
		got, err = lockOnce(ctx, tx, s)
	}
	if err != nil {
		return err
	}
	if s.do == share && t.Pessimistic {
		w.shares(s.keys)
	}
	for i, l := range got {
		if err := t.saw(s.keys[i], l.Value); err != nil {
			return err
		}
		t.Ops[len(t.Ops)-1].Locked = true
	}
	return nil
}

// shares counts keys that are locked in share mode, and those that are so by several.
func (w *worker) shares(keys []int) {
	for _, key := range keys {
		w.shared.Add(1)
		if len(w.cluster.Locks(keyOf(key), keyOf(key+1))) > 1 {
			w.together.Add(1)
		}
	}
}

// lockFairly is lockOnce in a statement of fair locking, of one attempt or two.
func (w *worker) lockFairly(ctx, patient context.Context, tx *tikv.Txn, s step) (got []tikv.Locked, err error) {
	stage, err := tx.FairLock()
	if err != nil {
		return nil, err
	}
	for again := w.rng.IntN(2) == 0; ; again = false {
		if got, err = lockOnce(ctx, tx, s); err != nil || !again {
			break
		}
		if err = stage.Retry(ctx); err != nil {
			break
		}
	}
	if err == nil {
		err = stage.Done(ctx)
	}
	w.statements.Add(1)
	if slices.ContainsFunc(got, func(l tikv.Locked) bool { return l.ConflictTS != 0 }) {
		w.above.Add(1)
	}
	if err != nil {
		if failed := stage.Cancel(patient); failed != nil {
			err = errors.Join(err, failed)
		}
	}
	return got, err
}

func lockOnce(ctx context.Context, tx *tikv.Txn, s step) ([]tikv.Locked, error) {
	names := make([][]byte, len(s.keys))
	for i, key := range s.keys {
		names[i] = keyOf(key)
	}
	switch s.do {
	case lock:
		return nil, tx.Lock(ctx, names)
	case share:
		return tx.BatchGetForUpdate(ctx, names, tikv.WithShared())
	}
	return tx.BatchGetForUpdate(ctx, names)
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
		errors.Is(err, tikv.ErrLocked), errors.Is(err, tikv.ErrDeadlock),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return nil
	}
	return err
}
