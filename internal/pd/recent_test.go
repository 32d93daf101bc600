package pd

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/transport"
)

// TestRecentTimestamp: none is older than wanted, callers do not wait, and PD is asked as
// often as that takes, and no longer than somebody wants it.
func TestRecentTimestamp(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		recent := func(maxAge time.Duration) uint64 {
			t.Helper()
			ts, err := client.RecentTimestamp(t.Context(), maxAge)
			if err != nil {
				t.Fatal(err)
			}
			return ts
		}
		first := recent(time.Second)
		if ts := recent(time.Second); ts != first {
			t.Errorf("%d, not %d", ts, first)
		}
		if ts := recent(0); ts <= first {
			t.Errorf("%d is not new", ts)
		}
		// Each answer takes long, but only the background waits for it.
		c.onTso(func(*pdpb.TsoResponse) error { advance(t, 100*time.Millisecond); return nil })
		before := len(c.tsoRequests())
		for last := first; time.Since(client.oracle.epoch) < 10*time.Second; {
			advance(t, 200*time.Millisecond)
			began := time.Now()
			ts := recent(time.Second)
			if d := time.Since(began); d != 0 {
				t.Fatalf("waited %v", d)
			}
			if ts < last {
				t.Fatalf("%d after %d", ts, last)
			}
			if _, age, _ := client.oracle.last(); age > time.Second {
				t.Fatalf("%v old", age)
			}
			last = ts
		}
		if n := len(c.tsoRequests()) - before; n < 10 || n > 25 {
			t.Errorf("%d requests in 10 s", n)
		}
		advance(t, recentIdle+recentMax)
		synctest.Wait()
		before = len(c.tsoRequests())
		advance(t, time.Hour)
		if n := len(c.tsoRequests()) - before; n != 0 {
			t.Errorf("%d requests that nobody wanted", n)
		}
	})
}

// TestRecentAdapts: a caller that wants younger timestamps has the interval shortened at
// once; when it has not come for a while it is the others' again.
func TestRecentAdapts(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		requests := func(maxAge, d time.Duration) int {
			before := len(c.tsoRequests())
			for until := time.Now().Add(d); time.Now().Before(until); {
				if _, err := client.RecentTimestamp(t.Context(), maxAge); err != nil {
					t.Fatal(err)
				}
				advance(t, maxAge/5)
			}
			return len(c.tsoRequests()) - before
		}
		slow := requests(4*time.Second, 20*time.Second)
		quick := requests(time.Second, 20*time.Second)
		requests(4*time.Second, recentIdle+recentMax)
		again := requests(4*time.Second, 20*time.Second)
		if slow < 8 || slow > 12 || quick < 35 || quick > 45 || again < 8 || again > 12 {
			t.Errorf("%d, %d and %d requests in 20 s", slow, quick, again)
		}
	})
}

// TestStaleTimestamp: PD's clock goes on here, without asking.
func TestStaleTimestamp(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		c.physical = 1_000_000
		for name, q := range map[string]struct {
			wait, age time.Duration
			physical  int64 // 0: refused
		}{
			"now":              {0, 0, 1_000_000},
			"then":             {0, time.Minute, 940_000},
			"before the epoch": {0, time.Hour, 0},
			"in the future":    {0, -time.Second, 0},
		} {
			advance(t, q.wait)
			ts, err := client.StaleTimestamp(t.Context(), q.age)
			if (err != nil) != (q.physical == 0) || int64(ts>>logicalBits) != q.physical {
				t.Errorf("%s: %d, %v", name, ts>>logicalBits, err)
			}
			if err != nil {
				wantError(t, err, Rejected, nil)
			}
		}
		before := len(c.tsoRequests())
		c.members[0].pause()
		advance(t, 3*time.Second)
		began := time.Now()
		ts, err := client.StaleTimestamp(t.Context(), time.Second)
		if err != nil || int64(ts>>logicalBits) != 1_002_000 || time.Since(began) != 0 {
			t.Error(ts>>logicalBits, err)
		}
		c.members[0].resume()
		advance(t, time.Hour)
		if n := len(c.tsoRequests()) - before; n > 10 {
			t.Errorf("%d requests", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		c.members[0].pause()
		cancel()
		_, err = client.StaleTimestamp(ctx, time.Second)
		wantError(t, err, Unavailable, context.Canceled)
	})
}
