package pdserver

import (
	"context"
	"errors"
	"path"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/fault"
)

// headed is a request that PD checks before all else.
type headed interface{ GetHeader() *pdpb.RequestHeader }

// errNotLeader and errNoFollower answer calls that are not for who gets them (PD:
// pkg/errs/errno.go).
func errNotLeader() error { return status.Error(codes.Unavailable, "not leader") }
func errNoFollower() error {
	return status.Error(codes.Unavailable, "not leader and follower handling not allowed")
}

// check is PD's validateRoleInRequest: the role first, then the cluster id.
func (m *Member) check(ctx context.Context, method string, h *pdpb.RequestHeader) error {
	if !m.leads() {
		if !followerReads(method) {
			return errNotLeader()
		}
		if !followerAllowed(ctx) {
			return errNoFollower()
		}
	}
	return m.checkCluster(h)
}

func (m *Member) checkCluster(h *pdpb.RequestHeader) error {
	if id := h.GetClusterId(); id != m.pd.ClusterID {
		return status.Errorf(codes.FailedPrecondition, "mismatch cluster id, need %d but got %d", m.pd.ClusterID, id)
	}
	return nil
}

// followerReads are the calls that a follower answers when told that it may: those that
// PD puts through unaryFollowerMiddleware.
func followerReads(method string) bool {
	switch method {
	case "GetRegion", "GetPrevRegion", "GetRegionByID", "ScanRegions", "BatchScanRegions":
		return true
	}
	return false
}

// followerAllowed looks for the metadata by which a client tells it (PD:
// pkg/utils/grpcutil, FollowerHandleMetadataKey).
func followerAllowed(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	return len(md.Get("pd-allow-follower-handle")) > 0
}

// routerService checks nobody's role, see router.
const routerService = "/routerpb.Router"

// unchecked are the calls that any member answers to anyone, itself.
func unchecked(method string) bool {
	switch method {
	case "GetMembers", "GetClusterInfo", "IsSnapshotRecovering":
		return true
	}
	return false
}

// clusterFirst are the calls that look for the running cluster before all else, which
// only the leader has: a follower takes it that there is none (PD: server/grpc_service.go).
func clusterFirst(method string) bool {
	switch method {
	case "AskBatchSplit", "ScatterRegion", "GetOperator", "SplitRegions":
		return true
	}
	return false
}

// intercept puts every unary call through the checks and the faults.
func (m *Member) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	return m.through(ctx, method, req, func() (any, error) {
		h, ok := req.(headed)
		if !ok || unchecked(method) || path.Dir(info.FullMethod) == routerService {
			return handler(ctx, req)
		}
		if path.Dir(info.FullMethod) == pdService {
			if clusterFirst(method) && !m.leads() {
				return m.unary(info.FullMethod).refusal(m.notBootstrapped()), nil
			}
			if to, err := m.target(ctx); err != nil || to != m {
				return m.forward(ctx, to, err, info.FullMethod, req)
			}
		}
		if err := m.check(ctx, method, h.GetHeader()); err != nil {
			return nil, err
		}
		if followerReads(method) && !m.synced() {
			return m.unary(info.FullMethod).refusal(m.unknownRegion()), nil
		}
		return handler(ctx, req)
	})
}

// synced reports whether m has the regions: a follower has them from the leader (PD:
// pkg/syncer/client.go, IsRunning).
func (m *Member) synced() bool { return m.leader() != nil }

// through runs handle under the faults, which may change its answer to a serve.Raw.
func (m *Member) through(ctx context.Context, method string, req any, handle func() (any, error)) (any, error) {
	type result struct {
		resp any
		err  error
	}
	m.pd.Counter.Call(method)
	r, err := m.pd.Faults.Do(m.life(ctx), m.call(method, req), nil, func() any {
		resp, err := handle()
		return result{resp, err}
	})
	if err != nil {
		return nil, m.lose(ctx, err)
	}
	mangled, ok := r.(fault.Mangled)
	if !ok {
		return r.(result).resp, r.(result).err
	}
	answer := mangled.Answer.(result)
	if answer.err != nil {
		return nil, answer.err
	}
	return encode(answer.resp, mangled.Change)
}

// reply handles one message of a stream under the faults and sends what handle answers;
// an error ends the stream.
func (m *Member) reply(stream grpc.ServerStream, method string, req any, handle func() (any, error)) error {
	answer, err := m.through(stream.Context(), method, req, handle)
	if err != nil {
		return err
	}
	return stream.SendMsg(answer)
}

// message handles the one message of a stream whose handler sends many, under the faults.
func (m *Member) message(ctx context.Context, method string, req any, handle func() error) error {
	m.pd.Counter.Call(method)
	r, err := m.pd.Faults.Do(m.life(ctx), m.call(method, req), nil, func() any { return answered{handle} })
	if err != nil {
		return m.lose(ctx, err)
	}
	if mangled, ok := r.(fault.Mangled); ok {
		if w, ok := ctx.Value(mangling{}).(*manglingStream); ok {
			w.change = mangled.Change
			defer func() { w.change = nil }()
		}
		r = mangled.Answer
	}
	return r.(answered).send()
}

// answered is what sends the answers to such a message, when the faults let it pass.
type answered struct{ send func() error }

// call describes a request to the faults.
func (m *Member) call(method string, req any) *fault.Call {
	c := &fault.Call{Method: method, Node: fault.Node{Kind: fault.Member, ID: uint64(m.index)}}
	switch q := req.(type) {
	case *pdpb.GetRegionByIDRequest:
		c.Region = q.GetRegionId()
	case *pdpb.AskBatchSplitRequest:
		c.Region = q.GetRegion().GetId()
	case *pdpb.RegionHeartbeatRequest:
		c.Region = q.GetRegion().GetId()
	case *pdpb.ReportBucketsRequest:
		c.Region = q.GetBuckets().GetRegionId()
	case *pdpb.GetRegionRequest:
		c.Keys = func() [][]byte { return m.userKeys([][]byte{q.GetRegionKey()}) }
	case *pdpb.QueryRegionRequest:
		if len(q.Ids) == 1 {
			c.Region = q.Ids[0]
		}
		c.Keys = func() [][]byte { return append(m.userKeys(q.Keys), m.userKeys(q.PrevKeys)...) }
	}
	return c
}

func (m *Member) userKeys(regionKeys [][]byte) [][]byte {
	var user [][]byte
	for _, k := range regionKeys {
		user = append(user, m.pd.UserKey(k))
	}
	return user
}

// lose ends a call whose answer a fault took: its caller hears nothing until it leaves,
// or loses its connection.
func (m *Member) lose(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, fault.ErrDisconnect):
		m.server.Disconnect(ctx)
	case errors.Is(err, fault.ErrDropped):
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-m.life(ctx).Done():
		}
	}
	return status.Error(codes.Unavailable, err.Error())
}
