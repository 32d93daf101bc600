package pdserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/meta"
)

// keyspaces are the saved ones, by id. A meta is not changed; a later state is another.
type keyspaces struct {
	meta *meta.Store

	mu      sync.Mutex
	all     []*keyspacepb.KeyspaceMeta
	changes []*keyspacepb.KeyspaceMeta // since the start, in order
	changed chan struct{}              // closed at the next
}

func (k *keyspaces) load(m *meta.Store) (err error) {
	k.meta, k.changed = m, make(chan struct{})
	k.all, err = m.Keyspaces()
	return err
}

// list returns all keyspaces by id.
func (k *keyspaces) list() []*keyspacepb.KeyspaceMeta {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.all)
}

// since returns the changes that followed the first n, and a channel that is closed at
// the next.
func (k *keyspaces) since(n int) ([]*keyspacepb.KeyspaceMeta, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.changes[n:]), k.changed
}

// begin returns all keyspaces by id, and the number of changes that led there.
func (k *keyspaces) begin() ([]*keyspacepb.KeyspaceMeta, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.all), len(k.changes)
}

func (k *keyspaces) byName(name string) *keyspacepb.KeyspaceMeta {
	return k.find(func(m *keyspacepb.KeyspaceMeta) bool { return m.Name == name })
}

func (k *keyspaces) byID(id uint32) *keyspacepb.KeyspaceMeta {
	return k.find(func(m *keyspacepb.KeyspaceMeta) bool { return m.GetId() == id })
}

func (k *keyspaces) find(is func(*keyspacepb.KeyspaceMeta) bool) *keyspacepb.KeyspaceMeta {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := slices.IndexFunc(k.all, is); i >= 0 {
		return k.all[i]
	}
	return nil
}

// Why a keyspace is not found or not changed (PD: pkg/errs/errno.go).
var (
	errNoKeyspace = errors.New("[PD:keyspace:ErrKeyspaceNotFound]keyspace does not exist")
	errProtected  = errors.New("[PD:keyspace:ErrModifyDefaultKeyspace]cannot modify default keyspace's state")
)

// mayBecome are the states that may follow a state, besides itself (PD:
// pkg/keyspace/util.go, stateTransitionTable).
func mayBecome(from, to keyspacepb.KeyspaceState) bool {
	if from == to {
		return true
	}
	switch from {
	case keyspacepb.KeyspaceState_ENABLED:
		return to == keyspacepb.KeyspaceState_DISABLED
	case keyspacepb.KeyspaceState_DISABLED:
		return to == keyspacepb.KeyspaceState_ENABLED || to == keyspacepb.KeyspaceState_ARCHIVED
	case keyspacepb.KeyspaceState_ARCHIVED:
		return to == keyspacepb.KeyspaceState_TOMBSTONE
	}
	return false
}

// setState moves a keyspace to a state (PD: pkg/keyspace/keyspace.go,
// UpdateKeyspaceStateByID and transformKeyspaceState).
func (k *keyspaces) setState(id uint32, state keyspacepb.KeyspaceState, now time.Time) (*keyspacepb.KeyspaceMeta, error) {
	if id == defaultKeyspace {
		return nil, errProtected
	}
	return k.update(id, func(m *keyspacepb.KeyspaceMeta) error {
		switch {
		case !mayBecome(m.State, state):
			return fmt.Errorf("cannot change keyspace state from %s to %s", m.State, state)
		case m.State != state:
			m.State, m.StateChangedAt = state, now.Unix()
		}
		return nil
	})
}

// setConfig sets entries of a keyspace's config, those with a nil value it removes (PD:
// pkg/keyspace/keyspace.go, updateKeyspaceConfigTxn).
func (k *keyspaces) setConfig(id uint32, entries map[string]*string) (*keyspacepb.KeyspaceMeta, error) {
	return k.update(id, func(m *keyspacepb.KeyspaceMeta) error {
		if m.State > keyspacepb.KeyspaceState_DISABLED {
			return fmt.Errorf("cannot change config for keyspace with state %s", m.State)
		}
		config := maps.Clone(m.Config)
		if config == nil {
			config = make(map[string]string)
		}
		for name, value := range entries {
			if value == nil {
				delete(config, name)
			} else {
				config[name] = *value
			}
		}
		m.Config = config
		return nil
	})
}

const defaultKeyspace = 0 // id of the one that is always enabled

// update saves a changed keyspace.
func (k *keyspaces) update(id uint32, change func(*keyspacepb.KeyspaceMeta) error) (*keyspacepb.KeyspaceMeta, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.all, func(m *keyspacepb.KeyspaceMeta) bool { return m.GetId() == id })
	if i < 0 {
		return nil, errNoKeyspace
	}
	m := *k.all[i]
	if err := change(&m); err != nil {
		return nil, err
	}
	var c meta.Change
	c.Keyspace(&m)
	if err := k.meta.Apply(&c); err != nil {
		return nil, err
	}
	k.all[i] = &m
	k.changes = append(k.changes, &m)
	close(k.changed)
	k.changed = make(chan struct{})
	return &m, nil
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

// refusal is the header of an answer that is an error (PD: server/keyspace_service.go,
// getErrorHeader).
func (s *keyspaceService) refusal(err error) *pdpb.ResponseHeader {
	if errors.Is(err, errNoKeyspace) {
		return s.m.pd.refusal(pdpb.ErrorType_ENTRY_NOT_FOUND, err.Error())
	}
	return s.m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())
}

// LoadKeyspace finds a keyspace by name, once its regions are split off.
func (s *keyspaceService) LoadKeyspace(_ context.Context, req *keyspacepb.LoadKeyspaceRequest) (*keyspacepb.LoadKeyspaceResponse, error) {
	k := s.m.pd.keyspaces.byName(req.GetName())
	if k == nil || !s.split(k) {
		return &keyspacepb.LoadKeyspaceResponse{Header: s.refusal(errNoKeyspace)}, nil
	}
	return &keyspacepb.LoadKeyspaceResponse{Header: s.m.pd.header(), Keyspace: k}, nil
}

// split reports whether PD knows regions that begin at a keyspace's bounds: those of its
// transactional keys, or those of its raw ones if its config says so (PD:
// pkg/keyspace/keyspace.go, CheckKeyspaceRegionBound).
func (s *keyspaceService) split(k *keyspacepb.KeyspaceMeta) bool {
	all := KeyspaceBounds(k.GetId())
	bounds := all[2:]
	if kind, ok := k.Config["region_bound_type"]; ok && kind == "raw" {
		bounds = all[:2]
	}
	for _, b := range bounds {
		if r := s.m.pd.Topology.PD().ByKey(b); r == nil || !bytes.Equal(r.Meta.StartKey, b) {
			return false
		}
	}
	return true
}

// LoadKeyspaceByID finds a keyspace by id, whatever its regions.
func (s *keyspaceService) LoadKeyspaceByID(_ context.Context, req *keyspacepb.LoadKeyspaceByIDRequest) (*keyspacepb.LoadKeyspaceResponse, error) {
	k := s.m.pd.keyspaces.byID(req.GetId())
	if k == nil {
		return &keyspacepb.LoadKeyspaceResponse{Header: s.refusal(errNoKeyspace)}, nil
	}
	return &keyspacepb.LoadKeyspaceResponse{Header: s.m.pd.header(), Keyspace: k}, nil
}

// GetAllKeyspaces lists keyspaces by id.
func (s *keyspaceService) GetAllKeyspaces(_ context.Context, req *keyspacepb.GetAllKeyspacesRequest) (*keyspacepb.GetAllKeyspacesResponse, error) {
	if id := req.GetStartId(); id > MaxKeyspace {
		err := fmt.Errorf("startID of the scan %d exceeds spaceID Max %d", id, MaxKeyspace)
		return &keyspacepb.GetAllKeyspacesResponse{Header: s.refusal(err)}, nil
	}
	resp := &keyspacepb.GetAllKeyspacesResponse{Header: s.m.pd.header()}
	for _, k := range s.m.pd.keyspaces.list() {
		if k.GetId() >= req.GetStartId() && (req.GetLimit() == 0 || len(resp.Keyspaces) < int(req.GetLimit())) {
			resp.Keyspaces = append(resp.Keyspaces, k)
		}
	}
	return resp, nil
}

// UpdateKeyspaceState moves a keyspace to a state that may follow its own.
func (s *keyspaceService) UpdateKeyspaceState(_ context.Context, req *keyspacepb.UpdateKeyspaceStateRequest) (*keyspacepb.UpdateKeyspaceStateResponse, error) {
	k, err := s.m.pd.keyspaces.setState(req.GetId(), req.GetState(), s.m.pd.Now())
	if err != nil {
		return &keyspacepb.UpdateKeyspaceStateResponse{Header: s.refusal(err)}, nil
	}
	return &keyspacepb.UpdateKeyspaceStateResponse{Header: s.m.pd.header(), Keyspace: k}, nil
}

// WatchKeyspaces reports all keyspaces, then those that change. As in PD a watch goes on
// where another member leads; only to begin one takes the leader.
func (s *keyspaceService) WatchKeyspaces(req *keyspacepb.WatchKeyspacesRequest, stream keyspacepb.Keyspace_WatchKeyspacesServer) error {
	ctx := stream.Context()
	return s.m.message(ctx, "WatchKeyspaces", req, func() error {
		if err := s.m.check(ctx, "WatchKeyspaces", req.GetHeader()); err != nil {
			return err
		}
		report, seen := s.m.pd.keyspaces.begin()
		for {
			if len(report) > 0 {
				if err := stream.Send(&keyspacepb.WatchKeyspacesResponse{Header: s.m.pd.header(), Keyspaces: report}); err != nil {
					return err
				}
			}
			more, wait := s.m.pd.keyspaces.since(seen)
			if report, seen = more, seen+len(more); len(more) > 0 {
				continue
			}
			select {
			case <-wait:
			case <-ctx.Done():
				return nil
			case <-s.m.life(ctx).Done():
				return nil
			}
		}
	})
}

// SetKeyspaceState moves a keyspace to a state that may follow its own.
func (pd *PD) SetKeyspaceState(name string, state keyspacepb.KeyspaceState) error {
	k := pd.keyspaces.byName(name)
	if k == nil {
		return errNoKeyspace
	}
	_, err := pd.keyspaces.setState(k.GetId(), state, pd.Now())
	return err
}

// SetKeyspaceConfig sets entries of a keyspace's config, and removes those that are nil.
func (pd *PD) SetKeyspaceConfig(name string, entries map[string]*string) error {
	k := pd.keyspaces.byName(name)
	if k == nil {
		return errNoKeyspace
	}
	_, err := pd.keyspaces.setConfig(k.GetId(), entries)
	return err
}

// Keyspaces returns all keyspaces by id.
func (pd *PD) Keyspaces() []*keyspacepb.KeyspaceMeta { return pd.keyspaces.list() }
