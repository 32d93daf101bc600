package storage

import "slices"

// Watcher hears of every batch that an engine applies, one after the other, in the order
// in which they take effect, and before any snapshot that Sync or Watcher's owner takes
// afterwards shows it. after makes a snapshot with the batch, which the watcher closes;
// it is called, if at all, before Applied returns. Applied is quick, does not wait, and
// calls nothing of the engine.
type Watcher interface {
	Applied(b *Batch, after func() Snapshot)
}

// watchers are those of an engine. Their owner's lock orders calls with its batches.
type watchers []Watcher

func (ws *watchers) add(w Watcher) { *ws = append(slices.Clone(*ws), w) }

func (ws *watchers) remove(w Watcher) {
	*ws = slices.DeleteFunc(slices.Clone(*ws), func(o Watcher) bool { return o == w })
}

func (ws watchers) tell(b *Batch, after func() Snapshot) {
	for _, w := range ws {
		w.Applied(b, after)
	}
}

// Watch lets w hear of the batches that are applied from now on, until stop.
func (m *memory) Watch(w Watcher) (stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers.add(w)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.watchers.remove(w)
	}
}

// Sync runs f between two batches.
func (m *memory) Sync(f func(Snapshot)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.published.Load())
}

// Watch lets w hear of the batches that are applied from now on, until stop.
func (d *dir) Watch(w Watcher) (stop func()) {
	d.order.Lock()
	defer d.order.Unlock()
	d.watchers.add(w)
	d.watched.Store(true)
	return func() {
		d.order.Lock()
		defer d.order.Unlock()
		d.watchers.remove(w)
		d.watched.Store(len(d.watchers) > 0)
	}
}

// Sync runs f between two batches.
func (d *dir) Sync(f func(Snapshot)) {
	d.order.Lock()
	defer d.order.Unlock()
	f(d.snapshot())
}
