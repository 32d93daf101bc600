package pdserver

import (
	"context"
	"fmt"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// GetMembers answers to anyone: clients learn the cluster's id from it.
func (m *Member) GetMembers(context.Context, *pdpb.GetMembersRequest) (*pdpb.GetMembersResponse, error) {
	resp := &pdpb.GetMembersResponse{Header: m.pd.header()}
	m.pd.mu.RLock()
	defer m.pd.mu.RUnlock()
	for _, o := range m.pd.members {
		member := o.proto()
		resp.Members = append(resp.Members, member)
		if o == m.pd.leader {
			resp.Leader, resp.EtcdLeader = member, member
		}
	}
	return resp, nil
}

func (m *Member) proto() *pdpb.Member {
	url := "http://" + m.server.Addr()
	if m.pd.TLS {
		url = "https://" + m.server.Addr()
	}
	return &pdpb.Member{
		Name: fmt.Sprintf("pd-%d", m.index), MemberId: m.id(),
		ClientUrls: []string{url}, PeerUrls: []string{url}, BinaryVersion: version,
	}
}

func (m *Member) id() uint64 { return uint64(m.index) + 1 }

// version is that of the servers whose rules these are.
const version = "9.0.0"

// GetClusterInfo answers to anyone, that timestamps come from PD itself.
func (m *Member) GetClusterInfo(context.Context, *pdpb.GetClusterInfoRequest) (*pdpb.GetClusterInfoResponse, error) {
	return &pdpb.GetClusterInfoResponse{
		Header:       m.pd.header(),
		ServiceModes: []pdpb.ServiceMode{pdpb.ServiceMode_PD_SVC_MODE},
	}, nil
}

// IsBootstrapped is always true: a cluster is bootstrapped before it serves.
func (m *Member) IsBootstrapped(context.Context, *pdpb.IsBootstrappedRequest) (*pdpb.IsBootstrappedResponse, error) {
	return &pdpb.IsBootstrappedResponse{Header: m.pd.header(), Bootstrapped: true}, nil
}

// Bootstrap is refused, for the same reason.
func (m *Member) Bootstrap(context.Context, *pdpb.BootstrapRequest) (*pdpb.BootstrapResponse, error) {
	return &pdpb.BootstrapResponse{
		Header: m.pd.refusal(pdpb.ErrorType_ALREADY_BOOTSTRAPPED, "cluster is already bootstrapped"),
	}, nil
}

// AllocID reserves ids, and gives the last of them.
func (m *Member) AllocID(_ context.Context, req *pdpb.AllocIDRequest) (*pdpb.AllocIDResponse, error) {
	n := max(1, req.GetCount())
	first, err := m.pd.Topology.AllocID(uint64(n))
	if err != nil {
		return &pdpb.AllocIDResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
	}
	resp := &pdpb.AllocIDResponse{Header: m.pd.header(), Id: first + uint64(n) - 1}
	if n > 1 {
		resp.Count = n
	}
	return resp, nil
}

// GetStore answers an unknown store with words that clients look for.
func (m *Member) GetStore(_ context.Context, req *pdpb.GetStoreRequest) (*pdpb.GetStoreResponse, error) {
	s := m.pd.Store(req.GetStoreId())
	if s == nil {
		text := fmt.Sprintf("invalid store ID %d, not found", req.GetStoreId())
		return &pdpb.GetStoreResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, text)}, nil
	}
	return &pdpb.GetStoreResponse{Header: m.pd.header(), Store: s}, nil
}

// GetAllStores leaves out removed stores when asked to.
func (m *Member) GetAllStores(_ context.Context, req *pdpb.GetAllStoresRequest) (*pdpb.GetAllStoresResponse, error) {
	resp := &pdpb.GetAllStoresResponse{Header: m.pd.header()}
	for _, id := range m.pd.Topology.Stores() {
		if s := m.pd.Store(id); s != nil && !(req.GetExcludeTombstoneStores() && removed(s)) {
			resp.Stores = append(resp.Stores, s)
		}
	}
	return resp, nil
}

// Tso answers each message of the stream with a range of timestamps, in order.
func (m *Member) Tso(stream pdpb.PD_TsoServer) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		if err := m.message(stream.Context(), "Tso", req, func() error { return m.timestamps(stream, req) }); err != nil {
			return err
		}
	}
}

func (m *Member) timestamps(stream pdpb.PD_TsoServer, req *pdpb.TsoRequest) error {
	if err := m.checkCluster(req.GetHeader()); err != nil {
		return err
	}
	if !m.leads() { // pkg/tso/allocator.go, GenerateTSO
		return status.Error(codes.Unknown, "[PD:tso:ErrGenerateTimestamp]generate timestamp failed, requested pd is not leader of cluster")
	}
	if err := m.stalled(stream.Context()); err != nil {
		return err
	}
	physical, logical, err := m.pd.TSO.Next(req.GetCount())
	if err != nil {
		return status.Error(codes.Unknown, err.Error())
	}
	return stream.Send(&pdpb.TsoResponse{
		Header: m.pd.header(), Count: req.GetCount(),
		Timestamp: &pdpb.Timestamp{Physical: physical, Logical: logical},
	})
}

// GetMinTS is a plain timestamp where PD itself gives them out.
func (m *Member) GetMinTS(ctx context.Context, _ *pdpb.GetMinTSRequest) (*pdpb.GetMinTSResponse, error) {
	if err := m.stalled(ctx); err != nil {
		return nil, err
	}
	physical, logical, err := m.pd.TSO.Next(1)
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	return &pdpb.GetMinTSResponse{Header: m.pd.header(), Timestamp: &pdpb.Timestamp{Physical: physical, Logical: logical}}, nil
}

// stalled waits while timestamps are kept from being answered.
func (m *Member) stalled(ctx context.Context) error {
	if err := m.pd.TSO.Wait(ctx, m.life(ctx)); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	return nil
}
