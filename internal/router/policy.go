package router

import "strconv"

// Policy is which replica a read prefers.
type Policy uint8

// The policies.
const (
	ReadLeader Policy = iota
	ReadPreferLeader
	ReadFollower
	ReadAny
	ReadNearest
	ReadLearner
	lastPolicy
)

var policyNames = [lastPolicy]string{"leader", "prefer-leader", "follower", "any", "nearest", "learner"}

// String is the policy's name.
func (p Policy) String() string {
	if p < lastPolicy {
		return policyNames[p]
	}
	return "Policy(" + strconv.Itoa(int(p)) + ")"
}

// role is what a peer is to a request.
type role uint8

const (
	outside  role = 0 // not to be asked: a witness, or of another engine
	leader   role = 1 << 0
	follower role = 1 << 1
	learner  role = 1 << 2

	replicaRoles = follower | learner
	anyRole      = leader | replicaRoles
)

// ask is how a peer is asked.
type ask uint8

const (
	plain   ask = iota // as leader: another peer tells who leads
	replica            // by what the leader has committed when the request comes
	stale              // by what the peer knows to be complete at the read's timestamp
)

var askNames = [...]string{"", "r", "s"}

// mark is what came of the last attempt at a peer, as far as the next choice goes by it.
type mark uint8

const (
	unmarked mark = iota
	notReady      // its data is behind a stale read
	engaged       // it is busy
	late          // it did not answer within the time of a read's first attempts
	cut           // there is no way to it
	deposed       // it does not lead
	failed        // anything else
)

// peer is what a choice knows of a peer: facts, and what has happened to it in this call.
type peer struct {
	role   role
	away   bool // its store is known to be away
	unwell bool // down or pending, as PD has told
	slow   bool // its store is slow
	busy   bool // its store's queue is longer than the call wants to wait
	near   bool // the options prefer it
	mark   mark
	tries  uint8
}

// wish is what a request wants.
type wish struct {
	policy    Policy
	read      bool // replicas may serve it
	stale     bool // at a timestamp that they may know to be complete
	threshold bool // busy stores are to be avoided
	patient   bool // its attempts have all the time there is
}

// need is what a peer must be for a step, beyond its role.
type need uint8

const (
	quick  need = 1 << iota // neither slow nor busy
	nearby                  // preferred by the options
)

// step is one place in the order of a policy.
type step struct {
	roles role
	needs need
	ask   ask
}

// plans is for each policy the order in which peers are asked: the first step that has a
// peer which can be asked is taken, and of several peers the one that is well, quick,
// near, least tried, in this order, else any. The last step of a plan is for what
// replicas cannot serve: peers that tell who leads.
var plans = [lastPolicy][]step{
	ReadLeader:       {{leader, 0, plain}},
	ReadPreferLeader: {{leader, quick, plain}, {replicaRoles, quick, replica}, {leader, 0, plain}, {replicaRoles, 0, replica}},
	ReadFollower:     {{replicaRoles, quick, replica}, {leader, quick, plain}, {replicaRoles, 0, replica}, {leader, 0, plain}},
	ReadAny:          {{anyRole, quick, replica}, {anyRole, 0, replica}},
	ReadNearest: {{leader, quick | nearby, plain}, {replicaRoles, quick | nearby, replica},
		{leader, quick, plain}, {replicaRoles, quick, replica}, {leader, 0, plain}, {replicaRoles, 0, replica}},
	ReadLearner: {{learner, quick, replica}, {follower, quick, replica}, {leader, quick, plain}, {replicaRoles, 0, replica}, {leader, 0, plain}},
}

// What follows a plan that has nobody left, or stands in for it.
var (
	// stand-ins read for a leader that was late, or too busy for the call.
	standIns = []step{{replicaRoles, quick, replica}, {replicaRoles, 0, replica}}
	// heralds tell who leads.
	heralds = []step{{follower, 0, plain}}
	// fallback is how a stale read goes on after its first attempt.
	fallback = []step{{leader, 0, plain}, {replicaRoles, quick, stale}, {replicaRoles, 0, stale}}
	// insist is what is left of it: those that were not ready are to ask the leader.
	insist = []step{{replicaRoles, 0, replica}}
)

// choice is whom to ask, and how. Via is the peer whose store passes the request on, or -1.
type choice struct {
	at, via int
	ask     ask
}

var nobody = choice{at: -1, via: -1}

// pick returns the next peer to ask, or nobody. dice is a random
// number, or 0 for the first of equals. It is a pure function of what is known.
func pick(w wish, peers []peer, dice uint32) choice {
	for _, p := range plan(w, peers) {
		if c := bestOf(p, w, peers, dice); c.at >= 0 {
			return c
		}
	}
	return nobody
}

// plan returns the steps of a request as things stand.
func plan(w wish, peers []peer) [3][]step {
	l := leaderOf(peers)
	switch {
	case !w.read:
		return [3][]step{plans[ReadLeader], heralds}
	case w.stale && untouched(peers):
		return [3][]step{staled(w.policy)}
	case w.stale:
		return [3][]step{fallback, insist}
	case w.policy == ReadLeader && l >= 0 && (peers[l].mark == late || w.threshold && (peers[l].busy || peers[l].mark == engaged)):
		return [3][]step{plans[ReadLeader], standIns}
	case w.policy == ReadLeader:
		return [3][]step{plans[ReadLeader], heralds}
	}
	return [3][]step{plans[w.policy]}
}

// staled is a policy's order for a first attempt, at whichever peer, by a stale read.
// Reading from the leader first is no order for one.
func staled(p Policy) []step {
	if p == ReadLeader {
		return plans[ReadAny]
	}
	return plans[p]
}

func leaderOf(peers []peer) int {
	for i := range peers {
		if peers[i].role == leader {
			return i
		}
	}
	return -1
}

func untouched(peers []peer) bool {
	for i := range peers {
		if peers[i].tries > 0 {
			return false
		}
	}
	return true
}

// bestOf returns the best peer of the first of the steps that has one.
func bestOf(steps []step, w wish, peers []peer, dice uint32) choice {
	first := w.stale && untouched(peers)
	for _, s := range steps {
		best, n := nobody, uint32(0)
		for i := range peers {
			p := &peers[i]
			if !s.fits(p, w) {
				continue
			}
			order := 0
			if best.at >= 0 {
				order = compare(p, &peers[best.at])
			}
			switch {
			case best.at < 0 || order > 0:
				best, n = choice{at: i, via: -1, ask: s.ask}, 1
			case order == 0 && s.ask != plain: // each of n equals with the same chance
				if n++; dice != 0 && dice%n == 0 {
					best.at = i
				}
				dice = dice >> 3
			}
		}
		if best.at < 0 {
			continue
		}
		switch {
		case first:
			best.ask = stale
		case peers[best.at].role == leader:
			best.ask = plain
		}
		return best
	}
	return nobody
}

// fits reports whether p can be asked in the step.
func (s *step) fits(p *peer, w wish) bool {
	switch {
	case s.roles&p.role == 0 || p.away:
		return false
	case p.mark != unmarked && !(p.mark == notReady && s.ask == replica && p.role != leader):
		return false
	case w.threshold && p.busy:
		return false
	case s.needs&quick != 0 && (p.slow || p.busy):
		return false
	case s.needs&nearby != 0 && !p.near:
		return false
	}
	return true
}

// compare orders peers of one step: positive if a is the better.
func compare(a, b *peer) int {
	for _, c := range [...][2]bool{{!a.unwell, !b.unwell}, {!a.slow && !a.busy, !b.slow && !b.busy}, {a.near, b.near}} {
		if c[0] != c[1] {
			if c[0] {
				return 1
			}
			return -1
		}
	}
	return int(b.tries) - int(a.tries)
}
