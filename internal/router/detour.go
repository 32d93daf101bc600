package router

import "sync"

// detours remembers for the stores that this client cannot reach through which other store
// it can, so that not every call finds out anew. They are looked at only while a store is
// known to be away.
type detours struct {
	mu sync.Mutex
	by map[uint64]uint64
}

// learn notes that a store was reached through another.
func (d *detours) learn(store, via uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = make(map[uint64]uint64)
	}
	d.by[store] = via
}

// forget notes that it no longer is.
func (d *detours) forget(store uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.by, store)
}

func (d *detours) get(store uint64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.by[store]
}

// detour returns the peer through which the leader's store was reached before, -1 for none.
func (r *Router) detour(s *sending) int {
	via := r.detours.get(s.peer().GetStoreId())
	if via == 0 {
		return -1
	}
	store := r.cfg.Regions.KnownStore(via)
	at := s.region.PeerOn(via)
	if store == nil || store.Away() || at < 0 || at == s.at || s.region.Peer(at).GetIsWitness() {
		return -1
	}
	return at
}
