package topology

// Happening is what becomes of a region. Those who watch hear of it while no command
// runs in the region, before anyone sees its next state; they do not wait.
type Happening struct {
	What What
	// Was is the region before.
	Was *Region
	// Now are the regions it becomes: the parts of a split, in order, else one; of a
	// region that ends in a merge none.
	Now []*Region
}

// What is a kind of Happening.
type What uint8

// The kinds.
const (
	Led    What = iota // another leader, or none; or other peers and so another leader
	Split              // in parts
	Merged             // with a neighbour, or a merge of it begins or is rolled back
	Peers              // other peers, under the same leader, or a flashback
)

// Watch lets f hear of what becomes of regions. It is called before the cluster serves.
func (t *Topology) Watch(f func(Happening)) {
	t.change.Lock()
	defer t.change.Unlock()
	t.watchers = append(t.watchers, f)
}

// Settle returns once everything that those who watch have heard of can be seen. None of
// them may call it.
func (t *Topology) Settle() {
	t.change.Lock()
	defer t.change.Unlock()
}

// tell passes on what becomes of a region. Callers hold change and the region's guard.
func (t *Topology) tell(what What, was *Region, now ...*Region) {
	for _, f := range t.watchers {
		f(Happening{what, was, now})
	}
}
