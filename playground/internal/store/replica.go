package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/lag"
	"github.com/tikv-go/tikv/playground/internal/mvcc"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// What a peer that need not lead serves: stale reads by its safe timestamp, replica reads
// once it has what its leader had when they came (TiKV components/raftstore/src/store/
// worker/read.rs, propose_raft_command; store/peer.rs, inspect). That a peer is behind is
// told by package lag; while none is, all have everything.

// progress is how far the peer of a region on this store has come.
type progress struct {
	version uint64 // of the region: another one begins anew
	// safe is the safe timestamp: nothing commits at or below it any more but what the
	// peer has, as a value or as a lock (store/util.rs, RegionReadProgress).
	safe uint64
	// indexed is the largest timestamp of a replica read that the leader was asked about.
	indexed uint64
	// seq is the state of the data that the two were promised for.
	seq uint64
}

func (p progress) covers(ts uint64) bool { return max(p.safe, p.indexed) >= ts }

// peers is the progress of a store's peers by their regions.
type peers struct {
	mu sync.Mutex
	of map[uint64]progress
}

func (s *Store) progress(r *topology.Region) progress {
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	return s.peers.get(r)
}

func (p *peers) get(r *topology.Region) progress {
	version := r.Meta.GetRegionEpoch().GetVersion()
	if at := p.of[r.ID()]; at.version == version {
		return at
	}
	return progress{version: version}
}

// raise takes over what has become known: nothing goes back.
func (p *peers) raise(r *topology.Region, to progress) progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.get(r)
	at.safe, at.indexed, at.seq = max(at.safe, to.safe), max(at.indexed, to.indexed), max(at.seq, to.seq)
	if p.of == nil {
		p.of = make(map[uint64]progress)
	}
	p.of[r.ID()] = at
	return at
}

// version is the timestamp that a request reads at, and whether it is of a kind that has
// one.
func version(req request) (ts uint64, timed bool) {
	switch q := req.(type) {
	case interface{ GetVersion() uint64 }:
		return q.GetVersion(), true
	case *coprocessor.Request:
		return q.GetStartTs(), true
	}
	return 0, false
}

// reading is what a read is served from, if not from the present data.
type reading struct {
	view *lag.View
	// ask tells that the view does only if it has all that the leader has by now.
	ask bool
}

// replica decides how a read is served. The caller is in the region, and closes the view.
func (s *Store) replica(c *command, req request, r *topology.Region) (reading, *errorpb.Error) {
	ctx := req.GetContext()
	ts, timed := version(req)
	switch {
	case c.kind != read:
		return reading{}, nil
	// A stale read at no timestamp is none (TiKV src/server/raftkv/mod.rs, async_snapshot);
	// one that cannot have a timestamp is served at once.
	case ctx.GetStaleRead() && (ts != 0 || !timed):
		return s.staleRead(r, ts)
	case r.LeaderStore() == s.ID:
		return reading{}, nil
	case !ctx.GetReplicaRead():
		return reading{}, s.notLeader(r)
	}
	return s.replicaRead(r, ts)
}

// staleRead is try_local_stale_read and what follows when it fails: a leader serves the
// read like any other.
func (s *Store) staleRead(r *topology.Region, ts uint64) (reading, *errorpb.Error) {
	p := s.progress(r)
	if !p.covers(ts) {
		p = s.advance(r)
	}
	switch {
	case p.covers(ts):
		return reading{view: s.Lag.View(s.ID, r.LeaderStore(), p.seq)}, nil
	case r.LeaderStore() == s.ID:
		return reading{}, nil
	}
	peer := r.Peer(s.ID).GetId()
	return reading{}, &errorpb.Error{
		Message:        fmt.Sprintf("peer %d is not ready, safe_ts %d, region %d", peer, p.safe, r.ID()),
		DataIsNotReady: &errorpb.DataIsNotReady{RegionId: r.ID(), PeerId: peer, SafeTs: p.safe},
	}
}

// replicaRead is try_local_follower_read, or else a read index: who does not hear its
// leader knows of none.
func (s *Store) replicaRead(r *topology.Region, ts uint64) (reading, *errorpb.Error) {
	if !s.Lag.Keeping() {
		return reading{}, nil
	}
	if s.Lag.Severed(s.ID, r.LeaderStore()) {
		return reading{}, s.notLeader(r)
	}
	p := s.progress(r)
	if ts != 0 && !p.covers(ts) {
		p = s.advance(r)
	}
	v := s.Lag.View(s.ID, r.LeaderStore(), p.seq)
	return reading{view: v, ask: v != nil && (ts == 0 || !p.covers(ts))}, nil
}

// advance is the peer's progress as it is now. The caller is in the region.
//
// TiKV's leaders make a safe timestamp every advance-ts-interval and pass it on with the
// index of the log that it is for; here one is made when it is asked for.
func (s *Store) advance(r *topology.Region) progress {
	leader := r.LeaderStore()
	p := s.progress(r)
	now, ok := s.Timestamp()
	if !ok || leader == 0 && p.safe != 0 {
		return p
	}
	// MaxTS is raised to all of it: a leader serves above its safe timestamp without more ado.
	limit := s.state.Load().resolvedTo(now)
	m := s.Manager(leader)
	if leader == 0 { // no command runs: any store's
		m = s.Manager(s.ID)
	}
	v := s.Lag.View(s.ID, leader, p.seq)
	if v == nil {
		bound := min(limit, m.Bound(now))
		snap := s.Lag.Snapshot()
		defer snap.Close()
		to := progress{safe: mvcc.Safe(m, snap, r.Range(), bound), seq: s.Lag.Last()}
		if v = s.Lag.View(s.ID, leader, p.seq); v == nil {
			return s.peers.raise(r, to)
		} // a lag has begun meanwhile
	}
	defer v.Close()
	bound := min(limit, v.Mark)
	if !s.Lag.Severed(s.ID, leader) {
		// As long as nothing was written since, what holds now holds of the peer's data.
		if b := min(limit, m.Bound(now)); s.Lag.Written(r.Range(), v.Seq) == 0 {
			bound = b
		}
	}
	snap := v.Snapshot()
	defer snap.Close()
	return s.peers.raise(r, progress{safe: mvcc.Safe(m, snap, r.Range(), bound), seq: v.Seq})
}

// see runs a read on what a replica has. What it lacks is returned, as the state that has
// it: then the answer is none.
func (s *Store) see(ctx context.Context, c *command, req request, r *topology.Region, at reading) (answer any, lacks uint64) {
	ts, _ := version(req)
	opened, safe := false, false
	ctx = storage.WithView(ctx, func() storage.Snapshot {
		// The read has raised MaxTS and looked at the leader's locks in memory before. What
		// is written by now is what it has to see.
		if at.ask && !opened {
			safe = ts != 0 && ts != ^uint64(0) && s.Manager(r.LeaderStore()).Bound(ts) == ts
			lacks = s.Lag.Written(r.Range(), at.view.Seq)
		}
		opened = true
		return at.view.Snapshot()
	})
	answer = c.run(ctx, r.Range(), req)
	if lacks == 0 && safe && req.GetContext().GetIsolationLevel() == kvrpcpb.IsolationLevel_SI {
		s.peers.raise(r, progress{indexed: ts, seq: at.view.Seq})
	}
	return answer, lacks
}

// caughtUp waits until the store's peer of a region has a state of the data, or leads; it
// reports false when ctx has ended before.
func (s *Store) caughtUp(ctx context.Context, region, seq uint64) bool {
	for {
		moved := s.Topology.Changed()
		r := s.Topology.ByID(region)
		if r == nil {
			return true
		}
		left, changed := s.Lag.Due(s.ID, r.LeaderStore(), seq)
		if left == 0 || s.Lag.Severed(s.ID, r.LeaderStore()) {
			return true
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-moved:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

// SafeTS is the least safe timestamp of the store's peers of regions with keys in a range
// of region keys, 0 if there is none; peers without one are left out (TiKV components/
// raftstore/src/store/worker/check_leader.rs, get_range_safe_ts). A witness has none.
func (s *Store) SafeTS(in keys.Range) uint64 {
	least := ^uint64(0)
	for _, r := range s.Topology.Scan(in, 0) {
		r = s.Topology.Enter(r.ID())
		if r == nil {
			continue
		}
		if p := r.Peer(s.ID); p != nil && !p.IsWitness {
			if at := s.advance(r); at.safe != 0 {
				least = min(least, at.safe)
			}
		}
		r.Leave()
	}
	return finite(least)
}

// storeSafeTS answers StoreSafeTS, whose range is of region keys.
func (s *Store) storeSafeTS(_ context.Context, _ keys.Range, q *kvrpcpb.StoreSafeTSRequest) *kvrpcpb.StoreSafeTSResponse {
	in := keys.Range{Start: q.GetKeyRange().GetStartKey(), End: q.GetKeyRange().GetEndKey()}
	return &kvrpcpb.StoreSafeTSResponse{SafeTs: s.SafeTS(in)}
}
