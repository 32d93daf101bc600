package pd

import (
	"context"
	"slices"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/routerpb"
)

// queryStream is a QueryRegion stream of a member or a router.
type queryStream struct {
	target
	cancel context.CancelCauseFunc
	stream interface {
		Send(*pdpb.QueryRegionRequest) error
		Recv() (*pdpb.QueryRegionResponse, error)
	}
}

func (s *queryStream) close() {
	if s != nil {
		s.cancel(nil)
	}
}

// fits reports whether a stream may be asked with these options.
func (s *queryStream) fits(m *members, options LookupOption) bool {
	switch {
	case s.router:
		return options&Fresh == 0 && slices.Contains(m.routers(), s.addr)
	case s.follower:
		return options == 0 && slices.Contains(m.addrs, s.addr)
	}
	return s.addr == m.leader
}

func (q *queries) connect(ctx context.Context, cancel context.CancelCauseFunc, to target) *queryStream {
	conn, err := q.client.cfg.Pool.Conn(to.addr)
	if err != nil {
		cancel(nil)
		return nil
	}
	s := &queryStream{target: to, cancel: cancel}
	if to.router {
		s.stream, err = routerpb.NewRouterClient(conn).QueryRegion(ctx)
	} else {
		s.stream, err = pdpb.NewPDClient(conn).QueryRegion(to.context(ctx))
	}
	if err != nil {
		cancel(nil)
		return nil
	}
	return s
}

func (s *queryStream) exchange(req *pdpb.QueryRegionRequest) (*pdpb.QueryRegionResponse, error) {
	_ = s.stream.Send(req) // why it failed is for the receiver
	return s.stream.Recv()
}

// distribute gives each of a batch its region: the answer has one id for each key, in
// their order, 0 for none, and the regions by id. A lookup of who may be behind that
// found nothing is left to be made again. It reports whether the answer can be right.
func distribute(batch []*query, resp *pdpb.QueryRegionResponse, behind bool) bool {
	keyed, prev := resp.GetKeyIdMap(), resp.GetPrevKeyIdMap()
	take := func(ids *[]uint64) (id uint64, ok bool) {
		if len(*ids) == 0 {
			return 0, false
		}
		id, *ids = (*ids)[0], (*ids)[1:]
		return id, true
	}
	found := make([]*Region, len(batch))
	for i, one := range batch {
		id, ok := one.id, true
		switch one.op {
		case opRegion:
			id, ok = take(&keyed)
		case opPrevRegion:
			id, ok = take(&prev)
		}
		if !ok {
			return false
		}
		if r := resp.GetRegionsById()[id]; id != 0 && r != nil {
			found[i] = newRegion(r)
		}
		if found[i] != nil && one.options&NeedBuckets == 0 {
			found[i].Buckets = nil
		}
		if id != 0 && one.op != opRegionByID && found[i] == nil || found[i] != nil && found[i].Meta.GetId() != id {
			return false
		}
	}
	if len(keyed)+len(prev) > 0 {
		return false
	}
	for i, one := range batch {
		one.region, one.ok = found[i], found[i] != nil || !behind
	}
	return true
}
