package txn

import (
	"errors"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/membuf"
)

// ErrSavepoint is a savepoint that is not, or not any more, one of the transaction's.
var ErrSavepoint = errors.New("txn: savepoint ended")

// Savepoint is a state of a transaction's writes.
type Savepoint struct {
	t  *Txn
	at membuf.Savepoint
}

// Savepoint returns the state of now.
func (t *Txn) Savepoint() (Savepoint, error) {
	if err := t.guard.write(); err != nil {
		return Savepoint{}, err
	}
	defer t.leave()
	if err := t.whole(); err != nil {
		return Savepoint{}, err
	}
	return Savepoint{t, t.buf.Savepoint()}, nil
}

// RollbackTo takes back what was written since sp, but no locks.
func (t *Txn) RollbackTo(sp Savepoint) error {
	return t.change(func() error {
		if sp.t != t || !t.buf.Undo(sp.at) {
			return ErrSavepoint
		}
		return nil
	})
}

// Writes returns a cursor over the entries of now. They are good as long as anybody has
// them.
func (t *Txn) Writes() (*membuf.Cursor, error) {
	if err := t.guard.read(); err != nil {
		return nil, err
	}
	defer t.guard.endRead()
	if err := t.whole(); err != nil {
		return nil, err
	}
	return t.buf.Freeze().Scan(keys.Range{}, false), nil
}
