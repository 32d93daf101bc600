package tikv

import (
	"context"
	"runtime"
	"weak"

	"github.com/tikv-go/tikv/internal/txn"
)

// Locked is a key that BatchGetForUpdate met.
type Locked struct {
	Value  []byte // nil if absent; empty with WithExistenceOnly
	Exists bool
	// ConflictTS, if not 0, is the commit that fair locking locked the key above:
	// what was read before it is outdated.
	ConflictTS Timestamp
}

// Lock locks keys: now in a pessimistic transaction, so that what others committed since
// StartTS is no conflict (see GetForUpdate for what they wrote); at commit in an
// optimistic one, so that it is (ErrWriteConflict). It waits for other transactions until
// ctx ends, unless told otherwise, and resolves the locks of dead ones. ErrDeadlock says
// that the wait would never have ended; ErrAlreadyExists, that a key given to Insert or
// CheckAbsent exists. After an error none of the keys is locked by this call, or will be
// soon. Locks end with the transaction.
func (tx *Txn) Lock(ctx context.Context, keys [][]byte, opts ...LockOption) error {
	const op = "Txn.Lock"
	var cfg lockConfig
	bad := apply(op, opts, &cfg, func(o LockOption) { o.applyLock(&cfg) })
	_, err := tx.lock(ctx, op, keys, &cfg, bad)
	return err
}

// GetForUpdate locks a key, as Lock does, and returns its value as the transaction sees
// it then: its own write, or else the newest that is committed, in an optimistic
// transaction that of StartTS. ErrNotFound is a key that is absent, and locked unless
// WithLockIfExists is given. In a pessimistic transaction Get may return something older.
func (tx *Txn) GetForUpdate(ctx context.Context, key []byte, opts ...LockReadOption) ([]byte, error) {
	const op = "Txn.GetForUpdate"
	var cfg lockConfig
	bad := apply(op, opts, &cfg, func(o LockReadOption) { o.applyLockRead(&cfg) })
	cfg.o.Values, cfg.o.Existence = !cfg.o.Existence, true
	held, err := tx.lock(ctx, op, [][]byte{key}, &cfg, bad)
	switch {
	case err != nil:
		return nil, err
	case !held[0].Exists:
		return nil, ErrNotFound
	case held[0].Value == nil:
		return []byte{}, nil
	}
	return held[0].Value, nil
}

// BatchGetForUpdate is GetForUpdate of many keys, all or none, with an answer in the order
// of keys.
func (tx *Txn) BatchGetForUpdate(ctx context.Context, keys [][]byte, opts ...LockReadOption) ([]Locked, error) {
	const op = "Txn.BatchGetForUpdate"
	var cfg lockConfig
	bad := apply(op, opts, &cfg, func(o LockReadOption) { o.applyLockRead(&cfg) })
	cfg.o.Values, cfg.o.Existence = !cfg.o.Existence, true
	held, err := tx.lock(ctx, op, keys, &cfg, bad)
	if err != nil {
		return nil, err
	}
	out := make([]Locked, len(held))
	for i, h := range held {
		out[i] = Locked{Value: h.Value, Exists: h.Exists, ConflictTS: Timestamp(h.ConflictTS)}
		if h.Exists && h.Value == nil {
			out[i].Value = []byte{}
		}
	}
	return out, nil
}

func (tx *Txn) lock(ctx context.Context, op string, keys [][]byte, cfg *lockConfig, bad error) ([]txn.Held, error) {
	defer runtime.KeepAlive(&tx.attempt)
	if err := firstError(tx.c.check(op), bad); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, &canceledError{op: op, causes: []error{context.Cause(ctx), err}}
	}
	wire := make([][]byte, len(keys))
	for i, key := range keys {
		if err := tx.checkWrite(op, key, nil); err != nil {
			return nil, err
		}
		wire[i] = tx.c.engine.txn.Key(key)
	}
	held, err := tx.t.Lock(ctx, op, wire, cfg.o)
	if dead, ok := err.(*txn.Deadlock); ok {
		return nil, tx.c.errorContext(op, tx.c.engine.txn).deadlock(dead)
	}
	return held, tx.mapError(op, err)
}

// holdWeakly makes the engine see when the handle is dropped: then nobody will end the
// transaction, whose locks would be kept alive for nothing.
func (tx *Txn) holdWeakly() {
	handle := weak.Make(tx)
	tx.t.HeldBy(func() bool { return handle.Value() != nil })
}

// FairLock begins a statement in fair locking: single-key locks are granted in the order
// of waiting, even above a newer commit, which BatchGetForUpdate reports
// (Locked.ConflictTS). What counts as newer is what was committed after StartTS or, if
// that is later, after the newest ConflictTS or for-update timestamp that the transaction
// has met. A lock of several keys ends the statement, as Done does. In an optimistic
// transaction, where nobody waits, it is of no consequence.
func (tx *Txn) FairLock() (*FairLock, error) {
	const op = "Txn.FairLock"
	if err := tx.c.check(op); err != nil {
		return nil, err
	}
	s, err := tx.t.FairLock()
	if err != nil {
		return nil, tx.mapError(op, err)
	}
	return &FairLock{tx: tx, s: s}, nil
}

// FairLock is one statement's fair locking. Retry keeps its locks for the statement's
// next attempt, Done keeps those taken in the last one, Cancel releases all; after
// Done or Cancel the others do nothing, so Cancel may be deferred. The transaction cannot
// commit before (ErrInvalid).
type FairLock struct {
	tx *Txn
	s  *txn.Stage
}

// Retry begins the statement's next attempt. Keys that it locks again are had without
// asking; those that it does not are released by the next Retry or by Done.
func (f *FairLock) Retry(ctx context.Context) error {
	return f.call(ctx, "FairLock.Retry", func() error { return f.s.Retry() })
}

// Done ends the statement. The locks of its last attempt are the transaction's.
func (f *FairLock) Done(ctx context.Context) error {
	return f.call(ctx, "FairLock.Done", func() error { return f.s.Done() })
}

// Cancel ends the statement and releases all its locks; ctx bounds the wait for that
// alone.
func (f *FairLock) Cancel(ctx context.Context) error {
	return f.tx.mapError("FairLock.Cancel", f.s.Cancel(ctx))
}

func (f *FairLock) call(ctx context.Context, op string, fn func() error) error {
	defer runtime.KeepAlive(&f.tx.attempt)
	if err := ctx.Err(); err != nil {
		return &canceledError{op: op, causes: []error{context.Cause(ctx), err}}
	}
	return f.tx.mapError(op, fn())
}
