package pd

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/backoff"
)

// members is one member's view of all of them, and what the client made of it. It is
// immutable.
type members struct {
	from      string // who said so
	clusterID uint64
	leader    string
	leaderURL string   // as it advertises itself
	addrs     []string // all, the leader included

	relay    string    // the member through which the leader is reached, where only that works
	services *services // beside PD, nil for none
	until    time.Time // when to ask again
}

const opMembers = "GetMembers"

// askMembers asks one member.
func (c *Client) askMembers(ctx context.Context, addr string) (*members, *Error) {
	resp, err := attemptFor(ctx, c, target{addr: addr}, c.cfg.AttemptTimeout, func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetMembersResponse, error) {
		return pd.GetMembers(ctx, &pdpb.GetMembersRequest{})
	})
	if e := judge(opMembers, addr, 0, resp.GetHeader(), err); e != nil {
		return nil, e
	}
	m := &members{from: addr, clusterID: resp.GetHeader().GetClusterId()}
	m.leader, m.leaderURL = firstURL(resp.GetLeader())
	switch {
	case m.clusterID == 0:
		return nil, &Error{Op: opMembers, Addr: addr, Kind: Unavailable, Message: "no cluster id"}
	case m.leader == "":
		return nil, &Error{Op: opMembers, Addr: addr, Kind: Unavailable, Message: "no leader"}
	}
	m.addrs = []string{m.leader}
	for _, member := range resp.GetMembers() {
		if a, _ := firstURL(member); a != "" && !slices.Contains(m.addrs, a) {
			m.addrs = append(m.addrs, a)
		}
	}
	m.until = time.Now().Add(refreshEvery/2 + rand.N(refreshEvery/2))
	return m, nil
}

// firstURL is a member's first usable client URL, and its address.
func firstURL(m *pdpb.Member) (addr, url string) {
	for _, u := range m.GetClientUrls() {
		if a, err := hostPort(u); err == nil {
			return a, u
		}
	}
	return "", ""
}

// survey asks the members at addrs, all at once. It returns what they said as soon as
// all have answered or failed, or patience after the first good answer, or when ctx
// ends; failed is the last failure.
func (c *Client) survey(ctx context.Context, addrs []string, patience time.Duration) (answers []*members, failed *Error) {
	type reply struct {
		m   *members
		err *Error
	}
	replies := make(chan reply, len(addrs)) // room for all: who is late blocks nobody
	failed = &Error{Op: opMembers, Kind: Unavailable}
	waiting := 0
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, addr := range addrs {
		if c.tasks.Go("pd members", func(context.Context) {
			m, err := c.askMembers(ctx, addr)
			replies <- reply{m, err}
		}) {
			waiting++
		}
	}
	var impatient <-chan time.Time
	for ; waiting > 0; waiting-- {
		select {
		case r := <-replies:
			if r.err != nil {
				failed = r.err
				continue
			}
			if answers = append(answers, r.m); impatient == nil {
				timer := time.NewTimer(patience)
				defer timer.Stop()
				impatient = timer.C
			}
		case <-impatient:
			return answers, failed
		case <-ctx.Done():
			return answers, failed
		}
	}
	return answers, failed
}

// elect returns the view whose leader most views name, the first of those, or nil.
func elect(answers []*members) *members {
	votes := make(map[string]int)
	var best *members
	for _, a := range answers {
		votes[a.leader]++
	}
	for _, a := range answers {
		if best == nil || votes[a.leader] > votes[best.leader] {
			best = a
		}
	}
	return best
}

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

// relay returns the member through which to reach the leader of m: one that knows it, if
// the leader failed us and does not answer us now, though others say that it leads. After
// a relay has failed it is another one, or none, so that the leader is tried itself again.
func relay(m *members, answers []*members, failed *members) string {
	if m.leader != failed.leader {
		return ""
	}
	var know []string
	for _, a := range answers {
		if a.from == m.leader {
			return ""
		}
		if a.leader == m.leader && a.from != failed.relay {
			know = append(know, a.from)
		}
	}
	if len(know) == 0 {
		return ""
	}
	return know[rand.N(len(know))]
}

// publish makes m the client's view.
func (c *Client) publish(m *members) {
	old := c.members.Swap(m)
	if m.leader != old.leader {
		c.cfg.Logger.Info("pd leader changed", "from", old.leader, "to", m.leader)
	}
	if m.relay != old.relay {
		c.cfg.Logger.Info("pd leader out of reach", "leader", m.leader, "through", m.relay)
	}
	if m.relay != "" && c.probing.CompareAndSwap(false, true) {
		if !c.tasks.Go("pd probe", c.probe) {
			c.probing.Store(false)
		}
	}
	c.oracle.moved()
	c.release(m)
}

// probePace is that of asking a leader that is out of reach whether it is back.
var probePace = backoff.Kind{Name: "pd-probe", Base: time.Second, Cap: 5 * time.Second, Jitter: true}

// probe goes back to the leader itself as soon as it answers, or where nobody needed the
// relay since the last time.
func (c *Client) probe(ctx context.Context) {
	defer c.probing.Store(false)
	retry := backoff.New(0)
	for {
		c.relayUsed.Store(false)
		if retry.Wait(ctx, probePace) != nil {
			return
		}
		m := c.members.Load()
		if m.relay == "" {
			return
		}
		if c.relayUsed.Load() || c.relaying.Load() > 0 || c.oracle.relaying() {
			if v, e := c.askMembers(ctx, m.leader); e != nil || v.leader != m.leader {
				continue
			}
		}
		direct := *m
		direct.relay = ""
		if c.members.CompareAndSwap(m, &direct) {
			c.oracle.moved()
			return
		}
	}
}

// Member is one of PD's.
type Member struct {
	ID      uint64
	Name    string
	Addrs   []string // where clients find it
	Version string
	Leader  bool
}

// Members returns PD's members as one that knows the leader sees them.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	resp, err := ask(ctx, c, opMembers, func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetMembersResponse, error) {
		return pd.GetMembers(ctx, &pdpb.GetMembersRequest{Header: c.header()})
	})
	if err != nil {
		return nil, err
	}
	var all []Member
	for _, m := range resp.GetMembers() {
		addrs, _ := hostPorts(m.GetClientUrls())
		all = append(all, Member{
			ID: m.GetMemberId(), Name: m.GetName(), Addrs: addrs, Version: m.GetBinaryVersion(),
			Leader: m.GetMemberId() == resp.GetLeader().GetMemberId(),
		})
	}
	return all, nil
}
