package pd

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
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
	failed = &Error{Op: opMembers, Addr: strings.Join(addrs, ", "), Kind: Unavailable, Message: "none has answered"}
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
