// Package pdserver is the cluster's placement driver: timestamps, regions, stores,
// keyspaces, GC states, and the members that serve them. Its rules are PD's (tikv/pd,
// server/grpc_service.go, pkg/utils/grpcutil, pkg/gc).
package pdserver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tikv-go/tikv/playground/internal/count"
	"github.com/tikv-go/tikv/playground/internal/etcd"
	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/meta"
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
	// Store returns a store as PD knows it, nil for an unknown one.
	Store func(id uint64) *metapb.Store
	// RegionKey tells the user key of a region key, for faults by key.
	UserKey func(regionKey []byte) []byte
	// TLS: so are the members reached.
	TLS bool
}

// PD is what all members share: there is one truth, of which the leader answers.
type PD struct {
	Config
	kv        *etcd.KV
	keyspaces keyspaces
	gc        gcStates

	mu      sync.RWMutex
	members []*Member
	leader  *Member         // nil: none
	cut     map[[2]int]bool // from a member to another
}

// New returns a PD without members, with the keyspaces and GC states that were saved.
func New(cfg Config) (*PD, error) {
	kv, err := etcd.OpenKV(cfg.Meta)
	if err != nil {
		return nil, err
	}
	pd := &PD{Config: cfg, kv: kv}
	if err := pd.keyspaces.load(cfg.Meta); err != nil {
		return nil, err
	}
	if err := pd.gc.load(cfg.Meta, kv); err != nil {
		return nil, err
	}
	return pd, nil
}

// Member is one server of PD.
type Member struct {
	pdpb.UnimplementedPDServer

	pd     *PD
	index  int
	server *serve.Server
	alive  bool // guarded by PD's lock
}

// AddMember adds a member, which serves as cfg says once its server is started.
func (pd *PD) AddMember(cfg serve.Config) *Member {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	m := &Member{pd: pd, index: len(pd.members)}
	cfg.Register = m.register
	cfg.Options = append(cfg.Options, grpc.UnaryInterceptor(m.intercept), grpc.StreamInterceptor(interceptStream))
	m.server = serve.New(cfg)
	pd.members = append(pd.members, m)
	return m
}

func (m *Member) register(s *grpc.Server) {
	pdpb.RegisterPDServer(s, m)
	keyspacepb.RegisterKeyspaceServer(s, &keyspaceService{m: m})
	meta_storagepb.RegisterMetaStorageServer(s, &metaStorage{m: m})
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	etcd.Register(s, &etcdView{m: m})
}

// Server is the member's.
func (m *Member) Server() *serve.Server { return m.server }

// Members returns the members in order.
func (pd *PD) Members() []*Member {
	pd.mu.RLock()
	defer pd.mu.RUnlock()
	return pd.members
}

// SetAlive tells that a member runs or does not. The leader is a live one, as long as
// a majority of the members lives.
func (pd *PD) SetAlive(m *Member, alive bool) {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	m.alive = alive
	pd.elect()
}

// elect keeps a leader that can lead, else makes the first that can one. Callers hold
// the lock.
func (pd *PD) elect() {
	if pd.leader != nil && pd.electable(pd.leader) {
		return
	}
	pd.leader = nil
	for _, m := range pd.members {
		if pd.electable(m) {
			pd.leader = m
			return
		}
	}
}

// electable reports whether a member lives and exchanges messages with enough that do,
// so that they are a majority with it.
func (pd *PD) electable(m *Member) bool {
	heard := 0
	for _, o := range pd.members {
		if o.alive && !pd.cut[[2]int{m.index, o.index}] && !pd.cut[[2]int{o.index, m.index}] {
			heard++
		}
	}
	return m.alive && 2*heard > len(pd.members)
}

// Cut loses what one member sends to another, until Heal.
func (pd *PD) Cut(from, to int) {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	if pd.cut == nil {
		pd.cut = make(map[[2]int]bool)
	}
	pd.cut[[2]int{from, to}] = true
	pd.elect()
}

// Heal ends Cut.
func (pd *PD) Heal() {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	clear(pd.cut)
	pd.elect()
}

// Lead makes a live member the leader.
func (pd *PD) Lead(m *Member) error {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	switch {
	case !m.alive:
		return fmt.Errorf("playground: PD's member %d does not run", m.index)
	case pd.leader == nil:
		return fmt.Errorf("playground: PD has no majority of live members")
	case !pd.electable(m):
		return fmt.Errorf("playground: PD's member %d is cut off from a majority", m.index)
	}
	pd.leader = m
	return nil
}

// Leader is the index of the member that leads, -1 for none.
func (pd *PD) Leader() int {
	pd.mu.RLock()
	defer pd.mu.RUnlock()
	if pd.leader == nil {
		return -1
	}
	return pd.leader.index
}

// leads reports whether m leads.
func (m *Member) leads() bool {
	m.pd.mu.RLock()
	defer m.pd.mu.RUnlock()
	return m.pd.leader == m
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
