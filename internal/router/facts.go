package router

import (
	"context"
	"errors"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/region"
)

// lookTime is how long PD is waited for, at most, for what a call can do without.
const lookTime = time.Second

// peers gathers what is known of the region's peers, for a choice among them.
func (r *Router) peers(ctx context.Context, call *Call, s *sending, buf *[maxPeers]peer) []peer {
	peers := buf[:min(s.region.NumPeers(), maxPeers)]
	l := s.region.LeaderIndex() // now: it may change
	if s.wish.read && r.strangers(s) {
		bounded, end := r.bounded(ctx, call)
		defer end()
		look, cancel := context.WithTimeout(bounded, lookTime)
		defer cancel()
		ctx = look
	}
	for i := range peers {
		p := &peers[i]
		*p = peer{role: roleOf(s.region.Peer(i)), unwell: s.region.Down(i) || s.region.Pending(i)}
		if i == l {
			p.role = leader
		}
		if p.role != outside {
			r.judgeStore(ctx, call, s, s.region.Peer(i).GetStoreId(), p)
		}
	}
	return peers
}

// strangers reports whether there are peers whose store is not known.
func (r *Router) strangers(s *sending) bool {
	for i := range min(s.region.NumPeers(), maxPeers) {
		if r.cfg.Regions.KnownStore(s.region.Peer(i).GetStoreId()) == nil {
			return true
		}
	}
	return false
}

// judgeStore adds what is known of a peer's store. Where the choice depends on what it is,
// one that is not known yet is asked for.
func (r *Router) judgeStore(ctx context.Context, call *Call, s *sending, id uint64, p *peer) {
	store := r.cfg.Regions.KnownStore(id)
	if store == nil && s.wish.read {
		var err error
		if store, err = r.cfg.Regions.Store(ctx, id); errors.Is(err, region.ErrNoStore) {
			p.away = true
		}
	}
	if store == nil { // PD does not say: whoever asks it will find out
		return
	}
	p.away = away(store)
	if !s.wish.read {
		return
	}
	if store.TiFlash() {
		p.role = outside
	}
	now := time.Now()
	p.near, p.slow = call.Route.prefers(store), store.Slow(now)
	p.busy = s.wish.threshold && store.Queue(now) > call.Route.BusyThreshold
}

// away reports whether a store is known to be away, and lets it be known that it is wanted:
// only such stores are probed.
func away(store *region.Store) bool {
	if !store.Away() {
		return false
	}
	if store.Admit() != nil {
		return true
	}
	store.Done(region.Left, time.Now(), 0, nil) // it has come back this moment
	return false
}

// roleOf is a peer's role if it does not lead. A witness has no data.
func roleOf(p *metapb.Peer) role {
	switch {
	case p.GetIsWitness():
		return outside
	case p.GetRole() == metapb.PeerRole_Learner:
		return learner
	}
	return follower
}
