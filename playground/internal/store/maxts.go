package store

import (
	"sync"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/topology"
)

// synced are the regions that a store leads knowing of all reads under their leaders
// before: their terms and versions when it asked PD for a timestamp, which is above
// those reads (TiKV components/raftstore/src/store/peer.rs, require_updating_max_ts).
type synced struct {
	mu      sync.Mutex
	regions map[uint64]leadership
}

type leadership struct{ term, version uint64 }

// checkMaxTS refuses a prewrite that wants the store to choose its commit timestamp,
// while the store does not know what was read before it led the region (TiKV src/storage/
// txn/commands/prewrite.rs, check_max_ts_synced). TiKV asks PD as soon as it leads, and
// again until PD answers; this store asks when the first such prewrite comes, and at each
// one after it until then.
func (s *Store) checkMaxTS(req any, r *topology.Region) *errorpb.Error {
	q, ok := req.(*kvrpcpb.PrewriteRequest)
	if !ok || !q.UseAsyncCommit && !q.TryOnePc {
		return nil
	}
	now := leadership{r.Term, r.Meta.GetRegionEpoch().GetVersion()}
	s.synced.mu.Lock()
	defer s.synced.mu.Unlock()
	if s.synced.regions[r.ID()] == now {
		return nil
	}
	ts, ok := s.Timestamp()
	if !ok {
		return &errorpb.Error{MaxTimestampNotSynced: &errorpb.MaxTimestampNotSynced{}}
	}
	s.Manager(s.ID).Observe(ts)
	if s.synced.regions == nil {
		s.synced.regions = make(map[uint64]leadership)
	}
	s.synced.regions[r.ID()] = now
	return nil
}
