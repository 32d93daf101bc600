// Package playground is a TiKV cluster in this process: PD and stores that speak the
// real protocol, over loopback TCP or an in-memory network that also works inside
// testing/synctest.
//
// There is one storage engine behind all stores and no Raft: a write is applied once,
// the peers of a region are equal unless they are made to lag, and a region has a leader
// as long as a majority of its peers' stores runs. Everything that a client sees of
// regions, leaders, epochs and of their errors follows TiKV's rules.
package playground

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/certs"
	"github.com/tikv-go/tikv/playground/internal/count"
	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/lag"
	"github.com/tikv-go/tikv/playground/internal/lockwait"
	"github.com/tikv-go/tikv/playground/internal/meta"
	"github.com/tikv-go/tikv/playground/internal/mvcc"
	"github.com/tikv-go/tikv/playground/internal/pdserver"
	"github.com/tikv-go/tikv/playground/internal/rawkv"
	"github.com/tikv-go/tikv/playground/internal/serve"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/store"
	"github.com/tikv-go/tikv/playground/internal/topology"
	"github.com/tikv-go/tikv/playground/internal/tso"
	"github.com/tikv-go/tikv/playground/internal/vnet"
)

// Cluster is a running cluster. All its methods may be called at any time and take
// effect before they return; an unknown id or node is an error.
type Cluster struct {
	id      uint64
	api     APIVersion
	logger  *slog.Logger
	network *vnet.Network    // nil: TCP
	ports   *vnet.Ports      // of TCP; nil: none
	certs   *certs.Authority // nil: plain text
	engine  storage.Engine
	lag     *lag.Log // the same, with what stores that are behind have
	topo    *topology.Topology
	txn     *mvcc.Engine
	waits   *lockwait.Table
	pd      *pdserver.PD
	storeMu sync.RWMutex // guards stores, which grow
	stores  []*store.Store
	newNode func(id uint64) *store.Store
	faults  *fault.Set
	counter *count.Counter
	shift   atomic.Int64 // of the clock
	tso     *tso.Allocator
	root    *task.Group // of the servers' lives

	mu      sync.Mutex // one change of the nodes' states at a time
	paused  map[Node]bool
	journal journal
	cutMu   sync.Mutex               // guards the two below against who does not hold mu
	cuts    map[Node]vnet.Directions // between clients and a node
	healed  chan struct{}            // closed at the next Heal
	closed  bool
	done    chan struct{} // closed when Close has done its work
	err     error         // of Close; set before done
}

// Start starts a cluster: one PD member, three stores, API V1, in memory, unless told
// otherwise. It returns when every region has a leader. ctx bounds the start alone.
func Start(ctx context.Context, opts ...Option) (*Cluster, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	engine := storage.NewMemory()
	if cfg.dir != "" {
		if engine, err = storage.OpenDir(cfg.dir, cfg.fsync); err != nil {
			return nil, fmt.Errorf("playground: %w", err)
		}
	}
	root, counter := task.Root(ctx), new(count.Counter)
	c := &Cluster{
		logger: cfg.logger, engine: engine, counter: counter, root: root,
		faults: fault.NewSet(cfg.seed, root), paused: make(map[Node]bool),
		cuts: make(map[Node]vnet.Directions), healed: make(chan struct{}), done: make(chan struct{}),
	}
	c.faults.CountBy(counter.Total)
	if cfg.tcp {
		c.ports = vnet.NewPorts()
	} else {
		c.network = vnet.New()
	}
	if err := c.start(ctx, cfg); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, cfg *config) error {
	m := meta.New(c.engine)
	if err := c.shape(m, cfg); err != nil {
		return err
	}
	for _, l := range cfg.labels {
		if err := c.topo.AddLabels(l.store, l.labels); err != nil {
			return err
		}
	}
	if err := c.certify(m, cfg); err != nil {
		return err
	}
	alloc := tso.New(c.Now, m.Number("tso"), func(bound uint64) error { return m.SetNumber("tso", bound) })
	c.tso = alloc
	var err error
	c.pd, err = pdserver.New(pdserver.Config{
		ClusterID: c.id, Meta: m, Topology: c.topo, TSO: alloc, Faults: c.faults, Counter: c.counter,
		Now: c.Now, Seed: cfg.seed, Store: c.storeMeta, ResolvedTS: c.safeTS, UserKey: c.api.userOf, TLS: cfg.tls, Services: cfg.services,
	})
	if err != nil {
		return err
	}
	for _, g := range cfg.groups {
		if cfg.reopened {
			if !c.pd.HasResourceGroup(g.name) {
				return fmt.Errorf("playground: the directory's cluster has no resource group %q", g.name)
			}
		} else if err := c.pd.AddResourceGroup(g.name, g.units); err != nil {
			return fmt.Errorf("playground: %w", err)
		}
	}
	c.makeNodes(cfg, alloc)
	for _, m := range c.pd.Members() {
		if err := m.Server().Start(ctx); err != nil {
			return err
		}
		if err := c.pd.SetCondition(m, pdserver.Running); err != nil {
			return err
		}
	}
	for _, s := range c.stores {
		if c.topo.Removed(s.ID) {
			continue
		}
		if err := s.Server().Start(ctx); err != nil {
			return err
		}
	}
	c.logger.Info("cluster started", slog.Any("pd", c.PD()), slog.Int("stores", len(c.stores)), slog.String("api", c.api.String()))
	return nil
}

// shape makes the cluster's id, API version and regions, or takes those that the
// directory has.
func (c *Cluster) shape(m *meta.Store, cfg *config) error {
	shape, found, err := m.Shape()
	if err != nil {
		return err
	}
	if cfg.reopened = found; found {
		return c.reopen(m, shape, cfg)
	}
	c.api = cfg.api
	if len(cfg.keyspaces) > 0 && !cfg.apiSet {
		return fmt.Errorf("playground: keyspaces need APIV2, the cluster has %v", cfg.api)
	}
	random := rand.New(rand.NewPCG(cfg.seed, 0x706c6179))
	c.id = uint64(c.Now().Unix())<<32 | uint64(random.Uint32()) // as PD makes it
	c.topo = topology.New(m, cfg.stores)
	var change meta.Change
	change.Shape(meta.Shape{
		Format: meta.Format, ClusterID: c.id, APIVersion: c.api.String(), Stores: cfg.stores, Members: cfg.members,
	})
	var bounds [][]byte
	for id, name := range append([]string{defaultKeyspace}, cfg.keyspaces...) {
		now := c.Now().Unix()
		change.Keyspace(&keyspacepb.KeyspaceMeta{
			Keyspace: &keyspacepb.KeyspaceMeta_Id{Id: uint32(id)}, Name: name, CreatedAt: now, StateChangedAt: now,
		})
		if c.api == APIV2 {
			b := pdserver.KeyspaceBounds(uint32(id))
			bounds = append(bounds, b[:]...)
		}
	}
	for _, s := range cfg.split {
		bounds = append(bounds, c.api.regionKey(s.mode, s.key))
	}
	return c.topo.Bootstrap(bounds, &change)
}

// reopen takes a directory's shape, which the options must not contradict.
func (c *Cluster) reopen(m *meta.Store, shape meta.Shape, cfg *config) error {
	api, ok := map[string]APIVersion{"v1": APIV1, "v1ttl": APIV1TTL, "v2": APIV2}[shape.APIVersion]
	switch {
	case !ok:
		return fmt.Errorf("playground: the directory has API version %q, which this version does not know", shape.APIVersion)
	case cfg.apiSet && cfg.api != api:
		return fmt.Errorf("playground: the directory holds a cluster of API version %v, it cannot become one of %v", api, cfg.api)
	case cfg.storesSet && cfg.stores != shape.Stores:
		return fmt.Errorf("playground: the directory holds a cluster of %d stores, not of %d", shape.Stores, cfg.stores)
	case cfg.membersSet && cfg.members != shape.Members:
		return fmt.Errorf("playground: the directory holds a cluster of %d members of PD, not of %d", shape.Members, cfg.members)
	}
	known, err := m.Keyspaces()
	if err != nil {
		return err
	}
	for _, name := range cfg.keyspaces {
		if !slices.ContainsFunc(known, func(k *keyspacepb.KeyspaceMeta) bool { return k.Name == name }) {
			return fmt.Errorf("playground: the directory's cluster has no keyspace %q", name)
		}
	}
	c.id, c.api = shape.ClusterID, api
	cfg.stores, cfg.members = shape.Stores, shape.Members
	c.topo = topology.New(m, shape.Stores)
	found, err := c.topo.Load()
	if err == nil && !found {
		err = errors.New("playground: the directory has no regions: damaged")
	}
	return err
}

// makeNodes makes the servers, stopped.
func (c *Cluster) makeNodes(cfg *config, alloc *tso.Allocator) {
	for i := range cfg.members {
		addr := c.address(cfg, i, fmt.Sprintf("198.18.0.%d:2379", i+1))
		c.pd.AddMember(serve.Config{Listen: c.listen, Addr: addr, Options: c.credentials("pd", addr)})
	}
	timestamp := func() (uint64, bool) {
		if c.pd.Leader() < 0 || alloc.Stalled() {
			return 0, false
		}
		physical, logical, err := alloc.Next(1)
		return tso.Compose(physical, logical), err == nil
	}
	waitTimestamp := func(ctx context.Context) (uint64, bool) {
		if alloc.Wait(ctx, ctx) != nil {
			return 0, false
		}
		return timestamp()
	}
	var managers managers
	c.lag = lag.New(c.engine, lag.Config{Now: c.Now, Resolve: func() (uint64, bool) {
		now, ok := timestamp()
		return managers.bound(now), ok
	}})
	raw := rawkv.New(c.lag, rawkv.Config{APIVersion: c.api.proto(), Now: c.Now, Timestamp: func() (uint64, error) {
		physical, logical, err := alloc.Next(1)
		return tso.Compose(physical, logical), err
	}})
	c.waits = lockwait.New(lockwait.Config{
		Leader:   func(encoded []byte) uint64 { return c.topo.ByKey(encoded).LeaderStore() },
		Detector: lockwait.NewDetector(c.detectorSeat), Tasks: c.root,
	})
	c.txn = mvcc.New(c.lag, mvcc.Config{APIVersion: c.api.proto(), Waits: c.waits, Ended: c.counter.Ended, Now: c.Now})
	grow := newGrowth(cfg.regionBytes, c.engine, c.topo, c.logger)
	dataVersion := uint64(c.Now().UnixMicro()) // above those of the run before
	c.newNode = func(id uint64) *store.Store {
		n := len(c.stores) // the addresses of stores that were added follow the others
		addr := c.address(cfg, cfg.members+n, fmt.Sprintf("198.18.%d.%d:20160", 1+(n+1)/250, 1+(n+1)%250))
		return store.New(store.Config{
			ID: id, ClusterID: c.id, APIVersion: c.api.proto(), Topology: c.topo, Engine: c.engine, Raw: raw, Txn: c.txn, Lag: c.lag, Peer: c.storeAt,
			Manager: managers.of, Timestamp: timestamp, WaitTimestamp: waitTimestamp,
			Faults: c.faults, Counter: c.counter, Now: c.Now, Limit: alloc.Limit, UserKey: c.api.userKey, DiskOf: c.diskOf,
			Wrote: grow.wrote, Feed: cfg.feed, Coprocessors: cfg.coprocessors, Plugins: cfg.plugins, DataVersion: dataVersion,
		}, serve.Config{Listen: c.listen, Addr: addr, Options: append(c.credentials("tikv", addr), takesGZIP()...)})
	}
	for _, id := range c.topo.Stores() {
		c.stores = append(c.stores, c.newNode(id))
	}
}

// managers are the concurrency managers of the stores by id, made when first asked for.
type managers struct {
	mu   sync.Mutex
	byID map[uint64]*mvcc.Manager
}

func (m *managers) of(store uint64) *mvcc.Manager {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID == nil {
		m.byID = make(map[uint64]*mvcc.Manager)
	}
	if m.byID[store] == nil {
		m.byID[store] = mvcc.NewManager()
	}
	return m.byID[store]
}

// bound is the least that the stores' managers have of a timestamp.
func (m *managers) bound(now uint64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	bound := now
	for _, one := range m.byID {
		bound = min(bound, one.Bound(now))
	}
	return bound
}

// detectorSeat is where deadlocks are detected now.
func (c *Cluster) detectorSeat() lockwait.Seat {
	r := c.topo.ByKey(nil)
	return lockwait.Seat{
		Region: r.ID(), Store: r.LeaderStore(), Term: r.Term,
		ConfVer: r.Meta.RegionEpoch.GetConfVer(), Version: r.Meta.RegionEpoch.GetVersion(),
	}
}

// address is that of the i-th node: on TCP a port counted from the one that was asked
// for, in memory one of the range that is set aside for tests of networks (RFC 2544).
func (c *Cluster) address(cfg *config, i int, memory string) string {
	switch {
	case !cfg.tcp:
		return memory
	case cfg.port == 0:
		return net.JoinHostPort(cfg.host, "0")
	}
	return net.JoinHostPort(cfg.host, strconv.Itoa(cfg.port+i))
}

func (c *Cluster) listen(addr string) (net.Listener, error) {
	if c.network != nil {
		return c.network.Listen(addr)
	}
	return c.ports.Listen(addr)
}

// DialContext connects to an address of the cluster, over the cluster's network.
func (c *Cluster) DialContext(ctx context.Context, addr string) (net.Conn, error) {
	if err := c.reach(ctx, addr); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	if c.network != nil {
		return c.network.Dial(ctx, addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// storeMeta is a store as PD knows it.
func (c *Cluster) storeMeta(id uint64) *metapb.Store {
	s := c.store(id)
	if s == nil {
		return nil
	}
	addr := s.Server().Addr()
	if other := s.State().Advertise; other != "" {
		addr = other
	}
	m := &metapb.Store{
		Id: id, Address: addr, PeerAddress: addr, StatusAddress: addr, Labels: c.topo.Labels(id), Version: "9.0.0",
	}
	switch { // PD: pkg/core/store_option.go, SetStoreState sets both states
	case c.topo.Removed(id):
		m.State, m.NodeState = metapb.StoreState_Tombstone, metapb.NodeState_Removed
	case c.topo.Leaving(id):
		m.State, m.NodeState = metapb.StoreState_Offline, metapb.NodeState_Removing
	default:
		m.State, m.NodeState = metapb.StoreState_Up, metapb.NodeState_Serving
	}
	return m
}

// safeTS is up to which timestamp a store's peers answer stale reads, 0 for none.
func (c *Cluster) safeTS(id uint64) uint64 {
	if s := c.store(id); s != nil {
		return s.SafeTS(keys.Range{})
	}
	return 0
}

// storeAt is the store that listens at an address or is advertised there, rather one that
// runs; nil: none is.
func (c *Cluster) storeAt(addr string) *store.Store {
	c.storeMu.RLock()
	defer c.storeMu.RUnlock()
	var found *store.Store
	for _, s := range c.stores {
		if s.Server().Addr() != addr && s.State().Advertise != addr {
			continue
		}
		if found = s; s.Server().Running() {
			break
		}
	}
	return found
}

func (c *Cluster) store(id uint64) *store.Store {
	c.storeMu.RLock()
	defer c.storeMu.RUnlock()
	i, ok := slices.BinarySearchFunc(c.stores, id, func(s *store.Store, id uint64) int { return cmp.Compare(s.ID, id) })
	if !ok {
		return nil
	}
	return c.stores[i]
}

// Close stops every server, waits for their goroutines, and closes the storage. It may
// be called again, but not by a Fault's function.
func (c *Cluster) Close() error {
	c.mu.Lock()
	closing := c.closed
	c.closed = true
	c.mu.Unlock()
	if closing {
		<-c.done
		return c.err
	}
	defer close(c.done)
	if c.topo != nil && c.pd != nil && c.lag != nil {
		c.mu.Lock()
		c.heal() // what was lost stays so for no one
		c.mu.Unlock()
	}
	if c.ports != nil {
		c.ports.Close()
	}
	for _, s := range c.stores {
		s.Server().Stop()
	}
	if c.pd != nil {
		for _, m := range c.pd.Members() {
			m.Server().Stop()
		}
	}
	c.root.Close(errClosed)
	if c.lag != nil {
		c.lag.Forget()
	}
	c.err = c.engine.Close()
	return c.err
}

// PD returns the addresses of PD's members.
func (c *Cluster) PD() []string {
	var addrs []string
	for _, m := range c.pd.Members() {
		addrs = append(addrs, m.Server().Addr())
	}
	return addrs
}

// ID is the cluster's.
func (c *Cluster) ID() uint64 { return c.id }

// APIVersion is the stores'.
func (c *Cluster) APIVersion() APIVersion { return c.api }

// Now is the cluster's clock: the process's, moved by Advance.
func (c *Cluster) Now() time.Time { return time.Now().Add(time.Duration(c.shift.Load())) }

// Advance moves the cluster's clock, forward or back. Timestamps never go back. A clock
// before 1970, or further than a time.Duration from the process's, is refused: it stays.
func (c *Cluster) Advance(d time.Duration) { c.refused("advance", c.advance(d)) }

func (c *Cluster) advance(d time.Duration) (err error) {
	defer c.note("advance", byArgs{duration(d)}, &err)()
	for {
		old := c.shift.Load()
		shift := old + int64(d)
		if (shift > old) != (d > 0) && d != 0 {
			return fmt.Errorf("playground: the clock cannot be moved by %v more", d)
		}
		if now := time.Now().Add(time.Duration(shift)); now.Unix() < 0 {
			return fmt.Errorf("playground: the clock cannot be at %v", now)
		}
		if c.shift.CompareAndSwap(old, shift) {
			c.lag.Moved()
			return nil
		}
	}
}

// refused logs a change that was, of a method that returns no error.
func (c *Cluster) refused(do string, err error) {
	if err != nil {
		c.logger.Warn("change refused", slog.String("do", do), slog.Any("error", err))
	}
}

// StallTSO keeps timestamps from being answered, until it is called with false.
func (c *Cluster) StallTSO(stalled bool) {
	defer c.noted("stall-tso", stallArgs{stalled})()
	c.tso.Stall(stalled)
}

// JumpTSO moves timestamps ahead of the clock by d, which must not be negative to have
// an effect, nor lead beyond the year 2527.
func (c *Cluster) JumpTSO(d time.Duration) { c.refused("jump-tso", c.jumpTSO(d)) }

func (c *Cluster) jumpTSO(d time.Duration) (err error) {
	defer c.note("jump-tso", byArgs{duration(d)}, &err)()
	if err := c.tso.Jump(d); err != nil {
		return fmt.Errorf("playground: %w", err)
	}
	return nil
}

// takesGZIP lets a server read compressed requests, as TiKV's always does; grpc's
// registry of compressors is one for all of a process.
func takesGZIP() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.RPCDecompressor(grpc.NewGZIPDecompressor())} //lint:ignore SA1019 see above
}
