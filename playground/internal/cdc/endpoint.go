package cdc

import (
	"bytes"
	"context"
	"slices"
	"sort"
	"sync"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// endpoint is the change feed of one run of a store, while there are streams: a loop that
// does one thing after the other (TiKV components/cdc/src/endpoint.rs, Endpoint).
type endpoint struct {
	Config
	run   *task.Group // of the store
	tasks *task.Group // of the endpoint; its end is the endpoint's
	quota quota
	scans chan struct{} // taken by those that run

	mu    sync.Mutex
	queue []work
	ended bool
	ready chan struct{}
	// subscribed are the regions that someone subscribed to, with the number of the
	// region's observation, and observed those of them whose batches are queued, by start
	// key.
	subscribed map[uint64]uint64
	observed   []observation

	// Of the loop alone.
	regions map[uint64]*region
	conns   map[*conn]struct{}
	last    uint64 // observation
	pending int    // scans that wait or run
}

// work is something for the loop to do, with a snapshot that is closed in any case.
type work struct {
	do   func()
	snap storage.Snapshot
}

// observation is a region as someone observes it.
type observation struct {
	region, number uint64
	in             keys.Range
}

// region is one that has subscriptions (TiKV components/cdc/src/delegate.rs, Delegate).
type region struct {
	id, number uint64
	meta       *metapb.Region // nil until the first snapshot
	subs       []*subscription
	builder    *subscription // whose scan was the first to begin
	index      uint64        // of the last batch
}

func newEndpoint(cfg Config, run *task.Group) *endpoint {
	return &endpoint{
		Config: cfg, run: run, tasks: task.New(run.Context()), quota: quota{limit: int64(cfg.Limits.Quota)},
		scans: make(chan struct{}, cfg.Limits.Scans), ready: make(chan struct{}, 1), subscribed: make(map[uint64]uint64),
		regions: make(map[uint64]*region), conns: make(map[*conn]struct{}),
	}
}

// loop does what is queued until the endpoint ends.
func (e *endpoint) loop(context.Context) {
	unwatch := e.Engine.Watch(e)
	e.tasks.Go("change feed ticks", e.tick)
	for {
		w, ok := e.next()
		if !ok {
			break
		}
		w.do()
		w.drop()
	}
	unwatch()
	e.mu.Lock()
	e.ended = true
	left := e.queue
	e.queue = nil
	e.mu.Unlock()
	for _, w := range left {
		w.drop()
	}
	e.tasks.Close(nil)
}

func (w work) drop() {
	if w.snap != nil {
		w.snap.Close()
	}
}

func (e *endpoint) next() (work, bool) {
	for {
		if e.tasks.Context().Err() != nil {
			return work{}, false
		}
		e.mu.Lock()
		if len(e.queue) > 0 {
			w := e.queue[0]
			if e.queue = e.queue[1:]; len(e.queue) == 0 {
				e.queue = nil
			}
			e.mu.Unlock()
			return w, true
		}
		e.mu.Unlock()
		select {
		case <-e.ready:
		case <-e.tasks.Context().Done():
		}
	}
}

// do queues something for the loop.
func (e *endpoint) do(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.push(work{do: f})
}

// push is do for a caller that holds the lock.
func (e *endpoint) push(w work) {
	if e.ended {
		w.drop()
		return
	}
	e.queue = append(e.queue, w)
	select {
	case e.ready <- struct{}{}:
	default:
	}
}

// Applied queues a batch for the observed regions that it is of.
func (e *endpoint) Applied(b *storage.Batch, after func() storage.Snapshot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.observed) == 0 || e.ended {
		return
	}
	var told []uint64
	for p := range b.Puts() {
		o, ok := e.observes(p.Key)
		if !ok || p.CF == storage.Meta || slices.Contains(told, o.region) {
			continue
		}
		told = append(told, o.region)
		applied, snap := *b, after()
		e.push(work{func() { e.batch(o, &applied, snap) }, snap})
	}
}

// observes finds the observed region that has a stored key.
func (e *endpoint) observes(key []byte) (observation, bool) {
	i := sort.Search(len(e.observed), func(i int) bool { return bytes.Compare(e.observed[i].in.Start, key) > 0 })
	if i == 0 || !e.observed[i-1].in.Contains(key) {
		return observation{}, false
	}
	return e.observed[i-1], true
}

// observe begins to queue the batches of a region. Callers hold the lock.
func (e *endpoint) observe(o observation) {
	i := sort.Search(len(e.observed), func(i int) bool { return bytes.Compare(e.observed[i].in.Start, o.in.Start) >= 0 })
	if i < len(e.observed) && e.observed[i].region == o.region {
		return
	}
	e.observed = slices.Insert(e.observed, i, o)
}

// forget ends a region's observation. Callers hold the lock.
func (e *endpoint) forget(id uint64) {
	delete(e.subscribed, id)
	e.observed = slices.DeleteFunc(e.observed, func(o observation) bool { return o.region == id })
}

// happened queues the end of a region's subscriptions, if what becomes of it ends them.
// What was applied before is queued before, and nothing that is applied after.
func (e *endpoint) happened(h topology.Happening) {
	id := h.Was.ID()
	e.mu.Lock()
	defer e.mu.Unlock()
	number, ok := e.subscribed[id]
	if !ok {
		return
	}
	if err := e.outcome(h); err != nil {
		e.forget(id)
		e.push(work{do: func() { e.stop(id, number, err) }})
	}
}

// register takes up a subscription (endpoint.rs, on_register).
func (e *endpoint) register(c *conn, q *cdcpb.ChangeDataRequest, muted bool) {
	if _, ok := e.conns[c]; !ok {
		return
	}
	s := newSubscription(c, q, muted)
	if refused := e.check(c, q); refused != nil {
		s.fail(refused)
		return
	}
	key := subKey{s.request, s.region}
	if c.subs[key] != nil {
		s.fail(&cdcpb.Error{DuplicateRequest: &cdcpb.DuplicateRequest{RegionId: s.region}})
		return
	}
	r := e.regions[s.region]
	if r == nil {
		e.last++
		r = &region{id: s.region, number: e.last}
	}
	if err := s.checkEpoch(r); err != nil {
		s.fail(eventError(err, s.region))
		return
	}
	c.subs[key] = s
	r.subs = append(r.subs, s)
	if e.regions[r.id] == nil {
		e.regions[r.id] = r
		e.mu.Lock()
		e.subscribed[r.id] = r.number
		e.mu.Unlock()
	}
	number := r.number
	e.pending++
	e.tasks.Go("change feed scan", func(ctx context.Context) {
		err := e.scan(ctx, s, number)
		e.do(func() {
			e.pending--
			if err != nil {
				e.failed(s, number, err)
			}
		})
	})
}

// check makes the checks of a registration, in TiKV's order, up to that of duplicates.
func (e *endpoint) check(c *conn, q *cdcpb.ChangeDataRequest) *cdcpb.Error {
	if got := q.GetHeader().GetClusterId(); c.features.clusterID && got != e.ClusterID {
		return &cdcpb.Error{ClusterIdMismatch: &cdcpb.ClusterIDMismatch{Current: e.ClusterID, Request: got}}
	}
	raw := q.KvApi == cdcpb.ChangeDataRequest_RawKV && e.APIVersion == kvrpcpb.APIVersion_V2
	if q.KvApi != cdcpb.ChangeDataRequest_TiDB && !raw { // service.rs, validate_kv_api
		return &cdcpb.Error{Compatibility: &cdcpb.Compatibility{RequiredVersion: "6.2.0"}}
	}
	if e.pending >= e.Limits.PendingScans {
		return &cdcpb.Error{ServerIsBusy: &errorpb.ServerIsBusy{Reason: "too many pending incremental scans"}}
	}
	if r := e.Topology.ByID(q.RegionId); r == nil || r.Peer(e.Store) == nil {
		return &cdcpb.Error{RegionNotFound: &errorpb.RegionNotFound{RegionId: q.RegionId}}
	}
	return nil
}

// failed ends what a scan that failed was for: its subscription, or all of the region if
// it is the region's fault or the scan the one that the others rely on (initializer.rs,
// deregister_downstream).
func (e *endpoint) failed(s *subscription, number uint64, err error) {
	r := e.regions[s.region]
	if r == nil || r.number != number {
		return
	}
	if _, ok := err.(refused); ok || r.builder == s {
		e.stop(s.region, number, err)
		return
	}
	if s.conn.subs[subKey{s.request, s.region}] == s {
		e.drop(s, err)
	}
}

// stop ends all subscriptions of a region with an error.
func (e *endpoint) stop(id, number uint64, err error) {
	r := e.regions[id]
	if r == nil || r.number != number {
		return
	}
	e.remove(r)
	for _, s := range r.subs {
		s.end(err)
	}
}

// remove ends the observation of a region.
func (e *endpoint) remove(r *region) {
	delete(e.regions, r.id)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.subscribed[r.id] == r.number {
		e.forget(r.id)
	}
}

// drop ends one subscription; without an error nobody is told.
func (e *endpoint) drop(s *subscription, err error) {
	s.end(err)
	r := e.regions[s.region]
	if r == nil {
		return
	}
	r.subs = slices.DeleteFunc(r.subs, func(o *subscription) bool { return o == s })
	if len(r.subs) == 0 {
		e.remove(r)
	}
}

// deregister ends a subscription, or, without a region, all of a request id. Those that
// are not there are nobody's concern (endpoint.rs, on_deregister).
func (e *endpoint) deregister(c *conn, q *cdcpb.ChangeDataRequest) {
	if q.RegionId != 0 {
		if s := c.subs[subKey{q.RequestId, q.RegionId}]; s != nil {
			e.drop(s, errGone)
		}
		return
	}
	for _, s := range c.sorted() {
		if s.request == q.RequestId {
			e.drop(s, errGone)
		}
	}
}

// opened and left begin and end a stream.
func (e *endpoint) opened(c *conn) { e.conns[c] = struct{}{} }

func (e *endpoint) left(c *conn) {
	delete(e.conns, c)
	for _, s := range c.sorted() {
		e.drop(s, nil)
	}
}
