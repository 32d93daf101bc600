package pd

import (
	"context"
	"maps"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/metadata"
)

// The metadata that PD's members look at (PD client/pkg/utils/grpcutil).
const (
	forwardedHost  = "pd-forwarded-host"        // pass the call on to the leader, which has this URL
	followerHandle = "pd-allow-follower-handle" // answer it yourself, leader or not
)

// target is where one attempt goes.
type target struct {
	addr     string
	forward  string    // the leader's URL, for a member that is to pass the call on
	relayed  bool      // forwarded because the leader cannot be reached
	follower bool      // a member that answers though it may not lead
	router   bool      // a router service
	group    *tsoGroup // a service for timestamps
}

// context returns ctx with what the member is to know.
func (t target) context(ctx context.Context) context.Context {
	switch {
	case t.forward != "":
		return metadata.AppendToOutgoingContext(ctx, forwardedHost, t.forward)
	case t.follower:
		return metadata.AppendToOutgoingContext(ctx, followerHandle, "")
	}
	return ctx
}

// direct is the leader itself.
func (m *members) direct() target { return target{addr: m.leader} }

// route is the leader, through the relay where there is one.
func (m *members) route() target {
	if m.relay == "" {
		return m.direct()
	}
	return target{addr: m.relay, forward: m.leaderURL, relayed: true}
}

// sameRoute reports whether calls go the same way in both views.
func (m *members) sameRoute(o *members) bool { return m.leader == o.leader && m.relay == o.relay }

// timestampTarget is where timestamps come from: the service for them where PD has one,
// any member that passes requests on where that is wished for, else the leader.
func (c *Client) timestampTarget(ctx context.Context, m *members) (target, *Error) {
	if m.tso() != nil {
		group, e := c.findGroup(ctx, m)
		if e != nil {
			return target{}, e
		}
		return target{addr: group.primary, group: group}, nil
	}
	to := m.route()
	if !c.cfg.TSOFollowerProxy || to.relayed {
		return to, nil
	}
	if addr := c.pick(m.addrs); addr != "" && addr != m.leader {
		return target{addr: addr, forward: m.leaderURL}, nil
	}
	return to, nil
}

// pick returns one of addrs at random, of those that have not failed lately; none is "".
func (c *Client) pick(addrs []string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range rand.Perm(len(addrs)) {
		if until, bad := c.shunnedUntil[addrs[i]]; !bad || time.Now().After(until) {
			return addrs[i]
		}
	}
	return ""
}

// shunTime is how long one that failed is not chosen where there are others.
const shunTime = 10 * time.Second

// shun keeps pick from an address for a while.
func (c *Client) shun(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(c.shunnedUntil, func(_ string, until time.Time) bool { return now.After(until) })
	if c.shunnedUntil == nil {
		c.shunnedUntil = make(map[string]time.Time)
	}
	c.shunnedUntil[addr] = now.Add(shunTime)
}
