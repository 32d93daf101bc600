package storage

import (
	"bytes"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"github.com/tikv-go/tikv/internal/keys"
)

type entry struct{ key, value []byte }

type tree = btree.BTreeG[entry]

// memDegree is a tree's fan-out: a write after a snapshot copies the nodes on its path,
// so that they are kept smaller than for a tree that is only searched.
const memDegree = 8

// memory is the engine in memory. Writers change head, one after another; each Apply
// ends by publishing a copy of it (a pointer to the shared nodes; a node is copied when
// it is written next). Readers load the published trees and take no lock.
type memory struct {
	mu     sync.Mutex
	closed bool
	head   [numCF]*tree

	watchers watchers

	published atomic.Pointer[memSnapshot]
}

type memSnapshot [numCF]*tree

var (
	_ Engine   = (*memory)(nil)
	_ Snapshot = (*memSnapshot)(nil)
)

// NewMemory returns an empty engine in memory.
func NewMemory() Engine {
	m, first := &memory{}, &memSnapshot{}
	for cf := range m.head {
		m.head[cf] = btree.NewBTreeGOptions(
			func(a, b entry) bool { return bytes.Compare(a.key, b.key) < 0 },
			btree.Options{Degree: memDegree, NoLocks: true},
		)
		first[cf] = m.head[cf].Copy()
	}
	m.published.Store(first)
	return m
}

func (m *memory) Snapshot() Snapshot { return m.published.Load() }

func (m *memory) Apply(b *Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	var touched [numCF]bool
	for i := range b.ops {
		o := &b.ops[i]
		touched[o.cf] = true
		t := m.head[o.cf]
		switch o.kind {
		case opPut:
			t.Set(entry{o.key, o.value})
		case opDelete:
			t.Delete(entry{key: o.key})
		case opDeleteRange:
			deleteRange(t, keys.Range{Start: o.key, End: o.value})
		}
	}
	next := *m.published.Load()
	for cf, changed := range touched {
		if changed {
			next[cf] = m.head[cf].Copy()
		}
	}
	if len(m.watchers) > 0 {
		m.watchers.tell(b, func() Snapshot { return &next })
	}
	m.published.Store(&next)
	return nil
}

// deleteRange collects first: the tree must not change under its own iteration.
func deleteRange(t *tree, r keys.Range) {
	var doomed []entry
	t.Ascend(entry{key: r.Start}, func(e entry) bool {
		if !r.Contains(e.key) {
			return false
		}
		doomed = append(doomed, entry{key: e.key})
		return true
	})
	for _, e := range doomed {
		t.Delete(e)
	}
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (s *memSnapshot) Get(cf CF, key []byte) ([]byte, bool) {
	e, ok := s[cf].Get(entry{key: key})
	return e.value, ok
}

func (s *memSnapshot) Scan(cf CF, r keys.Range, reverse bool) iter.Seq2[[]byte, []byte] {
	t := s[cf]
	if !reverse {
		return func(yield func(key, value []byte) bool) {
			t.Ascend(entry{key: r.Start}, func(e entry) bool {
				if len(r.End) > 0 && bytes.Compare(e.key, r.End) >= 0 {
					return false
				}
				return yield(e.key, e.value)
			})
		}
	}
	return func(yield func(key, value []byte) bool) {
		step := func(e entry) bool {
			switch {
			case bytes.Compare(e.key, r.Start) < 0:
				return false
			case len(r.End) > 0 && bytes.Equal(e.key, r.End): // the first only
				return true
			}
			return yield(e.key, e.value)
		}
		if len(r.End) == 0 {
			t.Reverse(step)
		} else {
			t.Descend(entry{key: r.End}, step)
		}
	}
}

func (s *memSnapshot) Close() {}
