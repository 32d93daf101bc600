package mvcc

import (
	"context"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// A prewrite that fails leaves no lock in memory.
func TestFailedPrewriteLeavesNoLockInMemory(t *testing.T) {
	s := newScript(t)
	s.run(`prewrite 5 b put:b=1 => ok`)
	s.e.store = failing{s.store}
	s.run(`
		prewrite 10 a put:a=1 async => abort(Other("no)
		prewrite 10 a put:a=1 1pc => abort(Other("no)
		prewrite 10 a put:a=1 put:b=1 1pc => locked(b:Put@5)
		prewrite 10 a put:a=1 put:a=2 async => abort(Other("no)
		get a 20 => absent`)
	if n := s.e.manager.inMemory.Load(); n != 0 || len(s.e.manager.locks) != 0 {
		t.Errorf("%d locks are left in memory", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	release, err := s.e.latches.Acquire(t.Context(), keyOf([]byte("a")).enc)
	if err != nil {
		t.Fatal(err)
	}
	resp := s.e.Prewrite(ctx, s.bounds, &kvrpcpb.PrewriteRequest{StartVersion: 10, UseAsyncCommit: true,
		Mutations: []*kvrpcpb.Mutation{{Key: []byte("a")}}})
	release()
	if len(resp.Errors) != 1 || s.e.manager.inMemory.Load() != 0 {
		t.Errorf("%v, %d locks are left in memory", resp, s.e.manager.inMemory.Load())
	}
}

// Every store has its own MaxTS; a replica read asks that of the leader.
func TestManagers(t *testing.T) {
	s := newScript(t)
	one, two := NewManager(), NewManager()
	leader := func(region uint64) *Manager { return one }
	first, second := s.e.On(one, leader), s.e.On(two, leader)
	s.e = second
	s.run(`
		get a 20 => absent
		maxts => 20`)
	s.e = first
	s.run(`
		maxts => 0
		prewrite 10 a put:a=1 1pc => ok 1pc=11`)
	s.e = second
	s.run(`get a 30 replica => =1`)
	s.e = first
	s.run(`
		maxts => 30
		prewrite 12 a put:a=2 1pc => ok 1pc=31`)
	s.e = second
	s.run(`get a 40 replica stale => =2`)
	if one.MaxTS() != 30 {
		t.Errorf("a stale read raised it to %d", one.MaxTS())
	}
}

func TestStatusCache(t *testing.T) {
	var c statusCache
	for ts := range uint64(statusCacheSize + 2) {
		c.add(ts, ts+1)
		c.add(ts, ts+1)
	}
	for ts, want := range map[uint64]bool{0: false, 1: false, 2: true, statusCacheSize + 1: true, statusCacheSize + 2: false} {
		if c.has(ts) != want {
			t.Errorf("%d: %v", ts, !want)
		}
	}
	if len(c.commitTS) != statusCacheSize || len(c.order) != statusCacheSize {
		t.Error(len(c.commitTS), len(c.order))
	}
}
