package topology

import (
	"cmp"
	"fmt"
)

// Flashback puts a region into the state of a flashback that began at a timestamp, if
// allowed returns nil for the region as it is then; else it returns what that did. While
// it lasts the region keeps its keys, peers and, but for elections, its leader. A
// timestamp of 0 ends it. The state is the region's own, saved with it, and PD hears of
// it (TiKV components/raftstore/src/store/fsm/apply.rs, exec_flashback).
func (t *Topology) Flashback(id, startTS uint64, allowed func(*Region) error) error {
	t.change.Lock()
	defer t.change.Unlock()
	r := t.ByID(id)
	if r == nil {
		return fmt.Errorf("playground: no region %d", id)
	}
	if err := cmp.Or(allowed(r), r.merging()); err != nil {
		return err
	}
	m := *r.Meta
	m.IsInFlashback, m.FlashbackStartTs = startTS != 0, startTS
	now := *r
	now.Meta = &m
	return t.replace(r, &now)
}

// FlashbackTS is when the flashback began that the region is in, and whether there is one
// (raftstore/src/store/util.rs, check_flashback_state).
func (r *Region) FlashbackTS() (ts uint64, is bool) {
	return r.Meta.FlashbackStartTs, r.Meta.IsInFlashback || r.Meta.FlashbackStartTs > 0
}

// still is an error for a region that must stay as it is.
func (r *Region) still() error { return cmp.Or(r.closed(), r.merging()) }

// closed is an error for a region that a flashback has closed.
func (r *Region) closed() error {
	if ts, is := r.FlashbackTS(); is {
		return fmt.Errorf("playground: region %d is in the flashback progress with start_ts %d", r.ID(), ts)
	}
	return nil
}

// merging is an error for a region that is being merged into another.
func (r *Region) merging() error {
	if r.Into != nil {
		return fmt.Errorf("playground: region %d is being merged into region %d", r.ID(), r.Into.GetId())
	}
	return nil
}
