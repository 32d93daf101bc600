package pd

import (
	"context"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
)

// members is one member's view of all of them. It is immutable.
type members struct {
	from      string // who said so
	clusterID uint64
	leader    string
	addrs     []string // all, the leader included
}

const opMembers = "GetMembers"

// askMembers asks one member.
func (c *Client) askMembers(ctx context.Context, addr string) (*members, *Error) {
	resp, err := attempt(ctx, c, addr, func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetMembersResponse, error) {
		return pd.GetMembers(ctx, &pdpb.GetMembersRequest{})
	})
	if e := judge(opMembers, addr, 0, resp, err); e != nil {
		return nil, e
	}
	m := &members{from: addr, clusterID: resp.GetHeader().GetClusterId(), leader: firstURL(resp.GetLeader())}
	switch {
	case m.clusterID == 0:
		return nil, &Error{Op: opMembers, Addr: addr, Kind: Unavailable, Message: "no cluster id"}
	case m.leader == "":
		return nil, &Error{Op: opMembers, Addr: addr, Kind: Unavailable, Message: "no leader"}
	}
	m.addrs = []string{m.leader}
	for _, member := range resp.GetMembers() {
		if a := firstURL(member); a != "" && !slices.Contains(m.addrs, a) {
			m.addrs = append(m.addrs, a)
		}
	}
	return m, nil
}

// firstURL is the address of a member's first usable client URL.
func firstURL(m *pdpb.Member) string {
	for _, u := range m.GetClientUrls() {
		if a, err := hostPort(u); err == nil {
			return a
		}
	}
	return ""
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

// follow asks the members who leads them, and waits for the outcome or for the end of
// ctx. The search outlives its callers. It reports whether the leader is now another
// than the one given.
func (c *Client) follow(ctx context.Context, leader string) bool {
	c.mu.Lock()
	r := c.refresh
	if r == nil {
		if now := c.Leader(); now != leader { // found while this call failed
			c.mu.Unlock()
			return true
		}
		r = &refresh{done: make(chan struct{})}
		if !c.tasks.Go("pd leader", func(ctx context.Context) { c.search(ctx, r) }) {
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
	return c.Leader() != leader
}

// search does the work of r.
func (c *Client) search(ctx context.Context, r *refresh) {
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
	if m := elect(answers); m != nil {
		c.members.Store(m)
		if m.leader != old.leader {
			c.cfg.Logger.Info("pd leader changed", "from", old.leader, "to", m.leader)
		}
	} else {
		c.cfg.Logger.Warn("no pd member answers", "err", failed)
	}
	c.mu.Lock()
	c.refresh = nil
	c.mu.Unlock()
	close(r.done)
}
