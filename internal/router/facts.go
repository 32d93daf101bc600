package router

import (
	"context"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/region"
)

// peers gathers what is known of the region's peers, for a choice among them.
func (r *Router) peers(ctx context.Context, call *Call, s *sending, buf *[maxPeers]peer) []peer {
	peers := buf[:min(s.region.NumPeers(), maxPeers)]
	l := s.region.LeaderIndex() // now: it may change
	for i := range peers {
		peers[i] = peer{role: roleOf(s.region.Peer(i)), unwell: s.region.Down(i) || s.region.Pending(i)}
		if i == l {
			peers[i].role = leader
		}
	}
	return peers
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
