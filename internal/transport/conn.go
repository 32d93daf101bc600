package transport

import (
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
)

// The settings of a connection, as the field has settled on them (client-go
// internal/client/conn_pool.go) and TiKV's own pings have (src/server/config.rs,
// grpc_keepalive_time and _timeout); a connection with calls on it, silent for 10 s and
// without an answer to its ping, is broken after 13 s.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	reconnectBase    = 100 * time.Millisecond
	reconnectMax     = 3 * time.Second
	window           = 128 << 20 // so that one large answer does not hold up the others
)

// link is one connection of an address, dialled with its first use, and the sockets
// below it.
type link struct {
	*grpc.ClientConn
	sockets sockets
	calls   atomic.Int64 // in flight, but for streams of batched commands
	used    atomic.Int64 // when the last of them ended (Unix time in ns)
}

// ended notes the end of a call.
func (l *link) ended() {
	l.used.Store(time.Now().UnixNano())
	l.calls.Add(-1)
}

// unused is how long there was no call but for those of streams of batched commands.
func (l *link) unused() time.Duration {
	if l.calls.Load() > 0 {
		return 0
	}
	return time.Since(time.Unix(0, l.used.Load()))
}

// newLink returns a connection to addr that dials with its first use, and tells about
// what it finds.
//
// While the address cannot be reached grpc tries again on its own, at most every 100 ms
// growing to 3 s, and calls in between fail at once with the last failure; one that
// finds an attempt under way waits for its end, at most DialTimeout. Thus a dead
// address costs no caller more than one attempt, and all callers together one every
// 3 s.
//
// Without calls nothing is sent, not even pings: PD's servers end a connection on which
// they get three without a call in between ("too many pings": etcd and pd
// pkg/mcs/utils/util.go set no PermitWithoutStream), TiKV would take any number
// (src/server/server.rs, http2_max_ping_strikes). The first call after a pause brings a
// ping with it, so that a peer that has died meanwhile is found out within 3 s.
func newLink(cfg Config, addr string, pool mem.BufferPool, tell *condition, more ...grpc.DialOption) (*link, error) {
	creds := cfg.Credentials
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	l := &link{}
	var err error
	l.ClientConn, err = grpc.NewClient("passthrough:///"+addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(telling{creds, tell, &l.sockets, addr, cfg.OnConn}),
		grpc.WithContextDialer(l.sockets.dialer(tell.dialer(cfg.dialer()))),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		experimental.WithBufferPool(pool),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: reconnectBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax,
			},
			MinConnectTimeout: cfg.DialTimeout,
		}),
		grpc.WithUnaryInterceptor(l.countUnary),
		grpc.WithStreamInterceptor(l.countStream),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(grpcCodec{pool}),
			grpc.MaxCallRecvMsgSize(math.MaxInt32),
			grpc.MaxCallSendMsgSize(math.MaxInt32),
		),
	}, more...)...)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// countUnary and countStream count the calls that a connection must not be closed under.
func (l *link) countUnary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	l.calls.Add(1)
	defer l.ended()
	return next(ctx, method, req, reply, cc, opts...)
}

func (l *link) countStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if method == batchMethod { // whose calls the endpoint counts
		return next(ctx, desc, cc, method, opts...)
	}
	l.calls.Add(1)
	return next(ctx, desc, cc, method, append(opts, grpc.OnFinish(func(error) { l.ended() }))...)
}

// Close ends the connection and all calls on it.
func (l *link) Close() error {
	l.sockets.close()
	return l.ClientConn.Close()
}

type dialFunc = func(ctx context.Context, addr string) (net.Conn, error)

var errDialTimeout = errors.New("no connection in time")

// dialer is the config's Dial with its AddressMap before it. Its errors say what was
// dialled for which address.
func (cfg Config) dialer() dialFunc {
	dial := cfg.Dial
	if dial == nil {
		d := net.Dialer{Timeout: cfg.DialTimeout}
		dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		to := cfg.mapped(addr)
		c, err := dial(ctx, to)
		if err != nil {
			return nil, &DialError{Advertised: addr, Dialled: to, Err: err}
		}
		return c, nil
	}
}

// mapped is what to dial for addr.
func (cfg Config) mapped(addr string) string {
	if cfg.AddressMap == nil {
		return addr
	}
	return cfg.AddressMap(addr)
}

// DialError is an address that could not be dialled.
type DialError struct {
	Advertised string // the address, as PD or the caller gave it
	Dialled    string // what the address map made of it
	Err        error
}

// Error names what was dialled, and for which address where that is another.
func (e *DialError) Error() string {
	s := "dialling " + e.Dialled
	if e.Dialled != e.Advertised {
		s += ", to which " + e.Advertised + " is mapped"
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns what the dialler said.
func (e *DialError) Unwrap() error { return e.Err }

// sockets remembers the newest connections of an address, to close them under grpc,
// which waits up to 5 s for a peer that takes no more bytes to take its farewell. It
// does not wrap them: on a TCP connection grpc sets the time that data may stay
// unacknowledged, which finds a dead peer soonest.
type sockets struct {
	mu     sync.Mutex
	closed bool
	last   [2]socket // grpc has at most one that it uses and one that it leaves
}

// socket is a connection as it was dialled, and what it is told of by, once it is made.
type socket struct {
	raw  net.Conn
	told *tellingConn
}

// dialer returns dial with its connections remembered.
func (s *sockets) dialer(dial dialFunc) dialFunc {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		closed := s.closed
		s.last[0], s.last[1] = s.last[1], socket{raw: c}
		s.mu.Unlock()
		if closed {
			c.Close()
			return nil, ErrDropped
		}
		return c, nil
	}
}

// shaken notes what the newest connection has become: grpc dials the next when it has
// given this one up.
func (s *sockets) shaken(c *tellingConn) {
	s.mu.Lock()
	s.last[1].told = c
	closed := s.closed
	s.mu.Unlock()
	if closed {
		c.end()
	}
}

func (s *sockets) areClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *sockets) close() {
	s.mu.Lock()
	s.closed = true
	last := s.last
	s.mu.Unlock()
	for _, c := range last {
		if c.raw != nil {
			c.raw.Close()
		}
		if c.told != nil {
			c.told.end()
		}
	}
}
