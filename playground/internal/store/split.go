package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// refused is a region error on its way through the topology.
type refused struct{ region *errorpb.Error }

// Error returns the error's message.
func (r refused) Error() string { return r.region.Message }

// splitRegion answers SplitRegion, which takes keys as their users have them.
func (s *Store) splitRegion(_ context.Context, _ keys.Range, q *kvrpcpb.SplitRegionRequest) *kvrpcpb.SplitRegionResponse {
	id := q.GetContext().GetRegionId()
	if r := s.Topology.ByID(id); r == nil || r.Peer(s.ID) == nil {
		return &kvrpcpb.SplitRegionResponse{RegionError: regionNotFound(id)}
	}
	at := s.splitKeys(q)
	parts, err := s.Topology.SplitIf(id, at, func(r *topology.Region) error {
		if e := s.checkSplit(q, at, r); e != nil {
			return refused{e}
		}
		return nil
	})
	var no refused
	switch {
	case errors.As(err, &no):
		return &kvrpcpb.SplitRegionResponse{RegionError: no.region}
	case err != nil:
		return &kvrpcpb.SplitRegionResponse{RegionError: words(err.Error())}
	}
	resp := new(kvrpcpb.SplitRegionResponse)
	for _, p := range parts {
		resp.Regions = append(resp.Regions, p.Meta)
	}
	if len(parts) == 2 {
		resp.Left, resp.Right = parts[0].Meta, parts[1].Meta
	}
	return resp
}

// splitKeys are the request's keys as regions have them, in order (TiKV src/server/
// service/kv.rs, split_region).
func (s *Store) splitKeys(q *kvrpcpb.SplitRegionRequest) [][]byte {
	split := q.GetSplitKeys()
	//lint:ignore SA1019 TiKV still takes the one key of older clients
	if one := q.GetSplitKey(); len(one) > 0 {
		split = [][]byte{one}
	}
	at := make([][]byte, len(split))
	for i, k := range split {
		at[i] = s.regionKey(nil, q.GetIsRawKv(), k)
	}
	slices.SortFunc(at, bytes.Compare)
	return at
}

// checkSplit is TiKV components/raftstore/src/store/fsm/peer.rs, on_prepare_split_region,
// and store/util.rs, validate_split_region: of the epoch only the version counts, and
// the error names no neighbours.
func (s *Store) checkSplit(q *kvrpcpb.SplitRegionRequest, at [][]byte, r *topology.Region) *errorpb.Error {
	from, peer := q.GetContext().GetRegionEpoch(), r.Peer(s.ID).GetId()
	switch {
	case r.LeaderStore() != s.ID:
		return s.notLeader(r)
	case len(at) == 0:
		return words(fmt.Sprintf("[region %d] %d no split key is specified.", r.ID(), peer))
	case from.GetVersion() != r.Meta.RegionEpoch.GetVersion():
		e := s.epochNotMatch(r.Meta.RegionEpoch, r)
		e.Message = fmt.Sprintf("EpochNotMatch [region %d] %d epoch changed %v != %v, retry later", r.ID(), peer, r.Meta.RegionEpoch, from)
		return e
	}
	for _, key := range at {
		if len(key) == 0 {
			return words(fmt.Sprintf("[region %d] %d split key should not be empty", r.ID(), peer))
		}
		if !r.Range().Contains(key) {
			return keyNotInRegion(key, r)
		}
	}
	return frozen(r)
}
