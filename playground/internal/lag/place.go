package lag

import (
	"time"

	"github.com/tikv-go/tikv/internal/keys"
)

// SetLag lets a store apply what others lead only so much later than they do. It keeps
// what it has: a lag that begins, or grows, holds it there until it is due. 0 ends the
// lag.
func (l *Log) SetLag(store uint64, lag time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, lagging := l.places[store]
	switch {
	case lag <= 0 && !lagging, lagging && p.lag == lag:
		return
	case lag <= 0:
		delete(l.places, store)
	default:
		l.keep()
		from := l.states[len(l.states)-1]
		if lagging {
			from = l.states[l.due(p)]
		}
		from.pinned = true
		l.places[store] = place{lag, from.seq}
	}
	l.settle()
}

// Cut keeps two stores from hearing each other: what one leads the other does not follow.
func (l *Log) Cut(a, b uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.cuts[pair(a, b)]; ok {
		return
	}
	l.keep()
	last := l.states[len(l.states)-1]
	last.pinned = true
	l.cuts[pair(a, b)] = last.seq
	l.settle()
}

// Heal ends every cut.
func (l *Log) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.cuts)
	l.settle()
}

// Moved tells that the clock was set.
func (l *Log) Moved() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
}

// Forget ends every lag and cut. What is open of the states stays so.
func (l *Log) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.places)
	clear(l.cuts)
	l.settle()
}

// keep makes the first state, if there is none.
func (l *Log) keep() {
	if len(l.states) > 0 {
		return
	}
	l.add(keys.Range{})
	l.keeping.Store(true)
}

// settle ends a change.
func (l *Log) settle() {
	if len(l.states) > 0 {
		l.prune()
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Keeping reports whether some store may be behind.
func (l *Log) Keeping() bool { return l.keeping.Load() }

// Severed reports whether two stores are cut off from each other.
func (l *Log) Severed(a, b uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, cut := l.cuts[pair(a, b)]
	return cut
}

// Lag is how far behind a store is told to be, 0 for not at all.
func (l *Log) Lag(store uint64) time.Duration {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.places[store].lag
}

// View returns what a store has of regions that another leads (0: none does), but
// nothing older than a state that it had already; nil: everything. The caller closes it.
func (l *Log) View(store, leader, least uint64) *View {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := l.applied(store, leader)
	for i >= 0 && i < len(l.states)-1 && l.states[i].seq < least {
		i++
	}
	if i == len(l.states)-1 {
		return nil
	}
	s := l.states[i]
	return &View{Seq: s.seq, Mark: s.mark, snap: s.snap.retain()}
}

// Written returns the last state after another in which something in a range of keys was
// written, 0 for none.
func (l *Log) Written(in keys.Range, after uint64) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := len(l.states) - 1; i >= 0 && l.states[i].seq > after; i-- {
		for _, span := range l.states[i].spans {
			if !span.Intersect(in).Empty() {
				return l.states[i].seq
			}
		}
	}
	return 0
}

// Due returns how long it takes until a store has a state, 0 if it has it, and what is
// closed when that may be answered otherwise.
func (l *Log) Due(store, leader, seq uint64) (time.Duration, <-chan struct{}) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if i := l.applied(store, leader); i < 0 || l.states[i].seq >= seq {
		return 0, l.changed
	}
	if _, cut := l.cuts[pair(store, leader)]; cut {
		return 1<<63 - 1, l.changed
	}
	at := l.states[len(l.states)-1].at
	for _, s := range l.states {
		if s.seq >= seq {
			at = s.at
			break
		}
	}
	left := l.places[store].lag - l.cfg.Now().Sub(at)
	return max(1, left), l.changed
}

// Last is the present state, 0 if none is kept.
func (l *Log) Last() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.states) == 0 {
		return 0
	}
	return l.states[len(l.states)-1].seq
}

// States is how many states are kept.
func (l *Log) States() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.states)
}
