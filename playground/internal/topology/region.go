// Package topology is where a cluster's regions are: their ranges, epochs, peers and
// leaders, and which stores live. It is the one truth that PD and the stores answer
// from; there is no Raft behind it.
package topology

import (
	"sync"
	"sync/atomic"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
)

// Region is a region as of one moment. It is not changed; a later state is another
// Region.
type Region struct {
	Meta   *metapb.Region
	Leader *metapb.Peer // nil: none
	Term   uint64
	// Into is the region, as it was when that began, which this one is to end in; nil: none.
	Into  *metapb.Region
	guard *guard // the same for every state of the region
}

// guard is held by the commands that run in a region, alone by what changes its bounds.
type guard struct {
	sync.RWMutex
	writes atomic.Uint64
}

// ID is the region's.
func (r *Region) ID() uint64 { return r.Meta.GetId() }

// Range is the region's keys, in the form that PD has them.
func (r *Region) Range() keys.Range { return keys.Range{Start: r.Meta.StartKey, End: r.Meta.EndKey} }

// Peer returns the peer on a store, or nil.
func (r *Region) Peer(store uint64) *metapb.Peer {
	for _, p := range r.Meta.Peers {
		if p.StoreId == store {
			return p
		}
	}
	return nil
}

// LeaderStore is the store that leads, 0 for none.
func (r *Region) LeaderStore() uint64 { return r.Leader.GetStoreId() }

// Leave ends what Enter began.
func (r *Region) Leave() { r.guard.RUnlock() }

// Wrote tells that a command may have written in the region.
func (r *Region) Wrote() { r.guard.writes.Add(1) }

// Applied is another number after each Wrote, and for each leader and epoch: TiKV's index
// of the entry that was applied last, as far as one run of the cluster goes.
func (r *Region) Applied() uint64 {
	return r.guard.writes.Load() + r.Term + r.Meta.GetRegionEpoch().GetVersion()
}
