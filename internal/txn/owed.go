package txn

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sort"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/wire"
)

// owedParallel is how many parts of one transaction that met something are worked on at a
// time.
const owedParallel = 16

// errand is what one request about keys of a region needs, kept for the next one.
type errand struct {
	part     part
	call     router.Call
	retry    backoff.Retry
	context  kvrpcpb.Context
	commit   kvrpcpb.CommitRequest
	rollback kvrpcpb.BatchRollbackRequest
	req      transport.Request // one of both
	got      wire.Done
}

func (e *Engine) takeErrand() *errand {
	if s, _ := e.errands.Get().(*errand); s != nil {
		return s
	}
	return &errand{}
}

func (e *Engine) giveErrand(s *errand) {
	*s = errand{}
	e.errands.Put(s)
}

func (s *errand) fillCommit(c *commit, ts uint64, keys [][]byte, role kvrpcpb.CommitRole) {
	s.context = c.context()
	s.got.Reset()
	s.commit = kvrpcpb.CommitRequest{
		Context: &s.context, StartVersion: c.start, CommitVersion: ts, Keys: keys,
		PrimaryKey: c.primaryKey(), CommitRole: role, UseAsyncCommit: c.protocol == Async,
	}
	s.req = &s.commit
}

func (s *errand) fillRollback(c *commit, keys [][]byte) {
	s.context = c.context()
	s.got.Reset()
	s.rollback = kvrpcpb.BatchRollbackRequest{Context: &s.context, StartVersion: c.start, Keys: keys}
	s.req = &s.rollback
}

// commitKeys commits keys of a transaction that has committed: nobody needs to wait.
func (c *commit) commitKeys(ts uint64, keys [][]byte) {
	if len(keys) == 0 {
		return
	}
	c.owed("commit secondaries", keys, func(s *errand, keys [][]byte) {
		role, primary := kvrpcpb.CommitRole_Secondary, c.primaryKey()
		if bytes.Compare(keys[0], primary) <= 0 && bytes.Compare(keys[len(keys)-1], primary) >= 0 {
			role = kvrpcpb.CommitRole_Primary
		}
		s.fillCommit(c, ts, keys, role)
	})
}

// cleanUp rolls back what may have been locked by a transaction that certainly did not
// commit. The rollback records keep copies of its requests that come late from locking
// again.
func (c *commit) cleanUp() {
	c.t.beat.stop()
	sort.Slice(c.locked, func(i, j int) bool { return c.locked[i].from < c.locked[j].from }) // links less than slices
	var keys [][]byte
	done := 0
	for _, p := range c.locked {
		for i := max(p.from, done); i < p.to; i++ {
			if c.muts.locks(i) {
				keys = append(keys, c.muts.keys[i])
			}
		}
		done = max(done, p.to)
	}
	c.owed("roll back", keys, func(s *errand, keys [][]byte) { s.fillRollback(c, keys) })
}

// owed sends requests about sorted keys, which fill makes, in the background and until all
// is done or the client has closed. Whatever is left undone others will do.
func (c *commit) owed(name string, keys [][]byte, fill func(s *errand, keys [][]byte)) {
	if len(keys) == 0 {
		return
	}
	c.busy = true
	c.e.owed.Go(name, func(ctx context.Context) {
		o := c.t.opts.Read.CallOptions
		o.RetryFor = owedFor
		call := c.e.call(ctx, c.op, o)
		call.Owed, call.Timeout = true, writeTimeout
		if err := c.spread(ctx, call, keys, fill); err != nil {
			c.e.log.LogAttrs(ctx, slog.LevelWarn, name+" not done", slog.Uint64("start_ts", c.start), slog.Any("error", err))
		}
	})
}

// spread sends requests about sorted keys to their regions, and again where those change.
func (c *commit) spread(ctx context.Context, call *router.Call, keys [][]byte, fill func(s *errand, keys [][]byte)) error {
	runs, err := c.e.router.Runs(ctx, call, keys, nil)
	if err != nil {
		return err
	}
	parts := batches(runs, 0, func(i int) int { return len(keys[i]) }, nil)
	base := *call
	base.Retry = nil // each part has its own
	errands, parcels := make([]*errand, 0, min(len(parts), window)), make([]router.Parcel, min(len(parts), window))
	for wave := range slices.Chunk(parts, window) {
		clear(parcels)
		for i, p := range wave {
			s := c.e.takeErrand()
			s.part = p
			base.PartInto(&s.call)
			if s.retry = call.Retry.Fork(); len(parts) == 1 {
				s.retry = *call.Retry // its delays go on growing
			}
			s.call.Retry = &s.retry
			fill(s, keys[p.from:p.to])
			parcels[i] = router.Parcel{Call: &s.call, Region: p.region, Req: s.req, Resp: &s.got}
			errands = append(errands, s)
		}
		c.e.router.SendAll(ctx, parcels[:len(wave)], nil)
		err := c.afterwards(ctx, errands, parcels, keys, fill)
		for _, s := range errands {
			c.e.giveErrand(s)
		}
		if errands = errands[:0]; err != nil {
			return err
		}
	}
	return nil
}

// afterwards does what is left to do of requests that were sent.
func (c *commit) afterwards(ctx context.Context, errands []*errand, parcels []router.Parcel, keys [][]byte, fill func(s *errand, keys [][]byte)) error {
	var left []int
	for i, s := range errands {
		if parcels[i].Err != nil || s.got.Error != nil {
			left = append(left, i)
		}
	}
	return task.Each(ctx, owedParallel, len(left), func(ctx context.Context, i int) error {
		s, err := errands[left[i]], parcels[left[i]].Err
		switch {
		case errors.Is(err, router.ErrRegionChanged):
			return c.spread(ctx, &s.call, keys[s.part.from:s.part.to], fill)
		case err != nil:
			return err
		}
		return keyError(&s.call, c.start, s.got.Error)
	})
}
