package txn

import "errors"

// Fate is how a transaction ended.
type Fate uint8

// The fates.
const (
	Committed  Fate = iota // or there was nothing to write
	RolledBack             // by who had it
	Failed                 // without a commit, against the will of who had it
	Unknown                // it has committed or not
)

// End is the end of a transaction.
type End struct {
	Err  error // why, if it has not committed; nil: it was wanted so
	Fate Fate
	Own  bool // Err is not of this package
}

// asker is who is to be told of the end, and before him the next.
type asker struct {
	fn   func(End)
	next *asker
}

// Ends that no call has an error for.
var (
	ErrDropped  = errors.New("txn: nobody has the transaction any more")
	ErrPanicked = errors.New("txn: what was to check the commit did not return")
)

// endOf is the end by a commit that returned err.
func endOf(err error) End {
	switch err.(type) {
	case nil:
		return End{}
	case *Undetermined:
		return End{Fate: Unknown, Err: err}
	}
	return End{Fate: Failed, Err: err}
}

// OnEnd makes fn run when the transaction has ended, on the goroutine that sees to it: the
// last one given first. If it has ended, fn runs now.
func (t *Txn) OnEnd(fn func(End)) {
	if end, over := t.guard.onEnd(fn); over {
		fn(end)
	}
}

func (g *guard) onEnd(fn func(End)) (end End, over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.told {
		g.ask = &asker{fn, g.ask}
	}
	return g.end, g.told
}

// tell tells of the end; last: it is for this goroutine to do so.
func (t *Txn) tell(last bool) {
	if !last {
		return
	}
	t.guard.mu.Lock() // nobody joins any more, and the end is one for good
	end, ask := t.guard.end, t.guard.ask
	t.guard.ask = nil
	t.guard.mu.Unlock()
	for ; ask != nil; ask = ask.next {
		ask.fn(end)
	}
}

// Wrote is what the commit wrote, or was to write. It is for who is told of the end.
func (t *Txn) Wrote() Written { return t.wrote }
