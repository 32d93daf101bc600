package txn

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// What is neither in the buffer nor in the generation that it has handed over last may have
// been flushed before: then the cluster has it, as locks with values.

// get is Txn.Get of a key that is not at hand.
func (p *pipe) get(ctx context.Context, op string, key []byte) ([]byte, error) {
	own, value := false, []byte(nil)
	if err := p.flushed(ctx, op, [][]byte{key}, func(_ int, v []byte) { own, value = true, v }); err != nil {
		return nil, err
	}
	switch {
	case !own:
		return p.t.snap.Get(ctx, op, key)
	case value == nil:
		return nil, ErrNotFound
	}
	return value, nil
}

// batchGet is Snapshot.BatchGet of keys that are not at hand.
func (p *pipe) batchGet(ctx context.Context, op string, keys [][]byte, versions bool, set func(i int, v Value)) error {
	own := make([]bool, len(keys))
	err := p.flushed(ctx, op, keys, func(i int, value []byte) {
		if own[i] = true; value != nil {
			set(i, Value{Bytes: value})
		}
	})
	if err != nil {
		return err
	}
	var rest []int
	for i := range keys {
		if !own[i] {
			rest = append(rest, i)
		}
	}
	return p.t.snap.BatchGet(ctx, op, pick(keys, rest), versions, func(i int, v Value) { set(rest[i], v) })
}

// settleClaims compares what is claimed to be absent with what the transaction itself has
// flushed. TiKV does so for keys that it has put, but takes one that it has deleted for
// what it was before (prewrite.rs, check_lock and check_for_newer_version).
func (p *pipe) settleClaims(ctx context.Context, m *mutations) error {
	if !p.deleted.Load() {
		return nil
	}
	var claimed []int
	for i, mut := range m.all {
		if mut.Op == kvrpcpb.Op_Insert || mut.Op == kvrpcpb.Op_CheckNotExists {
			claimed = append(claimed, i)
		}
	}
	gone := make(map[int]bool)
	var exists error
	err := p.flushed(ctx, flushOp, pick(m.keys, claimed), func(i int, value []byte) {
		if value == nil {
			gone[claimed[i]] = true
		} else if exists == nil {
			exists = &Exists{Key: m.keys[claimed[i]]}
		}
	})
	if err == nil {
		err = exists
	}
	for n := len(claimed) - 1; n >= 0 && err == nil; n-- {
		switch i := claimed[n]; {
		case !gone[i]:
		case m.all[i].Op == kvrpcpb.Op_Insert:
			m.all[i].Op = kvrpcpb.Op_Put
		default:
			m.drop(i)
		}
	}
	return err
}

// flushed sets the values of keys that were flushed: nil if that was a deletion.
func (p *pipe) flushed(ctx context.Context, op string, keys [][]byte, set func(i int, value []byte)) error {
	a := asking{p: p, keys: keys, set: set}
	var index []int
	for i, key := range keys {
		if p.covers(key) {
			index = append(index, i)
		}
	}
	if len(index) == 0 {
		return nil
	}
	o := p.t.opts.Read.CallOptions
	o.Route = nil
	return a.ask(ctx, p.t.e.call(ctx, op, o), index)
}

// asking is a call for flushed values.
type asking struct {
	p    *pipe
	keys [][]byte

	mu  sync.Mutex
	set func(i int, value []byte)
}

// ask asks for the keys of index, wherever they are.
func (a *asking) ask(ctx context.Context, call *router.Call, index []int) error {
	groups, err := a.p.t.e.router.Group(ctx, call, pick(a.keys, index))
	if err != nil {
		return err
	}
	parts := cut(groups, getKeys, func(int) int { return 1 })
	return task.Each(ctx, getParallel, len(parts), func(ctx context.Context, i int) error {
		return a.askIn(ctx, call.Part(), parts[i].Region, pick(index, parts[i].Index))
	})
}

// askIn asks for keys of one region.
func (a *asking) askIn(ctx context.Context, call *router.Call, at *region.Region, index []int) error {
	for {
		req := &kvrpcpb.BufferBatchGetRequest{Context: &kvrpcpb.Context{}, Keys: pick(a.keys, index), Version: a.p.t.StartTS()}
		resp, err := send[*kvrpcpb.BufferBatchGetResponse](ctx, a.p.t.e, call, at, req)
		if errors.Is(err, router.ErrRegionChanged) {
			return a.ask(ctx, call, index)
		}
		if err == nil && resp.GetError() != nil {
			if err = a.meet(ctx, call, resp.GetError()); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		return a.take(ctx, call, index, resp.GetPairs())
	}
}

// meet deals with a lock of another transaction, one in memory, that is in the way of a
// whole request.
func (a *asking) meet(ctx context.Context, call *router.Call, ke *kvrpcpb.KeyError) error {
	if ke.GetLocked() == nil {
		return keyError(call, a.p.t.StartTS(), ke)
	}
	return a.p.t.snap.meet(ctx, call, lock.FromProto(ke.GetLocked()), false)
}

// take sets what a region has answered. A deletion and an empty value look alike in it:
// where there were both, the locks tell.
func (a *asking) take(ctx context.Context, call *router.Call, index []int, pairs []*kvrpcpb.KvPair) error {
	values := make(map[string][]byte, len(pairs))
	var alike []int
	for _, pair := range pairs {
		if pair.GetError() != nil {
			return keyError(call, a.p.t.StartTS(), pair.GetError())
		}
		values[string(pair.Key)] = pair.Value
	}
	a.mu.Lock()
	for _, i := range index {
		switch value, ok := values[string(a.keys[i])]; {
		case !ok:
		case len(value) > 0:
			a.set(i, bytes.Clone(value))
		case !a.p.deleted.Load():
			a.set(i, []byte{})
		case !a.p.emptied.Load():
			a.set(i, nil)
		default:
			alike = append(alike, i)
		}
	}
	a.mu.Unlock()
	return task.Each(ctx, getParallel, len(alike), func(ctx context.Context, i int) error { return a.look(ctx, call.Part(), alike[i]) })
}

// look asks for the lock of a key, which is of the kind that was flushed. (A read would pass
// it: it is not to be committed at the timestamp of the transaction's start.)
func (a *asking) look(ctx context.Context, call *router.Call, i int) error {
	key, start := a.keys[i], a.p.t.StartTS()
	for {
		req := &kvrpcpb.ScanLockRequest{
			Context: &kvrpcpb.Context{}, MaxVersion: start, StartKey: key, EndKey: append(bytes.Clone(key), 0), Limit: 1,
		}
		resp, err := sendKey[*kvrpcpb.ScanLockResponse](ctx, a.p.t.e, call, key, req)
		if err == nil && resp.GetError() != nil {
			if err = a.meet(ctx, call, resp.GetError()); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if locks := resp.GetLocks(); len(locks) > 0 && locks[0].GetLockVersion() == start {
			a.found(i, locks[0].GetLockType() == kvrpcpb.Op_Put)
		} // else it is gone since, and with it the transaction
		return nil
	}
}

// found sets a key that was flushed: as empty, or as deleted.
func (a *asking) found(i int, empty bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if empty {
		a.set(i, []byte{})
	} else {
		a.set(i, nil)
	}
}
