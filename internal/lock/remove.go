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
	if keys, wide := t.leftovers(); len(keys) > 0 {
		job := ending{start: t.start, commit: t.status.CommitTS, keys: keys, wide: wide}
		if !behind || !r.sweeps.add(r, call, job) {
			if err := r.end(ctx, own(call), job); err != nil {
				return err
			}
		}
	}
	if keys, forUpdate := t.pessimistic(); len(keys) > 0 {
		// They do not block reads, so that who met them has to wait for their end.
		return r.rollbackPessimistic(ctx, own(call), t, forUpdate, keys)
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
	for i := range t.locks {
		l := &t.locks[i]
		if l.Pessimistic || t.fresh && l.TxnSize < liteBelow && bytes.Equal(l.Key, t.primary) {
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
	for i := range t.locks {
		l := &t.locks[i]
		if !l.Pessimistic || t.fresh && bytes.Equal(l.Key, t.primary) {
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

// ending is what is to be done to keys of a transaction that is over: they are committed,
// or rolled back if commit is 0. wide: with everything of the transaction's in the same
// regions.
type ending struct {
	start, commit uint64
	keys          [][]byte
	wide          bool
}

// end carries it out, a request for each region.
func (r *Resolver) end(ctx context.Context, call *router.Call, e ending) error {
	groups, err := r.router.Group(ctx, call, e.keys)
	if err != nil {
		return err
	}
	return task.Each(ctx, parallel, len(groups), func(ctx context.Context, i int) error {
		part := e
		part.keys = pick(e.keys, groups[i].Index)
		return r.endIn(ctx, call.Part(), part, groups[i])
	})
}

// searchID is a region that is searched for a transaction's locks.
type searchID struct{ start, region, version uint64 }

// endIn carries it out in one region.
func (r *Resolver) endIn(ctx context.Context, call *router.Call, e ending, g router.Group) error {
	var err error
	if e.wide {
		id := searchID{start: e.start, region: g.Region.ID, version: g.Region.Epoch.Version}
		_, err = r.searches.share(ctx, call, id, func() (struct{}, error) { return struct{}{}, r.sendEnd(ctx, call, e, g) })
	} else {
		err = r.sendEnd(ctx, call, e, g)
	}
	if errors.Is(err, router.ErrRegionChanged) {
		return r.regroup(ctx, call, e.keys, func(g router.Group, keys [][]byte) error {
			part := e
			part.keys = keys
			return r.endIn(ctx, call, part, g)
		})
	}
	return err
}

func (r *Resolver) sendEnd(ctx context.Context, call *router.Call, e ending, g router.Group) error {
	req := &kvrpcpb.ResolveLockRequest{Context: &kvrpcpb.Context{}, StartVersion: e.start, CommitVersion: e.commit}
	if !e.wide {
		req.Keys = e.keys
	}
	resp, err := r.router.Send(ctx, call, g.Region, req)
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

// rollbackPessimistic removes pessimistic locks: with those met all that the transaction
// took in the same regions until then, unless it is not over but has chosen another
// primary key.
func (r *Resolver) rollbackPessimistic(ctx context.Context, call *router.Call, t *txn, forUpdate uint64, keys [][]byte) error {
	return r.regroup(ctx, call, keys, func(g router.Group, keys [][]byte) error {
		req := &kvrpcpb.PessimisticRollbackRequest{Context: &kvrpcpb.Context{}, StartVersion: t.start, ForUpdateTs: forUpdate}
		if t.orphan {
			req.Keys = keys
		}
		resp, err := r.router.Send(ctx, call, g.Region, req)
		if errors.Is(err, router.ErrRegionChanged) {
			return r.rollbackPessimistic(ctx, call, t, forUpdate, keys)
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
