package txn

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// flushOp is what errors of flushes are of: nobody has called them.
const flushOp = "flush"

// flush writes a generation out: each key becomes a lock that carries the value. A key may
// be flushed again and again; of its flushes the one with the largest generation counts,
// and a copy of one that has been done does nothing, so that they may be sent again (TiKV
// src/storage/txn/actions/prewrite.rs, check_lock; commands/flush.rs).
func (p *pipe) flush(ctx context.Context, f *flight) error {
	t := p.t
	if t.uptime() > safePointMaxAge {
		// Behind the safe point conflicts leave no trace: deletions go.
		if err := t.e.checkSafe(ctx, t.StartTS(), time.Now()); err != nil {
			return err
		}
	}
	g := &generation{p: p, number: f.generation}
	g.muts.collect(f.view, f.keys, false, &g.few, new(more))
	if err := p.settleClaims(ctx, &g.muts); err != nil {
		return err
	}
	p.note(&g.muts)
	if err := g.begin(ctx); err != nil || len(g.muts.keys) == 0 {
		return err
	}
	call := g.call(ctx)
	runs, err := t.e.router.Runs(ctx, &call, g.muts.keys, nil)
	if err != nil {
		return err
	}
	for _, run := range runs {
		p.replicas(run.Region)
	}
	for parts := batches(runs, 0, g.muts.size, nil); len(parts) > 0; {
		n := min(len(parts), p.width.now)
		if err := g.wave(ctx, parts[:n]); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

// generation is what one flush writes.
type generation struct {
	p      *pipe
	number uint64 // from 1 on
	muts   mutations
	few    few
}

// note keeps what is to be known of what was flushed.
func (p *pipe) note(m *mutations) {
	for _, mut := range m.all {
		switch mut.Op {
		case kvrpcpb.Op_Del:
			p.deleted.Store(true)
		case kvrpcpb.Op_Put, kvrpcpb.Op_Insert:
			if len(mut.Value) == 0 {
				p.emptied.Store(true)
			}
		}
	}
}

// drop takes out the mutation at i.
func (m *mutations) drop(i int) {
	m.keys, m.all = slices.Delete(m.keys, i, i+1), slices.Delete(m.all, i, i+1)
}

// begin writes the first key that is locked at all, alone: it is the primary key, whose
// lock says that the transaction lives. From then on the heart beats.
func (g *generation) begin(ctx context.Context) error {
	p := g.p
	if p.primary != nil {
		return nil
	}
	at := slices.IndexFunc(g.muts.all, func(m *kvrpcpb.Mutation) bool { return m.Op != kvrpcpb.Op_CheckNotExists })
	if at < 0 {
		return nil
	}
	p.primary = bytes.Clone(g.muts.keys[at])
	s := &flushing{g: g, call: g.call(ctx)}
	region, err := p.t.e.router.Locate(ctx, &s.call, p.primary)
	if err != nil {
		return err
	}
	p.replicas(region)
	if err := s.send(ctx, part{region: region, from: at, to: at + 1}); err != nil {
		return err
	}
	p.t.beat.start(p.t, p.primary, p.t.firstBeat(s.req.LockTtl, beatTTL-beatEvery))
	g.muts.drop(at)
	return nil
}

// call is for one request.
func (g *generation) call(ctx context.Context) router.Call {
	o := g.p.t.opts.Read.CallOptions
	o.Route = nil
	call := g.p.t.e.callWith(flushOp, o, backoff.For(ctx, o.retryFor()))
	call.Timeout = writeTimeout
	return call
}

// wave sends requests together. The first that fails ends the others.
func (g *generation) wave(ctx context.Context, parts []part) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sends, parcels := make([]flushing, len(parts)), make([]router.Parcel, len(parts))
	for i := range parts {
		s := &sends[i]
		s.g, s.call = g, g.call(ctx)
		s.fill(parts[i])
		parcels[i] = router.Parcel{Call: &s.call, Region: parts[i].region, Req: &s.req, Resp: &s.resp}
	}
	var (
		mu    sync.Mutex
		first error
	)
	g.p.t.e.router.SendAll(ctx, parcels, func(i int) {
		s := &sends[i]
		if s.locks, s.err = s.take(parcels[i].Err); s.err == nil || errors.Is(s.err, router.ErrRegionChanged) {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = s.err
			cancel(s.err)
		}
	})
	if first != nil {
		return first
	}
	var left []*flushing
	for i := range sends {
		if s := &sends[i]; s.err != nil || len(s.locks) > 0 {
			left = append(left, s)
		}
	}
	err := task.Each(ctx, owedParallel, len(left), func(ctx context.Context, i int) error { return left[i].finish(ctx) })
	busy := false
	for i := range sends {
		busy = busy || router.Met(&sends[i].call, router.ServerBusy)
	}
	g.p.width.learn(busy)
	return err
}

// flushing is one request of a flush.
type flushing struct {
	g       *generation
	part    part
	call    router.Call
	context kvrpcpb.Context
	req     kvrpcpb.FlushRequest
	resp    kvrpcpb.FlushResponse

	locks []lock.Lock // what came of it: in the way
	err   error
}

// fill makes the request for a part. A flush sets the life of a lock anew, so that one of
// the primary lock must not take away what heartbeats have given it until the request has
// been done (prewrite.rs, write_lock). The locks of others that it meets do not keep it
// from writing the rest (commands/flush.rs, process_write).
func (s *flushing) fill(part part) {
	g, t := s.g, s.g.p.t
	s.part = part
	s.context = kvrpcpb.Context{DiskFullOpt: g.p.o.DiskFull, TxnSource: g.p.o.Source}
	ttl := t.uptime() + beatTTL
	if ks := g.muts.keys; g.number > 1 && bytes.Compare(ks[part.from], g.p.primary) <= 0 && bytes.Compare(g.p.primary, ks[part.to-1]) <= 0 {
		ttl += t.opts.Read.retryFor()
	}
	s.req = kvrpcpb.FlushRequest{
		Context:     &s.context,
		Mutations:   g.muts.all[part.from:part.to],
		PrimaryKey:  g.p.primary,
		StartTs:     t.StartTS(),
		MinCommitTs: t.StartTS() + 1,
		Generation:  g.number,
		LockTtl:     uint64(ttl.Milliseconds()),
	}
	if s.req.PrimaryKey == nil { // nothing is locked, only looked at
		s.req.PrimaryKey = g.muts.keys[part.from]
	}
	if g.muts.asserts {
		s.req.AssertionLevel = t.opts.Assertions
	}
}

// send writes a part out.
func (s *flushing) send(ctx context.Context, part part) error {
	s.fill(part)
	s.resp.Reset()
	s.locks, s.err = s.take(s.g.p.t.e.router.SendInto(ctx, &s.call, part.region, &s.req, &s.resp))
	return s.finish(ctx)
}

// take reads what came of the request. It returns the locks that are in its way.
func (s *flushing) take(err error) ([]lock.Lock, error) {
	if err != nil {
		return nil, err
	}
	var locks []lock.Lock
	for _, ke := range s.resp.Errors {
		if ke.GetLocked() == nil {
			return nil, keyError(&s.call, s.g.p.t.StartTS(), ke)
		}
		locks = append(locks, lock.FromProto(ke.GetLocked())...)
	}
	return locks, nil
}

// finish goes on from what came of the request until the part is written out.
func (s *flushing) finish(ctx context.Context) error {
	switch {
	case errors.Is(s.err, router.ErrRegionChanged):
		return s.moved(ctx)
	case s.err != nil || len(s.locks) == 0:
		return s.err
	}
	if err := s.meet(ctx); err != nil {
		return err
	}
	return s.send(ctx, s.part)
}

// moved writes the keys of the part in the regions that they are in by now.
func (s *flushing) moved(ctx context.Context) error {
	m, from := &s.g.muts, s.part.from
	runs, err := s.g.p.t.e.router.Runs(ctx, &s.call, m.keys[from:s.part.to], nil)
	if err != nil {
		return err
	}
	for i := range runs {
		runs[i].From, runs[i].To = runs[i].From+from, runs[i].To+from
	}
	for _, part := range batches(runs, 0, m.size, nil) {
		if err := s.send(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// meet deals with locks in the way, as the prewrite of an optimistic transaction does.
func (s *flushing) meet(ctx context.Context) error {
	t := s.g.p.t
	start := t.StartTS()
	for _, l := range s.locks {
		if l.StartTS > start {
			return &Conflict{Key: l.Key, Primary: l.Primary, StartTS: start, ConflictTS: l.StartTS}
		}
	}
	v, err := t.e.locks.ForWrite(ctx, &s.call, start, s.locks)
	if err == nil && v.Live != nil {
		err = t.e.await(ctx, &s.call, backoff.Lock, start, *v.Live, v.Wait)
	}
	return err
}
