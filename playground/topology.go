package playground

import (
	"fmt"

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
}

// Split lets a region begin at key, a user key of the mode (of the keyspace DEFAULT in
// APIV2), and returns its id. It is no error when one begins there already.
func (c *Cluster) Split(mode KeyMode, key []byte) (uint64, error) {
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
func (c *Cluster) TransferLeader(region, store uint64) error {
	return c.topo.TransferLeader(region, store)
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
