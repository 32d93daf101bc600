// Package region caches which regions hold which keys, who leads them and where the
// stores are. Lookups take no lock: regions are immutable entries in a copy-on-write
// index. What is missing is loaded from PD, once for all callers that ask for it.
package region

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
)

// Region is what the cache knows of one region at one epoch with one leader. It is
// immutable, its protobuf parts included: requests point into it.
type Region struct {
	ID    uint64
	Epoch *metapb.RegionEpoch
	Range keys.Range     // region keys, as PD holds them
	Peers []*metapb.Peer // those that may lead: voters that hold data and are not known to be down

	leader  int  // index in Peers
	suspect bool // had down peers when it was loaded: its age is not extended by use

	usedUntil atomic.Int64 // on the cache's clock: the entry expires then
}

// Leader is the peer believed to lead; of a region without a known leader, the first.
func (r *Region) Leader() *metapb.Peer { return r.Peers[r.leader] }

// LeaderIndex is the leader's index in Peers.
func (r *Region) LeaderIndex() int { return r.leader }

// Peer returns the peer with the id, or nil.
func (r *Region) Peer(id uint64) *metapb.Peer {
	if i := r.peerIndex(id); i >= 0 {
		return r.Peers[i]
	}
	return nil
}

func (r *Region) peerIndex(id uint64) int {
	return slices.IndexFunc(r.Peers, func(p *metapb.Peer) bool { return p.GetId() == id })
}

// Contains reports whether the region holds the region key.
func (r *Region) Contains(key []byte) bool { return r.Range.Contains(key) }

// ContainsEnd reports whether the region holds the keys just before the region key;
// the empty key stands for the end of all keys.
func (r *Region) ContainsEnd(key []byte) bool {
	if len(key) == 0 {
		return len(r.Range.End) == 0
	}
	return string(key) > string(r.Range.Start) && keys.CompareEnds(key, r.Range.End) <= 0
}

// withLeader returns a copy that differs in its leader alone.
func (r *Region) withLeader(i int) *Region {
	n := &Region{ID: r.ID, Epoch: r.Epoch, Range: r.Range, Peers: r.Peers, leader: i, suspect: r.suspect}
	n.usedUntil.Store(r.usedUntil.Load())
	return n
}

// Found is a region as PD or a store's error tells it.
type Found struct {
	Meta   *metapb.Region
	Leader *metapb.Peer   // nil or with id 0: not known
	Down   []*metapb.Peer // peers that PD has not heard of for long
}

// entry makes a cache entry, or nil if no peer can lead.
func (f Found) entry() *Region {
	var up, all []*metapb.Peer
	for _, p := range f.Meta.GetPeers() {
		if p.GetRole() == metapb.PeerRole_Learner || (p.GetIsWitness() && p.GetId() != f.Leader.GetId()) {
			continue
		}
		all = append(all, p)
		down := slices.ContainsFunc(f.Down, func(d *metapb.Peer) bool { return d.GetId() == p.GetId() })
		if !down || p.GetId() == f.Leader.GetId() {
			up = append(up, p)
		}
	}
	if len(up) == 0 {
		up = all
	}
	if len(up) == 0 {
		return nil
	}
	r := &Region{
		ID:      f.Meta.GetId(),
		Epoch:   f.Meta.GetRegionEpoch(),
		Range:   keys.Range{Start: f.Meta.GetStartKey(), End: f.Meta.GetEndKey()},
		Peers:   up,
		suspect: len(f.Down) > 0,
	}
	if r.Epoch == nil {
		r.Epoch = &metapb.RegionEpoch{}
	}
	r.leader = max(0, r.peerIndex(f.Leader.GetId()))
	return r
}

// Age limits of an entry that is not used: the base and the most that is added at
// random, so that entries loaded together do not expire together (facts section 7).
const (
	idleAge  = 10 * time.Minute
	idleMore = time.Minute
)
