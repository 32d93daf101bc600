package pdserver

import (
	"context"
	"fmt"

	"github.com/pingcap/kvproto/pkg/pdpb"
)

// GetMembers answers to anyone: clients learn the cluster's id from it. The leader is the
// one that this member knows, of PD and of its etcd.
func (m *Member) GetMembers(context.Context, *pdpb.GetMembersRequest) (*pdpb.GetMembersResponse, error) {
	resp := &pdpb.GetMembersResponse{Header: m.pd.header()}
	leader := m.leader()
	for _, o := range m.pd.Members() {
		member := o.proto()
		resp.Members = append(resp.Members, member)
		if o == leader {
			resp.Leader, resp.EtcdLeader = member, member
		}
	}
	return resp, nil
}

// url is where clients find the member.
func (m *Member) url() string {
	if m.pd.TLS {
		return "https://" + m.server.Addr()
	}
	return "http://" + m.server.Addr()
}

func (m *Member) proto() *pdpb.Member {
	url := m.url()
	return &pdpb.Member{
		Name: fmt.Sprintf("pd-%d", m.index), MemberId: m.id(),
		ClientUrls: []string{url}, PeerUrls: []string{url}, BinaryVersion: version,
	}
}

func (m *Member) id() uint64 { return uint64(m.index) + 1 }

// version is that of the servers whose rules these are.
const version = "9.0.0"

// GetClusterInfo answers to anyone, whether timestamps come from PD itself, or else from
// where.
func (m *Member) GetClusterInfo(context.Context, *pdpb.GetClusterInfoRequest) (*pdpb.GetClusterInfoResponse, error) {
	resp := &pdpb.GetClusterInfoResponse{Header: m.pd.header()}
	if !m.pd.Services {
		resp.ServiceModes = append(resp.ServiceModes, pdpb.ServiceMode_PD_SVC_MODE)
		return resp, nil
	}
	resp.ServiceModes = append(resp.ServiceModes, pdpb.ServiceMode_API_SVC_MODE)
	for _, o := range m.pd.Members() {
		if o.server.Running() {
			resp.TsoUrls = append(resp.TsoUrls, o.url())
		}
	}
	return resp, nil
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
	s := m.pd.store(req.GetStoreId())
	if s == nil {
		text := fmt.Sprintf("invalid store ID %d, not found", req.GetStoreId())
		return &pdpb.GetStoreResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, text)}, nil
	}
	return &pdpb.GetStoreResponse{Header: m.pd.header(), Store: s, Stats: m.pd.statsOf(s.Id)}, nil
}

// GetAllStores leaves out removed stores when asked to.
func (m *Member) GetAllStores(_ context.Context, req *pdpb.GetAllStoresRequest) (*pdpb.GetAllStoresResponse, error) {
	resp := &pdpb.GetAllStoresResponse{Header: m.pd.header()}
	for _, id := range m.pd.stores() {
		if s := m.pd.store(id); s != nil && !(req.GetExcludeTombstoneStores() && removed(s)) {
			resp.Stores = append(resp.Stores, s)
		}
	}
	return resp, nil
}
