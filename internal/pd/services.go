package pd

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tsopb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/wire"
)

// services are what stands beside PD where its service mode is API_SVC_MODE. Immutable.
type services struct {
	tso     []string // servers of timestamps
	routers []string // that answer lookups of regions
}

// tso are the servers of timestamps, nil where they come from PD itself.
func (m *members) tso() []string {
	if m.services == nil || len(m.services.tso) == 0 {
		return nil
	}
	return m.services.tso
}

// routers are the services for lookups of regions.
func (m *members) routers() []string {
	if m.services == nil {
		return nil
	}
	return m.services.routers
}

// askServices asks the leader for the services beside PD. Without an answer they are what
// they were.
func (c *Client) askServices(ctx context.Context, m *members, before *services) *services {
	info, err := attemptFor(ctx, c, m.route(), suspicion, func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetClusterInfoResponse, error) {
		return pd.GetClusterInfo(ctx, &pdpb.GetClusterInfoRequest{})
	})
	if status.Code(err) == codes.Unimplemented {
		return nil // PD is older than its services
	}
	if e := judge("GetClusterInfo", m.leader, m.clusterID, info.GetHeader(), err); e != nil || len(info.GetServiceModes()) == 0 {
		return before
	}
	// Only the first mode counts (PD client/servicediscovery).
	if info.GetServiceModes()[0] != pdpb.ServiceMode_API_SVC_MODE {
		return nil
	}
	now := new(services)
	now.tso, _ = hostPorts(info.GetTsoUrls())
	now.routers = c.askRouters(ctx, m)
	slices.Sort(now.tso)
	slices.Sort(now.routers)
	return now
}

// askRouters reads the routers' entries in PD's storage (PD pkg/mcs/discovery).
func (c *Client) askRouters(ctx context.Context, m *members) (routers []string) {
	path := fmt.Appendf(nil, "/ms/%d/router/registry/", m.clusterID)
	conn, err := c.cfg.Pool.Conn(m.leader)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, suspicion, errSilent)
	defer cancel()
	var list wire.Listing
	err = conn.Invoke(ctx, wire.ListMethod, &wire.ListRequest{Key: path, End: keys.PrefixEnd(path)}, &list)
	if err != nil || list.Refused {
		return nil
	}
	for _, value := range list.Values {
		var entry struct {
			Addr string `json:"service-addr"`
		}
		if json.Unmarshal(value, &entry) != nil {
			continue
		}
		if addr, err := hostPort(entry.Addr); err == nil {
			routers = append(routers, addr)
		}
	}
	return routers
}

// tsoGroup is the keyspace group whose timestamps the client uses.
type tsoGroup struct {
	id      uint32
	primary string
}

const opFindGroup = "FindGroupByKeyspaceID"

// findGroup asks the servers of timestamps, all at once, for the group of the client's
// keyspace and who is its primary; the first that knows is believed.
func (c *Client) findGroup(ctx context.Context, m *members) (*tsoGroup, *Error) {
	type reply struct {
		group *tsoGroup
		err   *Error
	}
	servers := m.tso()
	replies := make(chan reply, len(servers)) // room for all: who is late blocks nobody
	last := &Error{Op: opFindGroup, Kind: Unavailable, Message: "no server of timestamps"}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, addr := range servers {
		if !c.tasks.Go("pd group", func(context.Context) {
			group, e := c.askGroup(ctx, m, addr)
			replies <- reply{group, e}
		}) {
			return nil, &Error{Op: opFindGroup, Kind: Closed, Err: ErrClosed}
		}
	}
	for range servers {
		r := <-replies
		if r.err == nil {
			return r.group, nil
		}
		last = r.err
	}
	return nil, last
}

// regroup makes a stream of a service end whose group has another primary by now.
func (c *Client) regroup(ctx context.Context, s *tsoStream) {
	if group, e := c.findGroup(ctx, c.members.Load()); e == nil && *group != *s.group {
		s.cancel(errMoved)
	}
}

func (c *Client) askGroup(ctx context.Context, m *members, addr string) (*tsoGroup, *Error) {
	conn, err := c.cfg.Pool.Conn(addr)
	if err != nil {
		return nil, judge(opFindGroup, addr, 0, nil, err)
	}
	attempt, cancel := context.WithTimeoutCause(ctx, min(suspicion, c.cfg.AttemptTimeout), errSilent)
	defer cancel()
	resp, err := tsopb.NewTSOClient(conn).FindGroupByKeyspaceID(attempt, &tsopb.FindGroupByKeyspaceIDRequest{
		Header:   c.tsoHeader(0, addr),
		Keyspace: &tsopb.FindGroupByKeyspaceIDRequest_KeyspaceId{KeyspaceId: c.keyspace.Load()},
	})
	if err != nil && context.Cause(attempt) == errSilent {
		err = errSilent
	}
	if e := judge(opFindGroup, addr, m.clusterID, tsoHeader(resp.GetHeader()), err); e != nil {
		return nil, e
	}
	for _, member := range resp.GetKeyspaceGroup().GetMembers() {
		if primary, err := hostPort(member.GetAddress()); err == nil && member.GetIsPrimary() {
			return &tsoGroup{id: resp.GetKeyspaceGroup().GetId(), primary: primary}, nil
		}
	}
	return nil, &Error{Op: opFindGroup, Addr: addr, Kind: Unavailable, Message: "no primary"}
}

// tsoHeader is the header of a request to a server of timestamps, which refuses one that
// is not meant for its address.
func (c *Client) tsoHeader(group uint32, addr string) *tsopb.RequestHeader {
	return &tsopb.RequestHeader{
		ClusterId: c.members.Load().clusterID, KeyspaceGroupId: group, CalleeId: addr,
		Keyspace: &tsopb.RequestHeader_KeyspaceId{KeyspaceId: c.keyspace.Load()},
	}
}

// tsoHeader makes a header of a service's answer one of PD's.
func tsoHeader(h *tsopb.ResponseHeader) *pdpb.ResponseHeader {
	if h == nil {
		return nil
	}
	out := &pdpb.ResponseHeader{ClusterId: h.GetClusterId()}
	switch e := h.GetError(); e.GetType() {
	case tsopb.ErrorType_OK:
	case tsopb.ErrorType_CLUSTER_MISMATCHED:
		out.ClusterId = ^h.GetClusterId() // it says so itself, with an id of no use
	default: // another server, or this one later, may answer
		out.Error = &pdpb.Error{Type: pdpb.ErrorType_NOT_BOOTSTRAPPED, Message: e.GetType().String() + ": " + e.GetMessage()}
	}
	return out
}

// UseKeyspace says whose timestamps to ask for, where PD's services divide keyspaces
// into groups.
func (c *Client) UseKeyspace(id uint32) {
	if c.keyspace.Swap(id) != id {
		c.oracle.leave()
	}
}

// refreshEvery is how old the client's view of the members may become while it is used;
// an idle client asks nobody. Drawn from [d/2, d].
const refreshEvery = time.Minute

// freshen asks for the members in the background where the view is old.
func (c *Client) freshen(m *members) {
	now := time.Now()
	if now.Before(m.until) || !c.freshening.CompareAndSwap(false, true) {
		return
	}
	if !c.tasks.Go("pd refresh", func(ctx context.Context) {
		defer c.freshening.Store(false)
		c.research(ctx, m)
	}) {
		c.freshening.Store(false)
	}
}
