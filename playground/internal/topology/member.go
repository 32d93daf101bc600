package topology

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/playground/internal/meta"
)

// Role is what a peer does.
type Role uint8

// The roles. A learner does not vote, a witness votes and has no data.
const (
	Voter Role = iota
	Learner
	Witness
)

func roleOf(p *metapb.Peer) Role {
	switch {
	case p.Role == metapb.PeerRole_Learner:
		return Learner
	case p.IsWitness:
		return Witness
	}
	return Voter
}

// Conf versions grow by the number of peers that a change is about (raftstore/src/store/
// fsm/apply.rs, apply_conf_change, apply_leave_joint, exec_batch_switch_witness), once
// more when a joint configuration is left. The steps are those of PD's operators
// (pkg/schedule/operator/builder.go): a voter is added as a learner and promoted, one
// that moves is joined with the one it replaces.
const (
	addLearner   = 1
	promote      = 1
	demote       = 2 // enter and leave the joint configuration
	switchRole   = 1
	removePeer   = 1
	moveTogether = addLearner + 2*2 + removePeer // promote one, demote one, enter and leave
)

// AddPeer gives a region a peer on a store, or changes the role of the one there.
func (t *Topology) AddPeer(id, store uint64, role Role) error {
	return t.reconfigure(id, func(r *Region, peers []*metapb.Peer) ([]*metapb.Peer, uint64, error) {
		if !t.known(store) {
			return nil, 0, fmt.Errorf("playground: no store %d", store)
		}
		if i := slices.IndexFunc(peers, func(p *metapb.Peer) bool { return p.StoreId == store }); i >= 0 {
			p := *peers[i]
			steps, err := changeRole(&p, role)
			peers[i] = &p
			return peers, steps, err
		}
		if !t.isLive(store) {
			return nil, 0, fmt.Errorf("playground: store %d does not run", store)
		}
		peer, err := t.allocID(1)
		if err != nil {
			return nil, 0, err
		}
		p := &metapb.Peer{Id: peer, StoreId: store, IsWitness: role == Witness}
		steps := uint64(addLearner + promote)
		if role == Learner {
			p.Role = metapb.PeerRole_Learner
			steps = addLearner
		}
		return append(peers, p), steps, nil
	})
}

// changeRole changes what a peer does, and returns by how much the conf version grows.
func changeRole(p *metapb.Peer, role Role) (uint64, error) {
	was := roleOf(p)
	var steps uint64
	switch {
	case role > Witness:
		return 0, fmt.Errorf("playground: there is no role %d", role)
	case was == role:
	case was == Learner && role == Voter:
		p.Role, steps = metapb.PeerRole_Voter, promote
	case was == Voter && role == Learner:
		p.Role, steps = metapb.PeerRole_Learner, demote
	case was != Learner && role != Learner:
		p.IsWitness, steps = role == Witness, switchRole
	default:
		return 0, errors.New("playground: a learner does not become a witness, nor a witness a learner")
	}
	return steps, nil
}

// RemovePeer takes a region's peer off a store. A leader hands over first.
func (t *Topology) RemovePeer(id, store uint64) error {
	return t.reconfigure(id, func(r *Region, peers []*metapb.Peer) ([]*metapb.Peer, uint64, error) {
		if r.Peer(store) == nil {
			return nil, 0, fmt.Errorf("playground: region %d has no peer on store %d", id, store)
		}
		return slices.DeleteFunc(peers, func(p *metapb.Peer) bool { return p.StoreId == store }), removePeer, nil
	})
}

// reconfigure changes a region's peers while no command runs there. As in Raft, it takes
// a leader, and leaves a majority that runs.
func (t *Topology) reconfigure(id uint64, change func(r *Region, peers []*metapb.Peer) ([]*metapb.Peer, uint64, error)) error {
	t.change.Lock()
	defer t.change.Unlock()
	r := t.ByID(id)
	switch {
	case r == nil:
		return fmt.Errorf("playground: no region %d", id)
	case r.Leader == nil:
		return fmt.Errorf("playground: region %d has no majority of live peers", id)
	case r.still() != nil:
		return r.still()
	}
	peers, steps, err := change(r, slices.Clone(r.Meta.Peers))
	if err != nil || steps == 0 {
		return err
	}
	now, err := t.withPeers(r, peers, steps)
	if err != nil {
		return err
	}
	return t.replace(r, now)
}

// withPeers is a region with other peers, led by the same store if that can lead.
func (t *Topology) withPeers(r *Region, peers []*metapb.Peer, steps uint64) (*Region, error) {
	m := *r.Meta
	m.Peers = peers
	m.RegionEpoch = &metapb.RegionEpoch{Version: m.RegionEpoch.GetVersion(), ConfVer: m.RegionEpoch.GetConfVer() + steps}
	now := &Region{Meta: &m, Term: r.Term, guard: r.guard}
	if p := now.Peer(r.LeaderStore()); p != nil && t.electable(p, peers) {
		now.Leader = p
		return now, nil
	}
	if now.Leader = t.elect(&m, int(r.ID())); now.Leader == nil {
		return nil, fmt.Errorf("playground: region %d would have no live majority, or nothing to lead it", r.ID())
	}
	now.Term++
	return now, nil
}

// replace makes now the present state of a region, and saves it. Callers hold change.
func (t *Topology) replace(r, now *Region) error {
	what := Peers
	if now.Leader.GetId() != r.Leader.GetId() {
		what = Led
	}
	return t.replaceAs(what, r, now, new(meta.Change))
}

// replaceAs is replace, told as something else and saved with more.
func (t *Topology) replaceAs(what What, r, now *Region, c *meta.Change) error {
	r.guard.Lock()
	defer r.guard.Unlock()
	c.Region(now.Meta)
	if err := t.meta.Apply(c); err != nil {
		return err
	}
	t.tell(what, r, now)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sorted[t.index(now.Meta.StartKey)] = now
	t.byID[now.ID()] = now
	if now.Term != r.Term {
		t.moves.Add(1)
	}
	t.announce()
	return nil
}

// announce wakes who waits for a change. Callers hold mu.
func (t *Topology) announce() {
	close(t.changed)
	t.changed = make(chan struct{})
}
