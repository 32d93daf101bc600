package pd

import (
	"context"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"
)

// Scattered is what PD has made of a wish to move regions apart.
type Scattered struct {
	Percent int      // of the regions that have what they need
	Failed  []uint64 // regions that have not
}

// ScatterRegions lets PD spread regions over the stores, evenly within a group of that
// name.
func (c *Client) ScatterRegions(ctx context.Context, ids []uint64, group string, retries int) (Scattered, error) {
	resp, err := ask(ctx, c, "ScatterRegion", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.ScatterRegionResponse, error) {
		return pd.ScatterRegion(ctx, &pdpb.ScatterRegionRequest{Header: c.header(), RegionsId: ids, Group: group, RetryLimit: uint64(max(retries, 0))})
	})
	return Scattered{Percent: int(resp.GetFinishedPercentage()), Failed: resp.GetFailedRegionsId()}, err
}

// SplitRegions lets PD split regions at region keys. It returns the new regions, and which
// part of the splits they are, in percent.
func (c *Client) SplitRegions(ctx context.Context, keys [][]byte, retries int) (ids []uint64, percent int, err error) {
	resp, err := ask(ctx, c, "SplitRegions", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.SplitRegionsResponse, error) {
		return pd.SplitRegions(ctx, &pdpb.SplitRegionsRequest{Header: c.header(), SplitKeys: keys, RetryLimit: uint64(max(retries, 0))})
	})
	return resp.GetRegionsId(), int(resp.GetFinishedPercentage()), err
}

// SplitAndScatterRegions does both. It returns the new regions, and how far each went.
func (c *Client) SplitAndScatterRegions(ctx context.Context, keys [][]byte, group string, retries int) (ids []uint64, split, scattered int, err error) {
	resp, err := ask(ctx, c, "SplitAndScatterRegions", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.SplitAndScatterRegionsResponse, error) {
		return pd.SplitAndScatterRegions(ctx, &pdpb.SplitAndScatterRegionsRequest{
			Header: c.header(), SplitKeys: keys, Group: group, RetryLimit: uint64(max(retries, 0)),
		})
	})
	return resp.GetRegionsId(), int(resp.GetSplitFinishedPercentage()), int(resp.GetScatterFinishedPercentage()), err
}

// Operator is what PD does, or did lately, with a region.
type Operator struct {
	Desc, Kind string
	Status     pdpb.OperatorStatus
}

// Operator returns a region's, nil where PD knows none, which is also so some time after
// one has ended.
func (c *Client) Operator(ctx context.Context, region uint64) (*Operator, error) {
	resp, err := askUntil(ctx, c, "GetOperator", (*members).route, func(ctx context.Context, conn *grpc.ClientConn) (*pdpb.GetOperatorResponse, error) {
		return pdpb.NewPDClient(conn).GetOperator(ctx, &pdpb.GetOperatorRequest{Header: c.header(), RegionId: region})
	}, func(op, addr string, clusterID uint64, resp *pdpb.GetOperatorResponse, err error) *Error {
		e := judgeAnswer(op, addr, clusterID, resp, err)
		if e != nil && e.Code == pdpb.ErrorType_REGION_NOT_FOUND { // no operator
			return nil
		}
		return e
	})
	if err != nil || len(resp.GetDesc()) == 0 {
		return nil, err
	}
	return &Operator{Desc: string(resp.GetDesc()), Kind: string(resp.GetKind()), Status: resp.GetStatus()}, nil
}
