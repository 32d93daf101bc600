package pdserver

import (
	"cmp"
	"context"
	"errors"

	"github.com/pingcap/kvproto/pkg/pdpb"
)

// ReportBuckets takes over what the leaders of regions report of their buckets. It answers
// only where PD does not lead (PD: server/grpc_service.go, ReportBuckets).
func (m *Member) ReportBuckets(stream pdpb.PD_ReportBucketsServer) error {
	ctx := stream.Context()
	var to *Member
	for {
		req, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		err = m.message(ctx, "ReportBuckets", req, func() (err error) {
			if to == nil {
				if to, err = m.target(ctx); err != nil {
					return err
				}
			}
			if to == m {
				err = m.takeBuckets(req)
			} else {
				_, err = m.at(ctx, to, func(context.Context) (any, error) { return nil, to.takeBuckets(req) })
			}
			if errors.Is(err, errNotBootstrapped) {
				return cmp.Or(stream.SendAndClose(&pdpb.ReportBucketsResponse{Header: m.notBootstrapped()}), err)
			}
			return err
		})
		switch {
		case errors.Is(err, errNotBootstrapped):
			return nil
		case err != nil:
			return err
		}
	}
}

// takeBuckets takes buckets over that are newer than those that PD has. Those of a region
// that there is none of, or whose leader's store is removed, it drops without a word.
func (m *Member) takeBuckets(req *pdpb.ReportBucketsRequest) error {
	if !m.leads() {
		return errNotBootstrapped
	}
	if err := m.checkCluster(req.GetHeader()); err != nil {
		return err
	}
	b := req.GetBuckets()
	if len(b.GetKeys()) == 0 {
		return nil
	}
	if r := m.pd.Topology.PD().ByID(b.RegionId); r != nil && !m.pd.Topology.Removed(r.LeaderStore()) && m.pd.Topology.TellBuckets(b) {
		m.pd.history.record(r)
	}
	return nil
}
