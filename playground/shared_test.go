package playground

import (
	"testing"
	"time"
)

// A shared lock in a cluster: its holders, who waits for it, and how it is seen.
func TestSharedLocks(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock k share")
		c.do("t2", "lock k share ttl=5000")
		c.expect("0ms t1 ok", "0ms t2 ok")
		held := c.Locks(nil, nil)
		if len(held) != 2 {
			t.Fatal(held)
		}
		for i, name := range []string{"t1", "t2"} {
			if l := held[i]; l.StartTS != c.ts[name] || !l.Shared || !l.Pessimistic || string(l.Key) != "k" || string(l.Primary) != "k" {
				t.Error(l)
			}
		}
		if held[1].TTL != 5*time.Second {
			t.Error(held[1])
		}
		c.do("t3", "lock k") // closes the lock
		c.do("t3", "lock k")
		c.do("t4", "lock k share")
		c.expect("0ms t3 locked k in share mode by t1 t2")
		c.do("t1", "prewriteshare k")
		c.do("t1", "commit k")
		c.expect("0ms t1 ok", "0ms t1 ok")
		c.do("t2", "unlock k")
		c.expect("0ms t2 ok", "0ms t3 conflict k: t2 at , PessimisticRetry")
		pass(20 * time.Millisecond)
		c.expect("20ms t4 conflict k: t2 at , PessimisticRetry")
		vs, err := c.Versions([]byte("k"))
		if err != nil || len(vs) != 1 || vs[0].Kind != WriteLock || vs[0].StartTS != c.ts["t1"] {
			t.Error(vs, err)
		}
		c.do("t3", "lock k")
		c.do("t4", "lock k share wait=30")
		pass(30 * time.Millisecond)
		c.expect("20ms t3 conflict k: t1 at t1c, PessimisticRetry", "20ms t4 conflict k: t1 at t1c, PessimisticRetry")
	})
}

// Whom a shared lock of an expired transaction keeps out can have it resolved, holder by
// holder.
func TestSharedLockOfTheDead(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock k share")
		c.do("t2", "lock k share")
		c.do("t3", "lock k wait=-1")
		c.expect("0ms t1 ok", "0ms t2 ok", "0ms t3 locked k in share mode by t1 t2")
		c.do("t1", "resolveback k")
		c.do("t2", "expire k") // a shared-locked key is nobody's primary
		c.do("t3", "lock k wait=50")
		pass(50 * time.Millisecond)
		c.expect("0ms t1 ok", "0ms t2 NoAction mismatch", "50ms t3 locked k in share mode by t2")
	})
}
