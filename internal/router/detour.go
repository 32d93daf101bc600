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

// detour returns the peer through which the leader's store is reached, -1 for none, where
// that is known and the leader is to be asked although it is away.
func (r *Router) detour(s *sending, peers []peer) int {
	l := s.region.LeaderIndex()
	if l >= len(peers) || !peers[l].away || s.wish.read && s.wish.policy != ReadLeader {
		return -1
	}
	via := r.detours.get(s.region.Peer(l).GetStoreId())
	for i := range peers {
		if via != 0 && i != l && s.region.Peer(i).GetStoreId() == via && peers[i].role != outside && !peers[i].away {
			return i
		}
	}
	return -1
}
