package router

import (
	"github.com/tikv-go/tikv/internal/backoff"
)

// maxPeers is how many peers of a region are considered: the first ones.
const maxPeers = 16

// selector is where the choice of a peer stands during one Send. It is a value, and pure:
// what happened goes in as an event, with the peers as they are now, and what follows comes
// out as a verdict.
type selector struct {
	choice
	marks  [maxPeers]mark
	tries  [maxPeers]uint8
	hints  uint8        // leaders named by others
	busies uint8        // in a row, from a leader that does not say how long
	owed   backoff.Kind // the longest wait that was put off
}

// slot is where a peer's marks are; those of a region that has more peers share the last.
func slot(peer int) int { return min(peer, maxPeers-1) }

// first is a selector that asks the leader.
func first(leader int) selector { return selector{choice: choice{at: leader, via: -1}} }

// event is what came of an attempt.
type event struct {
	rule   *rule
	named  int  // NotLeader: the index of the peer that it names, or unnamed, or unknown
	queue  bool // ServerBusy: it says how long its queue is
	short  bool // the attempt had the short time of a read's first attempts
	behind bool // EpochNotMatch: the store has yet to learn what the cache knows; nothing is wrong with that
	bare   bool // EpochNotMatch: it names no regions
	detour int  // the leader's store is out of reach: the peer through which it was reached before, or -1
}

// What a NotLeader names, if not a peer of the region as it is cached.
const (
	unnamed = -1
	unknown = -2
)

// next is what follows an attempt.
type next uint8

const (
	send  next = iota // ask the peer that the selector has chosen, after the wait
	leave             // the region is no good: forget it and locate again, after the wait
	stray             // as leave; its leader is out of reach, so that calls end that fail fast
	retry             // the cache knows better already: locate again, after the wait
	end               // an error
)

var nextNames = [...]string{"send", "leave", "stray", "locate", "end"}

// verdict is what follows, and the wait before it; none if that has no name.
type verdict struct {
	next next
	wait backoff.Kind
}

// begin chooses the first peer. The verdict is not send if there is nobody to ask.
func (s *selector) begin(w *wish, peers []peer, dice uint32) verdict {
	s.at = -1
	return s.pass(w, peers, unmarked, backoff.Kind{}, dice)
}

// asked counts the attempt that begins.
func (s *selector) asked() { n := &s.tries[slot(s.at)]; *n = max(*n, *n+1) }

// after is the machine: what follows an attempt that brought no answer. It changes the
// wish where what was wished cannot be had.
func (s *selector) after(w *wish, peers []peer, e event, dice uint32) verdict {
	r := e.rule
	if r.reason != ServerBusy || e.queue {
		s.busies = 0
	}
	switch r.do {
	case again:
		return s.again(w, peers, r, dice)
	case other:
		m := r.mark(e)
		if m == cut && e.detour >= 0 && (!w.read || w.policy == ReadLeader) && s.marks[slot(e.detour)] == unmarked {
			s.mark(cut)
			s.via = e.detour
			return verdict{next: send}
		}
		return s.pass(w, peers, m, r.wait, dice)
	case aside:
		return s.aside(w, peers, e, dice)
	case follow:
		return s.follow(w, peers, e, dice)
	case plainly:
		switch s.ask {
		case stale:
			return s.pass(w, peers, notReady, r.wait, dice)
		case replica:
			return s.pass(w, peers, failed, r.wait, dice)
		}
		return verdict{send, r.wait}
	case relocate, replace, refer:
		return s.doubt(w, peers, e, dice)
	}
	return verdict{next: end}
}

// mark is what a peer is to be known for after the failure e.
func (r *rule) mark(e event) mark {
	switch r.reason {
	case Timeout:
		if e.short {
			return late
		}
		return cut
	case Dial, ConnLost, StoreDown:
		return cut
	}
	return failed
}

// again asks the same peer, up to a point; a replica that was asked as one is given up at
// once, since others have what it has.
func (s *selector) again(w *wish, peers []peer, r *rule, dice uint32) verdict {
	if s.ask == plain && (r.tries == 0 || s.tries[slot(s.at)] < r.tries) {
		return verdict{send, r.wait}
	}
	return s.pass(w, peers, failed, r.wait, dice)
}

// aside leaves a busy store alone. A read that others may serve goes to them. What its
// leader alone can do waits; but one that is busy again, and cannot say for how long, may
// not lead any more, which another peer is asked once.
func (s *selector) aside(w *wish, peers []peer, e event, dice uint32) verdict {
	r := e.rule
	if s.ask != plain || w.read && (w.policy != ReadLeader || w.stale || w.threshold || e.short) {
		m := engaged
		if e.short {
			m = late
		}
		return s.pass(w, peers, m, r.wait, dice)
	}
	if !e.queue {
		s.busies++
	}
	if s.busies != r.tries || s.via >= 0 {
		return verdict{send, r.wait}
	}
	leader, tries := s.at, s.tries
	v := s.pass(w, peers, engaged, backoff.Kind{}, dice)
	if v.next != send || s.at == leader {
		s.choice, s.tries, s.marks[slot(leader)] = choice{at: leader, via: -1}, tries, unmarked
	}
	return verdict{send, r.wait}
}

// follow goes to the leader that a peer names. Peers that have failed, or that name each
// other in turn, are given time; a leader that cannot be reached is reached through the
// peer that hears it.
func (s *selector) follow(w *wish, peers []peer, e event, dice uint32) verdict {
	from := s.at
	if s.via >= 0 {
		from = s.via
	}
	switch e.named {
	case unnamed: // an election
		v := s.pass(w, peers, deposed, e.rule.wait, dice)
		v.wait = e.rule.wait
		return v
	case unknown:
		return verdict{leave, e.rule.wait}
	}
	was := s.marks[slot(e.named)]
	s.mark(deposed)
	s.marks[slot(e.named)] = unmarked
	s.hints = max(s.hints, s.hints+1)
	s.choice = choice{at: e.named, via: -1}
	calm := int(s.hints) > len(peers)
	switch {
	case was == cut || e.named < len(peers) && peers[e.named].away:
		if calm = calm || from == e.named; from != e.named { // else it is there after all
			s.marks[slot(e.named)] = cut
			s.via = from
		}
	case was != unmarked && was != engaged:
		calm = true
	}
	if calm {
		return verdict{send, e.rule.wait}
	}
	return verdict{next: send}
}

// doubt deals with an answer that calls the region in question. What a replica says that
// was asked as one is no more than what it knows: the leader is asked next, and alone from
// then on.
func (s *selector) doubt(w *wish, peers []peer, e event, dice uint32) verdict {
	r := e.rule
	if s.ask != plain {
		w.policy, w.stale, w.threshold, w.read = ReadLeader, false, false, false
		if r.do != replace || e.behind || e.bare {
			return s.pass(w, peers, failed, r.wait, dice)
		}
	}
	switch {
	case r.do == refer:
		return verdict{next: end}
	case r.do == relocate || e.bare:
		return verdict{leave, r.wait}
	case e.behind:
		return verdict{retry, r.wait}
	}
	return verdict{next: retry}
}

// mark notes what came of the attempt.
func (s *selector) mark(m mark) {
	at := s.at
	if s.via >= 0 && m != deposed { // who passed it on, not who leads
		at = s.via
	}
	if at >= 0 {
		s.marks[slot(at)] = m
	}
}

// pass leaves the peer with a mark, and chooses another. The wait is owed: it is paid when
// nobody is left, or by a peer that is asked once more.
func (s *selector) pass(w *wish, peers []peer, m mark, wait backoff.Kind, dice uint32) verdict {
	s.mark(m)
	if wait.Base > s.owed.Base && m != late {
		s.owed = wait
	}
	for {
		for i := range peers {
			peers[i].mark, peers[i].tries = s.marks[i], s.tries[i]
		}
		if c := pick(*w, peers, dice); c.at >= 0 {
			s.choice = c
			return verdict{next: send}
		}
		if w.threshold { // better late than never
			w.threshold = false
			s.forgive(engaged)
			continue
		}
		break
	}
	wait, s.owed = s.owed, backoff.Kind{}
	if s.tired(peers) {
		// Nothing is wrong with the region: its stores have too much to do. The next round
		// takes its time.
		w.patient = true
		s.forgive(engaged, late, notReady, failed)
		for i := range peers {
			peers[i].mark = s.marks[i]
		}
		if c := pick(*w, peers, dice); c.at >= 0 {
			s.choice = c
			return verdict{send, wait}
		}
	}
	if s.lonely(peers) {
		return verdict{stray, wait}
	}
	return verdict{leave, wait}
}

func (s *selector) forgive(marks ...mark) {
	for i, have := range s.marks {
		for _, m := range marks {
			if have == m {
				s.marks[i] = unmarked
			}
		}
	}
}

// tired reports whether the leader is all right as far as is known, and somebody is busy
// or late.
func (s *selector) tired(peers []peer) bool {
	if l := leaderOf(peers); l < 0 || peers[l].away || s.marks[l] == cut || s.marks[l] == deposed || s.marks[l] == failed {
		return false
	}
	for i := range peers {
		if s.marks[i] == engaged || s.marks[i] == late {
			return true
		}
	}
	return false
}

// lonely reports whether the leader cannot be reached.
func (s *selector) lonely(peers []peer) bool {
	l := leaderOf(peers)
	return l < 0 || peers[l].away || s.marks[l] == cut
}
