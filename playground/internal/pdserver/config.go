package pdserver

import (
	"context"
	"fmt"
	"strconv"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/playground/internal/tso"
)

// What PD keeps of the cluster as a whole, in its etcd (PD: pkg/utils/keypath/
// absolute_key_path.go).

// path is where PD keeps something of this cluster.
func (pd *PD) path(name string) string { return fmt.Sprintf("/pd/%d/%s", pd.ClusterID, name) }

// saved is what there is under a path, nil for nothing.
func (pd *PD) saved(name string) []byte {
	found, _, err := pd.kv.Range([]byte(pd.path(name)), nil, 0)
	if err != nil || len(found) == 0 {
		return nil
	}
	return found[0].Value
}

const (
	clusterName    = "raft"
	externalName   = "raft/external_timestamp"
	recoveringName = "cluster/markers/snapshot-recovering"
)

// maxReplicas is how many peers PD gives a region (server/config, max-replicas).
const maxReplicas = 3

// GetClusterConfig answers with what was put, at first what PD writes at bootstrap.
func (m *Member) GetClusterConfig(context.Context, *pdpb.GetClusterConfigRequest) (*pdpb.GetClusterConfigResponse, error) {
	cluster := &metapb.Cluster{Id: m.pd.ClusterID, MaxPeerCount: maxReplicas}
	if data := m.pd.saved(clusterName); data != nil {
		cluster = new(metapb.Cluster)
		if err := cluster.Unmarshal(data); err != nil {
			return &pdpb.GetClusterConfigResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
		}
	}
	return &pdpb.GetClusterConfigResponse{Header: m.pd.header(), Cluster: cluster}, nil
}

// PutClusterConfig keeps it, and nothing follows from it (PD: server/cluster/cluster.go,
// PutMetaCluster).
func (m *Member) PutClusterConfig(_ context.Context, req *pdpb.PutClusterConfigRequest) (*pdpb.PutClusterConfigResponse, error) {
	cluster := req.GetCluster()
	if cluster.GetId() != m.pd.ClusterID {
		text := fmt.Sprintf("invalid cluster %v, mismatch cluster id %d", cluster, m.pd.ClusterID)
		return &pdpb.PutClusterConfigResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, text)}, nil
	}
	data, err := cluster.Marshal()
	if err == nil {
		err = m.pd.kv.Put(m.pd.path(clusterName), data)
	}
	if err != nil {
		return &pdpb.PutClusterConfigResponse{Header: m.pd.refusal(pdpb.ErrorType_UNKNOWN, err.Error())}, nil
	}
	return &pdpb.PutClusterConfigResponse{Header: m.pd.header()}, nil
}

// externalTS is the timestamp that somebody outside has set.
func (pd *PD) externalTS() uint64 {
	ts, _ := strconv.ParseUint(string(pd.saved(externalName)), 16, 64)
	return ts
}

// GetExternalTimestamp answers with it, 0 for none.
func (m *Member) GetExternalTimestamp(context.Context, *pdpb.GetExternalTimestampRequest) (*pdpb.GetExternalTimestampResponse, error) {
	return &pdpb.GetExternalTimestampResponse{Header: m.pd.header(), Timestamp: m.pd.externalTS()}, nil
}

// SetExternalTimestamp lets it grow, up to the present timestamp (PD: server/server.go,
// SetExternalTS).
func (m *Member) SetExternalTimestamp(ctx context.Context, req *pdpb.SetExternalTimestampRequest) (*pdpb.SetExternalTimestampResponse, error) {
	now, err := m.generate(ctx, 1)
	if err != nil {
		return nil, err
	}
	if err := m.pd.setExternalTS(req.GetTimestamp(), tso.Compose(now.Physical, now.Logical)); err != nil {
		return &pdpb.SetExternalTimestampResponse{Header: m.pd.refusal(pdpb.ErrorType_INVALID_VALUE, err.Error())}, nil
	}
	return &pdpb.SetExternalTimestampResponse{Header: m.pd.header()}, nil
}

func (pd *PD) setExternalTS(ts, now uint64) error {
	pd.external.Lock()
	defer pd.external.Unlock()
	switch {
	case ts > now:
		return fmt.Errorf("the external timestamp should not be larger than global ts")
	case ts <= pd.externalTS():
		return fmt.Errorf("the external timestamp should be larger than current external timestamp")
	}
	return pd.kv.Put(pd.path(externalName), strconv.AppendUint(nil, ts, 16))
}

// IsSnapshotRecovering looks for the mark of a recovery in etcd; any member does (PD:
// server/server.go, IsSnapshotRecovering).
func (m *Member) IsSnapshotRecovering(context.Context, *pdpb.IsSnapshotRecoveringRequest) (*pdpb.IsSnapshotRecoveringResponse, error) {
	return &pdpb.IsSnapshotRecoveringResponse{Header: m.pd.header(), Marked: m.pd.saved(recoveringName) != nil}, nil
}
