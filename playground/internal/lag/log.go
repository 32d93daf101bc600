// Package lag is what replicas have that are behind their leaders: the recent states of
// the one storage that stands behind all stores, which are kept only while a store lags
// or is cut off from another, and which of them each store has come to.
package lag

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// Config is what a Log runs with.
type Config struct {
	// Now is the cluster's clock.
	Now func() time.Time
	// Resolve returns a timestamp at or below which nothing will commit but what is
	// locked in the storage when it is called; false: there is none now.
	Resolve func() (uint64, bool)
}

// Log is a storage engine that can keep its past states.
type Log struct {
	storage.Engine
	cfg     Config
	keeping atomic.Bool // whether states is not empty: for those who only want to know that

	mu     sync.RWMutex
	seq    uint64   // of the last state ever
	states []*state // oldest first; the last is the present one. Empty: no store is behind
	places map[uint64]place
	cuts   map[[2]uint64]uint64 // the state since which two stores, the lesser first, do not hear each other
	// changed is closed when anything but the time has changed of where stores are.
	changed chan struct{}
}

// place is how a store lags.
type place struct {
	lag time.Duration
	// from is the state that the store had when the lag began: it does not go back behind it.
	from uint64
}

// state is the storage after a write.
type state struct {
	seq    uint64 // counts states
	at     time.Time
	mark   uint64 // Config.Resolve as of then
	snap   *shared
	spans  []keys.Range // what was written since the state before it
	pinned bool         // a store began to lag here
}

// New returns a Log on e, in which no store lags.
func New(e storage.Engine, cfg Config) *Log {
	return &Log{
		Engine: e, cfg: cfg, places: make(map[uint64]place), cuts: make(map[[2]uint64]uint64), changed: make(chan struct{}),
	}
}

// Apply writes the batch.
func (l *Log) Apply(b *storage.Batch) error {
	// The cluster's own records are no replica's. (Resolve, too, may write some.)
	if b.Meta() {
		return l.Engine.Apply(b)
	}
	l.mu.RLock()
	if len(l.states) == 0 {
		defer l.mu.RUnlock()
		return l.Engine.Apply(b)
	}
	l.mu.RUnlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.Engine.Apply(b); err != nil {
		return err
	}
	if len(l.states) > 0 {
		l.add(b.Span())
		l.prune()
	}
	return nil
}

// add makes the present state the last one. Callers hold mu.
func (l *Log) add(span keys.Range) {
	l.seq++
	s := &state{seq: l.seq, at: l.cfg.Now(), snap: share(l.Engine.Snapshot()), spans: []keys.Range{span}}
	if n := len(l.states); n > 0 {
		last := l.states[n-1]
		s.mark = last.mark
		if s.at.Before(last.at) { // the clock was set back
			s.at = last.at
		}
		if n > 1 && !last.pinned && s.at.Sub(l.states[n-2].at) < l.grain() {
			s.spans = join(last.spans, span)
			last.snap.release()
			l.states = l.states[:n-1]
		}
	}
	if ts, ok := l.cfg.Resolve(); ok {
		s.mark = max(s.mark, ts)
	}
	l.states = append(l.states, s)
}

// grains is into how many steps a lag is divided: states that are nearer to each other
// are one, so that a store that does not move does not cost a state for each write.
const grains = 1024

func (l *Log) grain() time.Duration {
	least := time.Duration(1<<63 - 1)
	for _, p := range l.places {
		least = min(least, p.lag/grains)
	}
	return least
}

// maxSpans is how many spans are told apart.
const maxSpans = 64

func join(spans []keys.Range, more keys.Range) []keys.Range {
	for _, s := range spans {
		if s.Covers(more) {
			return spans
		}
	}
	if len(spans) < maxSpans {
		return append(spans, more)
	}
	hull := more
	for _, s := range spans {
		hull = hull.Hull(s)
	}
	return []keys.Range{hull}
}

// prune forgets what no store needs. Callers hold mu.
func (l *Log) prune() {
	first := len(l.states) - 1
	for store := range l.places {
		first = min(first, l.applied(store, 0))
	}
	for _, since := range l.cuts {
		first = min(first, l.index(since))
	}
	if len(l.places) == 0 && len(l.cuts) == 0 {
		first = len(l.states)
	}
	for _, s := range l.states[:first] {
		s.snap.release()
	}
	l.states = append([]*state(nil), l.states[first:]...)
	l.keeping.Store(len(l.states) > 0)
}

// index is that of a state, or of the last before it that is kept, or of the first.
func (l *Log) index(seq uint64) int {
	i := len(l.states) - 1
	for i > 0 && l.states[i].seq > seq {
		i--
	}
	return i
}

// applied is the index of the state that a store has of regions with a leader elsewhere
// (0: on no store that could be cut off).
func (l *Log) applied(store, leader uint64) int {
	i := len(l.states) - 1
	if store == leader || i < 0 {
		return i
	}
	if p, ok := l.places[store]; ok {
		i = l.due(p)
	}
	if since, ok := l.cuts[pair(store, leader)]; ok {
		i = min(i, l.index(since))
	}
	return i
}

// due is the index of the state that a store at a place has by now.
func (l *Log) due(p place) int {
	i, now := len(l.states)-1, l.cfg.Now()
	for i > 0 && now.Sub(l.states[i].at) < p.lag {
		i--
	}
	return max(i, l.index(p.from))
}

func pair(a, b uint64) [2]uint64 { return [2]uint64{min(a, b), max(a, b)} }
