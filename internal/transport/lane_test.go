package transport

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// TestLanes: connections come with load, up to a limit, take no more than their share,
// and go when there is nothing to do, all of them; then calls connect again.
func TestLanes(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		s := n.serve(t, addr, &store{batch: mute})
		ctx, cancel := context.WithCancel(t.Context())
		begin := func(calls int) (pending []Pending) {
			for range calls {
				c, err := p.Start(ctx, Target{Addr: addr, Timeout: time.Hour}, rawGet("k"))
				if err != nil {
					t.Fatal(err)
				}
				pending = append(pending, c)
			}
			synctest.Wait()
			return pending
		}
		var all []Pending
		for i, c := range []struct{ more, lanes int }{{1, 1}, {LaneCalls - 1, 1}, {1, 2}, {LaneCalls, 3}, {10 * LaneCalls, MaxLanes}} {
			all = append(all, begin(c.more)...)
			if got := n.dialled(addr); got != c.lanes {
				t.Fatalf("%d: %d connections for %d calls, want %d", i, got, len(all), c.lanes)
			}
		}
		for key, e := range *p.endpoints.Load() {
			if q, n := e.load(); q+n > len(all)/2 {
				t.Errorf("%s has %d calls of %d", key, q+n, len(all))
			}
		}
		cancel()
		for _, c := range all {
			if err := c.Wait(ctx, &kvrpcpb.RawGetResponse{}); err == nil {
				t.Fatal("an answer")
			}
		}
		wantLoad(t, p, 0, 0)
		s.batch = echo(nil)
		advance(t, IdleLimit-time.Second)
		if got := len(*p.endpoints.Load()); got != MaxLanes {
			t.Fatalf("%d connections before their time", got)
		}
		advance(t, 2*drainGrace+time.Second)
		p.mu.Lock()
		ending := len(p.draining)
		p.mu.Unlock()
		if got := len(*p.endpoints.Load()); got != 0 || ending != 0 {
			t.Fatalf("%d connections, %d ending", got, ending)
		}
		wantValue(t, <-start(t.Context(), p, rawGet("k")), "k")
		if got := n.dialled(addr); got != MaxLanes+1 {
			t.Errorf("%d connections in all", got)
		}
	})
}

// TestIdleIsNotForStreams: what has a stream of its own or a single call under way is not
// idle.
func TestIdleIsNotForStreams(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		s := n.serve(t, addr, &store{batch: echo(nil)})
		release := make(chan struct{})
		s.unary.cas = func(context.Context, *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
			<-release
			return &kvrpcpb.RawCASResponse{Succeed: true}, nil
		}
		long := start(t.Context(), p, &kvrpcpb.RawCASRequest{})
		wantValue(t, <-start(t.Context(), p, rawGet("k")), "k")
		advance(t, 3*IdleLimit)
		close(release)
		if r := <-long; r.err != nil {
			t.Fatal(r.err)
		}
		if got := n.dialled(addr); got != 1 {
			t.Errorf("%d connections", got)
		}
		advance(t, 2*IdleLimit)
		if got := len(*p.endpoints.Load()); got != 0 {
			t.Errorf("%d connections left", got)
		}
	})
}

// TestIdleAfterSingleCalls: a connection that had nothing but single calls stays while
// there are some now and then, and not for ever.
func TestIdleAfterSingleCalls(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		n.serve(t, addr, &store{batch: mute})
		for range 10 {
			if err := p.Health(t.Context(), addr); err != nil {
				t.Fatal(err)
			}
			advance(t, IdleLimit*9/10)
		}
		if got := n.dialled(addr); got != 1 {
			t.Errorf("%d connections", got)
		}
		advance(t, 2*IdleLimit)
		if got := len(*p.endpoints.Load()); got != 0 {
			t.Errorf("%d connections left", got)
		}
	})
}
