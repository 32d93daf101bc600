// Package region caches which regions hold which keys, who leads them and where and how
// well the stores are. Lookups take no lock: regions are entries of a copy-on-write
// index. What is missing is loaded from PD, once for all callers that ask for it.
package region

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
)

// Region is what the cache knows of one region at one epoch. All of it is fixed but who
// is believed to lead; requests point into it.
type Region struct {
	ID    uint64
	Epoch metapb.RegionEpoch
	Range keys.Range // region keys, as PD holds them

	peers []metapb.Peer
	// Bit i is peer i's: it may lead; PD has not heard of it for long; it does not have all
	// the data yet. Peers from maxPeers on have none: they are never asked.
	able, down, pending uint32

	leader    atomic.Int32 // index in peers
	suspect   bool         // had down peers when it was loaded: its age is not extended by use
	usedUntil atomic.Int64 // on the cache's clock: the entry expires then
}

// maxPeers is how many peers of a region may have flags.
const maxPeers = 32

// NumPeers counts the region's peers: voters, learners, witnesses, and those that PD has
// not heard of.
func (r *Region) NumPeers() int { return len(r.peers) }

// Peer returns peer i, as requests carry it; it is the cache's and must not be changed.
func (r *Region) Peer(i int) *metapb.Peer { return &r.peers[i] }

// Peers returns all peers; they are the cache's and must not be changed.
func (r *Region) Peers() []metapb.Peer { return r.peers }

// Able reports whether peer i may lead: it is a voter that holds data (or a witness that
// leads) and is not known to be down; where there is none such, any voter.
func (r *Region) Able(i int) bool { return r.able>>i&1 != 0 }

// Down reports whether PD had not heard of peer i for long.
func (r *Region) Down(i int) bool { return r.down>>i&1 != 0 }

// Pending reports whether peer i did not have all of the region's data yet.
func (r *Region) Pending(i int) bool { return r.pending>>i&1 != 0 }

// Leader is the peer believed to lead; of a region without a known leader, the first that
// may.
func (r *Region) Leader() *metapb.Peer { return &r.peers[r.leader.Load()] }

// LeaderIndex is the leader's index. It may be another a moment later: who compares, asks
// once.
func (r *Region) LeaderIndex() int { return int(r.leader.Load()) }

// PeerIndex returns the index of the peer with the id, or -1.
func (r *Region) PeerIndex(id uint64) int {
	return slices.IndexFunc(r.peers, func(p metapb.Peer) bool { return p.Id == id })
}

// PeerOn returns the index of the peer on the store, or -1.
func (r *Region) PeerOn(store uint64) int {
	return slices.IndexFunc(r.peers, func(p metapb.Peer) bool { return p.StoreId == store })
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

// Found is a region as PD or a store's error tells it.
type Found struct {
	Meta    *metapb.Region
	Leader  *metapb.Peer   // nil or with id 0: not known
	Down    []*metapb.Peer // peers that PD has not heard of for long
	Pending []*metapb.Peer // peers that do not have all data yet
}

// Region makes an entry, or nil if no peer can lead. It keeps nothing of f.
func (f Found) Region() *Region {
	start, end := f.Meta.GetStartKey(), f.Meta.GetEndKey()
	text := slices.Concat(start, end) // one allocation, with nothing to spare
	r := &Region{
		ID: f.Meta.GetId(), suspect: len(f.Down) > 0,
		Range: keys.Range{Start: text[:len(start):len(start)], End: text[len(start):]},
		peers: make([]metapb.Peer, len(f.Meta.GetPeers())),
	}
	if e := f.Meta.GetRegionEpoch(); e != nil {
		r.Epoch = *e
	}
	for i, p := range f.Meta.GetPeers() {
		if r.peers[i] = *p; i < maxPeers {
			f.flag(r, i, p)
		}
	}
	if r.able&^r.down != 0 {
		r.able &^= r.down
	}
	leader := r.PeerIndex(f.Leader.GetId())
	if 0 <= leader && leader < maxPeers && r.peers[leader].Role != metapb.PeerRole_Learner {
		r.able |= 1 << leader
	}
	if r.able == 0 {
		return nil
	}
	if leader < 0 || !r.Able(leader) {
		leader = bits.TrailingZeros32(r.able)
	}
	r.leader.Store(int32(leader))
	return r
}

// flag sets the flags of peer i.
func (f Found) flag(r *Region, i int, p *metapb.Peer) {
	same := func(o *metapb.Peer) bool { return o.GetId() == p.GetId() }
	if p.GetRole() != metapb.PeerRole_Learner && !p.GetIsWitness() {
		r.able |= 1 << i
	}
	if slices.ContainsFunc(f.Down, same) {
		r.down |= 1 << i
	}
	if slices.ContainsFunc(f.Pending, same) {
		r.pending |= 1 << i
	}
}

// Age limits of an entry that is not used: the base and the most that is added at
// random, so that entries loaded together do not expire together (facts section 7).
const (
	idleAge  = 10 * time.Minute
	idleMore = time.Minute
)
