// Package mvcc answers TiKV's transactional requests on a storage engine: one method
// for each request, without network and regions. Records are TiKV's own, in its three
// column families: locks, writes (what was committed or rolled back, with short
// values), and long values (TiKV src/storage/txn, src/storage/mvcc,
// components/txn_types).
//
// Methods take the bounds of the region that the request is for, as PD holds them,
// memcomparable-encoded. Scans of locks and of the records of a region end at them;
// that a request's keys lie in them is the caller's check. The engine keeps the
// requests' slices, and answers share slices with it: nobody changes them.
//
// A pessimistic lock request that meets another transaction's lock waits in a queue, from
// which the command that releases the lock takes it (package lockwait). Async
// commit and one-phase commit fall back to two phases, as TiKV does when it cannot
// keep to the largest commit timestamp that the client allows. Shared locks and
// pipelined transactions are refused.
package mvcc

import (
	"context"
	"sync/atomic"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/lockwait"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// Config is what an Engine runs with.
type Config struct {
	APIVersion kvrpcpb.APIVersion // V1, V1TTL (where every request is refused) or V2
	// Waits is where pessimistic lock requests wait; nil: they do not.
	Waits *lockwait.Table
}

// Engine answers transactional requests. Its methods may be called by many goroutines.
type Engine struct {
	store   storage.Engine
	cfg     Config
	latches *storage.Latches
	maxTS   atomic.Uint64
}

// New returns an Engine on store.
func New(store storage.Engine, cfg Config) *Engine {
	return &Engine{store: store, cfg: cfg, latches: storage.NewLatches()}
}

// MaxTS is the largest timestamp that anything was read at. What commits after that
// read at a timestamp of the server's choice must be later (TiKV
// components/concurrency_manager).
func (e *Engine) MaxTS() uint64 { return e.maxTS.Load() }

// observe raises MaxTS; the largest timestamp of all means "latest" and does not.
func (e *Engine) observe(ts uint64) {
	if ts == maxTS {
		return
	}
	for {
		old := e.maxTS.Load()
		if ts <= old || e.maxTS.CompareAndSwap(old, ts) {
			return
		}
	}
}

// change is what a command has read and wants to write.
type change struct {
	*Engine
	reader
	startTS uint64 // of the transaction
	batch   storage.Batch
	pending map[string]*lock  // locks of this batch by encoded key; nil: removed
	commits map[string]record // what this batch commits, by encoded key; kept if something waits
	watched bool              // something waits for a lock
}

// update runs a command under the latches of its keys and writes what it asks for, all
// or, if it fails, nothing. The command runs on a snapshot taken under the latches.
func (e *Engine) update(ctx context.Context, startTS uint64, ks []key, command func(*change) error) error {
	encs := make([][]byte, len(ks))
	for i, k := range ks {
		encs[i] = k.enc
	}
	release, err := e.latches.Acquire(ctx, encs...)
	if err != nil {
		return err
	}
	defer release()
	return e.run(ctx, startTS, ks, command)
}

// run is update for a caller that holds the latches.
func (e *Engine) run(ctx context.Context, startTS uint64, ks []key, command func(*change) error) error {
	c := &change{Engine: e, reader: reader{e.store.Snapshot()}, startTS: startTS, watched: e.waited()}
	err := command(c)
	var moved []lockMove
	if err == nil && c.watched {
		moved, err = c.lockMoves(ks)
	}
	c.snap.Close()
	if err != nil || c.batch.Len() == 0 {
		return err
	}
	if err := e.store.Apply(&c.batch); err != nil {
		return err
	}
	e.notify(ctx, moved)
	return nil
}

// current returns a key's lock as this batch leaves it so far.
func (c *change) current(k key) (*lock, error) {
	if l, ok := c.pending[string(k.enc)]; ok {
		return l, nil
	}
	return c.lock(k.enc)
}

func (c *change) putLock(k key, l *lock) {
	c.setPending(k, l)
	c.batch.Put(storage.Lock, k.enc, l.encode())
}

func (c *change) unlock(k key) {
	c.setPending(k, nil)
	c.batch.Delete(storage.Lock, k.enc)
}

func (c *change) setPending(k key, l *lock) {
	if c.pending == nil {
		c.pending = make(map[string]*lock)
	}
	c.pending[string(k.enc)] = l
}

func (c *change) putWrite(k key, commitTS uint64, w *write) {
	c.batch.Put(storage.Write, at(k.enc, commitTS), w.encode())
	if c.watched && w.kind != writeRollback {
		if c.commits == nil {
			c.commits = make(map[string]record)
		}
		c.commits[string(k.enc)] = record{commitTS, w}
	}
}

// clear forgets what was to be written.
func (c *change) clear() { c.batch, c.pending, c.commits = storage.Batch{}, nil, nil }

func keysOf(raws [][]byte) []key {
	ks := make([]key, len(raws))
	for i, raw := range raws {
		ks[i] = keyOf(raw)
	}
	return ks
}
