package store

import (
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/playground/internal/cdc"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// newFeed returns the store's change feed.
func (s *Store) newFeed() *cdc.Feed {
	return cdc.New(cdc.Config{
		Store: s.ID, ClusterID: s.ClusterID, APIVersion: s.APIVersion, Engine: s.Engine, Txn: s.Txn, Raw: s.Raw,
		Topology: s.Topology, Enter: s.enterFor, Timestamp: s.WaitTimestamp, Faults: s.Faults, Counter: s.Counter,
		UserKey: s.UserKey, Tasks: s.server.Tasks, Disconnect: s.server.Disconnect,
		Limits: s.Feed,
	})
}

// enterFor enters a region for its change feed, which begins with a read of the leader
// (TiKV components/raftstore/src/store/fsm/peer.rs, on_capture_change).
func (s *Store) enterFor(region uint64, epoch *metapb.RegionEpoch) (*topology.Region, *errorpb.Error) {
	r := s.Topology.ByID(region)
	if r == nil {
		return nil, regionNotFound(region)
	}
	return s.enter(&command{kind: read, leader: true}, &kvrpcpb.Context{
		RegionId: region, RegionEpoch: epoch, Peer: &metapb.Peer{Id: r.Peer(s.ID).GetId(), StoreId: s.ID},
	})
}
