package pd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tsopb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a fake PD of several members, with what they know.
type cluster struct {
	id      uint64
	members []*member

	mu        sync.Mutex
	leader    int
	conns     map[string][]*conn
	physical  int64
	logical   int64
	requests  []uint32 // counts of Tso requests
	calls     map[string]int
	regions   []*pdpb.Region // in order
	stores    map[uint64]*metapb.Store
	headerErr *pdpb.Error // for the next call
	// tso changes a good answer, or fails the stream.
	tso func(*pdpb.TsoResponse) error
	// query changes a good answer to QueryRegion, or fails the stream; nil: not implemented.
	query    func(*pdpb.QueryRegionResponse) error
	queried  []int         // lookups in each QueryRegion request
	hold     chan struct{} // GetRegion and QueryRegion wait for it
	latency  time.Duration // of timestamps, on their way
	inFlight int           // timestamps' requests on their way
	most     int           // of these at a time
	services bool          // beside PD: every member is one
	dials    int
	names    map[string]int  // other names of members
	lost     map[string]bool // addresses that swallow what is sent there
	raw      func(net.Conn)  // has each connection instead of a member; nil: none
}

// member is one fake PD server.
type member struct {
	pdpb.UnimplementedPDServer
	keyspacepb.UnimplementedKeyspaceServer
	meta_storagepb.UnimplementedMetaStorageServer
	cluster  *cluster
	index    int
	addr     string
	id       uint64 // of the cluster, as this member says
	server   *grpc.Server
	listener *bufconn.Listener
	paused   chan struct{} // not nil: answers nothing until it is closed
	blind    bool          // says that it knows no leader
	stuck    string        // says that this is the leader
	flips    []string      // says that these are the leader, in turn
	lax      bool          // does not look at the cluster id of requests
}

const leaseTime = 3 * time.Second

func newCluster(t testing.TB, n int) *cluster {
	c := &cluster{
		id: 7, physical: 1000, conns: map[string][]*conn{}, calls: map[string]int{},
		stores: map[uint64]*metapb.Store{}, lost: map[string]bool{},
	}
	for i := range n {
		m := &member{cluster: c, index: i, addr: fmt.Sprintf("pd%d:2379", i), id: c.id}
		c.members = append(c.members, m)
		m.start()
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			m.resume()
			m.stop()
		}
	})
	return c
}

func (m *member) start() {
	m.server = grpc.NewServer(grpc.KeepaliveEnforcementPolicy(
		keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))
	pdpb.RegisterPDServer(m.server, m)
	keyspacepb.RegisterKeyspaceServer(m.server, m)
	meta_storagepb.RegisterMetaStorageServer(m.server, m)
	tsopb.RegisterTSOServer(m.server, &tsoService{m: m})
	l := bufconn.Listen(64 << 10)
	m.cluster.mu.Lock()
	m.listener = l
	m.cluster.mu.Unlock()
	go m.server.Serve(l)
}

func (m *member) stop() {
	m.cluster.mu.Lock()
	m.listener = nil
	m.cluster.mu.Unlock()
	m.server.Stop()
}

// pause makes the member accept and answer nothing, its connections included, as a
// stopped process does.
func (m *member) pause() {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	m.paused = make(chan struct{})
	for _, conn := range c.conns[m.addr] {
		conn.set(true)
	}
}

func (m *member) resume() {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.paused != nil {
		close(m.paused)
		m.paused = nil
	}
	for _, conn := range c.conns[m.addr] {
		conn.set(false)
	}
}

func (c *cluster) lead(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = i
}

func (c *cluster) dial(ctx context.Context, addr string) (net.Conn, error) {
	c.mu.Lock()
	var l *bufconn.Listener
	frozen := false
	c.dials++
	lost, raw := c.lost[addr], c.raw
	for i, m := range c.members {
		if other, ok := c.names[addr]; m.addr == addr || ok && other == i {
			l, frozen = m.listener, m.paused != nil
		}
	}
	c.mu.Unlock()
	switch {
	case lost:
		<-ctx.Done()
		return nil, ctx.Err()
	case raw != nil:
		here, there := net.Pipe()
		go raw(there)
		return here, nil
	case l == nil:
		return nil, errors.New("connection refused")
	}
	dialled, err := l.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	conn := newConn(dialled)
	conn.set(frozen)
	c.mu.Lock()
	c.conns[addr] = append(c.conns[addr], conn)
	c.mu.Unlock()
	return conn, nil
}

// conn can be frozen: what is written to it waits.
type conn struct {
	net.Conn
	mu             sync.Mutex
	changed        *sync.Cond
	frozen, closed bool
}

func newConn(raw net.Conn) *conn {
	c := &conn{Conn: raw}
	c.changed = sync.NewCond(&c.mu)
	return c
}

func (c *conn) set(frozen bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = frozen
	c.changed.Broadcast()
}

func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	for c.frozen && !c.closed {
		c.changed.Wait()
	}
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.changed.Broadcast()
	c.mu.Unlock()
	return c.Conn.Close()
}

func (c *cluster) addrs() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.addr)
	}
	return all
}

func (c *cluster) count(call string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[call]
}

func (c *cluster) dialled() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dials
}

// queries are how many lookups each QueryRegion had.
func (c *cluster) queries() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.queried)
}

func (c *cluster) tsoRequests() []uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

func (c *cluster) onTso(f func(*pdpb.TsoResponse) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tso = f
}

// enter is what every call but GetMembers meets first.
func (m *member) enter(ctx context.Context, call string, h *pdpb.RequestHeader) (*pdpb.ResponseHeader, error) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[call]++
	forwarded := metadata.ValueFromIncomingContext(ctx, "pd-forwarded-host")
	if paused := c.members[c.leader].paused; paused != nil && len(forwarded) > 0 {
		c.mu.Unlock()
		select {
		case <-paused:
		case <-ctx.Done():
		}
		c.mu.Lock()
	}
	if h.GetClusterId() != m.id && !m.lax {
		return nil, status.Errorf(codes.FailedPrecondition, "mismatch cluster id, need %d but got %d", m.id, h.GetClusterId())
	}
	if len(forwarded) > 0 {
		// As PD server/forward.go: to the leader and nobody else.
		leader := c.members[c.leader]
		if forwarded[0] != "http://"+leader.addr {
			return nil, status.Error(codes.InvalidArgument, "forwarded host is not a client URL of the PD leader: pd is not leader of cluster")
		}
		if leader.listener == nil {
			return nil, status.Error(codes.Unavailable, "connection refused")
		}
		c.calls["forwarded "+call]++
	} else if c.leader != m.index {
		return nil, status.Error(codes.Unavailable, "not leader")
	}
	e := c.headerErr
	c.headerErr = nil
	return &pdpb.ResponseHeader{ClusterId: m.id, Error: e}, nil
}

func (m *member) self() *pdpb.Member {
	return &pdpb.Member{Name: m.addr, ClientUrls: []string{"http://" + m.addr}}
}

func (m *member) GetMembers(context.Context, *pdpb.GetMembersRequest) (*pdpb.GetMembersResponse, error) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls["GetMembers"]++
	resp := &pdpb.GetMembersResponse{Header: &pdpb.ResponseHeader{ClusterId: m.id}}
	for _, other := range c.members {
		resp.Members = append(resp.Members, other.self())
	}
	switch {
	case len(m.flips) > 0:
		resp.Leader = &pdpb.Member{ClientUrls: []string{m.flips[0]}}
		m.flips = append(m.flips[1:], m.flips[0])
	case m.stuck != "":
		resp.Leader = &pdpb.Member{ClientUrls: []string{m.stuck}}
	case !m.blind:
		resp.Leader = c.members[c.leader].self()
	}
	return resp, nil
}

// tsoStreamServer is a stream of timestamps of either service.
type tsoStreamServer interface {
	Context() context.Context
	recv() (*pdpb.TsoRequest, error)
	send(*pdpb.TsoResponse) error
}

type pdTso struct{ pdpb.PD_TsoServer }

func (s pdTso) recv() (*pdpb.TsoRequest, error) { return s.Recv() }
func (s pdTso) send(r *pdpb.TsoResponse) error  { return s.Send(r) }

func (m *member) Tso(s pdpb.PD_TsoServer) error { return m.serveTso("Tso", pdTso{s}) }

// serveTso answers in order. With a latency answers are on their way for that long, others
// behind them.
func (m *member) serveTso(call string, s tsoStreamServer) error {
	c := m.cluster
	type late struct {
		resp *pdpb.TsoResponse
		at   time.Time
	}
	way := make(chan late, 1000)
	sent := make(chan error, 1)
	defer func() { close(way); <-sent }()
	go func() {
		var err error
		for l := range way {
			if d := time.Until(l.at); d > 0 && err == nil {
				<-time.After(d)
			}
			c.mu.Lock()
			c.inFlight--
			c.mu.Unlock()
			if err == nil {
				err = s.send(l.resp)
			}
		}
		sent <- err
	}()
	for {
		req, err := s.recv()
		if err != nil {
			return err
		}
		h, err := m.enter(s.Context(), call, req.GetHeader())
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.requests = append(c.requests, req.Count)
		if c.logical += int64(req.Count); c.logical >= 1<<logicalBits {
			c.physical, c.logical = c.physical+1, int64(req.Count)
		}
		resp := &pdpb.TsoResponse{Header: h, Count: req.Count,
			Timestamp: &pdpb.Timestamp{Physical: c.physical, Logical: c.logical}}
		f := c.tso
		c.mu.Unlock()
		if f != nil {
			if err := f(resp); err != nil {
				return err
			}
		}
		c.mu.Lock()
		c.inFlight++
		c.most = max(c.most, c.inFlight)
		latency := c.latency
		c.mu.Unlock()
		way <- late{resp, time.Now().Add(latency)}
	}
}

// tsoService is the service for timestamps beside PD.
type tsoService struct {
	tsopb.UnimplementedTSOServer
	m *member
}

type serviceTso struct{ tsopb.TSO_TsoServer }

func (s serviceTso) recv() (*pdpb.TsoRequest, error) {
	req, err := s.Recv()
	return &pdpb.TsoRequest{Header: &pdpb.RequestHeader{ClusterId: req.GetHeader().GetClusterId()}, Count: req.GetCount()}, err
}

func (s serviceTso) send(r *pdpb.TsoResponse) error {
	return s.Send(&tsopb.TsoResponse{Header: &tsopb.ResponseHeader{ClusterId: r.Header.ClusterId}, Count: r.Count, Timestamp: r.Timestamp})
}

func (s *tsoService) Tso(stream tsopb.TSO_TsoServer) error {
	if !s.m.cluster.serves() {
		return status.Error(codes.Unimplemented, "no such service")
	}
	return s.m.serveTso("service", serviceTso{stream})
}

func (s *tsoService) FindGroupByKeyspaceID(_ context.Context, req *tsopb.FindGroupByKeyspaceIDRequest) (*tsopb.FindGroupByKeyspaceIDResponse, error) {
	c := s.m.cluster
	if !c.serves() {
		return nil, status.Error(codes.Unimplemented, "no such service")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := &tsopb.KeyspaceGroup{Id: 3}
	for i, m := range c.members {
		g.Members = append(g.Members, &tsopb.KeyspaceGroupMember{Address: "http://" + m.addr, IsPrimary: i == c.leader})
	}
	return &tsopb.FindGroupByKeyspaceIDResponse{Header: &tsopb.ResponseHeader{ClusterId: s.m.id}, KeyspaceGroup: g}, nil
}

func (c *cluster) serves() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.services
}

func (c *cluster) serve(services bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services = services
}

func (m *member) GetClusterInfo(context.Context, *pdpb.GetClusterInfoRequest) (*pdpb.GetClusterInfoResponse, error) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls["GetClusterInfo"]++
	resp := &pdpb.GetClusterInfoResponse{Header: &pdpb.ResponseHeader{ClusterId: m.id}}
	if !c.services {
		resp.ServiceModes = []pdpb.ServiceMode{pdpb.ServiceMode_PD_SVC_MODE}
		return resp, nil
	}
	resp.ServiceModes = []pdpb.ServiceMode{pdpb.ServiceMode_API_SVC_MODE}
	for _, o := range c.members {
		resp.TsoUrls = append(resp.TsoUrls, "http://"+o.addr)
	}
	return resp, nil
}

// Get finds no routers, and nonsense.
func (m *member) Get(context.Context, *meta_storagepb.GetRequest) (*meta_storagepb.GetResponse, error) {
	return &meta_storagepb.GetResponse{Kvs: []*meta_storagepb.KeyValue{{Value: []byte("{")}, {Value: []byte(`{"service-addr":"nowhere"}`)}}}, nil
}

func (m *member) QueryRegion(s pdpb.PD_QueryRegionServer) error {
	c := m.cluster
	for {
		req, err := s.Recv()
		if err != nil {
			return err
		}
		m.await(s.Context())
		h, err := m.enter(s.Context(), "QueryRegion", req.GetHeader())
		if err != nil {
			return err
		}
		c.mu.Lock()
		f := c.query
		c.queried = append(c.queried, len(req.Keys)+len(req.PrevKeys)+len(req.Ids))
		c.mu.Unlock()
		if f == nil {
			return status.Error(codes.Unimplemented, "unknown method QueryRegion")
		}
		resp := &pdpb.QueryRegionResponse{Header: h, RegionsById: map[uint64]*pdpb.RegionResponse{}}
		add := func(i int) uint64 {
			if i < 0 || i >= len(c.regions) {
				return 0
			}
			r := c.regions[i]
			resp.RegionsById[r.Region.Id] = &pdpb.RegionResponse{Region: r.Region, Leader: r.Leader, DownPeers: r.DownPeers, PendingPeers: r.PendingPeers}
			return r.Region.Id
		}
		for _, k := range req.Keys {
			resp.KeyIdMap = append(resp.KeyIdMap, add(m.find(k)))
		}
		for _, k := range req.PrevKeys {
			resp.PrevKeyIdMap = append(resp.PrevKeyIdMap, add(m.find(k)-1))
		}
		for _, id := range req.Ids {
			add(slices.IndexFunc(c.regions, func(r *pdpb.Region) bool { return r.Region.Id == id }))
		}
		if err := f(resp); err == errHush {
			<-s.Context().Done()
			return nil
		} else if err != nil {
			return err
		}
		if err := s.Send(resp); err != nil {
			return err
		}
	}
}

// errHush lets a stream be silent.
var errHush = errors.New("hush")

func (m *member) find(key []byte) int {
	for i, r := range m.cluster.regions {
		if (keys.Range{Start: r.Region.StartKey, End: r.Region.EndKey}).Contains(key) {
			return i
		}
	}
	return -1
}

func (m *member) oneRegion(h *pdpb.ResponseHeader, i int) *pdpb.GetRegionResponse {
	if i < 0 {
		return &pdpb.GetRegionResponse{Header: h}
	}
	r := m.cluster.regions[i]
	return &pdpb.GetRegionResponse{Header: h, Region: r.Region, Leader: r.Leader, DownPeers: r.DownPeers, PendingPeers: r.PendingPeers}
}

// await waits where lookups are held.
func (m *member) await(ctx context.Context) {
	m.cluster.mu.Lock()
	hold := m.cluster.hold
	m.cluster.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
}

func (m *member) GetRegion(ctx context.Context, req *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	m.await(ctx)
	h, err := m.enter(ctx, "GetRegion", req.GetHeader())
	if err != nil {
		return nil, err
	}
	return m.oneRegion(h, m.find(req.RegionKey)), nil
}

func (m *member) GetPrevRegion(ctx context.Context, req *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	h, err := m.enter(ctx, "GetPrevRegion", req.GetHeader())
	if err != nil {
		return nil, err
	}
	return m.oneRegion(h, m.find(req.RegionKey)-1), nil
}

func (m *member) GetRegionByID(ctx context.Context, req *pdpb.GetRegionByIDRequest) (*pdpb.GetRegionResponse, error) {
	h, err := m.enter(ctx, "GetRegionByID", req.GetHeader())
	if err != nil {
		return nil, err
	}
	return m.oneRegion(h, slices.IndexFunc(m.cluster.regions, func(r *pdpb.Region) bool {
		return r.Region.Id == req.RegionId
	})), nil
}

func (m *member) BatchScanRegions(ctx context.Context, req *pdpb.BatchScanRegionsRequest) (*pdpb.BatchScanRegionsResponse, error) {
	h, err := m.enter(ctx, "BatchScanRegions", req.GetHeader())
	if err != nil {
		return nil, err
	}
	resp := &pdpb.BatchScanRegionsResponse{Header: h}
	for _, r := range m.cluster.regions {
		if req.Limit > 0 && len(resp.Regions) == int(req.Limit) {
			break
		}
		for _, want := range req.Ranges {
			if len(r.Region.EndKey) > 0 && bytes.Compare(r.Region.EndKey, want.StartKey) <= 0 ||
				len(want.EndKey) > 0 && bytes.Compare(r.Region.StartKey, want.EndKey) >= 0 {
				continue
			}
			resp.Regions = append(resp.Regions, r)
		}
	}
	return resp, nil
}

func (m *member) GetStore(ctx context.Context, req *pdpb.GetStoreRequest) (*pdpb.GetStoreResponse, error) {
	h, err := m.enter(ctx, "GetStore", req.GetHeader())
	if err != nil {
		return nil, err
	}
	s := m.cluster.stores[req.StoreId]
	if s == nil {
		h.Error = &pdpb.Error{Type: pdpb.ErrorType_UNKNOWN,
			Message: fmt.Sprintf("invalid store ID %d, not found", req.StoreId)}
	}
	return &pdpb.GetStoreResponse{Header: h, Store: s}, nil
}

func (m *member) GetAllStores(ctx context.Context, req *pdpb.GetAllStoresRequest) (*pdpb.GetAllStoresResponse, error) {
	h, err := m.enter(ctx, "GetAllStores", req.GetHeader())
	if err != nil {
		return nil, err
	}
	resp := &pdpb.GetAllStoresResponse{Header: h}
	for _, s := range m.cluster.stores {
		if s.State != metapb.StoreState_Tombstone || !req.ExcludeTombstoneStores {
			resp.Stores = append(resp.Stores, s)
		}
	}
	return resp, nil
}

func (m *member) LoadKeyspace(ctx context.Context, req *keyspacepb.LoadKeyspaceRequest) (*keyspacepb.LoadKeyspaceResponse, error) {
	h, err := m.enter(ctx, "LoadKeyspace", req.GetHeader())
	if err != nil {
		return nil, err
	}
	resp := &keyspacepb.LoadKeyspaceResponse{Header: h}
	switch req.Name {
	case "DEFAULT":
		resp.Keyspace = &keyspacepb.KeyspaceMeta{Name: req.Name, Keyspace: &keyspacepb.KeyspaceMeta_Id{Id: 0}}
	case "mine":
		resp.Keyspace = &keyspacepb.KeyspaceMeta{Name: req.Name, Keyspace: &keyspacepb.KeyspaceMeta_Id{Id: 42}}
	case "huge":
		resp.Keyspace = &keyspacepb.KeyspaceMeta{Name: req.Name, Keyspace: &keyspacepb.KeyspaceMeta_Id{Id: 1 << 24}}
	default:
		h.Error = &pdpb.Error{Type: pdpb.ErrorType_ENTRY_NOT_FOUND, Message: "keyspace does not exist"}
	}
	return resp, nil
}

func (m *member) GetGCState(ctx context.Context, req *pdpb.GetGCStateRequest) (*pdpb.GetGCStateResponse, error) {
	h, err := m.enter(ctx, "GetGCState", req.GetHeader())
	if err != nil {
		return nil, err
	}
	id := uint64(req.GetKeyspaceScope().GetKeyspaceId())
	return &pdpb.GetGCStateResponse{Header: h, GcState: &pdpb.GCState{TxnSafePoint: id + 2, GcSafePoint: id + 1}}, nil
}

// inBubble runs f in fake time with a cluster of n members.
func inBubble(t *testing.T, n int, f func(t *testing.T, c *cluster, pool *transport.Pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, n)
		pool := transport.New(transport.Config{Dial: c.dial})
		t.Cleanup(pool.Close)
		f(t, c, pool)
	})
}

// open opens a client of all members that ends with the test.
func (c *cluster) open(t testing.TB, pool *transport.Pool) *Client {
	t.Helper()
	client, err := Open(t.Context(), c.addrs(), Config{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
