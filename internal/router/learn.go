package router

import (
	"github.com/pingcap/kvproto/pkg/metapb"
)

// learn makes the caches know what a failed attempt tells, as its rule says, and returns
// what the choice of the next peer goes by.
func (r *Router) learn(s *sending, t *try) event {
	e := event{rule: t.rule, named: unnamed, short: t.short && expired(t)}
	if t.rule.learn&(moved|unreached) != 0 && t.store != nil {
		r.missed(s, t)
	}
	switch {
	case t.rule.learn&toldLeader != 0:
		if leader := t.region.GetNotLeader().GetLeader(); leader.GetId() != 0 {
			e.named = r.newLeader(s, leader)
		}
	case t.rule.learn&toldRegions != 0:
		current := t.region.GetEpochNotMatch().GetCurrentRegions()
		e.bare = len(current) == 0
		e.behind = !e.bare && r.cfg.Regions.ReplaceEpoch(s.region, current, s.peer().GetStoreId())
	case t.rule.learn&queued != 0:
		e.queue = t.region.GetServerIsBusy().GetEstimatedWaitMs() > 0
	}
	return e
}

// expired reports whether an attempt ended with its own time, here or at the store.
func expired(t *try) bool {
	return t.rule.reason == Timeout || overdue(t.region.GetServerIsBusy().GetReason())
}

// missed deals with a store that was not where it was believed to be.
func (r *Router) missed(s *sending, t *try) {
	if t.rule.learn&moved != 0 {
		r.cfg.Regions.RefreshStore(t.store)
	}
	if s.via >= 0 {
		r.detours.forget(s.peer().GetStoreId())
	}
}

// newLeader takes over the leader that a peer names, and returns its index.
func (r *Router) newLeader(s *sending, leader *metapb.Peer) int {
	now := r.cfg.Regions.UpdateLeader(s.region, leader.GetId())
	if now == nil {
		return unknown
	}
	at := now.PeerIndex(leader.GetId())
	if now.Epoch.ConfVer != s.region.Epoch.ConfVer { // other peers, other numbers
		s.selector = first(at)
	}
	s.region = now
	return at
}
