package lock

import (
	"bytes"
	"context"
	"errors"
	"math"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// liteBelow is the size of a transaction in a region from which on all its locks there
// are removed with one that was met; of a smaller one, only those met (client-go
// ResolveLockLiteThreshold).
const liteBelow = 512

// remove removes the locks of a transaction that is over.
func (r *Resolver) remove(ctx context.Context, call *router.Call, t *txn, behind bool) error {
	keys, wide := t.leftovers()
	if len(keys) > 0 {
		work := func(ctx context.Context, call *router.Call) error {
			return r.resolveKeys(ctx, call, t.start, t.status.CommitTS, keys, wide)
		}
		if !behind || !r.sweeps.start(r, call, t.start, keys, work) {
			if err := work(ctx, call); err != nil {
				return err
			}
		}
	}
	if keys, forUpdate := t.pessimistic(); len(keys) > 0 {
		// They do not block reads, so that who met them has to wait for their end.
		return r.rollbackPessimistic(ctx, call, t.start, forUpdate, keys)
	}
	return nil
}

// leftovers returns the keys with locks to be committed or rolled back, and whether a
// region with one of them has to be searched for more.
func (t *txn) leftovers() (keys [][]byte, wide bool) {
	switch {
	case !t.status.final():
		return nil, false
	case t.all != nil:
		return t.all, false
	}
	for _, l := range t.locks {
		if l.Pessimistic || t.status.settled && bytes.Equal(l.Key, t.primary) && l.TxnSize < liteBelow {
			continue
		}
		keys = append(keys, l.Key)
		wide = wide || l.TxnSize >= liteBelow
	}
	return keys, wide
}

// pessimistic returns the keys with pessimistic locks that are left over, and the
// largest timestamp up to which they were locked. The primary key is not among them if
// its status was just asked for: that removed the lock.
func (t *txn) pessimistic() (keys [][]byte, forUpdate uint64) {
	for _, l := range t.locks {
		if !l.Pessimistic || t.status.settled && bytes.Equal(l.Key, t.primary) {
			continue
		}
		keys = append(keys, l.Key)
		if l.ForUpdateTS == 0 {
			forUpdate = math.MaxUint64
		}
		forUpdate = max(forUpdate, l.ForUpdateTS)
	}
	return keys, forUpdate
}

// resolveKeys commits or rolls back keys, or everything of the transaction in their
// regions, a region at a time.
func (r *Resolver) resolveKeys(ctx context.Context, call *router.Call, start, commit uint64, keys [][]byte, wide bool) error {
	groups, err := r.router.Group(ctx, call, keys)
	if err != nil {
		return err
	}
	return task.Each(ctx, parallel, len(groups), func(ctx context.Context, i int) error {
		return r.resolveGroup(ctx, call.Part(), start, commit, pick(keys, groups[i].Index), wide, groups[i])
	})
}

func (r *Resolver) resolveGroup(ctx context.Context, call *router.Call, start, commit uint64, keys [][]byte, wide bool, g router.Group) error {
	req := &kvrpcpb.ResolveLockRequest{Context: &kvrpcpb.Context{}, StartVersion: start, CommitVersion: commit}
	if !wide {
		req.Keys = keys
	}
	resp, err := r.router.Send(ctx, call, g.Region, req)
	if errors.Is(err, router.ErrRegionChanged) {
		return r.regroup(ctx, call, keys, func(g router.Group, keys [][]byte) error {
			return r.resolveGroup(ctx, call, start, commit, keys, wide, g)
		})
	}
	if err != nil {
		return err
	}
	answer, ok := resp.(*kvrpcpb.ResolveLockResponse)
	switch {
	case !ok:
		return unexpected(req, resp)
	case answer.GetError() != nil:
		return Refused(call, answer.GetError())
	}
	return nil
}

// rollbackPessimistic removes the pessimistic locks of keys.
func (r *Resolver) rollbackPessimistic(ctx context.Context, call *router.Call, start, forUpdate uint64, keys [][]byte) error {
	return r.regroup(ctx, call, keys, func(g router.Group, keys [][]byte) error {
		req := &kvrpcpb.PessimisticRollbackRequest{
			Context: &kvrpcpb.Context{}, StartVersion: start, ForUpdateTs: forUpdate, Keys: keys,
		}
		resp, err := r.router.Send(ctx, call, g.Region, req)
		if errors.Is(err, router.ErrRegionChanged) {
			return r.rollbackPessimistic(ctx, call, start, forUpdate, keys)
		}
		if err != nil {
			return err
		}
		answer, ok := resp.(*kvrpcpb.PessimisticRollbackResponse)
		switch {
		case !ok:
			return unexpected(req, resp)
		case len(answer.GetErrors()) > 0:
			return Refused(call, answer.GetErrors()[0])
		}
		return nil
	})
}
