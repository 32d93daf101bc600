package transport

import (
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// The settings of a connection, as the field has settled on them (client-go
// internal/client/conn_pool.go); a connection without an answer to its ping is broken
// after 13 s.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	reconnectBase    = 100 * time.Millisecond
	reconnectMax     = 3 * time.Second
	window           = 128 << 20 // so that one large answer does not hold up the others
)

// newConn returns a connection to addr that dials with its first use.
//
// While the address cannot be reached grpc tries again on its own, at most every 100 ms
// growing to 3 s, and calls in between fail at once with the last failure; one that
// finds an attempt under way waits for its end, at most DialTimeout. Thus a dead
// address costs no caller more than one attempt, and all callers together one every
// 3 s.
func newConn(cfg Config, addr string, dial dialFunc) (*grpc.ClientConn, error) {
	creds := cfg.Credentials
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	return grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dial),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: reconnectBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax,
			},
			MinConnectTimeout: cfg.DialTimeout,
		}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(grpcCodec{}),
			grpc.MaxCallRecvMsgSize(math.MaxInt32),
			grpc.MaxCallSendMsgSize(math.MaxInt32),
		),
	)
}

type dialFunc = func(ctx context.Context, addr string) (net.Conn, error)

var errDialTimeout = errors.New("no connection in time")

// dialer is the config's Dial with its AddressMap before it.
func (cfg Config) dialer() dialFunc {
	dial := cfg.Dial
	if dial == nil {
		d := net.Dialer{Timeout: cfg.DialTimeout}
		dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	if cfg.AddressMap == nil {
		return dial
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		return dial(ctx, cfg.AddressMap(addr))
	}
}

// sockets remembers the newest connections of an address, to close them under grpc,
// which waits up to 5 s for a peer that takes no more bytes to take its farewell. It
// does not wrap them: on a TCP connection grpc sets the time that data may stay
// unacknowledged, which finds a dead peer soonest.
type sockets struct {
	mu     sync.Mutex
	closed bool
	last   [2]net.Conn // grpc has at most one that it uses and one that it leaves
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
		s.last[0], s.last[1] = s.last[1], c
		s.mu.Unlock()
		if closed {
			c.Close()
			return nil, ErrDropped
		}
		return c, nil
	}
}

func (s *sockets) close() {
	s.mu.Lock()
	s.closed = true
	last := s.last
	s.mu.Unlock()
	for _, c := range last {
		if c != nil {
			c.Close()
		}
	}
}
