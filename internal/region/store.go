package region

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
)

// Store is what PD knows of a store, which is fixed, and how it does, which changes. A
// store that moves to another address is another Store: nothing is known of that address.
type Store struct {
	ID                      uint64
	Addr, PeerAddr, Version string
	Labels                  map[string]string // not to be changed
	Engine                  Engine
	Leaving                 bool // PD moves its regions away

	asked  time.Duration // when PD said so, on the cache's clock
	health *health
}

// Engine is what a store is.
type Engine uint8

// The engines: stores that hold data in rows, their copies in columns, and what computes
// on those. TiKV tells them apart by the label "engine".
const (
	TiKV Engine = iota
	TiFlash
	TiFlashCompute
)

// Label is the value of a label of the store, empty if it has none of that key.
func (s *Store) Label(key string) string { return s.Labels[key] }

// TiFlash reports whether the store is of another engine: its peers hold the same data, but
// serve plans alone.
func (s *Store) TiFlash() bool { return s.Engine != TiKV }

// ErrNoStore is a store that PD does not know, or no longer.
var ErrNoStore = errors.New("region: no such store")

// How often PD is asked for stores: for one that was not where it should be, at most once
// in refreshAgain; for all while they are used, after storesAge to half as much again.
const (
	refreshAgain = time.Second
	storesAge    = time.Minute
)

type storeCache struct {
	byID  atomic.Pointer[map[uint64]*Store] // copied on write
	mu    sync.Mutex                        // held by writers of byID, never across a wait
	loads flights[*Store]
	due   atomic.Int64 // when PD is asked for all stores, on the cache's clock
}

// Store returns the store with the id, asking PD the first time.
func (c *Cache) Store(ctx context.Context, id uint64) (*Store, error) {
	if s := c.stores.get(id); s != nil {
		return s, nil
	}
	s, err := c.stores.loads.do(ctx, c.tasks, "store load", strconv.FormatUint(id, 10), func(ctx context.Context, _ string) (*Store, error) {
		return c.loadStore(ctx, id)
	})
	if err != nil && ctx.Err() != nil {
		err = c.gaveUp(ctx)
	}
	return s, err
}

// KnownStore returns the store with the id if it is known, else nil. It does not wait.
func (c *Cache) KnownStore(id uint64) *Store { return c.stores.get(id) }

// Stores returns all known stores, in the order of their ids.
func (c *Cache) Stores() []*Store {
	m := c.stores.byID.Load()
	if m == nil {
		return nil
	}
	return slices.SortedFunc(maps.Values(*m), func(a, b *Store) int { return cmp.Compare(a.ID, b.ID) })
}

func (s *storeCache) get(id uint64) *Store {
	if m := s.byID.Load(); m != nil {
		return (*m)[id]
	}
	return nil
}

// edit changes the map of stores.
func (s *storeCache) edit(change func(all map[uint64]*Store)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[uint64]*Store)
	if m := s.byID.Load(); m != nil {
		maps.Copy(all, *m)
	}
	change(all)
	s.byID.Store(&all)
}

func (c *Cache) loadStore(ctx context.Context, id uint64) (*Store, error) {
	meta, err := c.pd.Store(ctx, id)
	if err != nil {
		return nil, err
	}
	if s := c.putStores([]*metapb.Store{meta}, func(known uint64) bool { return known == id }); s[id] != nil {
		return s[id], nil
	}
	return nil, fmt.Errorf("%w: %d", ErrNoStore, id)
}

// putStores takes over what PD said of the stores that were asked for, and returns those
// there are. One that PD did not tell of is gone.
func (c *Cache) putStores(metas []*metapb.Store, asked func(id uint64) bool) map[uint64]*Store {
	found := make(map[uint64]*Store)
	now := c.now()
	var changes []Change
	c.stores.edit(func(all map[uint64]*Store) {
		for _, m := range metas {
			if m.GetId() == 0 || m.GetState() == metapb.StoreState_Tombstone || m.GetNodeState() == metapb.NodeState_Removed {
				continue
			}
			old, s := all[m.GetId()], c.newStore(m, all[m.GetId()], now)
			switch found[s.ID] = s; {
			case old == nil:
				changes = append(changes, s.change(StoreFound))
			case old.Addr != s.Addr:
				changes = append(changes, s.change(StoreMoved))
			}
		}
		for id, old := range all {
			if asked(id) && found[id] == nil {
				delete(all, id)
				changes = append(changes, old.change(StoreGone))
			}
		}
		maps.Copy(all, found)
	})
	for _, change := range changes {
		c.tell(change)
	}
	return found
}

func (s *Store) change(kind ChangeKind) Change { return Change{Kind: kind, Store: s.ID, Addr: s.Addr} }

func (c *Cache) newStore(m *metapb.Store, old *Store, now time.Duration) *Store {
	s := &Store{
		ID: m.GetId(), Addr: m.GetAddress(), PeerAddr: m.GetPeerAddress(), Version: m.GetVersion(),
		Labels: make(map[string]string, len(m.GetLabels())), Leaving: m.GetState() == metapb.StoreState_Offline, asked: now,
	}
	for _, l := range m.GetLabels() {
		s.Labels[l.GetKey()] = l.GetValue()
	}
	switch s.Labels["engine"] {
	case "tiflash":
		s.Engine = TiFlash
	case "tiflash_compute":
		s.Engine = TiFlashCompute
	}
	if old != nil && old.Addr == s.Addr {
		s.health = old.health
		return s
	}
	s.health = newHealth(c.start, c.cfg.MaxInFlight)
	s.health.watch = func() bool { return c.tasks.Go("store probe", func(ctx context.Context) { c.watch(ctx, s) }) }
	s.health.beat = c.refreshStores
	s.health.changed = func(kind ChangeKind) {
		if now := c.stores.get(s.ID); now != nil && now.health == s.health { // else it has moved
			c.tell(s.change(kind))
		}
	}
	return s
}

// RefreshStore asks PD for s again, in the background: after it could not be reached, or
// another store answered there. Until PD has answered, what is known stands.
func (c *Cache) RefreshStore(s *Store) {
	if c.stores.get(s.ID) != s || c.now()-s.asked < refreshAgain {
		return
	}
	_, _ = c.stores.loads.join(c.tasks, "store load", strconv.FormatUint(s.ID, 10), func(ctx context.Context, _ string) (*Store, error) {
		return c.loadStore(ctx, s.ID)
	})
}

// refreshStores asks PD for all stores if that is due; each store that is used calls it
// about once a second.
func (c *Cache) refreshStores() {
	now, due := c.now(), c.stores.due.Load()
	if now < time.Duration(due) || !c.stores.due.CompareAndSwap(due, int64(now+storesAge+rand.N(storesAge/2))) || due == 0 {
		return // due is 0 at first: the stores that are used have just been asked for
	}
	c.tasks.Go("store refresh", func(ctx context.Context) {
		if all, err := c.pd.Stores(ctx); err == nil && len(all) > 0 {
			c.putStores(all, func(id uint64) bool { return true })
		}
	})
}

// Feedback takes what a store says of its health, in an answer.
func (c *Cache) Feedback(f *kvrpcpb.HealthFeedback) {
	if s := c.stores.get(f.GetStoreId()); s != nil {
		s.health.feed(f.GetFeedbackSeqNo(), float64(f.GetSlowScore()), c.now())
	}
}
