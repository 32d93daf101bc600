package pdserver

import (
	"fmt"
	"time"
)

// lease is how long a leader keeps its place after the others last heard from it (PD:
// server/config/config.go, defaultLeaderLease). Until then it serves, if it can, and
// nobody else does.
const lease = 5 * time.Second

// Condition is how a member is.
type Condition uint8

// The conditions: Silent is of a member that runs but says nothing.
const (
	Stopped Condition = iota
	Silent
	Running
)

// seats is who leads. A leader that stops gives its place up (PD: server/server.go,
// campaignLeader; etcd's server moves its own leadership when it stops). One that is
// suspended, or cut off from the majority, cannot: its place is free when its lease ends
// (pkg/election/lease.go). Which of the others follows is chance there; here it is the
// first that can.
type seats struct {
	leader  *Member         // nil: none
	until   time.Time       // the end of the lease of a leader that is not heard; zero: it is
	cut     map[[2]int]bool // from a member to another
	changed chan struct{}   // closed at the next change of conditions, cuts and leaders
}

// SetCondition tells how a member is from now on.
func (pd *PD) SetCondition(m *Member, c Condition) error {
	pd.change(func() { m.condition = c })
	if c == Silent {
		return nil
	}
	return pd.register(m, c == Running)
}

// Cut loses what one member sends to another, until Heal.
func (pd *PD) Cut(from, to int) {
	pd.change(func() { pd.seats.cut[[2]int{from, to}] = true })
}

// Heal ends Cut.
func (pd *PD) Heal() {
	pd.change(func() { clear(pd.seats.cut) })
}

// change changes what the members hear of each other, and lets them elect.
func (pd *PD) change(f func()) {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	pd.elect() // whose lease ended before
	f()
	pd.elect()
	close(pd.seats.changed)
	pd.seats.changed = make(chan struct{})
}

// elect keeps a leader that can lead or whose lease runs, else makes the first that can
// one. Callers hold the lock.
func (pd *PD) elect() {
	s := &pd.seats
	switch {
	case s.leader == nil:
	case pd.electable(s.leader):
		s.until = time.Time{}
		return
	case s.until.IsZero() && s.leader.condition != Stopped:
		s.until = pd.Now().Add(lease)
		return
	case !s.until.IsZero() && pd.Now().Before(s.until):
		return
	}
	pd.seat(nil)
	for _, m := range pd.members {
		if pd.electable(m) {
			pd.seat(m)
			return
		}
	}
}

// seat makes a member the leader. Its timestamps begin behind all that the one before may
// have given out. Callers hold the lock.
func (pd *PD) seat(m *Member) {
	pd.seats.leader, pd.seats.until = m, time.Time{}
	close(pd.seats.changed)
	pd.seats.changed = make(chan struct{})
	if m == nil {
		return
	}
	pd.TSO.Sync()
	for _, o := range pd.members {
		if o.condition == Running && !pd.apart(o, m) {
			o.knew = m
		}
	}
}

// electable reports whether a member runs and exchanges messages with enough that do, so
// that they are a majority with it. Callers hold the lock.
func (pd *PD) electable(m *Member) bool {
	heard := 0
	for _, o := range pd.members {
		if o.condition == Running && !pd.apart(m, o) {
			heard++
		}
	}
	return m.condition == Running && 2*heard > len(pd.members)
}

// apart reports whether messages between two members are lost in a direction. Callers
// hold the lock.
func (pd *PD) apart(a, b *Member) bool {
	return pd.seats.cut[[2]int{a.index, b.index}] || pd.seats.cut[[2]int{b.index, a.index}]
}

// Lead makes a running member the leader.
func (pd *PD) Lead(m *Member) error {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	pd.elect()
	switch {
	case m.condition != Running:
		return fmt.Errorf("playground: PD's member %d does not run", m.index)
	case pd.seats.leader == nil:
		return fmt.Errorf("playground: PD has no majority of live members")
	case !pd.electable(m):
		return fmt.Errorf("playground: PD's member %d is cut off from a majority", m.index)
	}
	if pd.seats.leader != m {
		pd.seat(m)
	}
	return nil
}

// present is the leader now, nil for none.
func (pd *PD) present() *Member {
	pd.mu.RLock()
	leader, until := pd.seats.leader, pd.seats.until
	pd.mu.RUnlock()
	if until.IsZero() || pd.Now().Before(until) {
		return leader
	}
	pd.mu.Lock()
	defer pd.mu.Unlock()
	pd.elect()
	return pd.seats.leader
}

// Leader is the index of the member that leads, -1 for none.
func (pd *PD) Leader() int {
	if l := pd.present(); l != nil {
		return l.index
	}
	return -1
}

// leads reports whether m leads.
func (m *Member) leads() bool { return m.pd.present() == m }

// leader is the leader that m knows. A lease that runs is known to all, since it is in
// their etcd; but a member that does not hear the leader has no etcd leader either, and
// gives it up (PD: pkg/member/member.go, WatchLeader; etcd's watches need a leader).
func (m *Member) leader() *Member {
	l := m.pd.present()
	m.pd.mu.RLock()
	defer m.pd.mu.RUnlock()
	if l != nil && l != m && m.pd.seats.until.IsZero() && m.pd.apart(l, m) {
		return nil
	}
	return l
}

// quorum reports whether m is in touch with a majority, and when to ask again if not.
func (m *Member) quorum() (bool, <-chan struct{}) {
	m.pd.mu.RLock()
	defer m.pd.mu.RUnlock()
	return m.pd.electable(m), m.pd.seats.changed
}
