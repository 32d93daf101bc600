package playground

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Whatever becomes of the members, at most one of them serves at a time, each agrees with
// it or knows of none or of one whose lease has not ended, timestamps grow, and once all is
// well again they agree.
func TestMembersAtRandom(t *testing.T) {
	for seed := range uint64(6) {
		for _, n := range []int{3, 5} {
			t.Run(fmt.Sprintf("%d/%d", n, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { membersAtRandom(t, n, rand.New(rand.NewPCG(seed, uint64(n)))) })
			})
		}
	}
}

func membersAtRandom(t *testing.T, n int, r *rand.Rand) {
	c := start(t, WithMembers(n))
	last, served, idle := uint64(0), 0, 0
	for range 80 {
		m := Member(r.IntN(n))
		switch r.IntN(9) {
		case 0:
			c.must(c.Stop(m))
		case 1:
			if c.server(m).Running() {
				c.must(c.Pause(m))
			}
		case 2, 3:
			c.must(c.Cluster.Start(m))
		case 4, 5:
			if to := Member(r.IntN(n)); to != m {
				c.must(c.Cut(m, to))
			}
		case 6:
			c.Heal()
		case 7:
			_ = c.TransferPD(r.IntN(n)) // refused, if it cannot lead
		case 8:
			if c.server(m).Running() && !c.paused[m] {
				c.must(c.Move(m))
			}
		}
		<-time.After(time.Duration(1+r.IntN(4)) * time.Second)
		serving := c.serving(n)
		switch len(serving) {
		case 0:
			idle++
			continue
		case 1:
			served++
		default:
			t.Fatal("all of these serve:", serving)
		}
		ts := c.tsoOf(serving[0])
		if ts <= last {
			t.Fatalf("timestamp %d after %d", ts, last)
		}
		last = ts
	}
	if served < 8 || idle < 5 {
		t.Errorf("served %d times, idle %d times", served, idle)
	}
	c.Heal()
	for i := range n {
		c.must(c.Cluster.Start(Member(i)))
	}
	<-time.After(5 * time.Second)
	for i := range n {
		if l := c.leaderOf(i); l != c.leaderOf(0) || l == "" {
			t.Fatal("they do not agree:", l, c.leaderOf(0))
		}
	}
	if s := c.serving(n); len(s) != 1 || c.tsoOf(s[0]) <= last {
		t.Fatal(s)
	}
}

// serving are the members that answer what only a leader does, over connections of their
// own: those before may be of another address or time.
func (c *testCluster) serving(n int) (all []int) {
	c.t.Helper()
	for i := range n {
		cc, err := c.dial(c.PD()[i])
		if err != nil {
			c.t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Millisecond)
		resp, err := pdpb.NewPDClient(cc).GetStore(ctx, &pdpb.GetStoreRequest{Header: c.header(), StoreId: 1})
		cancel()
		_ = cc.Close()
		switch code := status.Code(err); {
		case err == nil && resp.Store.GetId() == 1:
			all = append(all, i)
		case code != codes.Unavailable && code != codes.DeadlineExceeded:
			c.t.Fatal(resp, err)
		}
	}
	return all
}

// tsoOf is one timestamp of a member.
func (c *testCluster) tsoOf(i int) uint64 {
	c.t.Helper()
	cc, err := c.dial(c.PD()[i])
	if err != nil {
		c.t.Fatal(err)
	}
	defer cc.Close()
	ts, err := tsoOnce(c.t.Context(), pdpb.NewPDClient(cc), c.header())
	if err != nil {
		c.t.Fatal(err)
	}
	return ts
}
