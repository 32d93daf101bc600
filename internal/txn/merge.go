package txn

import (
	"bytes"
	"context"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/membuf"
)

// MergedPages walks a range of a snapshot with the writes of a transaction on top. It
// belongs to one goroutine.
type MergedPages struct {
	t      *Txn
	pages  *Pages
	page   []Pair // of the snapshot, not merged yet
	under  bool   // there may be more pages
	cursor *membuf.Cursor
	next   membuf.Entry // of the cursor
	over   bool         // next is one
	opts   ScanOptions
	left   int // of the limit
	done   bool
}

func newMergedPages(t *Txn, view membuf.View, op string, r keys.Range, o ScanOptions) *MergedPages {
	below := o
	below.Limit = 0 // a deletion on top may hide any number of pairs
	m := &MergedPages{
		t: t, pages: t.snap.Pages(op, r, below), under: true,
		cursor: view.Scan(r, o.Reverse), opts: o, left: o.Limit, done: r.Empty(),
	}
	if o.PageSize == 0 && o.Limit > 0 {
		m.pages.size = min(m.pages.size, o.Limit)
	}
	m.next, m.over = m.cursor.Next()
	return m
}

// Next returns the next pairs, none when there are no more. They belong to the caller.
func (m *MergedPages) Next(ctx context.Context) ([]Pair, error) {
	if err := m.t.guard.read(); err != nil {
		return nil, err
	}
	defer m.t.guard.endRead()
	for !m.done {
		if m.under && len(m.page) == 0 {
			page, err := m.pages.Next(ctx)
			if err != nil {
				m.done = true
				return nil, err
			}
			m.page, m.under = page, len(page) > 0
		}
		if out := m.merge(); len(out) > 0 {
			return out, nil
		}
	}
	return nil, nil
}

// merge returns what is known to come next: all up to the end of the snapshot's page,
// or, behind its last one, a page of the buffer.
func (m *MergedPages) merge() []Pair {
	var out []Pair
	for !m.done {
		switch {
		case len(m.page) == 0 && m.under, len(out) == firstPage && len(m.page) == 0:
			return out
		case len(m.page) == 0 && !m.over:
			m.done = true
			return out
		case len(m.page) == 0:
			out = m.takeOver(out)
			continue
		case !m.over:
			out = m.emit(out, m.takeUnder())
			continue
		}
		c := bytes.Compare(m.next.Key, m.page[0].Key)
		if m.opts.Reverse {
			c = -c
		}
		switch {
		case c > 0, c == 0 && m.next.Op == membuf.None:
			out = m.emit(out, m.takeUnder())
		case c == 0:
			m.takeUnder()
			out = m.takeOver(out)
		default:
			out = m.takeOver(out)
		}
	}
	return out
}

// takeUnder takes the next pair of the snapshot.
func (m *MergedPages) takeUnder() Pair {
	pair := m.page[0]
	m.page = m.page[1:]
	return pair
}

// takeOver takes the next entry of the buffer, which is a pair if it was put.
func (m *MergedPages) takeOver(out []Pair) []Pair {
	e := m.next
	m.next, m.over = m.cursor.Next()
	if e.Op != membuf.Put {
		return out
	}
	pair := Pair{Key: bytes.Clone(e.Key)}
	if !m.opts.KeysOnly {
		pair.Value = append([]byte{}, e.Value...)
	}
	return m.emit(out, pair)
}

func (m *MergedPages) emit(out []Pair, pair Pair) []Pair {
	if m.left > 0 {
		m.left--
		m.done = m.left == 0
	}
	return append(out, pair)
}
