package pd

import (
	"context"
	"slices"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/routerpb"
	"google.golang.org/grpc"
)

// regionReader is what PD and the routers beside it have in common.
type regionReader interface {
	GetRegion(context.Context, *pdpb.GetRegionRequest, ...grpc.CallOption) (*pdpb.GetRegionResponse, error)
	GetPrevRegion(context.Context, *pdpb.GetRegionRequest, ...grpc.CallOption) (*pdpb.GetRegionResponse, error)
	GetRegionByID(context.Context, *pdpb.GetRegionByIDRequest, ...grpc.CallOption) (*pdpb.GetRegionResponse, error)
	BatchScanRegions(context.Context, *pdpb.BatchScanRegionsRequest, ...grpc.CallOption) (*pdpb.BatchScanRegionsResponse, error)
}

var (
	_ regionReader = pdpb.PDClient(nil)
	_ regionReader = routerpb.RouterClient(nil)
)

// readTarget is who may be asked for regions: a router where there are some, else a
// follower where that is wished for, else the leader. Routers and followers may be
// behind; buckets only followers have not.
func (c *Client) readTarget(m *members, options LookupOption) target {
	if options&Fresh != 0 {
		return m.route()
	}
	if addr := c.pick(m.routers()); addr != "" {
		return target{addr: addr, router: true}
	}
	if c.cfg.FollowerReads && options&NeedBuckets == 0 {
		others := slices.DeleteFunc(slices.Clone(m.addrs), func(a string) bool { return a == m.leader })
		if addr := c.pick(others); addr != "" {
			return target{addr: addr, follower: true}
		}
	}
	return m.route()
}

// nearAttempts is how many routers or followers are asked before the leader.
const nearAttempts = 2

// readRegions asks who may be asked; where that fails or finds nothing, the leader. Who
// failed is left alone for a while.
func readRegions[R answer](ctx context.Context, c *Client, op string, options LookupOption, f func(context.Context, regionReader) (R, error), found func(R) bool) (R, error) {
	ctx, cancel := c.bound(ctx, c.cfg.Timeout)
	defer cancel()
	for range nearAttempts {
		m := c.members.Load()
		to := c.readTarget(m, options)
		if !to.router && !to.follower {
			break
		}
		resp, err := attemptConn(ctx, c, to, suspicion, func(ctx context.Context, conn *grpc.ClientConn) (R, error) {
			if to.router {
				return f(ctx, routerpb.NewRouterClient(conn))
			}
			return f(ctx, pdpb.NewPDClient(conn))
		})
		e := judgeAnswer(op, to.addr, m.clusterID, resp, err)
		if e == nil {
			c.freshen(m)
			if found(resp) {
				return resp, nil
			}
			break
		}
		if ctx.Err() != nil {
			break
		}
		c.shun(to.addr)
	}
	return ask(ctx, c, op, func(ctx context.Context, pd pdpb.PDClient) (R, error) { return f(ctx, pd) })
}
