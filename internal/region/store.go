package region

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pingcap/kvproto/pkg/metapb"
)

// Store is where a store is reached. It is immutable.
type Store struct {
	ID   uint64
	Addr string

	labels []*metapb.StoreLabel
	stale  bool // to be asked for again before the next use
}

// Label is the value of a label of the store, empty if it has none of that key.
func (s *Store) Label(key string) string {
	for _, l := range s.labels {
		if l.GetKey() == key {
			return l.GetValue()
		}
	}
	return ""
}

// TiFlash reports whether the store is of another engine: its peers hold the same data, but
// serve plans alone (client-go store_cache.go, GetStoreTypeByMeta).
func (s *Store) TiFlash() bool { return strings.HasPrefix(s.Label("engine"), "tiflash") }

// ErrNoStore is a store that PD does not know, or no longer.
var ErrNoStore = errors.New("region: no such store")

type storeCache struct {
	byID  atomic.Pointer[map[uint64]*Store] // copied on write
	mu    sync.Mutex                        // held by writers of byID, never across a wait
	loads flights[*Store]
}

// Store returns the store with the id, asking PD the first time and after
// RefreshStore. When PD does not answer then, what was known before stands.
func (c *Cache) Store(ctx context.Context, id uint64) (*Store, error) {
	old := c.stores.get(id)
	if old != nil && !old.stale {
		return old, nil
	}
	s, err := c.stores.loads.do(ctx, c.tasks, "store load", strconv.FormatUint(id, 10), func(ctx context.Context, _ string) (*Store, error) {
		return c.loadStore(ctx, id)
	})
	if err != nil && old != nil && !errors.Is(err, ErrNoStore) && ctx.Err() == nil && c.tasks.Context().Err() == nil {
		return old, nil
	}
	return s, err
}

func (s *storeCache) get(id uint64) *Store {
	if m := s.byID.Load(); m != nil {
		return (*m)[id]
	}
	return nil
}

// set replaces what is known of a store, if that is still old or old is nil. A nil
// next forgets it.
func (s *storeCache) set(id uint64, old, next *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[uint64]*Store)
	if m := s.byID.Load(); m != nil {
		maps.Copy(all, *m)
	}
	if old != nil && all[id] != old {
		return
	}
	if next == nil {
		delete(all, id)
	} else {
		all[id] = next
	}
	s.byID.Store(&all)
}

func (c *Cache) loadStore(ctx context.Context, id uint64) (*Store, error) {
	meta, err := c.pd.Store(ctx, id)
	if err != nil {
		return nil, err
	}
	if meta == nil || meta.GetState() == metapb.StoreState_Tombstone {
		c.stores.set(id, nil, nil)
		return nil, fmt.Errorf("%w: %d", ErrNoStore, id)
	}
	s := &Store{ID: id, Addr: meta.GetAddress(), labels: meta.GetLabels()}
	c.stores.set(id, nil, s)
	return s, nil
}

// RefreshStore makes the next use of s ask PD for its address again: after it could
// not be reached, or another store answered there.
func (c *Cache) RefreshStore(s *Store) {
	if !s.stale {
		c.stores.set(s.ID, s, &Store{ID: s.ID, Addr: s.Addr, labels: s.labels, stale: true})
	}
}
