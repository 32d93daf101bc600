package pdserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
)

// What a store asks and tells PD of the splits that it makes itself (PD: server/cluster/
// cluster_worker.go). The regions stay as they are: the cluster's own stores split them.

// mostIDs is how many ids a split may ask for, which PD does not limit.
const mostIDs = 1 << 20

// AskBatchSplit gives out the ids of new regions and of their peers.
func (m *Member) AskBatchSplit(_ context.Context, req *pdpb.AskBatchSplitRequest) (*pdpb.AskBatchSplitResponse, error) {
	if req.GetRegion() == nil {
		return &pdpb.AskBatchSplitResponse{Header: m.pd.refusal(pdpb.ErrorType_REGION_NOT_FOUND, "missing region for split")}, nil
	}
	ids, err := m.pd.splitIDs(req.GetRegion(), req.GetSplitCount())
	if err != nil {
		return &pdpb.AskBatchSplitResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
	}
	return &pdpb.AskBatchSplitResponse{Header: m.pd.header(), Ids: ids}, nil
}

// splitIDs are the ids for a number of new regions, if the region is not older than PD
// knows it (HandleAskBatchSplit; PD: pkg/core/region.go, ValidRegion).
func (pd *PD) splitIDs(region *metapb.Region, count uint32) ([]*pdpb.SplitID, error) {
	known := pd.Topology.PD().ByKey(region.StartKey)
	if known == nil {
		return nil, fmt.Errorf("region not found, request region: %v", hexed(region))
	}
	asked, is := region.RegionEpoch, known.Meta.RegionEpoch
	if asked.GetVersion() < is.GetVersion() || asked.GetConfVer() < is.GetConfVer() {
		return nil, fmt.Errorf("invalid region epoch, request: %v, current: %v", asked, is)
	}
	n := uint64(count) * uint64(len(region.Peers)+1)
	if n > mostIDs {
		return nil, fmt.Errorf("playground: a split cannot have %d ids", n)
	}
	next, err := pd.Topology.AllocID(n)
	if err != nil {
		return nil, err
	}
	var all []*pdpb.SplitID
	for range count {
		id := &pdpb.SplitID{NewRegionId: next}
		next++
		for range region.Peers {
			id.NewPeerIds = append(id.NewPeerIds, next)
			next++
		}
		all = append(all, id)
	}
	return all, nil
}

// hexed is a region with readable keys (PD: pkg/core/region.go, HexRegionMeta).
func hexed(r *metapb.Region) *metapb.Region {
	h := *r
	h.StartKey, h.EndKey = fmt.Appendf(nil, "%X", r.StartKey), fmt.Appendf(nil, "%X", r.EndKey)
	return &h
}

// ReportBatchSplit looks whether what is reported can be the parts of a split; the regions
// themselves come with their heartbeats.
func (m *Member) ReportBatchSplit(_ context.Context, req *pdpb.ReportBatchSplitRequest) (*pdpb.ReportBatchSplitResponse, error) {
	if err := checkParts(req.GetRegions()); err != nil {
		return &pdpb.ReportBatchSplitResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
	}
	return &pdpb.ReportBatchSplitResponse{Header: m.pd.header()}, nil
}

// checkParts is PD's checkSplitRegions.
func checkParts(parts []*metapb.Region) error {
	for i := 1; i < len(parts); i++ {
		left, right := parts[i-1], parts[i]
		if !bytes.Equal(left.EndKey, right.StartKey) || len(right.EndKey) > 0 && bytes.Compare(left.StartKey, right.EndKey) >= 0 {
			return errors.New("invalid split region")
		}
	}
	if len(parts) <= 1 {
		return errors.New("invalid split region")
	}
	return nil
}
