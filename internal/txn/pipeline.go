package txn

import (
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/transport"
)

// pipeline is what a pipelined transaction does in another way. A program that has none
// does not link it.
type pipeline interface {
	makeRoom(err error) (made bool, _ error)
	changed() error
	get(ctx context.Context, op string, key []byte) ([]byte, error)
	batchGet(ctx context.Context, op string, keys [][]byte, versions bool, set func(i int, v Value)) error
	mayCommit(o CommitOptions) error
	commit(ctx context.Context, op string, o CommitOptions) error
	letGo() (done <-chan struct{})
	beat(ctx context.Context, key []byte) (gone bool, err error)
	progress() Progress
}

// PipelineOptions are how a pipelined transaction writes.
type PipelineOptions struct {
	FlushConcurrency, ResolveConcurrency int     // requests under way, at most
	Throttle                             float64 // the share of time that is spent waiting between flushes, below 1

	DiskFull kvrpcpb.DiskFullOpt
	Source   uint64 // for change feeds

	// SendStore sends a request to a store of TiKV's, and nothing to others.
	SendStore func(ctx context.Context, call *router.Call, store uint64, req transport.Message, resp router.Answer) error
}

// Pipelined is the Options.Pipeline of a pipelined transaction.
func Pipelined(o PipelineOptions) any {
	return func(t *Txn) pipeline { return newPipe(t, o) }
}

// Progress is how far a pipelined transaction has got.
type Progress struct {
	Keys, Bytes int        // written out; a key counts each time
	Regions     int        // whose locks were made commit records, or removed
	Rest        keys.Range // where locks of the transaction may be; the zero Range: nowhere
	Elapsed     time.Duration
}

// Progress is that of a pipelined transaction, and nothing of another.
func (t *Txn) Progress() Progress {
	if t.pipe == nil {
		return Progress{}
	}
	return t.pipe.progress()
}

// whole refuses what needs all the writes of a transaction at hand.
func (t *Txn) whole() error {
	if t.pipe != nil {
		return &Misuse{"WithPipelined", "rules out locks, scans, savepoints and Writes"}
	}
	return nil
}
