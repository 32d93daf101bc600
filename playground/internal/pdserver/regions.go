package pdserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// one answers with a region, or with none.
func (m *Member) one(r *topology.Region, buckets bool) *pdpb.GetRegionResponse {
	leads := m.leads()
	return m.found(r, leads, buckets && leads)
}

// bucketsOf are a region's, if they are asked for, of whom has them: followers of PD's
// leader do not (PD: server/grpc_service.go).
func (m *Member) bucketsOf(r *topology.Region, wanted bool) *metapb.Buckets {
	if !wanted {
		return nil
	}
	return m.pd.Topology.Buckets(r.ID())
}

// found answers with a region, or with none: without an error from who knows all of them,
// with one from a follower, which may only be behind.
func (m *Member) found(r *topology.Region, all, buckets bool) *pdpb.GetRegionResponse {
	switch {
	case r != nil:
		down, pending := m.unwell(r)
		return &pdpb.GetRegionResponse{
			Header: m.pd.header(), Region: r.Meta, Leader: r.Leader, DownPeers: down, PendingPeers: pending,
			Buckets: m.bucketsOf(r, buckets),
		}
	case all:
		return &pdpb.GetRegionResponse{Header: m.pd.header()}
	}
	return &pdpb.GetRegionResponse{Header: m.unknownRegion()}
}

func (m *Member) unknownRegion() *pdpb.ResponseHeader {
	return m.pd.refusal(pdpb.ErrorType_REGION_NOT_FOUND, "region not found")
}

// downAfter is how long a leader has heard nothing of a peer before it reports it as down
// (TiKV raftstore's max-peer-down-duration).
const downAfter = 10 * time.Minute

// unwell lists a region's peers on stores that have not lived for long, and those of which
// somebody reported that they are down or behind.
func (m *Member) unwell(r *topology.Region) (down []*pdpb.PeerStats, pending []*metapb.Peer) {
	for _, p := range r.Meta.Peers {
		since, is := m.pd.Topology.Down(p.StoreId)
		if gone := m.pd.Now().Sub(since); is && gone >= downAfter {
			down = append(down, &pdpb.PeerStats{Peer: p, DownSeconds: uint64(gone / time.Second)})
		}
	}
	report := m.pd.heartbeats.reported(r)
	for _, s := range report.down {
		if !slices.ContainsFunc(down, func(o *pdpb.PeerStats) bool { return o.GetPeer().GetId() == s.GetPeer().GetId() }) {
			down = append(down, s)
		}
	}
	return down, report.pending
}

// GetRegion answers with the region that holds a key.
func (m *Member) GetRegion(_ context.Context, req *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return m.one(m.pd.Topology.PD().ByKey(req.GetRegionKey()), req.GetNeedBuckets()), nil
}

// GetPrevRegion answers with the region before the one that holds a key.
func (m *Member) GetPrevRegion(_ context.Context, req *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return m.one(m.pd.Topology.PD().Before(req.GetRegionKey()), req.GetNeedBuckets()), nil
}

// GetRegionByID answers with the region of an id.
func (m *Member) GetRegionByID(_ context.Context, req *pdpb.GetRegionByIDRequest) (*pdpb.GetRegionResponse, error) {
	return m.one(m.pd.Topology.PD().ByID(req.GetRegionId()), req.GetNeedBuckets()), nil
}

// QueryRegion answers each message of the stream, in order, with the regions of keys,
// of the regions before keys, and of ids. Followers answer too, if they have regions.
func (m *Member) QueryRegion(stream pdpb.PD_QueryRegionServer) error {
	return m.queries(stream, m.synced, m.leads)
}

// queryStream is a stream of such queries, of PD's service or of a router's.
type queryStream interface {
	grpc.ServerStream
	Recv() (*pdpb.QueryRegionRequest, error)
}

// queries answers the messages of a stream; without any regions while known says
// so, and with their buckets if they are asked for and buckets says so.
func (m *Member) queries(stream queryStream, known, buckets func() bool) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		err = m.reply(stream, "QueryRegion", req, func() (any, error) {
			if err := m.checkCluster(req.GetHeader()); err != nil {
				return nil, err
			}
			if !known() {
				return &pdpb.QueryRegionResponse{Header: m.unknownRegion()}, nil
			}
			return m.query(req, req.GetNeedBuckets() && buckets()), nil
		})
		if err != nil {
			return err
		}
	}
}

func (m *Member) query(req *pdpb.QueryRegionRequest, buckets bool) *pdpb.QueryRegionResponse {
	t := m.pd.Topology.PD()
	resp := &pdpb.QueryRegionResponse{Header: m.pd.header(), RegionsById: make(map[uint64]*pdpb.RegionResponse)}
	add := func(r *topology.Region) uint64 {
		if r == nil {
			return 0
		}
		if resp.RegionsById[r.ID()] == nil {
			down, pending := m.unwell(r)
			resp.RegionsById[r.ID()] = &pdpb.RegionResponse{
				Region: r.Meta, Leader: r.Leader, DownPeers: down, PendingPeers: pending, Buckets: m.bucketsOf(r, buckets),
			}
		}
		return r.ID()
	}
	for _, k := range req.GetKeys() {
		resp.KeyIdMap = append(resp.KeyIdMap, add(t.ByKey(k)))
	}
	for _, k := range req.GetPrevKeys() {
		resp.PrevKeyIdMap = append(resp.PrevKeyIdMap, add(t.Before(k)))
	}
	for _, id := range req.GetIds() {
		if id != 0 && add(t.ByID(id)) == 0 {
			resp.RegionsById[id] = nil // PD: pkg/core/region.go, QueryRegions
		}
	}
	return resp
}

// listed is a region in a list, where one without a leader has an empty one.
func (m *Member) listed(r *topology.Region, buckets bool) *pdpb.Region {
	leader := r.Leader
	if leader == nil {
		leader = new(metapb.Peer)
	}
	down, pending := m.unwell(r)
	return &pdpb.Region{Region: r.Meta, Leader: leader, DownPeers: down, PendingPeers: pending, Buckets: m.bucketsOf(r, buckets)}
}

// ScanRegions answers with the regions of a range.
func (m *Member) ScanRegions(_ context.Context, req *pdpb.ScanRegionsRequest) (*pdpb.ScanRegionsResponse, error) {
	resp := &pdpb.ScanRegionsResponse{Header: m.pd.header()}
	for _, r := range m.pd.Topology.PD().Scan(keys.Range{Start: req.GetStartKey(), End: req.GetEndKey()}, int(req.GetLimit())) {
		l := m.listed(r, false)
		resp.Regions = append(resp.Regions, l)
		resp.RegionMetas = append(resp.RegionMetas, l.Region)
		resp.Leaders = append(resp.Leaders, l.Leader)
	}
	if len(resp.Regions) == 0 && !m.leads() {
		resp.Header = m.unknownRegion()
	}
	return resp, nil
}

// BatchScanRegions answers with the regions of several ranges, each region once, up to
// limit over all of them.
func (m *Member) BatchScanRegions(_ context.Context, req *pdpb.BatchScanRegionsRequest) (*pdpb.BatchScanRegionsResponse, error) {
	resp := m.batchScan(req, m.leads())
	if len(resp.Regions) == 0 && resp.Header.Error == nil && !m.leads() {
		resp.Header = m.unknownRegion()
	}
	return resp, nil
}

func (m *Member) batchScan(req *pdpb.BatchScanRegionsRequest, buckets bool) *pdpb.BatchScanRegionsResponse {
	resp := &pdpb.BatchScanRegionsResponse{Header: m.pd.header()}
	ranges := req.GetRanges()
	for i, r := range ranges {
		text := ""
		switch {
		case i > 0 && bytes.Compare(r.StartKey, ranges[i-1].EndKey) < 0:
			text = "invalid key range, ranges overlapped"
		case len(r.EndKey) > 0 && bytes.Compare(r.StartKey, r.EndKey) > 0:
			text = "invalid key range, start key > end key"
		default:
			continue
		}
		resp.Header = m.pd.refusal(pdpb.ErrorType_UNKNOWN, text)
		return resp
	}
	regions, hole := m.scan(ranges, int(req.GetLimit()), buckets && req.GetNeedBuckets())
	if hole != "" && req.GetContainAllKeyRange() {
		resp.Header = m.pd.refusal(pdpb.ErrorType_REGIONS_NOT_CONTAIN_ALL_KEY_RANGE, hole)
		return resp
	}
	resp.Regions = regions
	return resp
}

// scan lists the regions of ranges in order, each once, and tells of a hole between
// them; what comes after the limit is none.
func (m *Member) scan(ranges []*pdpb.KeyRange, limit int, buckets bool) (all []*pdpb.Region, hole string) {
	for _, kr := range merged(ranges) {
		found := m.pd.Topology.PD().Scan(kr, limit)
		if at, ok := topology.Hole(kr, found, limit > 0 && len(found) >= limit); ok && hole == "" {
			hole = fmt.Sprintf("two regions are not adjacent: there is none after %X in [%X, %X)", at, kr.Start, kr.End)
		}
		for _, r := range found {
			switch n := len(all); {
			case n > 0 && all[n-1].Region.Id == r.ID():
			case limit > 0 && n == limit:
				return all, hole
			default:
				all = append(all, m.listed(r, buckets))
			}
		}
	}
	return all, hole
}

// merged joins adjacent ranges (PD: pkg/utils/keyutil, KeyRanges.Merge).
func merged(ranges []*pdpb.KeyRange) []keys.Range {
	var all []keys.Range
	for _, r := range ranges {
		if n := len(all); n > 0 && len(r.StartKey) > 0 && bytes.Equal(all[n-1].End, r.StartKey) {
			all[n-1].End = r.EndKey
			continue
		}
		all = append(all, keys.Range{Start: r.StartKey, End: r.EndKey})
	}
	return all
}

// ended is how a stream's handler returns after Recv failed: a client that is done is
// no error.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return status.Convert(err).Err()
}

// removed reports whether PD knows a store as gone for good.
func removed(s *metapb.Store) bool { return s.GetNodeState() == metapb.NodeState_Removed }
