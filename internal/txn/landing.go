package txn

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// mayCommit refuses what comes too late.
func (p *pipe) mayCommit(o CommitOptions) error {
	if o.DiskFull != p.o.DiskFull || o.Source != p.o.Source {
		return &Misuse{"WithPipelined", "needs WithDiskFull and WithTxnSource at Begin: it writes before it commits"}
	}
	return nil
}

// commit writes out what is left and commits the primary key, which decides. All other
// locks are dealt with when the caller has been told.
func (p *pipe) commit(ctx context.Context, op string, o CommitOptions) error {
	t := p.t
	if t.uptime() > maxAge {
		return &Aborted{StartTS: t.StartTS(), Why: "it is older than a day"}
	}
	t.owe()
	ctx, done := t.enter(ctx)
	defer done()
	err := p.handOver(ctx)
	if err == nil {
		err = p.await(ctx)
	}
	flushed := p.progress()
	t.wrote.Keys, t.wrote.Bytes = uint32(flushed.Keys), flushed.Bytes
	if err == nil && p.primary != nil {
		err = p.conclude(ctx, op, o)
	}
	return t.ended(err)
}

// conclude commits the primary key. The commit timestamp is issued when all locks are
// there, so that it is above whatever readers and heartbeats have pushed the transaction
// to, though a flush takes that from the primary lock (flush.rs: min_commit_ts).
func (p *pipe) conclude(ctx context.Context, op string, o CommitOptions) error {
	t := p.t
	defer t.beat.stop()
	p.decided.Store(true)
	t.protocol.Store(uint32(Piped))
	c := &commit{t: t, e: t.e, op: op, o: o, start: t.StartTS(), room: t.e.takeRoom(), protocol: Piped}
	defer c.giveRoom()
	c.muts.keys, c.muts.held, c.prime = [][]byte{p.primary}, [][]byte{p.primary}, part{from: 0, to: 1}
	call := t.e.call(ctx, op, t.opts.Read.CallOptions)
	var err error
	if c.at, err = t.e.router.Locate(ctx, call, p.primary); err != nil {
		return err
	}
	if err := c.conclude(ctx); err != nil {
		return err
	}
	ts := t.CommitTS()
	t.e.locks.Committed(c.start, ts) // who meets its locks need not ask
	t.e.owed.Go("commit flushed keys", func(ctx context.Context) { p.resolve(ctx, ts) })
	return nil
}

// letGo removes what a transaction that did not commit has flushed.
func (p *pipe) letGo() (done <-chan struct{}) {
	f, over := p.flight, make(chan struct{})
	if f == nil && p.primary == nil {
		p.resolved(nil, nil)
		return nil
	}
	if f != nil {
		f.cancel(ErrDone)
	}
	if !p.t.e.owed.Go("roll back flushed keys", func(ctx context.Context) {
		defer close(over)
		if f != nil {
			select {
			case <-f.done:
			case <-ctx.Done():
				return
			}
		}
		if p.primary == nil {
			p.resolved(nil, nil)
			return
		}
		p.rollBack(ctx, f)
	}) {
		close(over)
	}
	return over
}

// rollBack rolls the primary key back first, so that all who meet the other locks know at
// once, and then the keys of a flush that did not come to its end: the records keep its
// requests that come late from locking anything. Where a lock was flushed, its removal
// leaves such a record as well (TiKV src/storage/txn/actions/check_txn_status.rs,
// rollback_lock).
func (p *pipe) rollBack(ctx context.Context, f *flight) {
	parts := [][][]byte{{p.primary}}
	if f != nil && f.err != nil {
		var rest [][]byte
		cursor := f.view.Scan(keys.Range{}, false)
		for e, ok := cursor.Next(); ok; e, ok = cursor.Next() {
			rest = append(rest, e.Key)
		}
		parts = append(parts, rest)
	}
	c := &commit{t: p.t, e: p.t.e, o: CommitOptions{DiskFull: p.o.DiskFull, Source: p.o.Source}, start: p.t.StartTS()}
	for _, part := range parts {
		err := c.spread(ctx, p.owedCall(ctx), part, func(s *errand, keys [][]byte) { s.fillRollback(c, keys) })
		if err != nil {
			p.leftBehind(ctx, err)
			return
		}
	}
	p.resolve(ctx, 0)
}

func (p *pipe) context() *kvrpcpb.Context {
	return &kvrpcpb.Context{DiskFullOpt: p.o.DiskFull, TxnSource: p.o.Source}
}

func (p *pipe) owedCall(ctx context.Context) *router.Call {
	o := p.t.opts.Read.CallOptions
	o.RetryFor, o.Route = owedFor, nil
	call := p.t.e.call(ctx, "resolve", o)
	call.Owed, call.Timeout = true, writeTimeout
	return call
}

func (p *pipe) leftBehind(ctx context.Context, err error) {
	p.t.e.log.LogAttrs(ctx, slog.LevelWarn, "flushed keys left locked", slog.Uint64("start_ts", p.t.StartTS()), slog.Any("error", err))
}

// resolve makes the transaction's locks commit records, or removes them if commitTS is 0:
// all of each region between the bounds, for nobody knows the keys any more. What is left
// undone others will do.
func (p *pipe) resolve(ctx context.Context, commitTS uint64) {
	p.broadcast(&kvrpcpb.TxnStatus{CommitTs: commitTS, RolledBack: commitTS == 0})
	var failed error
	for from := p.lower; from != nil; {
		stretches, next, err := p.stretches(ctx, from)
		if err != nil {
			failed = err
			break
		}
		if err := p.resolveAll(ctx, stretches, commitTS); err != nil && failed == nil {
			failed = err
		}
		p.resolved(next, failed)
		from = next
	}
	if failed != nil {
		p.leftBehind(ctx, failed)
		return
	}
	p.forget(&kvrpcpb.TxnStatus{CommitTs: commitTS, RolledBack: commitTS == 0, IsCompleted: true})
}

// span is a piece of the keys between the bounds: a region, as it is known.
type span struct {
	region *region.Region
	from   []byte
	to     []byte // nil: without an end
}

// stretches returns as many pieces as are worked on at a time, and where to go on; nil:
// nowhere.
func (p *pipe) stretches(ctx context.Context, from []byte) (all []span, next []byte, err error) {
	call := p.owedCall(ctx)
	for len(all) < p.o.ResolveConcurrency {
		at, err := p.t.e.router.Locate(ctx, call, from)
		if err != nil {
			return nil, nil, err
		}
		end := p.t.e.codec.WireRange(at.Range).End
		all = append(all, span{at, from, end})
		if len(end) == 0 || bytes.Compare(end, p.upper) > 0 {
			return all, nil, nil
		}
		from = end
	}
	return all, from, nil
}

// resolveAll deals with pieces. One that fails leaves the others alone.
func (p *pipe) resolveAll(ctx context.Context, all []span, commitTS uint64) error {
	var (
		mu    sync.Mutex
		first error
	)
	_ = task.Each(ctx, len(all), len(all), func(ctx context.Context, i int) error {
		if err := p.resolveSpan(ctx, all[i], commitTS); err != nil {
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
			}
		}
		return nil
	})
	return first
}

// resolveSpan deals with one, in whatever regions it is by now.
func (p *pipe) resolveSpan(ctx context.Context, s span, commitTS uint64) error {
	call := p.owedCall(ctx)
	for at, from := s.region, s.from; ; {
		req := &kvrpcpb.ResolveLockRequest{Context: p.context(), StartVersion: p.t.StartTS(), CommitVersion: commitTS}
		resp, err := send[*kvrpcpb.ResolveLockResponse](ctx, p.t.e, call, at, req)
		switch {
		case err == nil && resp.GetError() != nil:
			return keyError(call, p.t.StartTS(), resp.GetError())
		case err == nil:
			p.mu.Lock()
			p.done.Regions++
			p.mu.Unlock()
			end := p.t.e.codec.WireRange(at.Range).End
			if len(end) == 0 || len(s.to) > 0 && bytes.Compare(end, s.to) >= 0 || bytes.Compare(end, p.upper) > 0 {
				return nil
			}
			from = end
		case !errors.Is(err, router.ErrRegionChanged):
			return err
		}
		if at, err = p.t.e.router.Locate(ctx, call, from); err != nil {
			return err
		}
	}
}

// resolved notes how far the locks have been dealt with.
func (p *pipe) resolved(next []byte, failed error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case failed != nil:
	case next == nil:
		p.done.Rest = keys.Range{}
		p.ended = time.Now()
	default:
		p.done.Rest.Start = next
	}
}
