package pdserver

import (
	"context"
	"fmt"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/replication_modepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a store tells PD, from a process that is not the cluster's (PD: server/
// grpc_service.go, server/cluster/cluster.go).

// replicated by majority is PD's default (pkg/replication/replication_mode.go,
// GetReplicationStatus).
func byMajority() *replication_modepb.ReplicationStatus {
	return &replication_modepb.ReplicationStatus{Mode: replication_modepb.ReplicationMode_MAJORITY}
}

// tombstone is the error for a store that was removed, nil for others (PD: server/
// grpc_service.go, checkStore).
func (pd *PD) tombstone(s *metapb.Store) *pdpb.ResponseHeader {
	if s != nil && removed(s) {
		return pd.refusal(pdpb.ErrorType_STORE_TOMBSTONE, "store is tombstone")
	}
	return nil
}

// PutStore takes a store over that starts, or is changed.
func (m *Member) PutStore(_ context.Context, req *pdpb.PutStoreRequest) (*pdpb.PutStoreResponse, error) {
	s := req.GetStore()
	if refusal := m.pd.tombstone(m.pd.store(s.GetId())); refusal != nil {
		return &pdpb.PutStoreResponse{Header: refusal}, nil
	}
	if text := mistakenEngine(s); text != "" {
		return &pdpb.PutStoreResponse{Header: m.pd.refusal(pdpb.ErrorType_INVALID_VALUE, text)}, nil
	}
	if err := m.pd.putStore(s); err != nil {
		return &pdpb.PutStoreResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
	}
	return &pdpb.PutStoreResponse{Header: m.pd.header(), ReplicationStatus: byMajority()}, nil
}

// mistakenEngine is the text for an engine that there is none of, "" for none (PD: pkg/
// core/store.go, ValidateStoreEngineKey).
func mistakenEngine(s *metapb.Store) string {
	for _, l := range s.GetLabels() {
		if l.Key != "engine" {
			continue
		}
		switch l.Value {
		case "", "tikv", "tiflash", "tiflash_compute":
			return ""
		}
		return fmt.Sprintf("invalid store engine label value: %q, valid values are %q, %q, %q or empty",
			l.Value, "tikv", "tiflash", "tiflash_compute")
	}
	return ""
}

// StoreHeartbeat keeps a store's statistics, and tells it what it must know. A report for a
// recovery that PD would have asked for changes nothing: none is ever asked for.
func (m *Member) StoreHeartbeat(_ context.Context, req *pdpb.StoreHeartbeatRequest) (*pdpb.StoreHeartbeatResponse, error) {
	stats := req.GetStats()
	if stats == nil {
		return nil, status.Errorf(codes.Unknown, "invalid store heartbeat command, but %v", req)
	}
	s := m.pd.store(stats.StoreId)
	if refusal := m.pd.tombstone(s); refusal != nil {
		return &pdpb.StoreHeartbeatResponse{Header: refusal}, nil
	}
	if s == nil {
		text := fmt.Sprintf("store %v not found", stats.StoreId)
		return &pdpb.StoreHeartbeatResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, text)}, nil
	}
	resp := &pdpb.StoreHeartbeatResponse{
		Header: m.pd.header(), ReplicationStatus: byMajority(), ClusterVersion: m.pd.clusterVersion().String(),
	}
	if req.GetStoreReport() == nil {
		resp.State = s.NodeState
		if slow := m.pd.heartbeat(stats); len(slow) > 0 {
			resp.AwakenRegions = &pdpb.AwakenRegions{AbnormalStores: slow}
		}
	}
	return resp, nil
}

// slowScore is that of a slow store; awakenEvery how often another store is told to wake
// its regions while there are such (PD: pkg/core/store.go, slowStoreThreshold and
// awakenStoreInterval).
const (
	slowScore   = 80
	awakenEvery = 10 * time.Minute
)

// heartbeat keeps a store's statistics, and lists the slow stores if this one is to hear of
// them (PD: server/cluster/cluster.go, HandleStoreHeartbeat and
// NeedAwakenAllRegionsInStore).
func (pd *PD) heartbeat(stats *pdpb.StoreStats) (slow []uint64) {
	id, now := stats.StoreId, pd.Now()
	others := pd.slowStores(id)
	pd.reports.mu.Lock()
	defer pd.reports.mu.Unlock()
	r := pd.reports.report(id)
	due := r.awoken.IsZero() || r.heard.Sub(r.awoken) > awakenEvery
	if due && r.stats.GetSlowScore() < slowScore && len(others) > 0 {
		r.awoken, slow = now, others
	}
	r.stats, r.heard = stats, now
	return slow
}

// slowStores are those that have said that they are slow, without one store.
func (pd *PD) slowStores(without uint64) (slow []uint64) {
	for _, id := range pd.stores() {
		if id == without || pd.statsOf(id).GetSlowScore() < slowScore {
			continue
		}
		if s := pd.store(id); s != nil && !removed(s) {
			slow = append(slow, id)
		}
	}
	return slow
}

// ReportMinResolvedTS keeps a store's resolved timestamp (PD: server/cluster/cluster.go,
// SetMinResolvedTS).
func (m *Member) ReportMinResolvedTS(_ context.Context, req *pdpb.ReportMinResolvedTsRequest) (*pdpb.ReportMinResolvedTsResponse, error) {
	if m.pd.store(req.GetStoreId()) == nil {
		return nil, status.Errorf(codes.Unknown, "[PD:core:ErrStoreNotFound]store %v not found", req.GetStoreId())
	}
	m.pd.reports.mu.Lock()
	defer m.pd.reports.mu.Unlock()
	r := m.pd.reports.report(req.GetStoreId())
	r.resolved, r.resolvedAt = req.GetMinResolvedTs(), m.pd.Now()
	return &pdpb.ReportMinResolvedTsResponse{Header: m.pd.header()}, nil
}
