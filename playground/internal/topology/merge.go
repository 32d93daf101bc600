package topology

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/playground/internal/meta"
)

// PrepareMerge begins what Merge ends: from now on the source takes no writes, splits and
// changes of its peers, until Merge or RollbackMerge. Its version and conf version grow by
// one (raftstore/src/store/fsm/apply.rs, exec_prepare_merge).
func (t *Topology) PrepareMerge(source, target uint64) error {
	t.change.Lock()
	defer t.change.Unlock()
	s, r, err := t.mergeable(source, target)
	if err == nil {
		err = cmp.Or(s.merging(), r.merging())
	}
	if err != nil {
		return err
	}
	if from := t.mergingInto(source); from != nil {
		return from.merging()
	}
	state, err := r.Meta.Marshal()
	if err != nil {
		return err
	}
	now := s.renewed(1)
	now.Into = r.Meta
	var c meta.Change
	c.Value(mergingName(source), state)
	return t.replaceAs(Merged, s, now, &c)
}

// RollbackMerge ends what PrepareMerge began: the source goes on, with a version that has
// grown by one again (exec_rollback_merge).
func (t *Topology) RollbackMerge(source uint64) error {
	t.change.Lock()
	defer t.change.Unlock()
	s := t.ByID(source)
	switch {
	case s == nil:
		return fmt.Errorf("playground: no region %d", source)
	case s.Into == nil:
		return fmt.Errorf("playground: region %d is not being merged", source)
	case s.Leader == nil:
		return fmt.Errorf("playground: region %d has no majority of live peers", source)
	}
	now := s.renewed(0)
	now.Into = nil
	var c meta.Change
	c.DeleteValue(mergingName(source))
	return t.replaceAs(Merged, s, now, &c)
}

// renewed is the region under the next version.
func (r *Region) renewed(conf uint64) *Region {
	m, now := *r.Meta, *r
	m.RegionEpoch = &metapb.RegionEpoch{
		ConfVer: r.Meta.RegionEpoch.GetConfVer() + conf, Version: r.Meta.RegionEpoch.GetVersion() + 1,
	}
	now.Meta = &m
	return &now
}

// mergings is what the names begin with under which it is saved that regions are being
// merged, and into what.
const mergings = "merging/"

func mergingName(source uint64) string { return mergings + strconv.FormatUint(source, 10) }

// loadMergings lets the regions know what they are being merged into.
func (t *Topology) loadMergings(regions []*Region) error {
	saved := t.meta.Values(mergings)
	for _, r := range regions {
		state, ok := saved[strconv.FormatUint(r.ID(), 10)]
		if !ok {
			continue
		}
		r.Into = new(metapb.Region)
		if err := r.Into.Unmarshal(state); err != nil {
			return fmt.Errorf("playground: the directory's entry of a merge of region %d is damaged: %w", r.ID(), err)
		}
	}
	return nil
}

// mergingInto is a region that is being merged into another, or nil.
func (t *Topology) mergingInto(target uint64) *Region {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, r := range t.sorted {
		if r.Into.GetId() == target && r.Into != nil {
			return r
		}
	}
	return nil
}

// mergeable returns two regions if they can be merged: neighbours, with leaders.
func (t *Topology) mergeable(source, target uint64) (s, r *Region, err error) {
	s, r = t.ByID(source), t.ByID(target)
	switch {
	case s == nil:
		return nil, nil, fmt.Errorf("playground: no region %d", source)
	case r == nil:
		return nil, nil, fmt.Errorf("playground: no region %d", target)
	case s.Leader == nil || r.Leader == nil:
		return nil, nil, fmt.Errorf("playground: regions %d and %d must both have a leader to merge", source, target)
	}
	if err := cmp.Or(s.closed(), r.closed()); err != nil {
		return nil, nil, err
	}
	if left, right := inOrder(s, r); source == target || len(left.Meta.EndKey) == 0 || !bytes.Equal(left.Meta.EndKey, right.Meta.StartKey) {
		return nil, nil, fmt.Errorf("playground: regions %d and %d are no neighbours", source, target)
	}
	return s, r, nil
}

func inOrder(s, r *Region) (left, right *Region) {
	if len(r.Meta.EndKey) > 0 && bytes.Equal(r.Meta.EndKey, s.Meta.StartKey) {
		return r, s
	}
	return s, r
}

// unchanged tells that the region is still the one that another began to be merged into
// (raftstore/src/store/fsm/peer.rs, validate_merge_target): else that merge must be rolled
// back.
func (r *Region) unchanged(s *Region) error {
	then, now := s.Into.GetRegionEpoch(), r.Meta.RegionEpoch
	if s.Into.GetId() != r.ID() || then.GetVersion() != now.GetVersion() || then.GetConfVer() != now.GetConfVer() {
		return fmt.Errorf("playground: region %d is being merged into region %d as that was before: roll back", s.ID(), s.Into.GetId())
	}
	return nil
}

// Merge lets a region take over the keys of a neighbour, which ends, whether PrepareMerge
// has begun that or not. The version that results is one above both, of which the source's
// has grown by one before (raftstore/src/store/fsm/apply.rs, exec_commit_merge); the conf
// version and the peers are those of the region that stays. What PD does before, to bring
// the source's peers to the target's stores, changes nothing that outlives the source.
func (t *Topology) Merge(source, target uint64) error {
	t.change.Lock()
	defer t.change.Unlock()
	s, r, err := t.mergeable(source, target)
	if err == nil {
		err = r.merging()
	}
	if err != nil {
		return err
	}
	version := s.Meta.RegionEpoch.GetVersion()
	if s.Into == nil {
		version++
	} else if err := r.unchanged(s); err != nil {
		return err
	}
	if from := t.mergingInto(source); from != nil {
		return from.merging()
	}
	left, right := inOrder(s, r)
	m := *r.Meta
	m.StartKey, m.EndKey = left.Meta.StartKey, right.Meta.EndKey
	m.RegionEpoch = &metapb.RegionEpoch{
		ConfVer: r.Meta.RegionEpoch.GetConfVer(),
		Version: max(version, r.Meta.RegionEpoch.GetVersion()) + 1,
	}
	// No command runs in either. Only one who holds change waits for a second guard.
	s.guard.Lock()
	defer s.guard.Unlock()
	r.guard.Lock()
	defer r.guard.Unlock()
	var c meta.Change
	c.DeleteRegion(source)
	c.DeleteValue(mergingName(source))
	c.Region(&m)
	if err := t.meta.Apply(&c); err != nil {
		return err
	}
	now := &Region{Meta: &m, Leader: r.Leader, Term: r.Term, guard: r.guard}
	t.tell(Merged, s)
	t.tell(Merged, r, now)
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.index(left.Meta.StartKey)
	t.sorted = slices.Replace(t.sorted, i, i+2, now)
	delete(t.byID, source)
	delete(t.hidden, source)
	delete(t.buckets, source)
	t.byID[target] = now
	t.merges.Add(1)
	t.announce()
	return nil
}

// Merges counts the merges since the start.
func (t *Topology) Merges() int { return int(t.merges.Load()) }
