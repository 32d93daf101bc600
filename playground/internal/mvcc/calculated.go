package mvcc

import "errors"

// calculated is how a prewrite commits at a timestamp of the server's choice, and how
// it falls back from that (TiKV src/storage/txn/commands/prewrite.rs, Prewriter).
type calculated struct {
	async, onePC bool         // as asked for, until it falls back
	final        uint64       // the largest of the keys' least commit timestamps so far
	direct       []directLock // what one phase is to commit
}

// directLock is a lock that is not stored: its key is committed at once.
type directLock struct {
	key
	*lock
	pessimistic bool // the key has the transaction's pessimistic lock
}

// errCommitTSTooLarge is a commit timestamp above what the client allows.
var errCommitTSTooLarge = errors.New("mvcc: commit timestamp too large")

// wanted tells whether the keys need a least commit timestamp.
func (p *calculated) wanted() bool { return p.async || p.onePC }

// calculate takes a key's least commit timestamp. A key without one was prewritten by
// an earlier request, which fell back: so must this.
func (p *calculated) calculate(c *change, ts uint64) {
	switch {
	case !p.wanted():
	case ts == 0:
		p.fallBack(c)
	default:
		p.final = max(p.final, ts)
	}
}

// fallBack makes the rest of the request one of two phases, and of what was to be
// committed in one phase locks. Locks that the request has put for async commit stay as
// they are, as TiKV leaves them (fallback_1pc_locks): the answer without a timestamp
// tells the client, and a lock of the other kind whoever resolves them.
func (p *calculated) fallBack(c *change) {
	for _, d := range p.direct {
		d.onePC = false
		c.putLock(d.key, d.lock)
	}
	c.manager.release(c.inMemory)
	c.inMemory = nil
	*p = calculated{}
}

// commitDirect commits the keys of a one-phase commit. No rollback record can have the
// place: that it is rolled back raises MaxTS (handle_1pc_locks).
func (p *calculated) commitDirect(c *change) {
	for _, d := range p.direct {
		c.putWrite(d.key, p.final, d.committed())
		if d.pessimistic {
			c.unlock(d.key)
		}
	}
	if len(p.direct) > 0 {
		c.batch.MarkOnePC()
		c.ended = append(c.ended, true)
	}
	if p.final != 0 {
		c.know(p.final)
	}
}
