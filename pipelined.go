package tikv

import (
	"bytes"
	"context"
	"time"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/txn"
)

// Pipeline tunes a pipelined transaction; zero fields mean the defaults.
type Pipeline struct {
	// FlushConcurrency is how many requests of a flush may be under way, 128 by default. It
	// begins with few, grows, and shrinks when stores say that they are busy.
	FlushConcurrency int
	// ResolveConcurrency is how many regions are dealt with at a time when the transaction
	// has ended, 8 by default.
	ResolveConcurrency int
	// Throttle is the share of time that is spent waiting between flushes, in [0, 1).
	Throttle float64
}

const (
	flushConcurrency    = 128
	resolveConcurrency  = 8
	maxPipelineRequests = 1024
)

// layFunc makes the engine's form of a pipelined transaction's options.
type layFunc func(c *Client, op string, cfg *txnConfig) (any, error)

// WithPipelined makes the transaction write to the cluster while it is written, so that it
// may have more writes than fit in memory: 16 MiB and 10,000 keys of writes at a time, or
// 128 MiB at most, become locks in the background (a flush); while one is under way, the
// next fills. A write waits only for the flush before its own, as long as that goes on or
// is tried again (WithRetryFor for each request), whatever ctx was given to Begin. What a
// flush meets, ErrWriteConflict or ErrAlreadyExists say, ends the transaction at once, and
// is the error of the next call.
//
// Get and BatchGet see what was flushed (if the client was cut off for so long that others
// have rolled the transaction back, perhaps no more; it cannot commit then); Scan, the locks,
// savepoints and Writes are refused with ErrInvalid (Writes yields nothing). Options about
// the commit go to Begin. It
// may live for a day, commits in two phases, and takes no part in WithLocalLatches; an
// assertion is checked for the first flush of its key only. When Commit has returned the
// transaction is committed; the locks of its keys become commit records in the background
// (Progress), as, after a failure, they are removed.
func WithPipelined(p Pipeline) TxnOption {
	return txnOption{"WithPipelined", func(c *txnConfig) string {
		if p.FlushConcurrency == 0 {
			p.FlushConcurrency = flushConcurrency
		}
		if p.ResolveConcurrency == 0 {
			p.ResolveConcurrency = resolveConcurrency
		}
		c.pipeline, c.handed = layFunc(p.lay), begunFunc((*Txn).holdWeakly)
		switch {
		case p.FlushConcurrency < 1, p.FlushConcurrency > maxPipelineRequests:
			return "has a FlushConcurrency that is not from 1 to 1024"
		case p.ResolveConcurrency < 1, p.ResolveConcurrency > maxPipelineRequests:
			return "has a ResolveConcurrency that is not from 1 to 1024"
		case !(p.Throttle >= 0 && p.Throttle < 1):
			return "has a Throttle that is not in [0, 1)"
		}
		return ""
	}}
}

func (p Pipeline) lay(c *Client, op string, cfg *txnConfig) (any, error) {
	if cfg.pessimism != nil || cfg.lockFirst != nil {
		return nil, &ArgumentError{Op: op, Arg: "WithPipelined", Reason: "is given with WithPessimistic or WithPessimisticAfter"}
	}
	o := cfg.commitOptions()
	return txn.Pipelined(txn.PipelineOptions{
		FlushConcurrency: p.FlushConcurrency, ResolveConcurrency: p.ResolveConcurrency, Throttle: p.Throttle,
		DiskFull: o.DiskFull, Source: o.Source,
		SendStore: func(ctx context.Context, call *router.Call, id uint64, req transport.Message, resp router.Answer) error {
			if store, err := router.Store(ctx, c.engine.router, call, id); err != nil || store.TiFlash() {
				return err
			}
			return router.SendStore(ctx, c.engine.router, call, id, req, resp)
		},
	}), nil
}

// Progress is how far something long has got: what was done, and where there is something
// left to do.
type Progress struct {
	Regions, Keys, Bytes int
	Rest                 []Range
	Elapsed              time.Duration
}

// Progress says how far a pipelined transaction has got, also after its end; of another it
// says nothing. Keys and Bytes are what was flushed, a key each time that it was; Rest is
// where the transaction may have locks, Regions in how many of the cluster's it has none
// any more since it ended. Elapsed ends with the last lock. It may be called at any time.
func (tx *Txn) Progress() Progress {
	p := tx.t.Progress()
	out := Progress{Keys: p.Keys, Bytes: p.Bytes, Regions: p.Regions, Elapsed: p.Elapsed}
	if p.Rest.End != nil {
		prefix := len(tx.c.engine.txn.Key(nil))
		out.Rest = []Range{{Start: bytes.Clone(p.Rest.Start[prefix:]), End: bytes.Clone(p.Rest.End[prefix:])}}
	}
	return out
}
