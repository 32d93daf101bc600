package topology

import (
	"fmt"
	"slices"

	"github.com/pingcap/kvproto/pkg/metapb"
)

// Place moves a region's peers from stores to others, and lets its peer on a store lead.
// The region is as it was looked at, or this is an error.
func (t *Topology) Place(r *Region, moves map[uint64]uint64, leader uint64) error {
	t.change.Lock()
	defer t.change.Unlock()
	if t.ByID(r.ID()) != r {
		return fmt.Errorf("playground: region %d has changed", r.ID())
	}
	now := r
	if len(moves) > 0 {
		peers, err := t.moved(r.Meta.Peers, moves)
		if err != nil {
			return err
		}
		if now, err = t.withPeers(r, peers, uint64(len(moves))*moveTogether); err != nil {
			return err
		}
	}
	p := now.Peer(leader)
	if p == nil || !t.electable(p, now.Meta.Peers) {
		return fmt.Errorf("playground: the peer of region %d on store %d cannot lead", r.ID(), leader)
	}
	if len(moves) > 0 {
		if err := t.replace(r, now); err != nil {
			return err
		}
	}
	t.lead(now, p)
	return nil
}

func (t *Topology) moved(peers []*metapb.Peer, moves map[uint64]uint64) ([]*metapb.Peer, error) {
	peers = slices.Clone(peers)
	for i, p := range peers {
		if to, ok := moves[p.StoreId]; ok {
			id, err := t.allocID(1)
			if err != nil {
				return nil, err
			}
			peers[i] = &metapb.Peer{Id: id, StoreId: to, Role: p.Role, IsWitness: p.IsWitness}
		}
	}
	return peers, nil
}

// Replicas is how many voters each region is to have.
func (t *Topology) Replicas() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := 0
	for _, s := range t.stores {
		if !t.records[s].Removed {
			n++
		}
	}
	return min(n, maxPeers)
}
