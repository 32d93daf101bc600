package router

import (
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
)

// learn makes the caches know what a failed attempt tells, as its rule says, and returns
// what the choice of the next peer goes by.
func (r *Router) learn(s *sending, t *try) event {
	e := event{rule: t.rule, named: unnamed, detour: -1, short: t.short && expired(t)}
	if t.rule.mark(e) == cut {
		r.missed(s, t, &e)
	}
	switch {
	case t.rule.learn&toldLeader != 0:
		if leader := t.region.GetNotLeader().GetLeader(); leader.GetId() != 0 {
			e.named = r.newLeader(s, leader)
		}
	case t.rule.learn&toldRegions != 0:
		current := t.region.GetEpochNotMatch().GetCurrentRegions()
		e.bare = len(current) == 0
		leads := s.peer().GetStoreId()
		if s.ask != plain { // who answered as a replica does not
			leads = s.region.Leader().GetStoreId()
		}
		e.behind = !e.bare && r.cfg.Regions.ReplaceEpoch(s.region, current, leads)
	case t.rule.learn&toldBuckets != 0:
		buckets := t.region.GetBucketVersionNotMatch()
		r.cfg.Regions.UpdateBuckets(s.region, buckets.GetVersion(), buckets.GetKeys())
		e.behind = true // who cut the request was
	case t.rule.learn&queued != 0:
		busy := t.region.GetServerIsBusy()
		e.queue = busy.GetEstimatedWaitMs() > 0
		if s.via < 0 && !overdue(busy.GetReason()) {
			t.store.Busy(t.ended, time.Duration(busy.GetEstimatedWaitMs())*time.Millisecond)
		}
	case t.rule.reason == StoreNotMatch && s.via >= 0: // so says whom the proxy has passed it on to
		if asked := r.cfg.Regions.KnownStore(t.storeID); asked != nil {
			r.cfg.Regions.RefreshStore(asked)
		}
	case t.rule.learn&moved != 0 && t.store != nil:
		r.cfg.Regions.RefreshStore(t.store)
		if t.rule.reason == StoreNotMatch {
			r.misled.renew(r.cfg.Transport, t.store.Addr, t.ended)
		}
	}
	return e
}

// expired reports whether an attempt ended with its own time, here or at the store.
func expired(t *try) bool {
	return t.rule.reason == Timeout || overdue(t.region.GetServerIsBusy().GetReason())
}

// missed deals with a store that cannot be reached: by the way that led to it before, if
// that has been found and was not the one that was tried.
func (r *Router) missed(s *sending, t *try, e *event) {
	if s.via >= 0 {
		r.detours.forget(s.peer().GetStoreId())
	} else if s.at == s.region.LeaderIndex() {
		e.detour = r.detour(s)
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
