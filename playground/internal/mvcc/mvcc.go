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
// which the command that releases the lock takes it (package lockwait). A lock may be
// shared by several (shared.go).
package mvcc

import (
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/lockwait"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// Config is what an Engine runs with.
type Config struct {
	APIVersion kvrpcpb.APIVersion // V1, V1TTL (where every request is refused) or V2
	// Waits is where pessimistic lock requests wait; nil: they do not.
	Waits *lockwait.Table
	// Ended, if it is not nil, is called once for each transaction whose primary key was
	// committed or rolled back, when that is stored. Of a one-phase commit every key is.
	Ended func(committed bool)
	// Now is the clock by which answers tell what they took; nil: no time.
	Now func() time.Time
}

// Engine answers transactional requests. Its methods may be called by many goroutines.
type Engine struct {
	store   storage.Engine
	cfg     Config
	latches *storage.Latches
	manager *Manager
	leader  func(region uint64) *Manager // of the store that leads a region; nil: this one
}

// New returns an Engine on store that is the only one.
func New(store storage.Engine, cfg Config) *Engine {
	return &Engine{store: store, cfg: cfg, latches: storage.NewLatches(), manager: NewManager()}
}

// On returns the same Engine as another store serves it, with a Manager of its own.
// leader is the Manager of the store that leads a region, which replica reads ask.
func (e *Engine) On(m *Manager, leader func(region uint64) *Manager) *Engine {
	on := *e
	on.manager, on.leader = m, leader
	return &on
}

// MaxTS is the largest timestamp that anything was read at. What commits after that
// read at a timestamp of the server's choice must be later.
func (e *Engine) MaxTS() uint64 { return e.manager.MaxTS() }

func (e *Engine) observe(ts uint64) { e.manager.Observe(ts) }

// change is what a command has read and wants to write.
type change struct {
	*Engine
	reader
	startTS uint64 // of the transaction
	batch   storage.Batch
	pending map[string]left   // locks of this batch by encoded key
	commits map[string]record // what this batch commits, by encoded key; kept if something waits
	watched bool              // something waits for a lock
	// inMemory are the keys whose locks are visible to reads until the batch is written.
	inMemory []key
	ended    []bool   // transactions that this ends at their primary: committed or not
	known    []status // of transactions that turned out to be committed
}

// left is what a batch makes of a key's lock; nil: it was removed by a transaction.
type left struct {
	*lock
	by uint64
}

// status is how a transaction was committed.
type status struct{ startTS, commitTS uint64 }

// update runs a command under the latches of its keys and writes what it asks for, all
// or, if it fails, nothing. The command runs on a snapshot taken under the latches.
func (f *effort) update(ctx context.Context, startTS uint64, ks []key, command func(*change) error) error {
	encs := make([][]byte, len(ks))
	for i, k := range ks {
		encs[i] = k.enc
	}
	began := f.now()
	release, err := f.latches.Acquire(ctx, encs...)
	f.latched = f.since(began)
	if err != nil {
		return err
	}
	defer release()
	return f.run(ctx, startTS, ks, command)
}

// run is update for a caller that holds the latches.
func (f *effort) run(ctx context.Context, startTS uint64, ks []key, command func(*change) error) error {
	e, began := f.Engine, f.now()
	defer func() { f.processed = f.since(began) }()
	for _, k := range ks {
		f.bytes += len(k.enc)
	}
	c := &change{Engine: e, reader: reader{snap: e.store.Snapshot()}, startTS: startTS, watched: e.waited()}
	defer c.reveal()
	err := command(c)
	f.work.add(c.work)
	var moved []lockMove
	if err == nil && c.watched {
		moved, err = c.lockMoves(ks)
	}
	c.snap.Close()
	if err != nil {
		return err
	}
	if c.batch.Len() > 0 {
		if err := e.store.Apply(&c.batch); err != nil {
			return err
		}
	}
	c.tell()
	c.reveal()
	e.notify(ctx, moved)
	return nil
}

// reveal ends the locks in memory: what they announced is stored, or will not be.
func (c *change) reveal() {
	c.manager.release(c.inMemory)
	c.inMemory = nil
}

// tell passes on what has been decided, once it is stored.
func (c *change) tell() {
	for _, s := range c.known {
		c.manager.committed.add(s.startTS, s.commitTS)
	}
	if c.cfg.Ended == nil {
		return
	}
	for _, committed := range c.ended {
		c.cfg.Ended(committed)
	}
}

// decide notes that the transaction ends on a key, which decides it if that is its
// primary.
func (c *change) decide(k key, primary []byte, committed bool) {
	if string(primary) == string(k.raw) {
		c.ended = append(c.ended, committed)
	}
}

// know notes that the transaction is committed.
func (c *change) know(commitTS uint64) { c.known = append(c.known, status{c.startTS, commitTS}) }

// current returns a key's lock as this batch leaves it so far.
func (c *change) current(k key) (*lock, error) {
	if l, ok := c.pending[string(k.enc)]; ok {
		return l.lock, nil
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

// release takes the transaction's lock off a key: the one that the key has, or its part
// of that.
func (c *change) release(k key, l *lock) {
	if l.shared() {
		if rest := l.without(c.startTS); rest != nil {
			c.putLock(k, rest)
			return
		}
	}
	c.unlock(k)
}

func (c *change) setPending(k key, l *lock) {
	if c.pending == nil {
		c.pending = make(map[string]left)
	}
	c.pending[string(k.enc)] = left{l, c.startTS}
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
func (c *change) clear() {
	c.batch, c.pending, c.commits, c.ended = storage.Batch{}, nil, nil, nil
}

func keysOf(raws [][]byte) []key {
	ks := make([]key, len(raws))
	for i, raw := range raws {
		ks[i] = keyOf(raw)
	}
	return ks
}
