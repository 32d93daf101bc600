package pdserver

import (
	"context"

	rmpb "github.com/pingcap/kvproto/pkg/resource_manager"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/resource"
)

// resourceManager is PD's service for resource groups (PD: pkg/mcs/resourcemanager/
// server/grpc_service.go). It checks no cluster id, and refuses with errors of gRPC.
type resourceManager struct {
	rmpb.UnimplementedResourceManagerServer
	m *Member
}

func (s *resourceManager) groups() *resource.Groups { return s.m.pd.groups }

// serve runs what only the leader does; PD's errors have no code of gRPC.
func (s *resourceManager) serve(do func() error) error {
	if err := s.m.serving(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return status.Error(codes.Unknown, err.Error())
	}
	return nil
}

// ListResourceGroups lists a keyspace's groups by name.
func (s *resourceManager) ListResourceGroups(_ context.Context, req *rmpb.ListResourceGroupsRequest) (*rmpb.ListResourceGroupsResponse, error) {
	resp := new(rmpb.ListResourceGroupsResponse)
	err := s.serve(func() (err error) {
		resp.Groups, err = s.groups().List(resource.KeyspaceOf(req.GetKeyspaceId()), req.GetWithRuStats())
		return err
	})
	return resp, err
}

// GetResourceGroup finds a keyspace's group by name.
func (s *resourceManager) GetResourceGroup(_ context.Context, req *rmpb.GetResourceGroupRequest) (*rmpb.GetResourceGroupResponse, error) {
	resp := new(rmpb.GetResourceGroupResponse)
	err := s.serve(func() (err error) {
		resp.Group, err = s.groups().Get(resource.KeyspaceOf(req.GetKeyspaceId()), req.GetResourceGroupName(), req.GetWithRuStats())
		return err
	})
	return resp, err
}

const success = "Success!"

// AddResourceGroup makes a group, or makes it anew.
func (s *resourceManager) AddResourceGroup(_ context.Context, req *rmpb.PutResourceGroupRequest) (*rmpb.PutResourceGroupResponse, error) {
	err := s.serve(func() error { return s.groups().Add(req.GetGroup()) })
	return &rmpb.PutResourceGroupResponse{Body: success}, err
}

// ModifyResourceGroup gives a group other settings.
func (s *resourceManager) ModifyResourceGroup(_ context.Context, req *rmpb.PutResourceGroupRequest) (*rmpb.PutResourceGroupResponse, error) {
	err := s.serve(func() error { return s.groups().Modify(req.GetGroup()) })
	return &rmpb.PutResourceGroupResponse{Body: success}, err
}

// DeleteResourceGroup ends a group.
func (s *resourceManager) DeleteResourceGroup(_ context.Context, req *rmpb.DeleteResourceGroupRequest) (*rmpb.DeleteResourceGroupResponse, error) {
	err := s.serve(func() error {
		return s.groups().Delete(resource.KeyspaceOf(req.GetKeyspaceId()), req.GetResourceGroupName())
	})
	return &rmpb.DeleteResourceGroupResponse{Body: success}, err
}

// AcquireTokenBuckets grants tokens, message by message.
func (s *resourceManager) AcquireTokenBuckets(stream rmpb.ResourceManager_AcquireTokenBucketsServer) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		err = s.m.message(stream.Context(), "AcquireTokenBuckets", req, func() error {
			var resp *rmpb.TokenBucketsResponse
			err := s.serve(func() (err error) {
				resp, err = s.groups().Acquire(req, s.m.pd.Now())
				return err
			})
			if err != nil {
				return err
			}
			return stream.Send(resp)
		})
		if err != nil {
			return err
		}
	}
}

// AddResourceGroup makes a group of the null keyspace: units a second, and a burst limit
// of as many, as TiDB makes groups (its CREATE RESOURCE GROUP ... RU_PER_SEC).
func (pd *PD) AddResourceGroup(name string, units uint64) error {
	return pd.groups.Add(&rmpb.ResourceGroup{
		Name: name, Mode: rmpb.GroupMode_RUMode, Priority: 8,
		RUSettings: &rmpb.GroupRequestUnitSettings{RU: &rmpb.TokenBucket{
			Settings: &rmpb.TokenLimitSettings{FillRate: units, BurstLimit: int64(units)},
		}},
	})
}

// HasResourceGroup tells whether the null keyspace has a group.
func (pd *PD) HasResourceGroup(name string) bool {
	_, err := pd.groups.Get(NullKeyspace, name, false)
	return err == nil
}
