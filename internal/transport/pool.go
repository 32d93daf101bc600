// Package transport carries requests to TiKV: one connection and one stream of batched
// commands for each address, single calls where a command cannot be batched.
package transport

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
)

// Config is what a Pool is made with. The zero Config is usable.
type Config struct {
	Dial        func(ctx context.Context, addr string) (net.Conn, error) // nil: TCP
	TLS         *tls.Config                                              // nil: plain text
	AddressMap  func(addr string) string                                 // what to dial for an address; nil: itself
	Logger      *slog.Logger                                             // nil: silent
	DialTimeout time.Duration                                            // of one attempt, handshakes included; 0: 5 s
	QueueLimit  int                                                      // calls that wait to be written, for each address; 0: 16384
}

// Pool is the connections to all addresses, each made by the first call to it. It is
// safe for concurrent use.
type Pool struct{ cfg Config }

// New returns a pool without connections. Close ends it.
func New(cfg Config) *Pool { return &Pool{cfg: cfg} }

// Call sends req to addr and returns the answer: on the address's stream of batched
// commands where the command is one of those, else as a call of its own. req is fully
// encoded when Call waits first, so that nobody reads it once Call returned, and the
// answer belongs to the caller.
//
// Call does not wait for a connection longer than one attempt to make one, and returns
// as soon as ctx ends. An answer may never come (TiKV drops a batched command that
// ends in an internal error), so ctx should have an end. Every error is an *Error.
func (p *Pool) Call(ctx context.Context, addr string, req Message) (Response, error) {
	return nil, &Error{Addr: addr, Kind: Closed, Err: ErrClosed}
}

// Conn returns the connection to addr for calls that Call has no command for: PD's, and
// streams. It ends with Drop and Close; ask again for each call.
func (p *Pool) Conn(addr string) (*grpc.ClientConn, error) {
	return nil, &Error{Addr: addr, Kind: Closed, Err: ErrClosed}
}

// Health asks addr whether it serves (grpc.health.v1).
func (p *Pool) Health(ctx context.Context, addr string) error {
	return &Error{Addr: addr, Kind: Closed, Err: ErrClosed}
}

// Drop closes the connection to addr; its calls fail with ConnLost. The next call makes
// a new one at once.
func (p *Pool) Drop(addr string) {}

// Load is the calls that wait to be written and those that wait for an answer.
func (p *Pool) Load() (queued, pending int) { return 0, 0 }

// Close ends all calls with Closed, and all connections, and returns when every
// goroutine has ended.
func (p *Pool) Close() {}
