package transport

import (
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/tikvpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is a network in memory whose addresses can be served, refuse, hang at
// dialling, or accept and stay silent.
type network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
	hang      map[string]bool
	held      map[string]chan struct{}
	dials     map[string]int
	conns     map[string][]*conn
	register  func(*grpc.Server) // more services, for stores to come
}

func newNetwork() *network {
	return &network{
		listeners: map[string]*bufconn.Listener{}, hang: map[string]bool{}, held: map[string]chan struct{}{},
		dials: map[string]int{}, conns: map[string][]*conn{},
	}
}

var errRefused = errors.New("connection refused")

func (n *network) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials[addr]++
	l, hang, held := n.listeners[addr], n.hang[addr], n.held[addr]
	n.mu.Unlock()
	if held != nil {
		<-held
	}
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if l == nil {
		return nil, errRefused
	}
	c, err := l.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	wrapped := &conn{Conn: c}
	wrapped.changed = sync.NewCond(&wrapped.mu)
	n.mu.Lock()
	n.conns[addr] = append(n.conns[addr], wrapped)
	n.mu.Unlock()
	return wrapped, nil
}

// stall makes dials to addr hang.
func (n *network) stall(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hang[addr] = true
}

func (n *network) listen(addr string) *bufconn.Listener {
	l := bufconn.Listen(64 << 10)
	n.mu.Lock()
	n.listeners[addr] = l
	n.mu.Unlock()
	return l
}

func (n *network) unlisten(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.listeners, addr)
}

// hold makes dials to addr wait for release.
func (n *network) hold(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held[addr] = make(chan struct{})
}

func (n *network) release(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.held[addr])
	delete(n.held, addr)
}

// cut closes all connections to addr.
func (n *network) cut(addr string) {
	for _, c := range n.take(addr) {
		c.Close()
	}
}

// freeze stops the bytes on all connections to addr, both ways, until thaw; nothing is
// closed.
func (n *network) freeze(addr string) (thaw func()) {
	conns := n.take(addr)
	for _, c := range conns {
		c.set(func() { c.frozen = true })
	}
	return func() {
		for _, c := range conns {
			c.set(func() { c.frozen = false })
		}
	}
}

// swallow loses the bytes on all connections to addr from now on, both ways.
func (n *network) swallow(addr string) {
	for _, c := range n.take(addr) {
		c.set(func() { c.lost = true })
	}
}

// open is how many connections to addr are not closed by their dialler.
func (n *network) open(addr string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	open := 0
	for _, c := range n.conns[addr] {
		c.mu.Lock()
		if !c.closed {
			open++
		}
		c.mu.Unlock()
	}
	return open
}

func (n *network) take(addr string) []*conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	conns := n.conns[addr]
	delete(n.conns, addr)
	return conns
}

func (n *network) dialled(addr string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[addr]
}

type conn struct {
	net.Conn
	mu           sync.Mutex
	changed      *sync.Cond
	frozen, lost bool
	closed       bool
}

func (c *conn) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.changed.Broadcast()
}

// pass waits until bytes may pass, and reports whether they arrive.
func (c *conn) pass() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.frozen && !c.closed {
		c.changed.Wait()
	}
	return !c.lost
}

func (c *conn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if c.pass() || err != nil {
			return n, err
		}
	}
}

func (c *conn) Write(b []byte) (int, error) {
	if !c.pass() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.set(func() { c.closed = true })
	return c.Conn.Close()
}

// store is a fake TiKV: the service with a batch function in it.
type store struct {
	tikvpb.UnimplementedTikvServer
	*grpc.Server
	health *health.Server
	batch  func(tikvpb.Tikv_BatchCommandsServer) error
	unary  unaryFuncs

	implementation tikvpb.TikvServer // nil: the store itself
}

func (s *store) BatchCommands(stream tikvpb.Tikv_BatchCommandsServer) error { return s.batch(stream) }

// serve starts a store at addr; it stops with the test, or before.
func (n *network) serve(t testing.TB, addr string, s *store, opts ...grpc.ServerOption) *store {
	opts = append([]grpc.ServerOption{
		grpc.ForceServerCodecV2(grpcCodec{&buffers{}}),
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	}, opts...)
	s.Server = grpc.NewServer(opts...)
	s.health = health.NewServer()
	if s.implementation == nil {
		s.implementation = s
	}
	tikvpb.RegisterTikvServer(s.Server, s.implementation)
	if n.register != nil {
		n.register(s.Server)
	}
	healthpb.RegisterHealthServer(s.Server, s.health)
	l := n.listen(addr)
	go s.Server.Serve(l)
	t.Cleanup(s.Server.Stop)
	return s
}
