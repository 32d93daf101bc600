package pdserver

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// gcScopeOf is the scope that a request about a keyspace means. No keyspace, an id that
// cannot be one, or a keyspace whose GC is not its own: the null keyspace. The calls that
// run GC (own is set) are refused for a keyspace whose GC is not its own.
func (m *Member) gcScopeOf(k *pdpb.KeyspaceScope, own bool) (uint32, error) {
	id := uint32(NullKeyspace)
	if s, ok := k.GetKeyspace().(*pdpb.KeyspaceScope_KeyspaceId); ok {
		id = s.KeyspaceId
	}
	if id > MaxKeyspace {
		return NullKeyspace, nil
	}
	meta := m.pd.keyspaces.byID(id)
	switch {
	case meta == nil:
		return 0, refused("keyspace:ErrKeyspaceNotFound", "keyspace does not exist")
	case ownGC(meta):
		return id, nil
	case own:
		return 0, refused("gc:ErrGCOnInvalidKeyspace", "trying to manage GC in keyspace %s (id: %d) where keyspace level GC is not enabled", meta.Name, id)
	}
	return NullKeyspace, nil
}

// ownGC reports whether a keyspace manages its GC by itself.
func ownGC(k *keyspacepb.KeyspaceMeta) bool {
	return k.Config["gc_management_type"] == "keyspace_level"
}

// GetGCState answers with the safe points of the scope that a keyspace belongs to.
func (m *Member) GetGCState(_ context.Context, req *pdpb.GetGCStateRequest) (*pdpb.GetGCStateResponse, error) {
	id, err := m.gcScopeOf(req.GetKeyspaceScope(), false)
	if err != nil {
		return &pdpb.GetGCStateResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
	}
	scope, _ := m.pd.gc.state(id)
	return &pdpb.GetGCStateResponse{Header: m.pd.header(), GcState: m.gcState(id, scope, !req.GetExcludeGcBarriers())}, nil
}

// GetAllKeyspacesGCStates answers with the null keyspace's state and those of the enabled
// keyspaces; one whose GC is not its own has nothing to show.
func (m *Member) GetAllKeyspacesGCStates(_ context.Context, req *pdpb.GetAllKeyspacesGCStatesRequest) (*pdpb.GetAllKeyspacesGCStatesResponse, error) {
	resp := &pdpb.GetAllKeyspacesGCStatesResponse{Header: m.pd.header()}
	null, global := m.pd.gc.state(NullKeyspace)
	resp.GcStates = append(resp.GcStates, m.gcState(NullKeyspace, null, !req.GetExcludeGcBarriers()))
	for _, k := range m.pd.keyspaces.list() {
		switch {
		case k.State != keyspacepb.KeyspaceState_ENABLED:
		case ownGC(k):
			scope, _ := m.pd.gc.state(k.GetId())
			resp.GcStates = append(resp.GcStates, m.gcState(k.GetId(), scope, !req.GetExcludeGcBarriers()))
		default:
			resp.GcStates = append(resp.GcStates, &pdpb.GCState{
				KeyspaceScope: &pdpb.KeyspaceScope{Keyspace: &pdpb.KeyspaceScope_KeyspaceId{KeyspaceId: k.GetId()}},
			})
		}
	}
	if !req.GetExcludeGlobalGcBarriers() {
		resp.GlobalGcBarriers = m.globalBarriers(global)
	}
	return resp, nil
}

func (m *Member) gcState(id uint32, s gcScope, barriers bool) *pdpb.GCState {
	state := &pdpb.GCState{
		KeyspaceScope:     &pdpb.KeyspaceScope{Keyspace: &pdpb.KeyspaceScope_KeyspaceId{KeyspaceId: id}},
		IsKeyspaceLevelGc: id != NullKeyspace,
		TxnSafePoint:      s.Txn, GcSafePoint: s.GC,
	}
	if barriers {
		for _, name := range slices.Sorted(maps.Keys(s.Barriers)) {
			state.GcBarriers = append(state.GcBarriers, m.barrier(name, s.Barriers[name]))
		}
	}
	return state
}

func (m *Member) barrier(name string, b barrier) *pdpb.GCBarrierInfo {
	return &pdpb.GCBarrierInfo{BarrierId: name, BarrierTs: b.TS, TtlSeconds: b.seconds(m.pd.Now())}
}

func (m *Member) globalBarrier(name string, b barrier) *pdpb.GlobalGCBarrierInfo {
	return &pdpb.GlobalGCBarrierInfo{BarrierId: name, BarrierTs: b.TS, TtlSeconds: b.seconds(m.pd.Now())}
}

func (m *Member) globalBarriers(all map[string]barrier) []*pdpb.GlobalGCBarrierInfo {
	infos := []*pdpb.GlobalGCBarrierInfo{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		infos = append(infos, m.globalBarrier(name, all[name]))
	}
	return infos
}

// AdvanceTxnSafePoint moves the point below which no transaction may begin.
func (m *Member) AdvanceTxnSafePoint(_ context.Context, req *pdpb.AdvanceTxnSafePointRequest) (*pdpb.AdvanceTxnSafePointResponse, error) {
	id, err := m.gcScopeOf(req.GetKeyspaceScope(), true)
	if err == nil {
		var a advance
		if a, err = m.pd.gc.advanceTxn(id, req.GetTarget(), m.pd.Now()); err == nil {
			return &pdpb.AdvanceTxnSafePointResponse{
				Header: m.pd.header(), OldTxnSafePoint: a.before, NewTxnSafePoint: a.after, BlockerDescription: a.blocker,
			}, nil
		}
	}
	return &pdpb.AdvanceTxnSafePointResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
}

// AdvanceGCSafePoint moves the point below which old versions may be dropped.
func (m *Member) AdvanceGCSafePoint(_ context.Context, req *pdpb.AdvanceGCSafePointRequest) (*pdpb.AdvanceGCSafePointResponse, error) {
	id, err := m.gcScopeOf(req.GetKeyspaceScope(), true)
	if err == nil {
		var before, after uint64
		if before, after, err = m.pd.gc.advanceGC(id, req.GetTarget(), false); err == nil {
			return &pdpb.AdvanceGCSafePointResponse{Header: m.pd.header(), OldGcSafePoint: before, NewGcSafePoint: after}, nil
		}
	}
	return &pdpb.AdvanceGCSafePointResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
}

// UpdateGCSafePoint is the old form, of the null keyspace.
func (m *Member) UpdateGCSafePoint(_ context.Context, req *pdpb.UpdateGCSafePointRequest) (*pdpb.UpdateGCSafePointResponse, error) {
	_, after, err := m.pd.gc.advanceGC(NullKeyspace, req.GetSafePoint(), true)
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	return &pdpb.UpdateGCSafePointResponse{Header: m.pd.header(), NewSafePoint: after}, nil
}

// GetGCSafePoint is the old form, of the null keyspace.
func (m *Member) GetGCSafePoint(context.Context, *pdpb.GetGCSafePointRequest) (*pdpb.GetGCSafePointResponse, error) {
	scope, _ := m.pd.gc.state(NullKeyspace)
	return &pdpb.GetGCSafePointResponse{Header: m.pd.header(), SafePoint: scope.GC}, nil
}

// UpdateServiceGCSafePoint is the old form of AdvanceTxnSafePoint and of the calls that
// set and delete barriers, of the null keyspace. It goes by the time of PD's timestamps.
func (m *Member) UpdateServiceGCSafePoint(ctx context.Context, req *pdpb.UpdateServiceGCSafePointRequest) (*pdpb.UpdateServiceGCSafePointResponse, error) {
	ts, err := m.generate(ctx, 1)
	if err != nil {
		return nil, err
	}
	now := time.UnixMilli(ts.GetPhysical())
	lowest, of, err := m.pd.gc.updateService(m.pd.keyspaces.list(), string(req.GetServiceId()), req.GetSafePoint(), req.GetTTL(), now)
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	return &pdpb.UpdateServiceGCSafePointResponse{
		Header: m.pd.header(), ServiceId: []byte(of), TTL: math.MaxInt64 - now.Unix(), MinSafePoint: lowest,
	}, nil
}

// SetGCBarrier holds the txn safe point of a scope back.
func (m *Member) SetGCBarrier(_ context.Context, req *pdpb.SetGCBarrierRequest) (*pdpb.SetGCBarrierResponse, error) {
	err := checkTTL(req.GetTtlSeconds())
	id := uint32(0)
	if err == nil {
		id, err = m.gcScopeOf(req.GetKeyspaceScope(), false)
	}
	if err == nil {
		var b barrier
		if b, err = m.pd.gc.setBarrier(id, req.GetBarrierId(), req.GetBarrierTs(), req.GetTtlSeconds(), m.pd.Now()); err == nil {
			return &pdpb.SetGCBarrierResponse{Header: m.pd.header(), NewBarrierInfo: m.barrier(req.GetBarrierId(), b)}, nil
		}
	}
	return &pdpb.SetGCBarrierResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
}

// DeleteGCBarrier removes a barrier of a scope, if it is there.
func (m *Member) DeleteGCBarrier(_ context.Context, req *pdpb.DeleteGCBarrierRequest) (*pdpb.DeleteGCBarrierResponse, error) {
	resp := &pdpb.DeleteGCBarrierResponse{Header: m.pd.header()}
	id, err := m.gcScopeOf(req.GetKeyspaceScope(), false)
	if err == nil {
		var b barrier
		var found bool
		if b, found, err = m.pd.gc.deleteBarrier(id, req.GetBarrierId()); err == nil && found {
			resp.DeletedBarrierInfo = m.barrier(req.GetBarrierId(), b)
		}
	}
	if err != nil {
		resp.Header = m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())
	}
	return resp, nil
}

// SetGlobalGCBarrier holds every scope's txn safe point back.
func (m *Member) SetGlobalGCBarrier(_ context.Context, req *pdpb.SetGlobalGCBarrierRequest) (*pdpb.SetGlobalGCBarrierResponse, error) {
	err := checkTTL(req.GetTtlSeconds())
	if err == nil {
		err = checkName(req.GetBarrierId(), false)
	}
	var b barrier
	if err == nil {
		b, err = m.pd.gc.setGlobal(m.pd.keyspaces.list(), req.GetBarrierId(), req.GetBarrierTs(), req.GetTtlSeconds(), m.pd.Now())
	}
	if err != nil {
		return &pdpb.SetGlobalGCBarrierResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
	}
	return &pdpb.SetGlobalGCBarrierResponse{Header: m.pd.header(), NewBarrierInfo: m.globalBarrier(req.GetBarrierId(), b)}, nil
}

// DeleteGlobalGCBarrier removes a global barrier, if it is there.
func (m *Member) DeleteGlobalGCBarrier(_ context.Context, req *pdpb.DeleteGlobalGCBarrierRequest) (*pdpb.DeleteGlobalGCBarrierResponse, error) {
	resp := &pdpb.DeleteGlobalGCBarrierResponse{Header: m.pd.header()}
	err := checkName(req.GetBarrierId(), false)
	if err == nil {
		var b barrier
		var found bool
		if b, found, err = m.pd.gc.deleteGlobal(req.GetBarrierId()); err == nil && found {
			resp.DeletedBarrierInfo = m.globalBarrier(req.GetBarrierId(), b)
		}
	}
	if err != nil {
		resp.Header = m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())
	}
	return resp, nil
}
