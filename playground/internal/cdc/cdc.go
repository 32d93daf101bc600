// Package cdc is the change feed of a store: the service ChangeData, by which a client
// subscribes to regions that the store leads. Of each it gets what there is after a
// timestamp, then every change as it is applied, and timestamps at or below which nothing
// more will come (TiKV components/cdc).
//
// What reaches a subscription goes through one queue of the store, in the order in which
// it happened: batches that were applied, splits and leaders that moved, resolved
// timestamps. Only the first scan has a way of its own to the stream, as in TiKV: what it
// finds and what happens meanwhile come interleaved.
package cdc

import (
	"context"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/count"
	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/mvcc"
	"github.com/tikv-go/tikv/playground/internal/rawkv"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// Config is what a store's change feed stands on.
type Config struct {
	Store, ClusterID uint64
	APIVersion       kvrpcpb.APIVersion
	Engine           storage.Engine
	Txn              *mvcc.Engine // the store's own
	Raw              *rawkv.Engine
	Topology         *topology.Topology
	// Enter holds a region as it is, if the store leads it and its version is that of
	// the epoch. The caller leaves it.
	Enter func(region uint64, epoch *metapb.RegionEpoch) (*topology.Region, *errorpb.Error)
	// Timestamp asks PD for one, and waits for it; false: there is none.
	Timestamp func(context.Context) (uint64, bool)
	Faults    *fault.Set
	Counter   *count.Counter
	// UserKey takes off what API V2 puts before a key.
	UserKey func(wire []byte) []byte
	// Tasks is the group of the store's present run, nil while it is stopped.
	Tasks func() *task.Group
	// Disconnect closes the connection that a stream's context is of.
	Disconnect func(context.Context)
	Limits     Limits
}

// Limits are what the zero value of each field leaves at TiKV's default (src/config/mod.
// rs, CdcConfig).
type Limits struct {
	Quota        int           // bytes that wait to be sent by the store: sink-memory-quota, 512 MiB
	Interval     time.Duration // between resolved timestamps: min-ts-interval, 1 s
	Scans        int           // at a time: incremental-scan-concurrency, 6
	PendingScans int           // with those that wait: incremental-scan-concurrency-limit, 10000
}

func (l *Limits) fill() {
	if l.Quota == 0 {
		l.Quota = 512 << 20
	}
	if l.Interval == 0 {
		l.Interval = time.Second
	}
	if l.Scans == 0 {
		l.Scans = 6
	}
	if l.PendingScans == 0 {
		l.PendingScans = 10000
	}
}

// Feed is a store's change feed. While it has no streams it costs nothing.
type Feed struct {
	cfg Config

	mu      sync.Mutex
	now     *endpoint // nil: no streams
	streams int       // of now
}

// New returns the change feed of a store.
func New(cfg Config) *Feed {
	cfg.Limits.fill()
	f := &Feed{cfg: cfg}
	cfg.Topology.Watch(f.happened)
	return f
}

// Register adds the service ChangeData.
func (f *Feed) Register(g *grpc.Server) { cdcpb.RegisterChangeDataServer(g, service{f}) }

// open returns the endpoint of the store's present run for one more stream.
func (f *Feed) open(tasks *task.Group) (*endpoint, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now == nil || f.now.run != tasks {
		e := newEndpoint(f.cfg, tasks)
		if !tasks.Go("change feed", e.loop) {
			return nil, false
		}
		f.now, f.streams = e, 0
	}
	f.streams++
	return f.now, true
}

// leave ends what open began.
func (f *Feed) leave(e *endpoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now != e {
		return
	}
	if f.streams--; f.streams == 0 {
		f.now = nil
		e.tasks.Cancel(nil)
	}
}

// happened hears what becomes of a region.
func (f *Feed) happened(h topology.Happening) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now != nil {
		f.now.happened(h)
	}
}
