package pdserver

import (
	"context"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/routerpb"
)

// router is the service that answers lookups of regions and stores beside PD (PD:
// pkg/mcs/router/server/grpc_service.go). Each member has it in its process. It asks no
// one for their role, and no unary call for its cluster; an unknown region is no error.
type router struct {
	routerpb.UnimplementedRouterServer
	m *Member
}

func (s *router) GetRegion(_ context.Context, req *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return s.m.found(s.m.pd.Topology.PD().ByKey(req.GetRegionKey()), true, req.GetNeedBuckets()), nil
}

func (s *router) GetPrevRegion(_ context.Context, req *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return s.m.found(s.m.pd.Topology.PD().Before(req.GetRegionKey()), true, req.GetNeedBuckets()), nil
}

func (s *router) GetRegionByID(_ context.Context, req *pdpb.GetRegionByIDRequest) (*pdpb.GetRegionResponse, error) {
	return s.m.found(s.m.pd.Topology.PD().ByID(req.GetRegionId()), true, req.GetNeedBuckets()), nil
}

func (s *router) BatchScanRegions(_ context.Context, req *pdpb.BatchScanRegionsRequest) (*pdpb.BatchScanRegionsResponse, error) {
	return s.m.batchScan(req, true), nil
}

func (s *router) GetStore(ctx context.Context, req *pdpb.GetStoreRequest) (*pdpb.GetStoreResponse, error) {
	return s.m.GetStore(ctx, req)
}

func (s *router) GetAllStores(ctx context.Context, req *pdpb.GetAllStoresRequest) (*pdpb.GetAllStoresResponse, error) {
	return s.m.GetAllStores(ctx, req)
}

func (s *router) QueryRegion(stream routerpb.Router_QueryRegionServer) error {
	always := func() bool { return true }
	return s.m.queries(stream, always, always)
}
