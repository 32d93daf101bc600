package router

import (
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/region"
)

// replicas chooses the peer of the next attempt: the leader as far as is known, else,
// after a failure, the others in turn, who know better or have been elected.
type replicas struct {
	region *region.Region
	at     int    // index of a peer of region
	failed uint64 // bit i: peer i has failed since it was last named leader
	hints  int    // leaders named by others
}

func choose(r *region.Region) replicas { return replicas{region: r, at: r.LeaderIndex()} }

func (s *replicas) peer() *metapb.Peer { return s.region.Peer(s.at) }

// fail goes to the next peer that has not failed; false: all have.
func (s *replicas) fail() bool {
	n := min(s.region.NumPeers(), 64)
	s.failed |= 1 << s.at
	for range n {
		s.at = (s.at + 1) % n
		if s.region.Able(s.at) && s.failed&(1<<s.at) == 0 {
			return true
		}
	}
	return false
}

// hint goes to the peer that was named leader. It reports whether to go at once:
// peers that have failed, or that name each other in turn, are given time.
func (s *replicas) hint(now *region.Region) (atOnce bool) {
	if now.Epoch.ConfVer != s.region.Epoch.ConfVer {
		s.failed = 0 // other peers, other numbers
	}
	s.failed |= 1 << s.at
	s.region, s.at = now, now.LeaderIndex()
	known := s.failed&(1<<s.at) != 0
	s.failed &^= 1 << s.at
	s.hints++
	return !known && s.hints <= now.NumPeers()
}
