package playground

// Counts is how often things happened since the cluster was started.
type Counts struct {
	// Commits are transactions whose primary was committed by a commit request; again
	// committing one does not count. Rollbacks are transactions rolled back at their
	// primary. Conflicts are write conflicts that were answered.
	Commits, Rollbacks, Conflicts int
	// Splits are regions that were made, LeaderMoves changes of a region's leader,
	// Starts nodes started again after Stop, Dropped requests or answers that faults
	// lost.
	Splits, LeaderMoves, Starts, Dropped int
	// Calls are the requests that reached a node, by method.
	Calls map[string]int
}

// Counts returns how often things happened.
func (c *Cluster) Counts() Counts {
	return Counts{
		Commits: int(c.counter.Commits.Load()), Rollbacks: int(c.counter.Rollbacks.Load()), Conflicts: int(c.counter.Conflicts.Load()),
		Splits: c.topo.Splits(), LeaderMoves: c.topo.Moves(), Starts: int(c.counter.Starts.Load()), Dropped: c.faults.Dropped(),
		Calls: c.counter.Calls(),
	}
}
