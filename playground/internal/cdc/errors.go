package cdc

import (
	"errors"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/playground/internal/topology"
)

// errCongested is what more waits to be sent than the store may hold.
var errCongested = errors.New("cdc: congested")

// errGone is the end of a subscription that the client, or another error, brought about.
var errGone = errors.New("cdc: region not found")

// refused is a region error.
type refused struct{ region *errorpb.Error }

// Error returns the error's message.
func (r refused) Error() string { return r.region.Message }

// eventError is an error as subscriptions of a region hear of it: what has no place there
// is RegionNotFound (TiKV components/cdc/src/errors.rs, into_error_event).
func eventError(err error, region uint64) *cdcpb.Error {
	var r refused
	switch {
	case errors.Is(err, errCongested):
		return &cdcpb.Error{Congested: &cdcpb.Congested{RegionId: region}}
	case !errors.As(err, &r):
	case r.region.NotLeader != nil:
		return &cdcpb.Error{NotLeader: r.region.NotLeader}
	case r.region.EpochNotMatch != nil:
		return &cdcpb.Error{EpochNotMatch: r.region.EpochNotMatch}
	}
	return &cdcpb.Error{RegionNotFound: &errorpb.RegionNotFound{RegionId: region}}
}

// injectedError is the same for a region error of a fault, which may also be that the
// server is busy.
func injectedError(e *errorpb.Error, region uint64) *cdcpb.Error {
	if e.ServerIsBusy != nil {
		return &cdcpb.Error{ServerIsBusy: e.ServerIsBusy}
	}
	return eventError(refused{e}, region)
}

// outcome is the error that ends the subscriptions of a region when something becomes of
// it; nil if nothing does (TiKV components/cdc/src/delegate.rs, sink_admin, and observer.
// rs, on_role_change and on_region_changed).
func (e *endpoint) outcome(h topology.Happening) error {
	id := h.Was.ID()
	switch h.What {
	case topology.Split:
		return epochNotMatch("split", h.Now)
	case topology.Merged:
		return epochNotMatch("merge", nil)
	case topology.Led:
		now := h.Now[0]
		if now.LeaderStore() == e.Store {
			return nil
		}
		leader := now.Leader
		if leader != nil && !e.Topology.Hears(leader.StoreId, e.Store) {
			leader = nil
		}
		return refused{&errorpb.Error{NotLeader: &errorpb.NotLeader{RegionId: id, Leader: leader}}}
	}
	if h.Now[0].Peer(e.Store) == nil {
		return errGone
	}
	return nil
}

func epochNotMatch(message string, regions []*topology.Region) error {
	current := make([]*metapb.Region, len(regions))
	for i, r := range regions {
		current[i] = r.Meta
	}
	return refused{&errorpb.Error{Message: message, EpochNotMatch: &errorpb.EpochNotMatch{CurrentRegions: current}}}
}
