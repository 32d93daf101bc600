package store

import (
	"bytes"
	"fmt"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// The checks of a request against its region, in TiKV's order: store id, region, peer
// id, leadership, witness, term, epoch (components/raftstore/src/store/worker/read.rs,
// validate_request, and store/fsm/peer.rs, pre_propose_raft_command), then the keys. The
// texts are those of components/raftstore/src/errors.rs.

// maxEntry is TiKV's raft-entry-max-size.
const maxEntry = 8 << 20

// maxSiblings is how many neighbours an EpochNotMatch names.
const maxSiblings = 10

// enter finds the region of a request, checks all but the keys, and holds the region as
// it is until Leave.
func (s *Store) enter(c *command, ctx *kvrpcpb.Context) (*topology.Region, *errorpb.Error) {
	if c.kind != blind {
		if e := s.checkStore(ctx); e != nil {
			return nil, e
		}
	}
	r := s.Topology.Enter(ctx.GetRegionId())
	if r == nil || r.Peer(s.ID) == nil {
		if r != nil {
			r.Leave()
		}
		return nil, regionNotFound(ctx.GetRegionId())
	}
	if e := s.checkRegion(c, ctx, r); e != nil {
		r.Leave()
		return nil, e
	}
	return r, nil
}

func (s *Store) checkStore(ctx *kvrpcpb.Context) *errorpb.Error {
	to := ctx.GetPeer().GetStoreId()
	if to == s.ID {
		return nil
	}
	return &errorpb.Error{
		Message:       fmt.Sprintf("to store id %d, mine %d", to, s.ID),
		StoreNotMatch: &errorpb.StoreNotMatch{RequestStoreId: to, ActualStoreId: s.ID},
	}
}

func (s *Store) checkRegion(c *command, ctx *kvrpcpb.Context, r *topology.Region) *errorpb.Error {
	if c.kind == blind {
		if e := s.checkStore(ctx); e != nil {
			return e
		}
	}
	if mine, to := r.Peer(s.ID).GetId(), ctx.GetPeer().GetId(); mine != to {
		return &errorpb.Error{
			Message:        fmt.Sprintf("mismatch peer id %d != %d", to, mine),
			MismatchPeerId: &errorpb.MismatchPeerId{RequestPeerId: to, StorePeerId: mine},
		}
	}
	if replica := c.kind == read && (ctx.GetReplicaRead() && !c.leader || ctx.GetStaleRead()); r.LeaderStore() != s.ID && !replica {
		return s.notLeader(r)
	}
	if r.Peer(s.ID).IsWitness {
		return &errorpb.Error{
			Message:   fmt.Sprintf("peer is a witness of region %d", r.ID()),
			IsWitness: &errorpb.IsWitness{RegionId: r.ID()},
		}
	}
	if ctx.GetTerm() != 0 && r.Term > ctx.GetTerm()+1 {
		return &errorpb.Error{Message: "stale command", StaleCommand: &errorpb.StaleCommand{}}
	}
	if ctx.RegionEpoch == nil {
		return &errorpb.Error{Message: "missing epoch!"}
	}
	if ctx.RegionEpoch.GetVersion() != r.Meta.RegionEpoch.GetVersion() {
		return s.epochNotMatch(ctx.RegionEpoch, r)
	}
	if r.Leader == nil && !ctx.GetStaleRead() { // whom a replica has to ask first
		return s.notLeader(r)
	}
	return nil
}

// notLeader names the leader, if there is one that the store hears of.
func (s *Store) notLeader(r *topology.Region) *errorpb.Error {
	hint, leader := "None", r.Leader
	if leader != nil && !s.Topology.Hears(leader.StoreId, s.ID) {
		leader = nil
	}
	if leader != nil {
		hint = fmt.Sprintf("Some(id: %d store_id: %d)", leader.Id, leader.StoreId)
	}
	return &errorpb.Error{
		Message:   fmt.Sprintf("peer is not leader for region %d, leader may %s", r.ID(), hint),
		NotLeader: &errorpb.NotLeader{RegionId: r.ID(), Leader: leader},
	}
}

// epochNotMatch names the region as it is and, to one who knows an older state, the
// neighbours that may have been split off (fsm/peer.rs, collect_sibling_region: to the
// left, since the last part of a split keeps the id).
func (s *Store) epochNotMatch(from *metapb.RegionEpoch, r *topology.Region) *errorpb.Error {
	current := []*metapb.Region{r.Meta}
	if now := r.Meta.RegionEpoch.GetVersion(); from.GetVersion() < now {
		left := now - from.GetVersion() // to be named yet
		for _, sibling := range s.Topology.Siblings(r, s.ID, maxSiblings) {
			current = append(current, sibling.Meta)
			left--
			if v := sibling.Meta.RegionEpoch.GetVersion(); v > now { // it was split itself since
				left, now = left+v-now, v
			}
			if left == 0 {
				break
			}
		}
	}
	return &errorpb.Error{
		Message: fmt.Sprintf("EpochNotMatch current epoch of region %d is conf_ver: %d version: %d, but you sent conf_ver: %d version: %d",
			r.ID(), r.Meta.RegionEpoch.GetConfVer(), r.Meta.RegionEpoch.GetVersion(), from.GetConfVer(), from.GetVersion()),
		EpochNotMatch: &errorpb.EpochNotMatch{CurrentRegions: current},
	}
}

// checkKeys tells that a key of the request is not in the region, or that a write is
// larger than the log takes.
func (s *Store) checkKeys(c *command, req request, r *topology.Region) *errorpb.Error {
	in := c.inside(req)
	within := r.Range()
	buf := make([]byte, 0, 256)
	outside := func(key []byte, atEnd bool) *errorpb.Error {
		rk := s.regionKey(buf[:0], c.raw, key)
		if within.Contains(rk) || atEnd && bytes.Equal(rk, within.End) {
			return nil
		}
		return keyNotInRegion(bytes.Clone(rk), r)
	}
	for _, key := range in.keys {
		if e := outside(key, false); e != nil {
			return e
		}
	}
	for _, key := range in.seeks {
		if e := outside(key, true); e != nil {
			return e
		}
	}
	for _, kr := range in.ranges {
		end := s.regionKey(nil, c.raw, kr.End)
		if (keys.Range{Start: s.regionKey(nil, c.raw, kr.Start), End: end}).Empty() {
			continue // refused as such, wherever it is
		}
		if e := outside(kr.Start, false); e != nil {
			return e
		}
		if keys.CompareEnds(end, within.End) > 0 {
			return keyNotInRegion(end, r)
		}
	}
	if size := req.Size(); size > maxEntry && (c.kind == write || c.kind == blind) {
		return &errorpb.Error{
			Message:           fmt.Sprintf("raft entry is too large, region %d, entry size %d", r.ID(), size),
			RaftEntryTooLarge: &errorpb.RaftEntryTooLarge{RegionId: r.ID(), EntrySize: uint64(size)},
		}
	}
	return nil
}

func keyNotInRegion(key []byte, r *topology.Region) *errorpb.Error {
	return &errorpb.Error{
		Message: fmt.Sprintf("key %X is not in region key range [%X, %X) for region %d", key, r.Meta.StartKey, r.Meta.EndKey, r.ID()),
		KeyNotInRegion: &errorpb.KeyNotInRegion{
			Key: key, RegionId: r.ID(), StartKey: r.Meta.StartKey, EndKey: r.Meta.EndKey,
		},
	}
}

// regionKey appends a request's key in the form in which regions have it: raw keys of
// V1 and V1TTL as they are, all others memcomparable.
func (s *Store) regionKey(dst []byte, raw bool, key []byte) []byte {
	if raw && s.APIVersion != kvrpcpb.APIVersion_V2 {
		return append(dst, key...)
	}
	return keys.AppendEncoded(dst, key)
}

// checkBuckets tells one who asks for a plan to be computed of newer buckets than he
// knows (TiKV src/coprocessor/endpoint.rs, handle_unary_request_impl); no other requests
// are checked.
func (s *Store) checkBuckets(req request, r *topology.Region) *errorpb.Error {
	q, ok := req.(*coprocessor.Request)
	if !ok {
		return nil
	}
	known, b := q.GetContext().GetBucketsVersion(), s.Topology.StoreBuckets(r)
	if b == nil || known == 0 || known >= b.Version {
		return nil
	}
	return &errorpb.Error{BucketVersionNotMatch: &errorpb.BucketVersionNotMatch{Version: b.Version, Keys: b.Keys}}
}
