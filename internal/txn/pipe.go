package txn

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/membuf"
	"github.com/tikv-go/tikv/internal/router"
)

const (
	// A buffer is handed over when it takes flushMemory and has flushKeys: small flushes
	// cost more than they free. At fullMemory it is in any case, and who writes waits
	// until the flush before has ended (client-go internal/unionstore/pipelined_memdb.go,
	// needFlush).
	flushMemory = 16 << 20
	flushKeys   = 10_000
	fullMemory  = 128 << 20
)

// pipe is a pipelined transaction: while it is written, generation by generation what the
// buffer has is written out as locks with values. One generation is under way at a time.
type pipe struct {
	t *Txn
	o PipelineOptions

	flight *flight // the newest generation; it belongs to the call that is alone inside
	// Of the flush that is under way; when there is none, of who has waited for it.
	primary []byte // the key that all locks point to; nil: nothing was locked
	width   width
	pace    pace
	// deleted and emptied: a deletion, or an empty value, was flushed. TiKV answers both
	// alike.
	deleted, emptied atomic.Bool
	decided          atomic.Bool // the commit timestamp may have been issued

	mu     sync.Mutex
	stores map[uint64]struct{} // that have replicas of what was flushed
	lower  []byte              // all flushed keys are from lower to upper; nil: there are none
	upper  []byte
	done   Progress
	ended  time.Time // when the last lock had gone
}

// flight is a generation that is being written out.
type flight struct {
	generation  uint64
	view        membuf.View
	keys, bytes int
	cancel      context.CancelCauseFunc
	done        chan struct{} // closed when it has ended
	err         error         // then
}

func newPipe(t *Txn, o PipelineOptions) pipeline {
	// The transaction's own locks are no obstacle to its reads of what was before.
	t.snap.Bypass([]uint64{t.StartTS()}, nil)
	return &pipe{t: t, o: o, width: newWidth(o.FlushConcurrency), stores: make(map[uint64]struct{})}
}

// makeRoom comes after a change that has failed with err: what does not fit into the buffer
// is written when it has been handed over.
func (p *pipe) makeRoom(err error) (made bool, _ error) {
	var full *membuf.TooLarge
	if !errors.As(err, &full) || p.t.buf.Len() == 0 {
		return false, err
	}
	if err := p.handOverNow(); err != nil {
		return false, err
	}
	return true, nil
}

// changed comes after a change of the buffer.
func (p *pipe) changed() error {
	if !p.due() {
		return nil
	}
	return p.handOverNow()
}

// handOverNow is handOver for a change, which has no context: it waits as long as the
// transaction and its client live.
func (p *pipe) handOverNow() error {
	p.t.owe()
	ctx, done := p.t.enter(p.t.e.tasks.Context())
	defer done()
	return p.t.ended(p.handOver(ctx))
}

// due reports whether the buffer is to be handed over.
func (p *pipe) due() bool {
	memory := p.t.buf.Memory()
	switch {
	case memory >= fullMemory:
		return true
	case memory < flushMemory || p.t.buf.Len() < flushKeys:
		return false
	case p.flight == nil:
		return true
	}
	select {
	case <-p.flight.done:
		return true
	default:
		return false
	}
}

// handOver makes what is in the buffer the next generation, when the one before has been
// written out.
func (p *pipe) handOver(ctx context.Context) error {
	if err := p.await(ctx); err != nil {
		return err
	}
	before := p.t.buf.Given()
	view, ok := p.t.buf.HandOver()
	if !ok {
		return nil
	}
	given := p.t.buf.Given()
	f := &flight{
		generation: uint64(given.Generations), view: view, done: make(chan struct{}),
		keys: given.Keys - before.Keys, bytes: given.Bytes - before.Bytes,
	}
	p.stretch(view)
	p.flight = f
	ctx, f.cancel = context.WithCancelCause(p.t.e.tasks.Context())
	p.t.e.commits.add(1) // it may leave locks whose removal is owed
	if !p.t.e.tasks.Go("flush", func(context.Context) { p.fly(ctx, f) }) {
		p.land(f, router.ErrClosed)
	}
	return nil
}

// await waits until the generation under way has been written out.
func (p *pipe) await(ctx context.Context) error {
	f := p.flight
	if f == nil {
		return nil
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return new(router.Call).Ended(ctx)
	}
	if f.err != nil {
		return f.err
	}
	p.flight = nil
	p.t.buf.Drop()
	return nil
}

// fly writes a generation out.
func (p *pipe) fly(ctx context.Context, f *flight) {
	err := p.pace.wait(ctx, p.t.e.router.Closing(), p.o.Throttle)
	if err == nil {
		began := time.Now()
		err = p.flush(ctx, f)
		p.pace.took(time.Since(began))
		p.t.Spent(router.PrewriteTime, began)
	}
	p.land(f, err)
}

// land is the end of a flush. One that has failed is the transaction's end.
func (p *pipe) land(f *flight, err error) {
	f.cancel(nil)
	if f.err = err; err != nil {
		last := p.t.guard.leave(false, &End{Fate: Failed, Err: err})
		close(f.done)
		p.t.clear()
		p.t.e.commits.add(-1)
		p.t.tell(last)
		return
	}
	defer p.t.e.commits.add(-1)
	p.mu.Lock()
	p.done.Keys += f.keys
	p.done.Bytes += f.bytes
	p.mu.Unlock()
	close(f.done)
}

// stretch makes the bounds hold a generation.
func (p *pipe) stretch(v membuf.View) {
	first, _ := v.Scan(keys.Range{}, false).Next()
	last, _ := v.Scan(keys.Range{}, true).Next()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lower == nil || bytes.Compare(first.Key, p.lower) < 0 {
		p.lower = bytes.Clone(first.Key)
	}
	if p.upper == nil || bytes.Compare(last.Key, p.upper) > 0 {
		p.upper = bytes.Clone(last.Key)
	}
	p.done.Rest = keys.Range{Start: p.lower, End: append(bytes.Clone(p.upper), 0)}
}

// covers reports whether key may have been flushed.
func (p *pipe) covers(key []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lower != nil && bytes.Compare(p.lower, key) <= 0 && bytes.Compare(key, p.upper) <= 0
}

func (p *pipe) progress() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := p.done
	if done.Elapsed = p.t.uptime(); !p.ended.IsZero() {
		done.Elapsed -= time.Since(p.ended)
	}
	return done
}
