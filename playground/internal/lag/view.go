package lag

import (
	"sync"

	"github.com/tikv-go/tikv/playground/internal/storage"
)

// View is a state of the storage, as a store has it.
type View struct {
	// Seq numbers the state; later ones have larger numbers.
	Seq uint64
	// Mark is a timestamp at or below which nothing commits after the state but what is
	// locked in it.
	Mark uint64
	snap *shared
}

// Snapshot returns the state. The caller closes it.
func (v *View) Snapshot() storage.Snapshot { return &handle{shared: v.snap.retain()} }

// Close releases the view; the snapshots that it has returned stay.
func (v *View) Close() { v.snap.release() }

// shared is a snapshot that is closed by the last one who has it.
type shared struct {
	storage.Snapshot
	mu    sync.Mutex
	users int
}

func share(s storage.Snapshot) *shared { return &shared{Snapshot: s, users: 1} }

func (s *shared) retain() *shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
	return s
}

func (s *shared) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		s.Snapshot.Close()
	}
}

// handle is one user's; closing it again does nothing.
type handle struct {
	*shared
	once sync.Once
}

// Close releases the snapshot.
func (h *handle) Close() { h.once.Do(h.release) }
