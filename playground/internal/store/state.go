package store

import (
	"context"
	"fmt"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/playground/internal/topology"
	"github.com/tikv-go/tikv/playground/internal/tso"
)

// Disk is how full a store's disk is (TiKV: tikv_util::sys::disk, DiskUsage).
type Disk uint8

// The states of a disk.
const (
	DiskOK Disk = iota
	DiskAlmostFull
	DiskAlreadyFull
)

// State is how a store is. The zero State is well.
type State struct {
	Disk      Disk
	DiskDelay time.Duration
	SlowScore float64
	Advertise string
	// ApplyLag is how much later than their leaders its peers have what is written.
	ApplyLag time.Duration
	// ResolvedLag is how far behind the time its peers' safe timestamps are.
	ResolvedLag time.Duration
	// ReadWait is how long the store says that a read waits for its turn.
	ReadWait time.Duration
	// resolvedFrom is where they stood when that began: they do not go back.
	resolvedFrom uint64
}

// SetState changes how the store is. Changes come one after another.
func (s *Store) SetState(st State) {
	if st.ResolvedLag > 0 {
		now, _ := s.Timestamp() // without one nothing is held back to
		st.resolvedFrom = s.state.Load().resolvedTo(now)
	}
	s.state.Store(&st)
	s.Lag.SetLag(s.ID, st.ApplyLag)
}

// resolvedTo is the timestamp that safe ones go up to when PD's is now.
func (st *State) resolvedTo(now uint64) uint64 {
	if st == nil || st.ResolvedLag <= 0 {
		return now
	}
	late := tso.Compose(max(0, int64(now>>18)-st.ResolvedLag.Milliseconds()), 0)
	return min(now, max(late, st.resolvedFrom))
}

// State is how the store is.
func (s *Store) State() State {
	if st := s.state.Load(); st != nil {
		return *st
	}
	return State{}
}

// slowDisk waits as long as the store's disk takes for a write; false when the store
// ended before.
func (s *Store) slowDisk(ctx context.Context, c *command) bool {
	st := s.state.Load()
	if st == nil || st.DiskDelay <= 0 || c.kind != write && c.kind != blind {
		return true
	}
	t := time.NewTimer(st.DiskDelay)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// diskFullOpt is what a write is allowed on (TiKV: src/storage, where
// set_allowed_on_disk_almost_full is called; only writes that take new locks are allowed
// no more than their context says).
func diskFullOpt(req any) kvrpcpb.DiskFullOpt {
	switch q := req.(type) {
	case *kvrpcpb.PrewriteRequest:
		return q.GetContext().GetDiskFullOpt()
	case *kvrpcpb.PessimisticLockRequest:
		// txn/scheduler.rs, handle_async_write, takes over this one only.
		if q.GetContext().GetDiskFullOpt() != kvrpcpb.DiskFullOpt_AllowedOnAlmostFull {
			return kvrpcpb.DiskFullOpt_NotAllowedOnFull
		}
	case *kvrpcpb.FlushRequest:
		return q.GetContext().GetDiskFullOpt()
	case *kvrpcpb.PrepareFlashbackToVersionRequest, *kvrpcpb.FlashbackToVersionRequest:
		return kvrpcpb.DiskFullOpt_NotAllowedOnFull
	}
	return kvrpcpb.DiskFullOpt_AllowedOnAlmostFull
}

// checkDisk is TiKV's refusal of a write that full disks are in the way of (components/
// raftstore/src/store/peer.rs, check_normal_proposal_with_disk_full_opt): a leader whose
// disk is almost full takes those that say so, one whose disk is already full none, and
// it tries to hand its place to a peer with room, whose store is returned. Else the
// disks of a majority must have room, or be no more than almost full for a write that is
// allowed on those.
func (s *Store) checkDisk(c *command, req any, r *topology.Region) (e *errorpb.Error, leader uint64) {
	if c.kind != write && c.kind != blind {
		return nil, 0
	}
	st := s.State()
	opt := diskFullOpt(req)
	full := s.fullDisks(r)
	stores := full.stores
	switch {
	case st.Disk == DiskAlreadyFull, st.Disk == DiskAlmostFull && opt == kvrpcpb.DiskFullOpt_NotAllowedOnFull:
		stores = []uint64{s.ID}
		if !full.majority {
			leader = full.room
		}
	case !full.majority, !full.dangerous && opt == kvrpcpb.DiskFullOpt_AllowedOnAlmostFull:
		return nil, 0
	}
	usage := [...]string{"Normal", "AlmostFull", "AlreadyFull"}[st.Disk]
	text := fmt.Sprintf("propose failed: tikv disk full, cmd diskFullOpt=%v, leader diskUsage=%s", opt, usage)
	return &errorpb.Error{
		Message:  fmt.Sprintf("store ids %v, errmsg %s", stores, text),
		DiskFull: &errorpb.DiskFull{StoreId: stores, Reason: text},
	}, leader
}

// fullDisks is what a leader knows of its followers' disks.
type fullDisks struct {
	stores    []uint64 // whose disks are full in some degree
	majority  bool     // there is no quorum without them
	dangerous bool     // nor one without those that are already full
	room      uint64   // a live voter's store that is not among them, 0 for none
}

// fullDisks counts as peer.rs, refill_disk_full_peers, does: the leader itself as well.
func (s *Store) fullDisks(r *topology.Region) fullDisks {
	var f fullDisks
	voters, normal, almost := 0, 0, 0
	for _, p := range r.Meta.Peers {
		disk := DiskOK
		if p.StoreId != s.ID && s.DiskOf != nil {
			disk = s.DiskOf(p.StoreId)
		}
		if disk != DiskOK {
			f.stores = append(f.stores, p.StoreId)
		}
		if p.Role == metapb.PeerRole_Learner {
			continue
		}
		voters++
		switch {
		case disk == DiskOK:
			normal++
			if f.room == 0 && p.StoreId != s.ID && s.Topology.Live(p.StoreId) {
				f.room = p.StoreId
			}
		case disk == DiskAlmostFull && s.Topology.Live(p.StoreId):
			almost++
		}
	}
	quorum := voters/2 + 1
	f.majority = normal < quorum
	f.dangerous = normal+almost < quorum
	return f
}
