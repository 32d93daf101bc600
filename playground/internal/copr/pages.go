package copr

import (
	"bytes"

	"github.com/pingcap/kvproto/pkg/coprocessor"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/mvcc"
)

// Numbers of pairs (TiKV components/tidb_query_executors/src/runner.rs, BATCH_*; src/
// server/config.rs, DEFAULT_ENDPOINT_STREAM_BATCH_ROW_LIMIT).
const (
	firstBatch  = 32
	lastBatch   = 1024
	streamBatch = 128
)

// page is what is computed at once.
type page struct {
	pairs [][2][]byte
	// read is from where the page before ended to behind the last pair, or to the end
	// of the last range.
	read coprocessor.KeyRange
	last bool // there is nothing behind it

	processed, bytes, versions int // as mvcc.Ranges has them
}

// reading reads pages.
type reading struct {
	*mvcc.Ranges
	from, end []byte // of what was not read yet
}

func newReading(r *mvcc.Ranges, in []*coprocessor.KeyRange) *reading {
	p := &reading{Ranges: r}
	if len(in) > 0 {
		p.from, p.end = in[0].GetStart(), in[len(in)-1].GetEnd()
	}
	return p
}

// budget is how much a page may have; zero fields count for nothing.
type budget struct{ pairs, keys, bytes uint64 }

// budgetOf is the request's: only plans of DAG are computed in pages.
func budgetOf(q *coprocessor.Request) budget {
	if q.Tp == Analyze || q.Tp == Checksum {
		return budget{}
	}
	return budget{q.PagingSize, q.MaxKeysRead, q.PagingSizeBytes}
}

func (b budget) limited() bool { return b != budget{} }

func (b budget) spent(p *page) bool {
	n, size := uint64(len(p.pairs)), uint64(p.bytes)
	return b.pairs > 0 && n >= b.pairs || b.keys > 0 && n >= b.keys || b.bytes > 0 && size >= b.bytes
}

// next reads a page in batches that grow, and looks after each whether the budget is
// spent (runner.rs, handle_request): a page has 32, 96, 224, … pairs, unless it is the
// last.
func (r *reading) next(b budget) (*page, error) {
	p := new(page)
	for size := firstBatch; ; size = min(2*size, lastBatch) {
		if err := r.batch(p, size); err != nil {
			return nil, err
		}
		if p.last || b.spent(p) {
			return p, nil
		}
	}
}

// batch reads up to n more pairs into p.
func (r *reading) batch(p *page, n int) error {
	p.read.Start = r.from
	processed, size, versions := r.Processed, r.ProcessedBytes, r.Versions
	for range n {
		k, v, err := r.Next()
		if err != nil {
			return err
		}
		if k == nil {
			p.last = true
			break
		}
		p.pairs = append(p.pairs, [2][]byte{k, bytes.Clone(v)})
	}
	p.processed += r.Processed - processed
	p.bytes += r.ProcessedBytes - size
	p.versions += r.Versions - versions
	switch {
	case p.last:
		p.read.End = r.end
	case len(p.pairs) > 0:
		p.read.End = keys.Next(p.pairs[len(p.pairs)-1][0])
	}
	return nil
}
