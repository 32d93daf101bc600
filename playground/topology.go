package playground

import (
	"fmt"
	"time"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// Region is a region as the cluster has it. The bounds are user keys of the mode asked
// for; a bound outside of the mode's keys is empty, one that is no key of the mode is
// as regions have it.
type Region struct {
	ID, Leader           uint64 // Leader: a store, 0 for none
	Start, End           []byte
	Stores               []uint64
	Version, ConfVersion uint64
	Flashback            uint64 // when a flashback that it is closed for began, 0 for none
	MergingInto          uint64 // a region, after PrepareMerge; 0 for none
}

// Split lets a region begin at key, a user key of the mode (of the keyspace DEFAULT in
// APIV2), and returns its id. It is no error when one begins there already.
func (c *Cluster) Split(mode KeyMode, key []byte) (region uint64, err error) {
	defer c.note("split", splitArgs{mode.String(), append([]byte{}, key...)}, &err)()
	if err := c.checkMode(mode); err != nil {
		return 0, err
	}
	at := c.api.regionKey(mode, key)
	for {
		r := c.topo.ByKey(at)
		if string(r.Meta.StartKey) == string(at) {
			return r.ID(), nil
		}
		parts, err := c.topo.Split(r.ID(), [][]byte{at})
		if err == nil {
			return parts[1].ID(), nil
		}
		if c.topo.ByKey(at).ID() == r.ID() { // else another split came first
			return 0, err
		}
	}
}

func (c *Cluster) checkMode(mode KeyMode) error {
	switch {
	case mode != KeyTxn && mode != KeyRaw:
		return fmt.Errorf("playground: %v is no key mode", mode)
	case mode == KeyTxn && c.api == APIV1TTL:
		return fmt.Errorf("playground: a cluster of %v has no transactional keys", c.api)
	}
	return nil
}

// TransferLeader makes a region's peer on a store its leader.
func (c *Cluster) TransferLeader(region, store uint64) (err error) {
	defer c.note("transfer-leader", peerArgs{region, store}, &err)()
	return c.topo.TransferLeader(region, store)
}

// PrepareMerge begins to merge region into its neighbour into: until Merge of the two, or
// RollbackMerge, region refuses writes with ProposalInMergingMode, and does not split or
// change its peers. If into changes meanwhile, the merge can only be rolled back.
func (c *Cluster) PrepareMerge(region, into uint64) (err error) {
	defer c.note("prepare-merge", mergeArgs{region, into}, &err)()
	return c.topo.PrepareMerge(region, into)
}

// RollbackMerge ends what PrepareMerge began: region goes on by itself.
func (c *Cluster) RollbackMerge(region uint64) (err error) {
	defer c.note("rollback-merge", regionArgs{region}, &err)()
	return c.topo.RollbackMerge(region)
}

// Merge lets the region into take over the keys of its neighbour region, which ends,
// whether PrepareMerge has begun that or not.
func (c *Cluster) Merge(region, into uint64) (err error) {
	defer c.note("merge", mergeArgs{region, into}, &err)()
	return c.topo.Merge(region, into)
}

// PeerRole is what a peer does.
type PeerRole uint8

// The roles: a voter, a learner, which does not vote and does not lead, and a witness,
// which votes but has no data: it does not lead, and answers reads with IsWitness.
const (
	Voter PeerRole = iota
	Learner
	Witness
)

// String returns the role's name.
func (r PeerRole) String() string {
	if r > Witness {
		return fmt.Sprintf("PeerRole(%d)", uint8(r))
	}
	return [...]string{"voter", "learner", "witness"}[r]
}

// AddPeer gives a region a peer on a store, or another role to the peer that it has
// there. It takes a leader and, as in Raft, leaves a majority that runs.
func (c *Cluster) AddPeer(region, store uint64, role PeerRole) (err error) {
	defer c.note("add-peer", roleArgs{region, store, role.String()}, &err)()
	if role > Witness {
		return fmt.Errorf("playground: there is no role %d", role)
	}
	return c.topo.AddPeer(region, store, topology.Role(role))
}

// RemovePeer takes a region's peer off a store; a leader hands over before.
func (c *Cluster) RemovePeer(region, store uint64) (err error) {
	defer c.note("remove-peer", peerArgs{region, store}, &err)()
	return c.topo.RemovePeer(region, store)
}

// AddStore starts another store, which has no regions yet, and returns its id.
func (c *Cluster) AddStore(labels map[string]string) (_ uint64, err error) {
	defer c.note("add-store", labelArgs{labels}, &err)()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, errClosed
	}
	id, err := c.topo.AllocID(1)
	if err != nil {
		return 0, err
	}
	s := c.newNode(id)
	if err := s.Server().Start(c.root.Context()); err != nil {
		return 0, err
	}
	if err := c.topo.AddStore(id, labels); err != nil {
		s.Server().Stop()
		return 0, err
	}
	c.storeMu.Lock()
	c.stores = append(c.stores, s) // ids grow
	c.storeMu.Unlock()
	return id, c.topo.SetLive(id, true, c.Now())
}

// RemoveStore moves a store's peers to others and stops it; PD knows it as a tombstone
// from then on. It takes more stores than regions have replicas, which are three; but not
// for a store that another process put into PD, which has no regions.
func (c *Cluster) RemoveStore(id uint64) (err error) {
	defer c.note("remove-store", storeArgs{id}, &err)()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	if c.store(id) == nil {
		return c.pd.RemoveOther(id)
	}
	if err := c.topo.RemoveStore(id); err != nil {
		return err
	}
	delete(c.paused, Store(id))
	c.store(id).Server().Stop()
	c.lag.SetLag(id, 0)
	return nil
}

// SetOperatorTime lets what clients ask PD to scatter and split from now on run for a time,
// as clients see it: the regions change at once, but PD says that the operator runs. The
// default is 0.
func (c *Cluster) SetOperatorTime(d time.Duration) (err error) {
	defer c.note("set-operator-time", takesArgs{duration(d)}, &err)()
	if d < 0 {
		return fmt.Errorf("playground: operators cannot take %v", d)
	}
	c.pd.SetOperatorTime(d)
	return nil
}

type takesArgs struct {
	Takes duration `json:"takes"`
}

// SetLeaving lets PD say of a store that it is being removed (Offline, as old clients have
// it), or no longer; it serves all the same, until RemoveStore. PD gives it no more peers.
// It takes more stores than regions have replicas, which are three.
func (c *Cluster) SetLeaving(store uint64, leaving bool) (err error) {
	defer c.note("set-leaving", leavingArgs{store, leaving}, &err)()
	return c.topo.SetLeaving(store, leaving)
}

type leavingArgs struct {
	Store   uint64 `json:"store"`
	Leaving bool   `json:"leaving"`
}

// SetBuckets cuts a region into buckets that begin at keys, user keys of the mode that are
// inside of the region and in order, besides the one that begins with it; without keys it
// has none. PD tells of them who asks for them, and stores refuse coprocessor requests of
// who knows older ones. A split or merge ends them for the stores.
func (c *Cluster) SetBuckets(region uint64, mode KeyMode, keys ...[]byte) (err error) {
	defer c.note("set-buckets", bucketArgs{region, mode.String(), keys}, &err)()
	if err := c.checkMode(mode); err != nil {
		return err
	}
	var at [][]byte
	for _, key := range keys {
		at = append(at, c.api.regionKey(mode, key))
	}
	if err := c.topo.SetBuckets(region, at); err != nil {
		return err
	}
	c.pd.BucketsChanged(region)
	return nil
}

type bucketArgs struct {
	Region uint64   `json:"region"`
	Mode   string   `json:"mode"`
	Keys   [][]byte `json:"keys,omitempty"`
}

// HideRegion makes PD forget a region, as after a bad restart, or know it again. The
// stores serve it all the same.
func (c *Cluster) HideRegion(id uint64, hidden bool) (err error) {
	defer c.note("hide-region", hideArgs{id, hidden}, &err)()
	return c.topo.Hide(id, hidden)
}

// Regions returns the regions that hold keys of the mode (of the keyspace DEFAULT in
// APIV2), in order, at one moment. Bytes are the caller's.
func (c *Cluster) Regions(mode KeyMode) []Region {
	if c.checkMode(mode) != nil {
		return nil
	}
	var space keys.Range
	if p := c.api.prefix(mode); p != nil {
		space = keys.Range{Start: keys.Encode(p), End: keys.Encode(keys.PrefixEnd(p))}
	}
	var all []Region
	for _, r := range c.topo.Scan(space, 0) {
		all = append(all, c.region(mode, r, space))
	}
	return all
}

func (c *Cluster) region(mode KeyMode, r *topology.Region, space keys.Range) Region {
	in := r.Range().Intersect(space)
	out := Region{
		ID: r.ID(), Leader: r.LeaderStore(),
		Version: r.Meta.RegionEpoch.GetVersion(), ConfVersion: r.Meta.RegionEpoch.GetConfVer(),
	}
	out.Flashback, _ = r.FlashbackTS()
	out.MergingInto = r.Into.GetId()
	if string(in.Start) != string(space.Start) {
		out.Start = c.boundOf(mode, in.Start)
	}
	if string(in.End) != string(space.End) {
		out.End = c.boundOf(mode, in.End)
	}
	for _, p := range r.Meta.Peers {
		out.Stores = append(out.Stores, p.StoreId)
	}
	return out
}

// boundOf is a region's bound as a user key of the mode, in memory of its own.
func (c *Cluster) boundOf(mode KeyMode, regionKey []byte) []byte {
	if mode == KeyRaw && c.api != APIV2 {
		return append([]byte{}, regionKey...)
	}
	return append([]byte{}, c.api.userOf(regionKey)...)
}
