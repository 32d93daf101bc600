package cdc

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/count"
	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/meta"
	"github.com/tikv-go/tikv/playground/internal/mvcc"
	"github.com/tikv-go/tikv/playground/internal/rawkv"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// restless is an engine that does something before and after it is looked at.
type restless struct {
	storage.Engine
	meanwhile atomic.Pointer[func()]
}

// during sets what is done, nil for nothing, from then on.
func (e *restless) during(f func()) {
	if f == nil {
		e.meanwhile.Store(nil)
		return
	}
	e.meanwhile.Store(&f)
}

func (e *restless) disturb() {
	if f := e.meanwhile.Swap(nil); f != nil { // what it does looks at the engine too
		(*f)()
		e.meanwhile.CompareAndSwap(nil, f)
	}
}

func (e *restless) Snapshot() storage.Snapshot {
	e.disturb()
	s := e.Engine.Snapshot()
	e.disturb()
	return s
}

func (e *restless) Sync(f func(storage.Snapshot)) {
	e.disturb()
	e.Engine.Sync(f)
	e.disturb()
}

// bench is a change feed of a store with one region, without a network.
type bench struct {
	t      *testing.T
	engine *restless
	topo   *topology.Topology
	txn    *mvcc.Engine
	feed   *Feed
	tasks  *task.Group
	now    atomic.Uint64
	refuse func() *errorpb.Error // by the region, if it is set
}

func newBench(t *testing.T, limits Limits) *bench {
	t.Helper()
	b := &bench{t: t, engine: &restless{Engine: storage.NewMemory()}, tasks: task.New(t.Context())}
	b.now.Store(1000)
	b.topo = topology.New(meta.New(storage.NewMemory()), 1)
	if err := b.topo.Bootstrap(nil, new(meta.Change)); err != nil {
		t.Fatal(err)
	}
	manager := mvcc.NewManager()
	b.txn = mvcc.New(b.engine, mvcc.Config{APIVersion: kvrpcpb.APIVersion_V1}).On(manager, func(uint64) *mvcc.Manager { return manager })
	b.feed = New(Config{
		Store: 1, ClusterID: 7, APIVersion: kvrpcpb.APIVersion_V1, Engine: b.engine, Txn: b.txn,
		Raw:      rawkv.New(b.engine, rawkv.Config{APIVersion: kvrpcpb.APIVersion_V1}),
		Topology: b.topo, Enter: b.enter, Timestamp: func(context.Context) (uint64, bool) { return b.now.Add(1), true },
		Faults: fault.NewSet(1, b.tasks), Counter: new(count.Counter), UserKey: func(k []byte) []byte { return k },
		Tasks: func() *task.Group { return b.tasks }, Limits: limits,
	})
	t.Cleanup(func() { b.tasks.Close(nil) })
	return b
}

func (b *bench) enter(id uint64, epoch *metapb.RegionEpoch) (*topology.Region, *errorpb.Error) {
	r := b.topo.Enter(id)
	if b.refuse != nil {
		if e := b.refuse(); e != nil {
			r.Leave()
			return nil, e
		}
	}
	if r.Meta.RegionEpoch.Version != epoch.GetVersion() {
		r.Leave()
		return nil, &errorpb.Error{EpochNotMatch: &errorpb.EpochNotMatch{CurrentRegions: []*metapb.Region{r.Meta}}}
	}
	return r, nil
}

func (b *bench) region() *topology.Region { return b.topo.ByKey(nil) }

func (b *bench) prewrite(start uint64, key, value string) {
	r := b.txn.Prewrite(b.t.Context(), keys.Range{}, &kvrpcpb.PrewriteRequest{StartVersion: start, PrimaryLock: []byte(key), LockTtl: 1,
		Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: []byte(key), Value: []byte(value)}}})
	if len(r.Errors) > 0 {
		b.t.Error(r)
	}
}

func (b *bench) commit(start, commit uint64, key string) {
	if r := b.txn.Commit(b.t.Context(), keys.Range{}, &kvrpcpb.CommitRequest{StartVersion: start, CommitVersion: commit, Keys: [][]byte{[]byte(key)}}); r.Error != nil {
		b.t.Error(r)
	}
}

// put commits a value.
func (b *bench) put(key, value string) {
	start := b.now.Add(1)
	b.prewrite(start, key, value)
	b.commit(start, b.now.Add(1), key)
}

// client is a stream that nobody reads from but the test.
type client struct {
	b    *bench
	ctx  context.Context
	stop context.CancelFunc
	in   chan *cdcpb.ChangeDataRequest
	out  chan *cdcpb.ChangeDataEvent
	err  chan error
}

func (b *bench) client() *client {
	c := &client{b: b, in: make(chan *cdcpb.ChangeDataRequest), out: make(chan *cdcpb.ChangeDataEvent), err: make(chan error, 1)}
	c.ctx, c.stop = context.WithCancel(b.t.Context())
	go func() {
		c.err <- b.feed.serve("EventFeedV2", true, c)
		c.stop()
	}()
	return c
}

func (c *client) Context() context.Context { return c.ctx }

func (c *client) Send(m *cdcpb.ChangeDataEvent) error {
	select {
	case c.out <- m:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}

func (c *client) Recv() (*cdcpb.ChangeDataRequest, error) {
	select {
	case q, ok := <-c.in:
		if !ok {
			return nil, io.EOF
		}
		return q, nil
	case <-c.ctx.Done():
		return nil, context.Cause(c.ctx)
	}
}

func (c *client) register(request uint64, change ...func(*cdcpb.ChangeDataRequest)) {
	r := c.b.region()
	q := &cdcpb.ChangeDataRequest{
		Header: &cdcpb.Header{ClusterId: 7, TicdcVersion: "8.0.0"}, RegionId: r.ID(), RegionEpoch: r.Meta.RegionEpoch, RequestId: request,
	}
	for _, change := range change {
		change(q)
	}
	c.in <- q
}

// lines describes a message, one line for each row, error or resolved timestamp.
func lines(m *cdcpb.ChangeDataEvent) (all []string) {
	if ts := m.ResolvedTs; ts != nil {
		return []string{fmt.Sprintf("%d resolved %d", ts.RequestId, ts.Ts)}
	}
	for _, e := range m.Events {
		for _, row := range e.GetEntries().GetEntries() {
			all = append(all, fmt.Sprintf("%d %v %s", e.RequestId, row.Type, row.Key))
		}
		switch err := e.GetError(); {
		case err == nil:
		case err.Congested != nil:
			all = append(all, fmt.Sprintf("%d Congested", e.RequestId))
		case err.ServerIsBusy != nil:
			all = append(all, fmt.Sprintf("%d ServerIsBusy", e.RequestId))
		case err.NotLeader != nil:
			all = append(all, fmt.Sprintf("%d NotLeader", e.RequestId))
		case err.EpochNotMatch != nil:
			all = append(all, fmt.Sprintf("%d EpochNotMatch", e.RequestId))
		case err.RegionNotFound != nil:
			all = append(all, fmt.Sprintf("%d RegionNotFound", e.RequestId))
		}
	}
	return all
}
