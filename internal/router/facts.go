package router

import (
	"context"
	"errors"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/region"
)

// peers gathers what is known of the region's peers, for a choice among them.
func (r *Router) peers(ctx context.Context, call *Call, s *sending, buf *[maxPeers]peer) []peer {
	peers := buf[:min(s.region.NumPeers(), maxPeers)]
	l := s.region.LeaderIndex() // now: it may change
	for i := range peers {
		p := &peers[i]
		*p = peer{role: roleOf(s.region.Peer(i)), unwell: s.region.Down(i) || s.region.Pending(i)}
		if i == l {
			p.role = leader
		}
		if s.wish.read && p.role != outside {
			r.judgeStore(ctx, call, s.region.Peer(i).GetStoreId(), p)
		}
	}
	return peers
}

// judgeStore adds what is known of a peer's store. One that is not known yet is asked for.
func (r *Router) judgeStore(ctx context.Context, call *Call, id uint64, p *peer) {
	store, err := r.cfg.Regions.Store(ctx, id)
	switch {
	case errors.Is(err, region.ErrNoStore):
		p.away = true
	case err != nil: // PD does not say: whoever asks it will find out
	case store.TiFlash():
		p.role = outside
	default:
		p.near = call.Route.prefers(store)
	}
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

// away reports whether the leader's store is known to be away.
func (r *Router) away(reg *region.Region) bool { return false }
