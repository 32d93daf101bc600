package serve

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/vnet"
)

// Limits of the servers. TiKV: src/server/config.rs (grpc-concurrent-stream 1024,
// keepalive 10 s / 3 s, windows 2 MiB, messages unlimited). Clients ping every 10 s;
// etcd, PD's server, takes a ping every 5 s (server/embed/config.go), so both do here.
const (
	pingEvery   = 10 * time.Second
	pingTimeout = 3 * time.Second
	minPing     = 5 * time.Second
	window      = 2 << 20
)

// ErrStopped ends what a server was doing when it was stopped.
var ErrStopped = errors.New("serve: server stopped")

// Config is what a node's server needs.
type Config struct {
	// Listen claims an address; Addr is the one to claim. After the first start the
	// address that was given is kept.
	Listen func(addr string) (net.Listener, error)
	Addr   string
	// Streams limits the concurrent streams of a connection, 0 leaves it open.
	Streams uint32
	// Register adds the services, and is called on each start.
	Register func(*grpc.Server)
	Options  []grpc.ServerOption
	// HTTP answers requests of HTTP/1 on the same address, without TLS; nil: none does.
	HTTP http.Handler
}

// Server is a node's gRPC server, which may be stopped and started again.
type Server struct {
	cfg Config

	life sync.Mutex // one start or stop at a time
	mu   sync.Mutex
	run  *running // nil: stopped
	addr string
	cut  vnet.Directions
	past []*vnet.Gate // of runs that ended while cut, whose end was not seen yet
}

type running struct {
	tasks *task.Group
	grpc  *grpc.Server
	gate  *vnet.Gate
}

// New returns a server that is stopped.
func New(cfg Config) *Server { return &Server{cfg: cfg, addr: cfg.Addr} }

// Start listens and serves. The end of ctx does not end the server; Stop does.
func (s *Server) Start(ctx context.Context) error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.current() != nil {
		return nil
	}
	l, err := s.cfg.Listen(s.Addr())
	if err != nil {
		return fmt.Errorf("playground: %w", err)
	}
	r := &running{tasks: task.Root(ctx), gate: vnet.NewGate(l)}
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(Codec()),
		grpc.MaxRecvMsgSize(math.MaxInt32), grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(8 * window),
		grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(lateUnary), grpc.ChainStreamInterceptor(lateStream),
	}
	if s.cfg.Streams > 0 {
		options = append(options, grpc.MaxConcurrentStreams(s.cfg.Streams))
	}
	r.grpc = grpc.NewServer(append(options, s.cfg.Options...)...)
	s.cfg.Register(r.grpc)
	s.mu.Lock()
	s.run, s.addr = r, l.Addr().String()
	r.gate.Cut(s.cut)
	s.mu.Unlock()
	var conns net.Listener = r.gate
	if s.cfg.HTTP != nil {
		f := newFork(r.gate, r.tasks, s.cfg.HTTP)
		r.tasks.Go("accept", f.run)
		conns = f
	}
	r.tasks.Go("serve", func(context.Context) { _ = r.grpc.Serve(conns) })
	return nil
}

// Stop closes the listener and every connection, ends what runs under Context, and
// returns when all goroutines have ended.
func (s *Server) Stop() {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	r := s.run
	s.run = nil
	s.mu.Unlock()
	if r == nil {
		return
	}
	r.tasks.Refuse()
	r.gate.Quit() // before what it does is ended, of which nobody is to hear
	r.tasks.Cancel(ErrStopped)
	r.grpc.Stop()
	r.tasks.Close(ErrStopped)
	r.gate.Resume() // what was closed while paused is closed for the other side too
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.gate.Cut(s.cut); s.cut.Out {
		s.past = append(s.past, r.gate)
	}
}

func (s *Server) current() *running {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run
}

// Addr is the address that the server has, or will have once started.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// SetAddr gives a server that is stopped another address.
func (s *Server) SetAddr(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = addr
}

// Running reports whether the server was started and not stopped.
func (s *Server) Running() bool { return s.current() != nil }

// Tasks is the group of the present start, nil when the server is stopped.
func (s *Server) Tasks() *task.Group {
	if r := s.current(); r != nil {
		return r.tasks
	}
	return nil
}

// Pause holds every connection still, until Resume or Stop.
func (s *Server) Pause() {
	if r := s.current(); r != nil {
		r.gate.Pause()
	}
}

// Resume ends Pause.
func (s *Server) Resume() {
	if r := s.current(); r != nil {
		r.gate.Resume()
	}
}

// Cut lets nothing pass in the given directions of all connections, present and later,
// and all in the others.
func (s *Server) Cut(d vnet.Directions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = d
	if s.run != nil {
		s.run.gate.Cut(d)
	}
	for _, g := range s.past {
		g.Cut(d)
	}
	if !d.Out {
		s.past = nil
	}
}

// Disconnect closes the connection that ctx's request came on.
func (s *Server) Disconnect(ctx context.Context) {
	p, ok := peer.FromContext(ctx)
	if r := s.current(); ok && r != nil {
		r.gate.Disconnect(p.Addr.String())
	}
}
