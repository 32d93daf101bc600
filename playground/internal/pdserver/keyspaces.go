package pdserver

import (
	"bytes"
	"context"
	"slices"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/meta"
)

// keyspaces are the saved ones; they do not change once the cluster runs.
type keyspaces struct{ all []*keyspacepb.KeyspaceMeta }

func (k *keyspaces) load(m *meta.Store) (err error) {
	k.all, err = m.Keyspaces()
	return err
}

func (k *keyspaces) byName(name string) *keyspacepb.KeyspaceMeta {
	if i := slices.IndexFunc(k.all, func(m *keyspacepb.KeyspaceMeta) bool { return m.Name == name }); i >= 0 {
		return k.all[i]
	}
	return nil
}

func (k *keyspaces) byID(id uint32) *keyspacepb.KeyspaceMeta {
	if i := slices.IndexFunc(k.all, func(m *keyspacepb.KeyspaceMeta) bool { return m.GetId() == id }); i >= 0 {
		return k.all[i]
	}
	return nil
}

// MaxKeyspace is the highest id of a keyspace; NullKeyspace stands for none.
const (
	MaxKeyspace  = 0xffffff
	NullKeyspace = 0xffffffff
)

// KeyspaceBounds are the region keys between which a keyspace's raw and transactional
// keys lie (PD: pkg/keyspace/util.go, MakeRegionBound).
func KeyspaceBounds(id uint32) [4][]byte {
	bound := func(mode byte, id uint32) []byte {
		if id > MaxKeyspace { // what follows the last keyspace of the mode
			return keys.Encode([]byte{mode + 1, 0, 0, 0})
		}
		return keys.Encode([]byte{mode, byte(id >> 16), byte(id >> 8), byte(id)})
	}
	return [4][]byte{bound('r', id), bound('r', id+1), bound('x', id), bound('x', id+1)}
}

type keyspaceService struct {
	keyspacepb.UnimplementedKeyspaceServer
	m *Member
}

func (s *keyspaceService) notFound() *keyspacepb.LoadKeyspaceResponse {
	return &keyspacepb.LoadKeyspaceResponse{Header: s.m.pd.refusal(pdpb.ErrorType_ENTRY_NOT_FOUND, "keyspace does not exist")}
}

// LoadKeyspace finds a keyspace by name, once its regions are split off.
func (s *keyspaceService) LoadKeyspace(_ context.Context, req *keyspacepb.LoadKeyspaceRequest) (*keyspacepb.LoadKeyspaceResponse, error) {
	k := s.m.pd.keyspaces.byName(req.GetName())
	if k == nil || !s.split(k.GetId()) {
		return s.notFound(), nil
	}
	return &keyspacepb.LoadKeyspaceResponse{Header: s.m.pd.header(), Keyspace: k}, nil
}

// split reports whether a region begins at each of a keyspace's bounds.
func (s *keyspaceService) split(id uint32) bool {
	for _, b := range KeyspaceBounds(id) {
		if !bytes.Equal(s.m.pd.Topology.ByKey(b).Meta.StartKey, b) {
			return false
		}
	}
	return true
}

// LoadKeyspaceByID finds a keyspace by id, whatever its regions.
func (s *keyspaceService) LoadKeyspaceByID(_ context.Context, req *keyspacepb.LoadKeyspaceByIDRequest) (*keyspacepb.LoadKeyspaceResponse, error) {
	k := s.m.pd.keyspaces.byID(req.GetId())
	if k == nil {
		return s.notFound(), nil
	}
	return &keyspacepb.LoadKeyspaceResponse{Header: s.m.pd.header(), Keyspace: k}, nil
}

// GetAllKeyspaces lists keyspaces by id.
func (s *keyspaceService) GetAllKeyspaces(_ context.Context, req *keyspacepb.GetAllKeyspacesRequest) (*keyspacepb.GetAllKeyspacesResponse, error) {
	resp := &keyspacepb.GetAllKeyspacesResponse{Header: s.m.pd.header()}
	for _, k := range s.m.pd.keyspaces.all {
		if k.GetId() >= req.GetStartId() && (req.GetLimit() == 0 || len(resp.Keyspaces) < int(req.GetLimit())) {
			resp.Keyspaces = append(resp.Keyspaces, k)
		}
	}
	return resp, nil
}
