package topology

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/playground/internal/meta"
)

// Merge lets a region take over the keys of a neighbour, which ends. The version that
// results is one above both, of which the source's has grown by one before (raftstore/
// src/store/fsm/apply.rs, exec_prepare_merge, exec_commit_merge); the conf version and
// the peers are those of the region that stays. What PD does before, to bring the
// source's peers to the target's stores, changes nothing that outlives the source.
func (t *Topology) Merge(source, target uint64) error {
	t.change.Lock()
	defer t.change.Unlock()
	s, r := t.ByID(source), t.ByID(target)
	switch {
	case s == nil:
		return fmt.Errorf("playground: no region %d", source)
	case r == nil:
		return fmt.Errorf("playground: no region %d", target)
	case s.Leader == nil || r.Leader == nil:
		return fmt.Errorf("playground: regions %d and %d must both have a leader to merge", source, target)
	}
	if err := cmp.Or(s.still(), r.still()); err != nil {
		return err
	}
	left, right := s, r
	if len(r.Meta.EndKey) > 0 && bytes.Equal(r.Meta.EndKey, s.Meta.StartKey) {
		left, right = r, s
	}
	if source == target || len(left.Meta.EndKey) == 0 || !bytes.Equal(left.Meta.EndKey, right.Meta.StartKey) {
		return fmt.Errorf("playground: regions %d and %d are no neighbours", source, target)
	}
	m := *r.Meta
	m.StartKey, m.EndKey = left.Meta.StartKey, right.Meta.EndKey
	m.RegionEpoch = &metapb.RegionEpoch{
		ConfVer: r.Meta.RegionEpoch.GetConfVer(),
		Version: max(s.Meta.RegionEpoch.GetVersion()+1, r.Meta.RegionEpoch.GetVersion()) + 1,
	}
	// No command runs in either. Only one who holds change waits for a second guard.
	s.guard.Lock()
	defer s.guard.Unlock()
	r.guard.Lock()
	defer r.guard.Unlock()
	var c meta.Change
	c.DeleteRegion(source)
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
