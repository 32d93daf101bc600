package tikv

import (
	"context"
	"log/slog"
	"sync"

	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/task"
)

// seams is where hooks see what the parts of a client do beside the attempts of calls; nil:
// they do not.
type seams struct {
	observer interface{ end() }
	pd       []grpc.DialOption                     // of connections to PD
	conn     func(addr string) (ended func(error)) // as of transport.Config
	change   func(region.Change)                   // as of region.Config
	leader   func(addr string)                     // as of pd.Config
}

// observe returns the seams that w's hooks look through. storeAt finds a store by its
// address, 0 if there is none.
func (w *watch) observe(ctx context.Context, logger *slog.Logger, storeAt func(addr string) uint64) seams {
	used := *w
	used.logger = logger
	s := seams{pd: used.pdOptions()}
	if len(w.conn)+len(w.topology) == 0 {
		return s
	}
	o := &observer{watch: &used, storeAt: storeAt, tasks: task.Root(ctx)}
	s.observer = o
	if len(w.conn) > 0 {
		s.conn = o.connected
	}
	if len(w.topology) > 0 {
		s.change, s.leader = o.changed, o.ledBy
	}
	return s
}

// observer tells hooks of connections and of the topology, one thing after the other, by a
// task that is there while there is something to tell: who learns something, perhaps with
// locks held, never waits for a hook.
type observer struct {
	*watch
	storeAt func(addr string) uint64
	tasks   *task.Group

	mu      sync.Mutex
	queue   []func()
	left    int // changes that the queue had no room for
	running bool
}

// observerRoom is how long the queue may be for a change to join it. Connections always do,
// of which there are few.
const observerRoom = 1 << 14

// push puts something to tell at the end of the queue; mu is held.
func (o *observer) push(tell func()) {
	o.queue = append(o.queue, tell)
	if !o.running {
		o.running = o.tasks.Go("hooks", o.run)
	}
}

// run tells what is in the queue, also while the client closes.
func (o *observer) run(ctx context.Context) {
	for {
		now, left := o.take()
		if left > 0 {
			o.logger.LogAttrs(ctx, slog.LevelWarn, "hooks are behind, changes were left out", slog.Int("changes", left))
		}
		if len(now) == 0 {
			return
		}
		for _, tell := range now {
			tell()
		}
	}
}

// take empties the queue; the task ends if there was nothing in it.
func (o *observer) take() (now []func(), left int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, left = o.queue, o.left
	o.queue, o.left, o.running = nil, 0, len(now) > 0
	return now, left
}

// end returns when all has been told. Nothing is told from then on.
func (o *observer) end() { o.tasks.Close(nil) }

// connected tells of a connection, and what it returns of its end.
func (o *observer) connected(addr string) (ended func(error)) {
	info := ConnInfo{Addr: addr, StoreID: o.storeAt(addr)}
	o.tellConn(func(h ConnHook) { h.OnConnect(info) })
	return func(err error) {
		err = public(err)
		o.tellConn(func(h ConnHook) { h.OnDisconnect(info, err) })
	}
}

func (o *observer) tellConn(tell func(ConnHook)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.push(func() {
		for _, h := range o.conn {
			o.guard(o.tasks.Context(), func() { tell(h) })
		}
	})
}

var topologyOf = [...]TopologyEvent{
	region.RegionLoaded: TopologyLoad, region.LeaderMoved: TopologyLeader, region.EpochChanged: TopologyEpoch, region.RegionEvicted: TopologyEvict,
	region.StoreFound: TopologyStoreNew, region.StoreUp: TopologyStoreUp, region.StoreDown: TopologyStoreDown, region.StoreSlow: TopologyStoreSlow,
	region.StoreQuick: TopologyStoreQuick, region.StoreMoved: TopologyStoreMoved, region.StoreGone: TopologyStoreGone,
}

func (o *observer) changed(c region.Change) {
	o.tellTopology(TopologyInfo{Event: topologyOf[c.Kind], RegionID: c.Region, StoreID: c.Store, Addr: c.Addr})
}

func (o *observer) ledBy(addr string) {
	o.tellTopology(TopologyInfo{Event: TopologyPDLeader, Addr: addr})
}

func (o *observer) tellTopology(info TopologyInfo) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) >= observerRoom {
		o.left++
		return
	}
	o.push(func() {
		for _, h := range o.topology {
			o.guard(o.tasks.Context(), func() { h.OnTopologyChange(info) })
		}
	})
}
