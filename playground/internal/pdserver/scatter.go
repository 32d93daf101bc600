package pdserver

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/playground/internal/topology"
)

// scatterer spreads the peers and leaders of regions over the stores, evenly within each
// group of regions that are scattered under one name (PD: pkg/schedule/scatter/
// region_scatterer.go). Where PD takes stores as its maps have them, the order is random,
// from the cluster's seed.
type scatterer struct {
	pd *PD

	mu     sync.Mutex
	random *rand.Rand
	groups map[string]*spread
}

// spread is how often stores were chosen for a group's peers and leaders.
type spread struct {
	peers, leaders map[uint64]int
	used           time.Time
}

const spreadLife = 3 * time.Minute // PD: gcTTL

func newScatterer(pd *PD, seed uint64) *scatterer {
	return &scatterer{pd: pd, random: rand.New(rand.NewPCG(seed, 0x73636174)), groups: make(map[string]*spread)}
}

// Why regions are not scattered (PD: pkg/errs/errno.go).
var errEmptyRegion = errors.New("[PD:scatter:ErrEmptyRegion]empty region")

func errRegionNotFound(id uint64) error {
	return refused("region:ErrRegionNotFound", "region %d not found", id)
}

// scatter moves a region's peers and leader, unless they are well where they are.
func (s *scatterer) scatter(r *topology.Region, group string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.pd.replicated(r) {
		return fmt.Errorf("region %d is not fully replicated", r.ID())
	}
	if op, ok := s.pd.operators.get(r.ID()); ok && op.status == pdpb.OperatorStatus_RUNNING {
		switch {
		case op.desc != scatterDesc || op.group != group:
			return fmt.Errorf("the operator of region %d already exist", r.ID())
		case op.epoch != epochOf(r):
			return fmt.Errorf("the operator of region %d already exist with different epoch", r.ID())
		}
		return nil
	}
	if r.Leader == nil {
		return fmt.Errorf("region %d has no leader", r.ID())
	}
	c := s.spread(group)
	moves, stores, candidates := s.choosePeers(r, c)
	leader := s.chooseLeader(candidates, c)
	if leader == 0 {
		return refused("common:ErrGetTargetStore", "failed to get the target store")
	}
	for _, store := range stores {
		c.peers[store]++
	}
	c.leaders[leader]++
	if len(moves) == 0 && leader == r.LeaderStore() {
		return nil
	}
	if err := s.pd.Topology.Place(r, moves, leader); err != nil {
		return fmt.Errorf("region %d failed to add operator", r.ID())
	}
	op := operator{desc: scatterDesc, kind: "admin", group: group, epoch: epochOf(r)}
	if len(moves) > 0 {
		op.kind += ",region"
	}
	if leader != r.LeaderStore() {
		op.kind += ",leader"
	}
	if now := s.pd.Topology.ByID(r.ID()); now != nil {
		s.pd.operators.add(op, now)
	}
	return nil
}

// spread is a group's. Those in which nothing was scattered for a while are forgotten.
func (s *scatterer) spread(group string) *spread {
	now := s.pd.Now()
	maps.DeleteFunc(s.groups, func(_ string, c *spread) bool { return now.Sub(c.used) >= spreadLife })
	c := s.groups[group]
	if c == nil {
		c = &spread{peers: make(map[uint64]int), leaders: make(map[uint64]int)}
		s.groups[group] = c
	}
	c.used = now
	return c
}

// choosePeers chooses a store for each of a region's peers: the moves that it takes, the
// stores, and those of them whose peer may lead.
func (s *scatterer) choosePeers(r *topology.Region, c *spread) (moves map[uint64]uint64, stores, candidates []uint64) {
	all := s.shuffled()
	var own []uint64
	for _, id := range all {
		if p := r.Peer(id); p != nil && !s.pd.special(id) {
			own = append(own, id)
		}
	}
	var free []uint64 // stores whose peers leave
	taken := make(map[uint64]bool)
	for _, from := range own {
		for !taken[from] {
			to := s.chooseStore(all, from, taken, c)
			taken[to] = true
			stores = append(stores, to)
			if !slices.Contains(own, to) || to == from {
				taken[from] = true
			}
		}
	}
	moves = make(map[uint64]uint64)
	for _, from := range own {
		if !slices.Contains(stores, from) {
			free = append(free, from)
		}
	}
	for _, to := range stores {
		if p := r.Peer(to); p == nil {
			moves[free[0]] = to
			free = free[1:]
		} else if p.Role != metapb.PeerRole_Voter || p.IsWitness {
			continue
		}
		candidates = append(candidates, to)
	}
	return moves, stores, candidates
}

// chooseStore chooses the store that was chosen least, or the peer's own if that was not
// chosen more often (PD: selectNewPeer).
func (s *scatterer) chooseStore(all []uint64, from uint64, taken map[uint64]bool, c *spread) uint64 {
	least, most := math.MaxInt, 0
	for _, id := range all {
		least, most = min(least, c.peers[id]), max(most, c.peers[id])
	}
	best, count := uint64(0), math.MaxInt
	for _, id := range all {
		n := c.peers[id]
		switch {
		case n == most && most != least, taken[id], s.pd.special(id), !s.pd.Topology.Live(id), s.pd.Topology.Leaving(id):
		case n < count:
			best, count = id, n
		}
	}
	if best == 0 || c.peers[from] <= count {
		return from
	}
	return best
}

// chooseLeader chooses the store that was chosen least to lead.
func (s *scatterer) chooseLeader(candidates []uint64, c *spread) uint64 {
	var best uint64
	for _, id := range candidates {
		if !s.pd.Topology.Live(id) {
			continue // PD would try, and give up after a while
		}
		if best == 0 || c.leaders[id] < c.leaders[best] {
			best = id
		}
	}
	return best
}

// shuffled are the stores that are not removed, in a random order.
func (s *scatterer) shuffled() []uint64 {
	all := slices.DeleteFunc(s.pd.Topology.Stores(), s.pd.Topology.Removed)
	s.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// special tells a store that keeps no ordinary peers: TiFlash's (PD: pkg/core/store.go,
// EngineKey).
func (pd *PD) special(store uint64) bool {
	return slices.ContainsFunc(pd.Topology.Labels(store), func(l *metapb.StoreLabel) bool {
		return l.Key == "engine" && (l.Value == "tiflash" || l.Value == "tiflash_compute")
	})
}

// replicated reports whether a region has the voters that it is to have, and no more (PD:
// pkg/schedule/filter/healthy.go, IsRegionReplicated).
func (pd *PD) replicated(r *topology.Region) bool {
	voters := 0
	for _, p := range r.Meta.Peers {
		switch {
		case pd.special(p.StoreId):
		case p.Role != metapb.PeerRole_Voter || p.IsWitness:
			return false
		default:
			voters++
		}
	}
	return voters == pd.Topology.Replicas()
}
