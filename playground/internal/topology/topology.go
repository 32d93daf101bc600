package topology

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/meta"
)

// Topology holds the regions and the stores' states.
type Topology struct {
	meta *meta.Store

	// change is held by whoever makes a new state; mu guards the present one for as
	// long as it takes to look at it.
	change sync.Mutex
	mu     sync.RWMutex
	sorted []*Region // by start key; together they cover every key
	byID   map[uint64]*Region
	stores []uint64 // ids in order
	live   map[uint64]bool
	down   map[uint64]time.Time // since when those that do not live do not
	cut    map[[2]uint64]bool   // from a store to another
	hidden map[uint64]bool      // regions that PD does not know
	// buckets are those of regions that have some, or had.
	buckets map[uint64]buckets
	// records are of stores that differ from what the first ones are.
	records map[uint64]storeRecord
	lastID  uint64
	idEnd   uint64 // ids up to here may be given out

	watchers []func(Happening) // guarded by change

	changed               chan struct{} // closed at the next change of a leader
	splits, moves, merges atomic.Int64
}

// idWindow is how many ids are reserved at a time (PD: pkg/id/id.go, allocStep).
const idWindow = 1000

// maxPeers is how many replicas a region gets where there are as many stores (PD's
// max-replicas).
const maxPeers = 3

// New returns a topology of the stores 1 to n, all live, without regions. Load or
// Bootstrap comes next.
func New(m *meta.Store, n int) *Topology {
	t := &Topology{meta: m, byID: make(map[uint64]*Region), live: make(map[uint64]bool), down: make(map[uint64]time.Time), changed: make(chan struct{})}
	t.cut, t.hidden, t.records = make(map[[2]uint64]bool), make(map[uint64]bool), make(map[uint64]storeRecord)
	t.buckets = make(map[uint64]buckets)
	for id := range uint64(n) {
		t.stores = append(t.stores, id+1)
		t.live[id+1] = true
	}
	t.idEnd = m.Number("id")
	t.lastID = max(t.idEnd, uint64(n)) // what was reserved is not given out twice
	return t
}

// Load takes the saved regions; false when there are none.
func (t *Topology) Load() (bool, error) {
	metas, err := t.meta.Regions()
	if err != nil || len(metas) == 0 {
		return false, err
	}
	t.change.Lock()
	defer t.change.Unlock()
	if err := t.loadStores(); err != nil {
		return false, err
	}
	regions := make([]*Region, len(metas))
	for i, m := range metas {
		regions[i] = &Region{Meta: m, Term: firstTerm, guard: new(guard)}
	}
	slices.SortFunc(regions, func(a, b *Region) int { return bytes.Compare(a.Meta.StartKey, b.Meta.StartKey) })
	for i, r := range regions {
		var before []byte
		if i > 0 {
			before = regions[i-1].Meta.EndKey
		}
		if !bytes.Equal(before, r.Meta.StartKey) || i > 0 && len(before) == 0 || i == len(regions)-1 && len(r.Meta.EndKey) > 0 {
			return false, fmt.Errorf("playground: the directory's regions do not cover the keys: damaged at region %d", r.ID())
		}
	}
	if err := t.loadMergings(regions); err != nil {
		return false, err
	}
	t.install(regions)
	return true, nil
}

const firstTerm = 6 // TiKV's RAFT_INIT_LOG_TERM + 1: raftstore/src/store/peer_storage.rs

// Bootstrap makes the first regions, with the given boundaries (region keys; any
// order, repeats ignored), and saves them with the rest of the change.
func (t *Topology) Bootstrap(boundaries [][]byte, c *meta.Change) error {
	boundaries = slices.Clone(boundaries)
	slices.SortFunc(boundaries, bytes.Compare)
	boundaries = slices.CompactFunc(boundaries, bytes.Equal)
	boundaries = slices.DeleteFunc(boundaries, func(b []byte) bool { return len(b) == 0 })
	t.change.Lock()
	defer t.change.Unlock()
	n := len(boundaries) + 1
	peers := min(maxPeers, len(t.stores))
	first, err := t.allocID(uint64(n * (peers + 1)))
	if err != nil {
		return err
	}
	regions := make([]*Region, n)
	var start []byte
	for i := range regions {
		m := &metapb.Region{
			Id: first, StartKey: start,
			// As after n-1 splits of one region, and after its second and third peer
			// were added.
			RegionEpoch: &metapb.RegionEpoch{Version: uint64(n), ConfVer: uint64(peers)},
		}
		first++
		if i < len(boundaries) {
			m.EndKey = boundaries[i]
		}
		start = m.EndKey
		for p := range peers {
			m.Peers = append(m.Peers, &metapb.Peer{Id: first, StoreId: t.stores[(i+p)%len(t.stores)]})
			first++
		}
		regions[i] = &Region{Meta: m, Term: firstTerm, guard: new(guard)}
		c.Region(m)
	}
	if err := t.meta.Apply(c); err != nil {
		return err
	}
	t.install(regions)
	return nil
}

// install makes regions, sorted, the present ones, and gives each a leader: the peers
// were laid out so that leaders spread over the stores.
func (t *Topology) install(regions []*Region) {
	for i, r := range regions {
		r.Leader = t.elect(r.Meta, i)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sorted = regions
	clear(t.byID)
	for _, r := range regions {
		t.byID[r.ID()] = r
	}
}

// elect chooses a leader, beginning the search at the turn-th peer: a voter on a live
// store that exchanges messages with enough live ones that they are a majority with it.
// A witness is no choice where there is another (TiKV: a witness has no data to lead
// with). Callers hold change.
func (t *Topology) elect(m *metapb.Region, turn int) *metapb.Peer {
	peers := slices.DeleteFunc(slices.Clone(m.Peers), func(p *metapb.Peer) bool { return p.Role == metapb.PeerRole_Learner })
	slices.SortFunc(peers, func(a, b *metapb.Peer) int { return cmp.Compare(a.StoreId, b.StoreId) })
	for i := range peers {
		if p := peers[(turn+i)%len(peers)]; t.electable(p, peers) {
			return p
		}
	}
	return nil
}

// electable reports whether p can lead a region with these voters.
func (t *Topology) electable(p *metapb.Peer, voters []*metapb.Peer) bool {
	if p.IsWitness || p.Role == metapb.PeerRole_Learner || !t.isLive(p.StoreId) {
		return false
	}
	heard := 0
	for _, o := range voters {
		if o.Role != metapb.PeerRole_Learner && t.isLive(o.StoreId) && t.linked(p.StoreId, o.StoreId) {
			heard++
		}
	}
	n := 0
	for _, o := range voters {
		if o.Role != metapb.PeerRole_Learner {
			n++
		}
	}
	return 2*heard > n
}

// linked reports whether messages pass between two stores both ways.
func (t *Topology) linked(a, b uint64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return !t.cut[[2]uint64{a, b}] && !t.cut[[2]uint64{b, a}]
}

// Hears reports whether what one store sends to another arrives.
func (t *Topology) Hears(from, to uint64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return !t.cut[[2]uint64{from, to}]
}

func (t *Topology) isLive(store uint64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.live[store]
}

// ByID returns a region, or nil.
func (t *Topology) ByID(id uint64) *Region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[id]
}

// ByKey returns the region that holds key.
func (t *Topology) ByKey(key []byte) *Region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.sorted[t.index(key)]
}

// Before returns the region that ends where the one that holds key begins, or nil.
func (t *Topology) Before(key []byte) *Region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if i := t.index(key); i > 0 {
		return t.sorted[i-1]
	}
	return nil
}

// index is that of the region that holds key.
func (t *Topology) index(key []byte) int {
	return sort.Search(len(t.sorted), func(i int) bool {
		return i+1 == len(t.sorted) || bytes.Compare(key, t.sorted[i+1].Meta.StartKey) < 0
	})
}

// Scan returns the regions that have keys in r, in order, at most limit (below 1: all).
// Of an empty or inverted r it is the region that r begins in, if that begins before
// r's end (PD: pkg/core/region.go, ScanRegions).
func (t *Topology) Scan(r keys.Range, limit int) []*Region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.sorted) == 0 {
		return nil
	}
	i := t.index(r.Start)
	end := i
	for end < len(t.sorted) && (limit < 1 || end-i < limit) {
		if len(r.End) > 0 && bytes.Compare(t.sorted[end].Meta.StartKey, r.End) >= 0 {
			break
		}
		end++
	}
	return slices.Clone(t.sorted[i:end])
}

// Siblings returns up to n regions to the left of r that have a peer on a store, the
// nearest first.
func (t *Topology) Siblings(r *Region, store uint64, n int) []*Region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i := t.index(r.Meta.StartKey)
	var left []*Region
	for j := i - 1; j >= 0 && len(left) < n; j-- {
		if t.sorted[j].Peer(store) != nil {
			left = append(left, t.sorted[j])
		}
	}
	return left
}

// Enter returns the present state of a region, which lasts, but for its leader, until
// Leave; nil without such a region. Between the two nothing may wait for the network
// or for a client.
func (t *Topology) Enter(id uint64) *Region {
	r := t.ByID(id)
	if r == nil {
		return nil
	}
	guard := r.guard
	guard.RLock()
	if r = t.ByID(id); r == nil {
		guard.RUnlock()
	}
	return r
}

// AllocID reserves n ids and returns the first.
func (t *Topology) AllocID(n uint64) (uint64, error) {
	t.change.Lock()
	defer t.change.Unlock()
	return t.allocID(n)
}

func (t *Topology) allocID(n uint64) (uint64, error) {
	if t.lastID+n > t.idEnd {
		end := t.lastID + n + idWindow
		if err := t.meta.SetNumber("id", end); err != nil {
			return 0, err
		}
		t.idEnd = end
	}
	first := t.lastID + 1
	t.lastID += n
	return first, nil
}

// Splits and Moves count what happened since the start.
func (t *Topology) Splits() int { return int(t.splits.Load()) }

// Moves counts the changes of a region's leader, those to none not included.
func (t *Topology) Moves() int { return int(t.moves.Load()) }

// Len is the number of regions.
func (t *Topology) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.sorted)
}

// Leaders counts the regions that each store leads; at 0 those that none does.
func (t *Topology) Leaders() map[uint64]int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := make(map[uint64]int)
	for _, r := range t.sorted {
		n[r.LeaderStore()]++
	}
	return n
}

// Led reports whether every region has a leader.
func (t *Topology) Led() bool { return t.Leaders()[0] == 0 }

// Changed returns a channel that is closed when a region's leader changes, a store begins or
// ceases to live, or what stores hear of each other does.
func (t *Topology) Changed() <-chan struct{} {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.changed
}
