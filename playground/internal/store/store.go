// Package store is a TiKV server of an embedded cluster: the BatchCommands stream and
// its unary twins, over one table of commands, with TiKV's checks of region, leader and
// epoch before each.
package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tikv-go/tikv/playground/internal/cdc"
	"github.com/tikv-go/tikv/playground/internal/copr"
	"github.com/tikv-go/tikv/playground/internal/count"
	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/lag"
	"github.com/tikv-go/tikv/playground/internal/mvcc"
	"github.com/tikv-go/tikv/playground/internal/rawkv"
	"github.com/tikv-go/tikv/playground/internal/serve"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// Config is what a store stands on: the same for all stores of a cluster, but for ID.
type Config struct {
	ID         uint64
	ClusterID  uint64
	APIVersion kvrpcpb.APIVersion
	Topology   *topology.Topology
	Engine     storage.Engine
	Raw        *rawkv.Engine
	Txn        *mvcc.Engine
	// Lag is the storage, and which of its states the store's replicas have.
	Lag *lag.Log
	// Manager is that of any store.
	Manager func(store uint64) *mvcc.Manager
	// Timestamp asks PD for one; false: PD has no leader that could answer.
	Timestamp func() (uint64, bool)
	// WaitTimestamp does the same, and waits while PD gives none.
	WaitTimestamp func(context.Context) (uint64, bool)
	// Feed limits the change feed.
	Feed    cdc.Limits
	Faults  *fault.Set
	Counter *count.Counter
	Now     func() time.Time
	// Limit is at or above every timestamp that PD has given out.
	Limit func() uint64
	// UserKey takes off what API V2 puts before a key.
	UserKey func(wire []byte) []byte
	// Wrote hears that a request of so many bytes was written to a region; nil: nobody.
	Wrote func(region uint64, size int)
	// DiskOf tells how full the disk of any store is; nil: no other's is.
	DiskOf func(store uint64) Disk
	// Peer is the store that an address leads to, nil if none does.
	Peer func(addr string) *Store
	// Coprocessors and Plugins compute what requests to the coprocessor ask for.
	Coprocessors copr.Handlers
	Plugins      copr.Plugins
	// DataVersion is where the versions of regions' data begin.
	DataVersion uint64
}

// Store is a server.
type Store struct {
	Config
	commands commands
	server   *serve.Server
	feedback feedback
	state    atomic.Pointer[State] // nil: well
	synced   synced
	feed     *cdc.Feed
	streams  []*streamed
	mpp      atomic.Pointer[copr.MPP] // of this run
	peers    peers
	proxy    atomic.Pointer[proxy] // of this run
}

// New returns a store that serves as cfg says, once its server is started.
func New(cfg Config, sc serve.Config) *Store {
	s := &Store{Config: cfg}
	s.Txn = cfg.Txn.On(s.Manager(cfg.ID), func(region uint64) *mvcc.Manager {
		if r := s.Topology.ByID(region); r != nil {
			if leader := r.LeaderStore(); leader != 0 {
				return s.Manager(leader)
			}
		}
		return nil
	})
	s.commands = s.table()
	s.streams = s.streamTable()
	s.feedback.seq.Store(uint64(cfg.Now().UnixMilli()))
	sc.Streams = maxStreams
	sc.Register = s.register
	s.server = serve.New(sc)
	s.feed = s.newFeed()
	return s
}

// maxStreams is TiKV's grpc-concurrent-stream.
const maxStreams = 1024

// Server is the store's.
func (s *Store) Server() *serve.Server { return s.server }

// register adds the TiKV service, made of the table, the change feed and the health
// service.
func (s *Store) register(g *grpc.Server) {
	desc := &grpc.ServiceDesc{
		ServiceName: "tikvpb.Tikv", HandlerType: (*any)(nil), Metadata: "tikvpb.proto",
		Streams: []grpc.StreamDesc{{
			StreamName: "BatchCommands", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return s.batchCommands(stream) },
		}},
	}
	s.mpp.Store(copr.NewMPP())
	s.proxy.Store(&proxy{lines: make(map[string]*line)})
	for _, st := range s.streams {
		desc.Streams = append(desc.Streams, grpc.StreamDesc{
			StreamName: st.method, ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return s.serveStream(st, stream) },
		})
	}
	for _, c := range s.commands {
		if c.method == "" {
			continue // only in batches
		}
		desc.Methods = append(desc.Methods, grpc.MethodDesc{
			MethodName: c.method,
			Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				req := c.request()
				if err := dec(req); err != nil {
					return nil, err
				}
				return s.unary(ctx, c, req)
			},
		})
	}
	g.RegisterService(desc, s)
	s.feed.Register(g)
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
}
