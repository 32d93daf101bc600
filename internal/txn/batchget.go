package txn

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/wire"
)

const (
	// getKeys is how many keys one request asks for.
	getKeys = 1024
	// getParallel is how many requests of one call are in flight.
	getParallel = 32
)

// many is what one request for many keys needs, kept for the next one.
type many struct {
	call    router.Call
	retry   backoff.Retry
	context kvrpcpb.Context
	req     kvrpcpb.BatchGetRequest
	order   keys.Order // of req
	got     wire.Pairs
}

// batchGetError is the field of a BatchGetResponse's own error (kvproto kvrpcpb.proto).
const batchGetError = 5

func (e *Engine) takeMany() *many {
	if m, _ := e.manys.Get().(*many); m != nil {
		return m
	}
	return &many{got: wire.Pairs{ErrorField: batchGetError, Pool: &e.pairs}}
}

// giveMany takes back what the router keeps nothing of.
func (e *Engine) giveMany(m *many) {
	m.got.Reset()
	m.order.Reset()
	*m = many{got: m.got, order: m.order}
	e.manys.Put(m)
}

// BatchGet sets the values of the keys that are there, by their place in keys, with their
// commit timestamps if versions is set. No two share memory that can be written.
func (s *Snapshot) BatchGet(ctx context.Context, op string, keys [][]byte, versions bool, set func(i int, v Value)) error {
	if len(keys) == 0 {
		return nil
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	m := s.e.takeMany()
	defer s.e.giveMany(m)
	m.retry = *backoff.For(ctx, s.opts.retryFor())
	m.call = s.e.callWith(op, s.opts.CallOptions, &m.retry)
	if err := s.getAll(ctx, m, keys, versions, set); err != nil {
		return err
	}
	return s.check(ctx, time.Now())
}

// getAll gets keys of any regions.
func (s *Snapshot) getAll(ctx context.Context, m *many, keys [][]byte, versions bool, set func(i int, v Value)) error {
	var reg *region.Region
	if len(keys) <= getKeys {
		reg = s.e.router.Only(&m.call, keys)
	}
	if reg == nil {
		return s.getSplit(ctx, &m.call, keys, versions, set)
	}
	s.prepare(m, keys, versions)
	err := s.e.router.SendInto(ctx, &m.call, reg, &m.req, &m.got)
	return s.take(ctx, m, reg, err, versions, set)
}

// prepare makes the request.
func (s *Snapshot) prepare(m *many, keys [][]byte, versions bool) {
	s.fill(&m.context)
	m.got.Reset()
	m.order.Begin(keys)
	m.req = kvrpcpb.BatchGetRequest{Context: &m.context, Keys: keys, Version: s.ts, NeedCommitTs: versions}
}

// take sets the values of what came of a request to a region, and does what is left to
// do if it came to anything else.
func (s *Snapshot) take(ctx context.Context, m *many, at *region.Region, err error, versions bool, set func(i int, v Value)) error {
	keys := m.req.Keys
	switch {
	case err == router.ErrRegionChanged:
		return s.getSplit(ctx, &m.call, keys, versions, set)
	case err != nil || m.inOrder(set):
		return err
	}
	b := newBatchGet(s, keys, versions)
	locks, rest, err := b.absorb(&m.call, m, all(len(b.keys)))
	if err == nil {
		err = b.proceed(ctx, &m.call, router.Group{Region: at}, locks, rest)
	}
	if err == nil {
		b.values(set)
	}
	return err
}

// getSplit sorts keys by region. The requests go out together.
func (s *Snapshot) getSplit(ctx context.Context, call *router.Call, keys [][]byte, versions bool, set func(i int, v Value)) error {
	groups, err := s.e.router.Group(ctx, call, keys)
	if err != nil {
		return err
	}
	parts := cut(groups, getKeys, func(int) int { return 1 })
	ordered := make([][]byte, 0, len(keys)) // the keys, part by part
	parcels, manys := make([]router.Parcel, len(parts)), make([]*many, len(parts))
	defer func() {
		for _, m := range manys {
			s.e.giveMany(m)
		}
	}()
	for n, p := range parts {
		begin := len(ordered)
		for _, i := range p.Index {
			ordered = append(ordered, keys[i])
		}
		m := s.e.takeMany()
		call.PartInto(&m.call)
		s.prepare(m, ordered[begin:len(ordered):len(ordered)], versions)
		manys[n], parcels[n] = m, router.Parcel{Call: &m.call, Region: p.Region, Req: &m.req, Resp: &m.got}
	}
	s.e.router.SendAll(ctx, parcels, nil)
	var left []int // those that came to anything but values
	for n, p := range parts {
		if parcels[n].Err != nil || !manys[n].inOrder(func(i int, v Value) { set(p.Index[i], v) }) {
			left = append(left, n)
		}
	}
	var mu sync.Mutex
	return task.Each(ctx, getParallel, len(left), func(ctx context.Context, i int) error {
		n := left[i]
		return s.take(ctx, manys[n], parts[n].Region, parcels[n].Err, versions, func(i int, v Value) {
			mu.Lock()
			defer mu.Unlock()
			set(parts[n].Index[i], v)
		})
	})
}

// inOrder sets the values of an answer that has nothing but values, in the order of the
// keys, which is TiKV's (src/storage/mod.rs, batch_get). Else it sets nothing.
func (m *many) inOrder(set func(i int, v Value)) bool {
	if m.got.Error != nil {
		return false
	}
	m.order.Again()
	for _, pair := range m.got.Pairs {
		if pair.Error != nil || m.order.Find(pair.Key) < 0 {
			return false
		}
	}
	m.order.Again()
	for _, pair := range m.got.Pairs {
		set(m.order.Find(pair.Key), Value{Bytes: pair.Value, CommitTS: pair.CommitTS})
	}
	return true
}

func all(n int) []int {
	index := make([]int, n)
	for i := range index {
		index[i] = i
	}
	return index
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

// values sets the values in the order asked for.
func (b *batchGet) values(set func(i int, v Value)) {
	given := make([]bool, len(b.got))
	for i, at := range b.order {
		v := b.got[at]
		if v.Bytes == nil {
			continue
		}
		if given[at] {
			v.Bytes = append([]byte{}, v.Bytes...)
		}
		given[at] = true
		set(i, v)
	}
}

// proceed deals with the locks that an answer told, and gets the rest.
func (b *batchGet) proceed(ctx context.Context, call *router.Call, p router.Group, locks []lock.Lock, rest []int) error {
	if len(rest) == 0 {
		return nil
	}
	if err := b.s.meet(ctx, call, locks, b.versions); err != nil {
		return err
	}
	p.Index = rest
	return b.fetch(ctx, call, p)
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
	m := b.s.e.takeMany()
	defer b.s.e.giveMany(m)
	b.s.prepare(m, pick(b.keys, p.Index), b.versions)
	if err := b.s.e.router.SendInto(ctx, call, p.Region, &m.req, &m.got); err != nil {
		return nil, nil, err
	}
	return b.absorb(call, m, p.Index)
}

// absorb takes the answer about the keys of index. It returns what try does.
func (b *batchGet) absorb(call *router.Call, m *many, index []int) (locks []lock.Lock, rest []int, err error) {
	if ke := m.got.Error; ke != nil {
		if ke.GetLocked() == nil {
			return nil, nil, keyError(call, b.s.ts, ke)
		}
		return lock.FromProto(ke.GetLocked()), index, nil // the pairs mean nothing
	}
	for _, i := range index {
		b.got[i] = Value{}
	}
	for i := range m.got.Pairs {
		pair := &m.got.Pairs[i]
		switch ke := pair.Error; {
		case ke.GetLocked() != nil:
			locks = append(locks, lock.FromProto(ke.GetLocked())...)
			rest = append(rest, b.keysOf(pair.Key, ke.GetLocked())...)
		case ke != nil:
			return nil, nil, keyError(call, b.s.ts, ke)
		default:
			if i, ok := b.index[string(pair.Key)]; ok {
				b.got[i] = Value{Bytes: pair.Value, CommitTS: pair.CommitTS}
			}
		}
	}
	if len(locks) > 0 && (b.s.ts == Latest || len(rest) == 0) {
		rest = index
	}
	return locks, rest, nil
}

// keysOf returns the index of the key that a pair with a lock is about.
func (b *batchGet) keysOf(key []byte, info *kvrpcpb.LockInfo) []int {
	if len(key) == 0 {
		key = info.GetKey()
	}
	if i, ok := b.index[string(key)]; ok {
		return []int{i}
	}
	return nil
}
