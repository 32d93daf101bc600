// Package storage is the ordered key-value store under the embedded cluster: column
// families, atomic batches, snapshots. It has two engines with one behaviour: a tree
// in memory, and a file in a directory.
package storage

import (
	"errors"
	"iter"

	"github.com/tikv-go/tikv/internal/keys"
)

// CF is a column family: a key space of its own within an engine.
type CF uint8

// The column families: TiKV's three (components/engine_traits/src/cf_defs.rs), and one
// in which the cluster keeps its own shape.
const (
	Default CF = iota
	Lock
	Write
	Meta
	numCF
)

// String returns the family's name, for TiKV's three the one that requests carry.
func (cf CF) String() string {
	switch cf {
	case Default:
		return "default"
	case Lock:
		return "lock"
	case Write:
		return "write"
	case Meta:
		return "meta"
	}
	return "unknown"
}

// Engine is an ordered key-value store. Its methods may be called by many goroutines.
type Engine interface {
	// Snapshot returns the state as of now: every batch whose Apply returned, and each
	// batch whole or not at all. The caller closes it.
	Snapshot() Snapshot
	// Apply writes the batch, all of it or nothing. Once it returned nil the batch
	// survives the end of the process, however it ends, if the engine has a directory.
	// The engine keeps the batch's slices: they must not be changed any more.
	Apply(*Batch) error
	// Watch lets w hear of the batches that are applied from now on, until stop.
	Watch(w Watcher) (stop func())
	// Sync runs f between two batches: watchers have heard of those that the snapshot
	// shows, and will hear of the others. f closes the snapshot, or keeps it; it is
	// quick, and calls nothing of the engine.
	Sync(f func(Snapshot))
	// Close releases the engine. Its snapshots are closed before.
	Close() error
}

// Snapshot is an engine's state at one moment. It may be used by many goroutines and
// held across later Apply calls. The slices it returns stay valid after Close and must
// not be changed.
type Snapshot interface {
	// Get returns the value of a key, and whether the key is there.
	Get(cf CF, key []byte) ([]byte, bool)
	// Scan returns the keys of a range with their values, in descending order if
	// reverse.
	Scan(cf CF, r keys.Range, reverse bool) iter.Seq2[[]byte, []byte]
	// Close releases the snapshot; calling it again does nothing.
	Close()
}

// ErrClosed is an Apply to an engine that was closed.
var ErrClosed = errors.New("storage: engine closed")
