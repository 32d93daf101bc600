package txn

import (
	"context"
	"errors"
	"math"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// prewrite locks all keys, batch by batch.
func (c *commit) prewrite(ctx context.Context) error {
	call := c.call(ctx)
	index := make([]int, c.muts.len())
	for i := range index {
		index[i] = i
	}
	groups, err := c.group(ctx, call, index)
	if err != nil {
		return err
	}
	sizes := make(map[*region.Region]int, len(groups))
	for _, g := range groups {
		sizes[g.Region] += len(g.Index)
	}
	parts := c.muts.batches(groups)
	return task.Each(ctx, writeParallel, len(parts), func(ctx context.Context, i int) error {
		return c.prewritePart(ctx, call.Part(), parts[i], uint64(sizes[parts[i].Region]))
	})
}

// prewritePart locks the keys of one batch. size is how many keys the transaction has
// in the region.
func (c *commit) prewritePart(ctx context.Context, call *router.Call, p router.Group, size uint64) error {
	for {
		locks, err := c.prewriteOnce(ctx, call, p, size)
		switch {
		case errors.Is(err, router.ErrRegionChanged):
			return c.prewriteMoved(ctx, call, p.Index)
		case err != nil, len(locks) == 0:
			return err
		}
		// Nothing was written. Who began later is about to write what this
		// transaction has read before: a conflict, and of two transactions that are
		// in each other's way only one waits.
		for _, l := range locks {
			if l.StartTS > c.start {
				return &Conflict{Key: l.Key, Primary: l.Primary, StartTS: c.start, ConflictTS: l.StartTS}
			}
		}
		v, err := c.e.locks.ForWrite(ctx, call, c.start, locks)
		if err != nil {
			return err
		}
		if v.Live != nil {
			if err := c.e.await(ctx, call, backoff.Lock, c.start, *v.Live, v.Wait); err != nil {
				return err
			}
		}
		call = call.Settled()
	}
}

// prewriteMoved locks keys in the regions that they are in by now. How many keys the
// transaction has in each is not known any more: others that remove its locks shall
// search.
func (c *commit) prewriteMoved(ctx context.Context, call *router.Call, index []int) error {
	groups, err := c.group(ctx, call, index)
	if err != nil {
		return err
	}
	for _, p := range c.muts.batches(groups) {
		if err := c.prewritePart(ctx, call, p, math.MaxUint64); err != nil {
			return err
		}
	}
	return nil
}

// prewriteOnce sends one request. It returns the locks that are in its way.
func (c *commit) prewriteOnce(ctx context.Context, call *router.Call, p router.Group, size uint64) ([]lock.Lock, error) {
	req := &kvrpcpb.PrewriteRequest{
		Context:      &kvrpcpb.Context{},
		Mutations:    c.muts.proto(p.Index),
		PrimaryLock:  c.primaryKey(),
		StartVersion: c.start,
		LockTtl:      uint64((c.ttl + c.t.uptime()).Milliseconds()),
		TxnSize:      size,
		MinCommitTs:  c.start + 1,
	}
	resp, err := send[*kvrpcpb.PrewriteResponse](ctx, c.e, call, p.Region, req)
	refused := err == nil && len(resp.GetErrors()) > 0
	if !refused || req.Context.IsRetryRequest {
		// Written, or perhaps so by a copy of the request whose answer was lost.
		c.wrote(p, err == nil && !refused)
	}
	if err != nil {
		return nil, err
	}
	var locks []lock.Lock
	for _, ke := range resp.GetErrors() {
		if ke.GetLocked() == nil {
			return nil, keyError(call, c.start, ke)
		}
		locks = append(locks, lock.FromProto(ke.GetLocked())...)
	}
	return locks, nil
}

// wrote notes that a batch has left its locks, certainly or perhaps. With the primary
// lock the transaction begins to live, and has to be kept alive.
func (c *commit) wrote(p router.Group, certain bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	index := c.muts.locking(p.Index)
	c.locked = append(c.locked, index...)
	if !certain {
		return
	}
	for _, i := range index {
		if i == c.primary {
			c.at, c.primeAt = p.Region, primaryFirst(index, i)
			c.beat.start(c)
			return
		}
	}
}

func primaryFirst(index []int, primary int) []int {
	out := append(make([]int, 0, len(index)), primary)
	for _, i := range index {
		if i != primary {
			out = append(out, i)
		}
	}
	return out
}
