package pd

import (
	"context"
	"slices"
	"time"
)

// patience is how long a refresh waits for the other members after the first answered:
// more views tell better who leads, and one that is silent costs no more than this.
const patience = 100 * time.Millisecond

// refresh is one search for the leader, shared by all calls that need it.
type refresh struct{ done chan struct{} }

// follow asks the members who leads them, after an attempt by the view m has failed, and
// waits for the outcome or for the end of ctx. The search outlives its callers. It reports
// whether the way to the leader is now another than in m.
func (c *Client) follow(ctx context.Context, m *members) bool {
	c.mu.Lock()
	r := c.refresh
	if r == nil {
		if now := c.members.Load(); !now.sameRoute(m) { // found while this call failed
			c.mu.Unlock()
			return true
		}
		r = &refresh{done: make(chan struct{})}
		if !c.tasks.Go("pd leader", func(ctx context.Context) {
			c.search(ctx, m)
			c.mu.Lock()
			c.refresh = nil
			c.mu.Unlock()
			close(r.done)
		}) {
			c.mu.Unlock()
			return false
		}
		c.refresh = r
	}
	c.mu.Unlock()
	select {
	case <-r.done:
	case <-ctx.Done():
	}
	return !c.members.Load().sameRoute(m)
}

// search looks for the leader after an attempt by the view failed.
func (c *Client) search(ctx context.Context, failed *members) {
	m, answers := c.poll(ctx)
	if m == nil {
		return
	}
	m.relay = relay(m, answers, failed)
	if m.services = c.members.Load().services; m.services != nil {
		m.until = time.Now() // they may have changed too: the next use asks, and nobody waits
	}
	c.publish(m)
}

// research asks for everything where nothing failed: the leader, or who relays to it, and
// all members only if he says that another leads.
func (c *Client) research(ctx context.Context, before *members) {
	m, _ := c.askMembers(ctx, before.route().addr)
	if m == nil || m.leader != before.leader || m.clusterID != before.clusterID {
		m, _ = c.poll(ctx)
	}
	if m == nil {
		later := *before
		later.until = time.Now().Add(refreshEvery / 2)
		c.members.CompareAndSwap(before, &later)
		return
	}
	m.services = c.askServices(ctx, m, before.services)
	switch now := c.members.Load(); {
	case now != before: // a search was later, and knows better
		latest := *now
		latest.services, latest.until = m.services, m.until
		m = &latest
	case m.leader == now.leader:
		m.relay = now.relay
	}
	c.publish(m)
}

// poll asks all members that are known, and those that the user named.
func (c *Client) poll(ctx context.Context) (*members, []*members) {
	old := c.members.Load()
	addrs := slices.Clone(old.addrs)
	for _, a := range c.configured {
		if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	answers, failed := c.survey(ctx, addrs, patience)
	answers = slices.DeleteFunc(answers, func(m *members) bool {
		if m.clusterID != old.clusterID {
			c.cfg.Logger.Warn("pd member of another cluster", "addr", m.from, "cluster", m.clusterID)
		}
		return m.clusterID != old.clusterID
	})
	m := elect(answers)
	if m == nil {
		c.cfg.Logger.Warn("no pd member answers", "err", failed)
	}
	return m, answers
}

// publish makes m the client's view.
func (c *Client) publish(m *members) {
	old := c.members.Swap(m)
	if m.leader != old.leader {
		c.cfg.Logger.Info("pd leader changed", "from", old.leader, "to", m.leader)
		if c.cfg.OnLeader != nil {
			c.cfg.OnLeader(m.leader)
		}
	}
	if m.relay != "" && m.relay != old.relay {
		c.cfg.Logger.Info("pd leader out of reach", "leader", m.leader, "through", m.relay)
	}
	c.startProbe()
	c.oracle.moved()
	c.release(m)
}

// release closes the connections to members that are asked only who leads them.
func (c *Client) release(m *members) {
	if c.cfg.TSOFollowerProxy || c.cfg.FollowerReads {
		return
	}
	used := slices.Concat([]string{m.leader, m.relay}, m.tso(), m.routers())
	for _, addr := range slices.Concat(m.addrs, c.configured) {
		if !slices.Contains(used, addr) {
			c.cfg.Pool.Drop(addr)
		}
	}
}
