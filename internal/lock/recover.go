package lock

import (
	"context"
	"errors"
	"fmt"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// recover decides an asynchronous commit whose client seems to be dead: it is committed
// if and only if all its locks are there, at the largest of their minimum commit
// timestamps. Asking for the secondary locks settles it, for a key that has none then
// cannot get one afterwards (TiKV src/storage/txn/commands/check_secondary_locks.rs).
func (r *Resolver) recover(ctx context.Context, call *router.Call, t *txn) error {
	primary := t.async
	keys := primary.GetSecondaries()
	groups, err := r.router.Group(ctx, call, keys)
	if err != nil {
		return err
	}
	found := make([]outcome, len(groups))
	err = task.Each(ctx, parallel, len(groups), func(ctx context.Context, i int) error {
		return r.checkSecondaries(ctx, call.Part(), t.start, pick(keys, groups[i].Index), groups[i], &found[i])
	})
	if err != nil {
		return err
	}
	all := outcome{minTS: primary.GetMinCommitTs()}
	for _, o := range found {
		if err := all.merge(o); err != nil {
			return err
		}
	}
	t.status, t.async = Status{State: Committed, CommitTS: all.minTS}, nil
	switch {
	case all.missing && all.commitTS == 0:
		t.status = Status{State: RolledBack}
	case all.missing:
		t.status.CommitTS = all.commitTS
	}
	r.known.put(t.start, t.status)
	t.all = append(keys[:len(keys):len(keys)], t.primary)
	return nil
}

// outcome is what secondary keys say of their transaction.
type outcome struct {
	minTS    uint64 // the largest of their locks' minimum commit timestamps
	missing  bool   // one has no lock: it tells how the transaction ended
	commitTS uint64 // missing: 0 if it was rolled back
}

// errTorn is a transaction that seems both committed and not, or committed twice.
var errTorn = errors.New("lock: keys of one transaction disagree about its end")

// merge adds what other keys say. Those without a lock must agree among themselves, and
// with the locks that promise not to commit below their minimum.
func (o *outcome) merge(other outcome) error {
	if o.missing && other.missing && o.commitTS != other.commitTS {
		return fmt.Errorf("%w: at %d and %d", errTorn, o.commitTS, other.commitTS)
	}
	if other.missing {
		o.missing, o.commitTS = true, other.commitTS
	}
	o.minTS = max(o.minTS, other.minTS)
	if o.missing && o.commitTS != 0 && o.commitTS < o.minTS {
		return fmt.Errorf("%w: at %d, and not below %d", errTorn, o.commitTS, o.minTS)
	}
	return nil
}

// checkSecondaries asks one region. An error in the answer says nothing about the
// transaction.
func (r *Resolver) checkSecondaries(ctx context.Context, call *router.Call, start uint64, keys [][]byte, g router.Group, into *outcome) error {
	req := &kvrpcpb.CheckSecondaryLocksRequest{Context: &kvrpcpb.Context{}, Keys: keys, StartVersion: start}
	resp, err := r.router.Send(ctx, call, g.Region, req)
	if errors.Is(err, router.ErrRegionChanged) {
		return r.regroup(ctx, call, keys, func(g router.Group, keys [][]byte) error {
			var part outcome
			if err := r.checkSecondaries(ctx, call, start, keys, g, &part); err != nil {
				return err
			}
			return into.merge(part)
		})
	}
	if err != nil {
		return err
	}
	answer, ok := resp.(*kvrpcpb.CheckSecondaryLocksResponse)
	switch {
	case !ok:
		return unexpected(req, resp)
	case answer.GetError() != nil:
		return Refused(call, answer.GetError())
	case len(answer.GetLocks()) < len(keys):
		into.missing, into.commitTS = true, answer.GetCommitTs()
		return nil
	}
	for _, l := range answer.GetLocks() {
		switch {
		case l.GetLockVersion() != start:
			return fmt.Errorf("lock: asked for locks of %d, got one of %d", start, l.GetLockVersion())
		case !l.GetUseAsyncCommit():
			return errNotAsync
		}
		into.minTS = max(into.minTS, l.GetMinCommitTs())
	}
	return nil
}

// regroup finds the regions that keys are in by now and calls fn for each in turn.
func (r *Resolver) regroup(ctx context.Context, call *router.Call, keys [][]byte, fn func(router.Group, [][]byte) error) error {
	groups, err := r.router.Group(ctx, call, keys)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := fn(g, pick(keys, g.Index)); err != nil {
			return err
		}
	}
	return nil
}

func pick(keys [][]byte, index []int) [][]byte {
	out := make([][]byte, len(index))
	for i, j := range index {
		out[i] = keys[j]
	}
	return out
}
