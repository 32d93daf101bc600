package storage

import (
	"bytes"
	"iter"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/tikv-go/tikv/internal/keys"
)

// dirSnapshot is a bbolt read transaction. What it returns is copied, since the
// mapping may be reused once the transaction is over.
type dirSnapshot struct {
	mu      sync.Mutex
	tx      *bbolt.Tx // nil: closed, or the engine was
	buckets [numCF]*bbolt.Bucket
}

var _ Snapshot = (*dirSnapshot)(nil)

func (d *dir) Snapshot() Snapshot {
	if d.watched.Load() {
		d.order.Lock()
		defer d.order.Unlock()
	}
	return d.snapshot()
}

func (d *dir) snapshot() Snapshot {
	tx, err := d.db.Begin(false)
	if err != nil { // closed: the snapshot of nothing
		return &dirSnapshot{}
	}
	return &dirSnapshot{tx: tx}
}

func (s *dirSnapshot) bucket(cf CF) *bbolt.Bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[cf] == nil && s.tx != nil {
		s.buckets[cf] = s.tx.Bucket([]byte(cf.String()))
	}
	return s.buckets[cf]
}

func (s *dirSnapshot) Get(cf CF, key []byte) ([]byte, bool) {
	b := s.bucket(cf)
	if b == nil {
		return nil, false
	}
	v := b.Get(dirKey(key))
	if v == nil {
		return nil, false
	}
	return append(make([]byte, 0, len(v)), v...), true
}

func (s *dirSnapshot) Scan(cf CF, r keys.Range, reverse bool) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		b := s.bucket(cf)
		if b == nil {
			return
		}
		c, bounds := b.Cursor(), dirRange(r)
		k, v := c.Seek(bounds.Start)
		next := c.Next
		if reverse {
			k, v = seekBefore(c, bounds.End)
			next = c.Prev
		}
		for ; k != nil && bounds.Contains(k); k, v = next() {
			both := append(append(make([]byte, 0, len(k)-1+len(v)), k[1:]...), v...)
			n := len(k) - 1
			if !yield(both[:n:n], both[n:]) {
				return
			}
		}
	}
}

// seekBefore moves c to the last key before end.
func seekBefore(c *bbolt.Cursor, end []byte) (k, v []byte) {
	if k, _ = c.Seek(end); k == nil {
		if k, v = c.Last(); k != nil && bytes.Compare(k, end) < 0 {
			return k, v
		}
	}
	return c.Prev()
}

func (s *dirSnapshot) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tx != nil {
		_ = s.tx.Rollback() // of a read transaction: always nil
		s.tx, s.buckets = nil, [numCF]*bbolt.Bucket{}
	}
}
