// Package region caches which regions hold which keys, who leads them and where and how
// well the stores are. Lookups take no lock: regions are entries of a copy-on-write
// index. What is missing is loaded from PD, once for all callers that ask for it.
package region

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
)

// Region is what the cache knows of one region at one epoch. All of it is fixed but who
// is believed to lead; requests point into it.
type Region struct {
	Range keys.Range // region keys, as PD holds them

	marks  atomic.Uint32
	leader atomic.Int32 // index in peers

	ID    uint64
	Epoch metapb.RegionEpoch

	peers []metapb.Peer
	// Bit i is peer i's: it may lead; PD has not heard of it for long; it does not have all
	// the data yet. Peers from maxPeers on have none: they are never asked.
	able, down, pending uint32

	buckets atomic.Pointer[buckets]

	bytes     int32 // what it takes, with its place in the index; under Cache.mu
	idle, age uint8 // rounds of the upkeep without use, and in doubt; the upkeep's own
}

// Marks of an entry.
const (
	used    = 1 << iota // since the last round of the upkeep
	reload              // to be loaded again before the next use, if PD answers
	invalid             // not to be used any more
	doubted             // to be loaded again soon, in the background

	whyShift = 8 // why it is invalid, above
)

// use returns r if it is fit for use, and notes that it is used.
func (r *Region) use() *Region {
	if r == nil {
		return nil
	}
	m := r.marks.Load()
	if m&(reload|invalid) != 0 {
		return nil
	}
	if m&used == 0 { // written once a round: the entry is shared by all processors
		r.marks.Or(used)
	}
	return r
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
	Buckets *metapb.Buckets
}

// Region makes an entry, or nil if no peer can lead. It keeps nothing of f.
func (f Found) Region() *Region {
	start, end := f.Meta.GetStartKey(), f.Meta.GetEndKey()
	text := slices.Concat(start, end) // one allocation, with nothing to spare
	r := &Region{
		ID:    f.Meta.GetId(),
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
	r.marks.Store(used)
	if b := newBuckets(f.Buckets.GetVersion(), f.Buckets.GetKeys()); b != nil {
		r.buckets.Store(b)
	}
	return r
}

// holds reports whether it is of a region that holds key.
func (f Found) holds(key []byte) bool {
	return f.Meta != nil && (keys.Range{Start: f.Meta.GetStartKey(), End: f.Meta.GetEndKey()}).Contains(key)
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

// size is what r takes, with its place in the index.
func (r *Region) size() int32 {
	const place = 24 // pointer, head, and a part of the nodes
	n := int(unsafe.Sizeof(*r)) + len(r.Range.Start) + len(r.Range.End) + len(r.peers)*int(unsafe.Sizeof(metapb.Peer{})) + place
	return int32(n + n/16 + r.buckets.Load().size()) // what is allocated is a little more than what is asked for
}
