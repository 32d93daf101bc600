package txn

import (
	"context"
	"errors"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

const (
	// getKeys is how many keys one request asks for.
	getKeys = 1024
	// getParallel is how many requests of one call are in flight.
	getParallel = 32
)

// BatchGet returns the values of keys in their order, with their commit timestamps if
// versions is set.
func (s *Snapshot) BatchGet(ctx context.Context, op string, keys [][]byte, versions bool) ([]Value, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	call, err := s.begin(ctx, op)
	if err != nil {
		return nil, err
	}
	b := newBatchGet(s, keys, versions)
	groups, err := s.e.router.Group(ctx, call, b.keys)
	if err != nil {
		return nil, err
	}
	parts := cut(groups, getKeys, func(int) int { return 1 })
	err = task.Each(ctx, getParallel, len(parts), func(ctx context.Context, i int) error {
		return b.fetch(ctx, call.Part(), parts[i])
	})
	if err != nil {
		return nil, err
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	return b.values(), nil
}

// batchGet is one call. Its parts write to got, each to the elements of its own keys.
type batchGet struct {
	s        *Snapshot
	versions bool
	order    []int // for each key asked for, its index in keys
	keys     [][]byte
	index    map[string]int // of keys, which are distinct
	got      []Value
}

func newBatchGet(s *Snapshot, keys [][]byte, versions bool) *batchGet {
	b := &batchGet{s: s, versions: versions, order: make([]int, len(keys)), index: make(map[string]int, len(keys))}
	for i, key := range keys {
		at, ok := b.index[string(key)]
		if !ok {
			at = len(b.keys)
			b.index[string(key)] = at
			b.keys = append(b.keys, key)
		}
		b.order[i] = at
	}
	b.got = make([]Value, len(b.keys))
	return b
}

// values returns the values in the order asked for. No two share memory.
func (b *batchGet) values() []Value {
	out := make([]Value, len(b.order))
	given := make([]bool, len(b.got))
	for i, at := range b.order {
		out[i] = b.got[at]
		if given[at] && out[i].Bytes != nil {
			out[i].Bytes = append([]byte{}, out[i].Bytes...)
		}
		given[at] = true
	}
	return out
}

// fetch gets the keys of one part.
func (b *batchGet) fetch(ctx context.Context, call *router.Call, p router.Group) error {
	for {
		locks, rest, err := b.try(ctx, call, p)
		if errors.Is(err, router.ErrRegionChanged) {
			return b.regroup(ctx, call, p.Index)
		}
		if err != nil || len(rest) == 0 {
			return err
		}
		if err := b.s.meet(ctx, call, locks, b.versions); err != nil {
			return err
		}
		p.Index = rest
	}
}

// regroup gets keys from the regions that they are in by now.
func (b *batchGet) regroup(ctx context.Context, call *router.Call, index []int) error {
	groups, err := b.s.e.router.Group(ctx, call, pick(b.keys, index))
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := b.fetch(ctx, call, router.Group{Region: g.Region, Index: pick(index, g.Index)}); err != nil {
			return err
		}
	}
	return nil
}

// try sends one request. It returns the locks that were met and the keys to be asked
// for again: those that are locked or, if the keys asked for together are to be seen at
// one moment, all of them.
func (b *batchGet) try(ctx context.Context, call *router.Call, p router.Group) (locks []lock.Lock, rest []int, err error) {
	req := &kvrpcpb.BatchGetRequest{
		Context: b.s.context(), Keys: pick(b.keys, p.Index), Version: b.s.ts, NeedCommitTs: b.versions,
	}
	resp, err := send[*kvrpcpb.BatchGetResponse](ctx, b.s.e, call, p.Region, req)
	if err != nil {
		return nil, nil, err
	}
	if ke := resp.GetError(); ke != nil {
		if ke.GetLocked() == nil {
			return nil, nil, keyError(call, b.s.ts, ke)
		}
		return lock.FromProto(ke.GetLocked()), p.Index, nil // the pairs mean nothing
	}
	for _, i := range p.Index {
		b.got[i] = Value{}
	}
	for _, pair := range resp.GetPairs() {
		switch ke := pair.GetError(); {
		case ke.GetLocked() != nil:
			locks = append(locks, lock.FromProto(ke.GetLocked())...)
			rest = append(rest, b.keysOf(pair, ke.GetLocked())...)
		case ke != nil:
			return nil, nil, keyError(call, b.s.ts, ke)
		default:
			if i, ok := b.index[string(pair.GetKey())]; ok {
				b.got[i] = Value{Bytes: present(pair.GetValue()), CommitTS: pair.GetCommitTs()}
			}
		}
	}
	if len(locks) > 0 && (b.s.ts == Latest || len(rest) == 0) {
		rest = p.Index
	}
	return locks, rest, nil
}

// keysOf returns the index of the key that a pair with a lock is about.
func (b *batchGet) keysOf(pair *kvrpcpb.KvPair, info *kvrpcpb.LockInfo) []int {
	key := pair.GetKey()
	if len(key) == 0 {
		key = info.GetKey()
	}
	if i, ok := b.index[string(key)]; ok {
		return []int{i}
	}
	return nil
}
