package playground

import (
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
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

// Two requests that newer clients do not send.
func TestCleanupAndCompact(t *testing.T) {
	c := start(t)
	began := c.timestamp()
	c.prewrite(began, "k", "1")
	ctx, kv := c.at(KeyTxn, "k")
	cleanup := func(startTS, now uint64) *kvrpcpb.CleanupResponse {
		p, err := kv.KvCleanup(t.Context(), &kvrpcpb.CleanupRequest{Context: ctx, Key: []byte("k"), StartVersion: startTS, CurrentTs: now})
		if err != nil || p.RegionError != nil {
			t.Fatal(p, err)
		}
		return p
	}
	if p := cleanup(began, began); p.Error.GetLocked().GetLockVersion() != began {
		t.Error(p)
	}
	c.Advance(4 * time.Second)
	if p := cleanup(began, c.timestamp()); p.Error != nil || p.CommitVersion != 0 {
		t.Error(p)
	}
	again, commitTS := c.timestamp(), c.timestamp()
	c.prewrite(again, "k", "2")
	c.commit(again, commitTS, "k")
	if p := cleanup(again, 0); p.Error != nil || p.CommitVersion != commitTS {
		t.Error(p)
	}
	if n := c.Counts(); n.Rollbacks != 1 || n.Commits != 1 {
		t.Error(n)
	}
	p, err := kv.Compact(t.Context(), &kvrpcpb.CompactRequest{StartKey: []byte("from"), PhysicalTableId: 1})
	if err != nil || p.Error != nil || p.HasRemaining || string(p.CompactedEndKey) != "from" {
		t.Error(p, err)
	}
}
