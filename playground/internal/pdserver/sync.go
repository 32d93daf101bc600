package pdserver

import (
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// Rules of the stream (PD: pkg/syncer/server.go).
const (
	syncBatch = 1000
	syncAlive = 10 * time.Second
)

func errSyncEnded(text string) error { return status.Error(codes.Unavailable, "region syncer "+text) }

// SyncRegions tells a member that is not the cluster's of all regions, or of what became of
// them since an index, and then of what becomes of them (PD: pkg/syncer/server.go, Sync).
func (m *Member) SyncRegions(stream pdpb.PD_SyncRegionsServer) error {
	if !m.leads() {
		return errStopping()
	}
	req, err := stream.Recv()
	if err != nil {
		return ended(err)
	}
	return m.message(stream.Context(), "SyncRegions", req, func() error {
		if err := m.checkCluster(req.GetHeader()); err != nil {
			return err
		}
		name := req.GetMember().GetName()
		replaced, next := m.pd.history.begin(name)
		defer m.pd.history.end(name, replaced)
		s := &syncer{m: m, stream: stream, replaced: replaced, at: next}
		if err := s.catchUp(req.GetStartIndex()); err != nil {
			return err
		}
		return s.follow()
	})
}

// syncer is one stream.
type syncer struct {
	m        *Member
	stream   pdpb.PD_SyncRegionsServer
	replaced <-chan struct{}
	at       uint64 // the index of what is sent next
}

// catchUp sends what became of regions since an index, or all of them (syncHistoryRegion).
func (s *syncer) catchUp(start uint64) error {
	if start == 0 || start > s.at {
		return s.all()
	}
	found, _, ok := s.m.pd.history.from(start)
	if !ok {
		return s.all()
	}
	if found = found[:s.at-start]; len(found) == 0 {
		return s.stream.Send(s.response(start, nil))
	}
	return s.send(start, found)
}

// all sends all regions, numbered from 0, then what became of them meanwhile, and then the
// index up to which that is (syncFullRegions).
func (s *syncer) all() error {
	s.m.pd.Topology.Settle() // what has an index already is among them
	regions := s.m.pd.Topology.PD().Scan(keys.Range{}, 0)
	if err := s.send(0, regions); err != nil {
		return err
	}
	found, _, ok := s.m.pd.history.from(s.at)
	if !ok {
		return status.Errorf(codes.ResourceExhausted, "history records from full sync start index %d are no longer available", s.at)
	}
	start := s.at
	if len(regions) == 0 {
		start = 0
	}
	if err := s.send(start, found); err != nil {
		return err
	}
	s.at += uint64(len(found))
	return s.stream.Send(s.response(s.at, nil))
}

// send sends regions in batches, of which the first has an index.
func (s *syncer) send(index uint64, regions []*topology.Region) error {
	for len(regions) > 0 {
		n := min(len(regions), syncBatch)
		if err := s.stream.Send(s.response(index, regions[:n])); err != nil {
			return err
		}
		index, regions = index+uint64(n), regions[n:]
	}
	return nil
}

// response is PD's buildSyncRegionResponse.
func (s *syncer) response(index uint64, regions []*topology.Region) *pdpb.SyncRegionResponse {
	resp := &pdpb.SyncRegionResponse{Header: s.m.pd.header(), StartIndex: index}
	for _, r := range regions {
		leader, buckets, stat := r.Leader, s.m.pd.Topology.Buckets(r.ID()), s.m.pd.heartbeats.reported(r).stat
		if leader == nil {
			leader = new(metapb.Peer)
		}
		if buckets == nil {
			buckets = new(metapb.Buckets)
		}
		if stat == nil {
			stat = new(pdpb.RegionStat)
		}
		resp.Regions = append(resp.Regions, r.Meta)
		resp.RegionLeaders = append(resp.RegionLeaders, leader)
		resp.Buckets = append(resp.Buckets, buckets)
		resp.RegionStats = append(resp.RegionStats, stat)
	}
	return resp
}

// follow sends what becomes of regions, and where nothing does a sign of life, until the
// member leads no more.
func (s *syncer) follow() error {
	alive := time.NewTicker(syncAlive)
	defer alive.Stop()
	ctx := s.stream.Context()
	for {
		_, elected := s.m.quorum()
		if !s.m.leads() {
			resp := s.response(0, nil)
			resp.Header = s.m.pd.refusal(pdpb.ErrorType_UNKNOWN, "server stopped, close the region syncer client")
			_ = s.stream.Send(resp) // the stream ends either way
			return errSyncEnded("stopped")
		}
		found, changed, ok := s.m.pd.history.from(s.at)
		if !ok {
			return errSyncEnded("stream closed")
		}
		if err := s.send(s.at, found); err != nil {
			return err
		}
		s.at += uint64(len(found))
		select {
		case <-changed:
		case <-elected:
		case <-alive.C:
			if err := s.stream.Send(s.response(s.at, nil)); err != nil {
				return err
			}
		case <-s.replaced:
			return errSyncEnded("stream closed")
		case <-ctx.Done():
			return nil
		case <-s.m.life(ctx).Done():
			return errSyncEnded("stopped")
		}
	}
}
