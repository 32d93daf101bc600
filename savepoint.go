package tikv

import (
	"iter"

	"github.com/tikv-go/tikv/internal/membuf"
	"github.com/tikv-go/tikv/internal/txn"
)

// Savepoint marks a position in a transaction's buffered writes. It keeps what they were
// in memory as long as it is kept itself; there is no need to end it.
type Savepoint struct {
	at  txn.Savepoint
	err error
}

// Savepoint returns the position of now. In a transaction that has ended, or is in use by
// another call, RollbackTo returns that as the savepoint's error.
func (tx *Txn) Savepoint() Savepoint {
	at, err := tx.t.Savepoint()
	return Savepoint{at, err}
}

// RollbackTo discards what was written, claimed or asserted since sp, and ends the
// savepoints made after sp; to sp itself the transaction can go back again. It keeps
// locks: a key that was locked since stays so, or will be locked at commit. Its cost does
// not depend on the size of the transaction; what it frees is used again. A savepoint of
// another transaction, or one that has ended, is ErrInvalid, and nothing happens.
func (tx *Txn) RollbackTo(sp Savepoint) error {
	const op = "Txn.RollbackTo"
	if sp.err != nil {
		return tx.mapError(op, sp.err)
	}
	return tx.mapError(op, tx.t.RollbackTo(sp.at))
}

// Write is a buffered write; Delete means no value.
type Write struct {
	Key, Value []byte
	Delete     bool
}

// Writes yields the buffered writes in key order as they were when the loop began;
// writing, and RollbackTo, inside the loop are allowed and not seen by it. Keys that are
// only locked or claimed to be absent are no writes. The bytes must not be changed; they
// are valid for good. A transaction that has ended, or in which another call writes at
// that moment, yields none.
func (tx *Txn) Writes() iter.Seq[Write] {
	return func(yield func(Write) bool) {
		c, err := tx.t.Writes()
		if err != nil {
			return
		}
		prefix := len(tx.c.engine.txn.Key(nil))
		for e, ok := c.Next(); ok; e, ok = c.Next() {
			if e.Op == membuf.None {
				continue
			}
			if !yield(Write{Key: e.Key[prefix:], Value: e.Value, Delete: e.Op == membuf.Delete}) {
				return
			}
		}
	}
}
