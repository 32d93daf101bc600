package pd

import (
	"context"
	"strings"
	"sync/atomic"

	rmpb "github.com/pingcap/kvproto/pkg/resource_manager"
	"google.golang.org/grpc"
)

// askResources makes a call to the service for resource groups, which is at PD's leader
// and whose answers have no header.
func askResources[R interface{ GetError() *rmpb.Error }](ctx context.Context, c *Client, op string, f func(context.Context, rmpb.ResourceManagerClient) (R, error)) (R, error) {
	return askUntil(ctx, c, op, (*members).direct, func(ctx context.Context, conn *grpc.ClientConn) (R, error) {
		return f(ctx, rmpb.NewResourceManagerClient(conn))
	}, judgeResources)
}

func judgeResources[R interface{ GetError() *rmpb.Error }](op, addr string, _ uint64, resp R, err error) *Error {
	if err != nil {
		e := judge(op, addr, 0, nil, err)
		if e.Kind == Rejected && strings.Contains(e.Message, "ErrGroupNotExists") {
			e.Kind, e.Err = NotFound, ErrGroupNotFound
		}
		return e
	}
	if re := resp.GetError(); re != nil {
		return &Error{Op: op, Addr: addr, Kind: Rejected, Message: re.GetMessage()}
	}
	return nil
}

func groupKeyspace(id uint32) *rmpb.KeyspaceIDValue {
	return &rmpb.KeyspaceIDValue{Keyspace: &rmpb.KeyspaceIDValue_Value{Value: id}}
}

// ResourceGroups returns a keyspace's groups, those outside of any where keyspaceID is
// codec.NullKeyspaceID.
func (c *Client) ResourceGroups(ctx context.Context, keyspaceID uint32) ([]*rmpb.ResourceGroup, error) {
	resp, err := askResources(ctx, c, "ListResourceGroups", func(ctx context.Context, rm rmpb.ResourceManagerClient) (*rmpb.ListResourceGroupsResponse, error) {
		return rm.ListResourceGroups(ctx, &rmpb.ListResourceGroupsRequest{KeyspaceId: groupKeyspace(keyspaceID)})
	})
	return resp.GetGroups(), err
}

// ResourceGroup returns one. The error for a name that none has matches ErrGroupNotFound.
func (c *Client) ResourceGroup(ctx context.Context, keyspaceID uint32, name string) (*rmpb.ResourceGroup, error) {
	resp, err := askResources(ctx, c, "GetResourceGroup", func(ctx context.Context, rm rmpb.ResourceManagerClient) (*rmpb.GetResourceGroupResponse, error) {
		return rm.GetResourceGroup(ctx, &rmpb.GetResourceGroupRequest{ResourceGroupName: name, KeyspaceId: groupKeyspace(keyspaceID)})
	})
	if err == nil && resp.GetGroup() == nil {
		err = &Error{Op: "GetResourceGroup", Addr: c.Leader(), Kind: NotFound, Err: ErrGroupNotFound}
	}
	return resp.GetGroup(), err
}

// AcquireTokens reports what groups have used, and asks for tokens. It is not sent again
// where PD may have done it: what was used would count twice.
func (c *Client) AcquireTokens(ctx context.Context, req *rmpb.TokenBucketsRequest) ([]*rmpb.TokenBucketResponse, error) {
	var sent atomic.Bool
	resp, err := askUntil(ctx, c, "AcquireTokenBuckets", (*members).direct, func(ctx context.Context, conn *grpc.ClientConn) (*rmpb.TokenBucketsResponse, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the stream
		stream, err := rmpb.NewResourceManagerClient(conn).AcquireTokenBuckets(ctx)
		if err != nil {
			return nil, err
		}
		sent.Store(true)
		_ = stream.Send(req) // why it failed is for the receiver
		return stream.Recv()
	}, func(op, addr string, clusterID uint64, resp *rmpb.TokenBucketsResponse, err error) *Error {
		e := judgeResources(op, addr, clusterID, resp, err)
		if e != nil {
			e.sent = sent.Load() && !isElsewhere(e.Message) // who does not lead has not done it
		}
		return e
	})
	return resp.GetResponses(), err
}
