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
	// commands that write: those that began and those that have ended
	writing, written atomic.Uint64
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

// Writes tells that a command begins that may write in the region; it ends with Wrote.
func (r *Region) Writes() { r.guard.writing.Add(1) }

// Wrote tells that a command may have written in the region.
func (r *Region) Wrote() { r.guard.written.Add(1) }

// Applied is another number after each Wrote, and for each leader and epoch: TiKV's index
// of the entry that was applied last, as far as one run of the cluster goes. While a
// command writes it is not known.
func (r *Region) Applied() (n uint64, ok bool) {
	n = r.guard.written.Load() // first: what began by then and has not ended is seen
	ok = r.guard.writing.Load() == n
	return n + r.Term + r.Meta.GetRegionEpoch().GetVersion(), ok
}
