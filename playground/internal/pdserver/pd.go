// Package pdserver is the cluster's placement driver: timestamps, regions, stores,
// keyspaces, GC states, and the members that serve them. Its rules are PD's (tikv/pd,
// server/grpc_service.go, pkg/utils/grpcutil, pkg/gc).
package pdserver

import (
	"context"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/resource_manager"
	"github.com/pingcap/kvproto/pkg/routerpb"
	"github.com/pingcap/kvproto/pkg/tsopb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tikv-go/tikv/playground/internal/count"
	"github.com/tikv-go/tikv/playground/internal/etcd"
	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/meta"
	"github.com/tikv-go/tikv/playground/internal/resource"
	"github.com/tikv-go/tikv/playground/internal/serve"
	"github.com/tikv-go/tikv/playground/internal/topology"
	"github.com/tikv-go/tikv/playground/internal/tso"
)

// Config is what a PD stands on.
type Config struct {
	ClusterID uint64
	Meta      *meta.Store
	Topology  *topology.Topology
	TSO       *tso.Allocator
	Faults    *fault.Set
	Counter   *count.Counter
	Now       func() time.Time
	Seed      uint64 // of what is random
	// Store returns a store as PD knows it, nil for an unknown one.
	Store func(id uint64) *metapb.Store
	// ResolvedTS is up to which timestamp a store answers stale reads.
	ResolvedTS func(id uint64) uint64
	// RegionKey tells the user key of a region key, for faults by key.
	UserKey func(regionKey []byte) []byte
	// TLS: so are the members reached.
	TLS bool
	// Services: timestamps come from a service of its own, and lookups also do, which run
	// in the members' processes.
	Services bool
}

// PD is what all members share: there is one truth, of which the leader answers.
type PD struct {
	Config
	kv         *etcd.KV
	keyspaces  keyspaces
	gc         gcStates
	groups     *resource.Groups
	external   sync.Mutex // of changes of the external timestamp
	operators  operators
	reports    reports
	heartbeats heartbeats
	history    history
	scatterer  *scatterer

	mu      sync.RWMutex
	members []*Member
	seats   seats

	minResolved uint64 // of the cluster, that was told last
}

// New returns a PD without members, with the keyspaces and GC states that were saved.
func New(cfg Config) (*PD, error) {
	kv, err := etcd.OpenKV(cfg.Meta)
	if err != nil {
		return nil, err
	}
	pd := &PD{Config: cfg, kv: kv, seats: seats{cut: make(map[[2]int]bool), changed: make(chan struct{})}}
	pd.operators.now, pd.operators.known = cfg.Now, cfg.Topology.ByID
	cfg.Topology.Watch(pd.happened)
	pd.scatterer = newScatterer(pd, cfg.Seed)
	if err := pd.keyspaces.load(cfg.Meta); err != nil {
		return nil, err
	}
	if err := pd.gc.load(cfg.Meta, kv); err != nil {
		return nil, err
	}
	pd.groups, err = resource.Open(kv, func(keyspace uint32) bool { return pd.keyspaces.byID(keyspace) != nil })
	if err != nil {
		return nil, err
	}
	if err := pd.loadReports(); err != nil {
		return nil, err
	}
	return pd, pd.unregister()
}

// Member is one server of PD.
type Member struct {
	pdpb.UnimplementedPDServer

	pd        *PD
	index     int
	server    *serve.Server
	condition Condition // guarded by PD's lock
	knew      *Member   // the last leader it heard of; guarded by PD's lock
}

// AddMember adds a member, which serves as cfg says once its server is started.
func (pd *PD) AddMember(cfg serve.Config) *Member {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	m := &Member{pd: pd, index: len(pd.members)}
	cfg.Register, cfg.HTTP = m.register, m.http()
	cfg.Options = append(cfg.Options, grpc.ChainUnaryInterceptor(m.intercept), grpc.ChainStreamInterceptor(interceptStream))
	m.server = serve.New(cfg)
	pd.members = append(pd.members, m)
	return m
}

func (m *Member) register(s *grpc.Server) {
	pdpb.RegisterPDServer(s, m)
	keyspacepb.RegisterKeyspaceServer(s, &keyspaceService{m: m})
	meta_storagepb.RegisterMetaStorageServer(s, &metaStorage{m: m})
	resource_manager.RegisterResourceManagerServer(s, &resourceManager{m: m})
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	etcd.Register(s, &etcdView{m: m})
	if m.pd.Services {
		tsopb.RegisterTSOServer(s, &tsoService{m: m})
		routerpb.RegisterRouterServer(s, &router{m: m})
	}
}

// Server is the member's.
func (m *Member) Server() *serve.Server { return m.server }

// Members returns the members in order.
func (pd *PD) Members() []*Member {
	pd.mu.RLock()
	defer pd.mu.RUnlock()
	return pd.members
}

// header is that of a good answer.
func (pd *PD) header() *pdpb.ResponseHeader { return &pdpb.ResponseHeader{ClusterId: pd.ClusterID} }

// refusal is the header of an answer that is an error.
func (pd *PD) refusal(kind pdpb.ErrorType, text string) *pdpb.ResponseHeader {
	return &pdpb.ResponseHeader{ClusterId: pd.ClusterID, Error: &pdpb.Error{Type: kind, Message: text}}
}

// life is the context that the member's server runs under.
func (m *Member) life(ctx context.Context) context.Context {
	if g := m.server.Tasks(); g != nil {
		return g.Context()
	}
	return ctx // it is being stopped: so is ctx
}
