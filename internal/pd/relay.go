package pd

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
)

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

// probePace is that of asking a leader that is out of reach whether it is back.
var probePace = backoff.Kind{Name: "pd-probe", Base: time.Second, Cap: 5 * time.Second, Jitter: true}

// startProbe has a probe run while there is a relay.
func (c *Client) startProbe() {
	if c.members.Load().relay == "" || !c.probing.CompareAndSwap(false, true) {
		return
	}
	if !c.tasks.Go("pd probe", c.probe) {
		c.probing.Store(false)
	}
}

// probe goes back to the leader itself as soon as it answers, or where nobody needed the
// relay since the last time.
func (c *Client) probe(ctx context.Context) {
	defer c.startProbe() // for a relay that was found as this one ended
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
			c.cfg.Logger.Info("pd leader is asked itself again", "leader", m.leader)
			c.oracle.moved()
			return
		}
	}
}
