package mvcc

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/tikv-go/tikv/internal/keys"
)

// Manager is what one store keeps in memory so that the commit timestamps it chooses,
// for async commit and one-phase commit, come after every read that it answered: the
// largest timestamp read at, and the locks that are being written (TiKV components/
// concurrency_manager). A read raises the first, then looks at the second, then takes
// its snapshot; a prewrite puts its lock before it looks at the first. So one of the
// two sees the other.
type Manager struct {
	maxTS atomic.Uint64

	inMemory atomic.Int64 // locks that are there or about to be: most reads find none
	mu       sync.Mutex
	locks    map[string]memoryLock // by encoded key

	committed statusCache
	pipelined pipelinedTxns
}

type memoryLock struct {
	key  key
	lock lock
}

// NewManager returns the Manager of a store that has answered nothing yet.
func NewManager() *Manager { return &Manager{locks: make(map[string]memoryLock)} }

// MaxTS is the largest timestamp that anything was read at, or that PD gave when the
// store became a region's leader.
func (m *Manager) MaxTS() uint64 { return m.maxTS.Load() }

// Observe raises MaxTS; the largest timestamp of all means "latest" and does not
// (components/concurrency_manager/src/lib.rs, update_max_ts).
func (m *Manager) Observe(ts uint64) {
	if ts == maxTS {
		return
	}
	for {
		old := m.maxTS.Load()
		if ts <= old || m.maxTS.CompareAndSwap(old, ts) {
			return
		}
	}
}

// propose sets the least commit timestamp of a lock: above floor and above every read
// so far, and puts the lock where reads see it. It does neither and reports false if
// that timestamp is above limit, unless limit is 0 (TiKV src/storage/txn/actions/
// prewrite.rs, async_commit_timestamps). Callers hold the key's latch.
func (m *Manager) propose(k key, l *lock, floor, limit uint64) bool {
	m.inMemory.Add(1) // before MaxTS is read: who raises it later must look
	m.mu.Lock()
	defer m.mu.Unlock()
	ts := max(l.minCommitTS, max(m.maxTS.Load(), floor)+1)
	if limit != 0 && ts > limit {
		m.inMemory.Add(-1)
		return false
	}
	l.minCommitTS = ts
	if _, again := m.locks[string(k.enc)]; again {
		m.inMemory.Add(-1)
	}
	m.locks[string(k.enc)] = memoryLock{k, *l}
	return true
}

// release removes the locks of keys, which their prewrite has written or given up.
func (m *Manager) release(ks []key) {
	if len(ks) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range ks {
		if _, ok := m.locks[string(k.enc)]; ok {
			delete(m.locks, string(k.enc))
			m.inMemory.Add(-1)
		}
	}
}

// checkKey returns what check says of a key's lock in memory, nil if it has none
// (read_key_check).
func (m *Manager) checkKey(k key, check func(key, *lock) error) error {
	if m.inMemory.Load() == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if l, ok := m.locks[string(k.enc)]; ok {
		return check(l.key, &l.lock)
	}
	return nil
}

// checkRange returns the first error, in the order of the keys, that check has for a
// lock in memory (read_range_check).
func (m *Manager) checkRange(in keys.Range, check func(key, *lock) error) error {
	if m.inMemory.Load() == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var (
		first []byte
		found error
	)
	for _, l := range m.locks {
		if !in.Contains(l.key.enc) || found != nil && bytes.Compare(l.key.enc, first) > 0 {
			continue
		}
		if err := check(l.key, &l.lock); err != nil {
			first, found = l.key.enc, err
		}
	}
	return found
}

// statusCache remembers the last transactions that a store saw committed. A prewrite of
// one of them is a late copy (TiKV src/storage/txn/txn_status_cache.rs).
type statusCache struct {
	mu       sync.Mutex
	commitTS map[uint64]uint64 // by start timestamp
	order    []uint64          // start timestamps, the oldest at next once it is full
	next     int
}

// statusCacheSize is how many are kept. TiKV keeps as many as fit into its memory
// limit, for at least 30 s.
const statusCacheSize = 4096

func (c *statusCache) add(startTS, commitTS uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.commitTS[startTS]; ok {
		return
	}
	if c.commitTS == nil {
		c.commitTS = make(map[uint64]uint64)
	}
	if len(c.order) < statusCacheSize {
		c.order = append(c.order, startTS)
	} else {
		delete(c.commitTS, c.order[c.next])
		c.order[c.next] = startTS
		c.next = (c.next + 1) % statusCacheSize
	}
	c.commitTS[startTS] = commitTS
}

func (c *statusCache) has(startTS uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.commitTS[startTS]
	return ok
}
