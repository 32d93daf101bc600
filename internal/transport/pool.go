// Package transport carries requests to TiKV: one connection and one stream of batched
// commands for each address, single calls where a command cannot be batched.
package transport

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tikv-go/tikv/internal/task"
)

// The defaults of a Config.
const (
	DefaultDialTimeout = 5 * time.Second
	DefaultQueueLimit  = 16384
)

// Config is what a Pool is made with. The zero Config is usable.
type Config struct {
	Dial func(ctx context.Context, addr string) (net.Conn, error) // nil: TCP
	// nil: plain text. Not a *tls.Config, so that only a program that asks for TLS
	// links it.
	Credentials  credentials.TransportCredentials
	AddressMap   func(addr string) string // what to dial for an address; nil: itself
	StoreOptions []grpc.DialOption        // of connections that are not PD's, beside the pool's own
	PDOptions    []grpc.DialOption        // of PD's
	Logger       *slog.Logger             // nil: silent
	// OnConn is told of a connection when the peer has spoken on it, and what it returns of
	// its end: with why it broke, or nil where this side closed it. nil: nobody is. Both are
	// called with a lock of the connection held and must not wait for anything.
	OnConn func(addr string) (ended func(error))
	// OnFeedback is told what stores say of their health; nil: nobody is. It is called
	// by a task of the pool, for one store after the other, with the newest of each: if
	// it is slow, what comes meanwhile is left out.
	OnFeedback  func(*kvrpcpb.HealthFeedback)
	DialTimeout time.Duration // of one attempt, handshakes included; 0: DefaultDialTimeout
	QueueLimit  int           // calls that wait to be written, for each address; 0: DefaultQueueLimit
}

// Pool is the connections to all addresses, each made by the first call to it. It is
// safe for concurrent use.
type Pool struct {
	cfg      Config
	commands map[reflect.Type]*command
	tasks    *task.Group
	calls    sync.Pool // *call
	buffers  buffers

	endpoints atomic.Pointer[map[string]*endpoint] // replaced whole, under mu
	version   atomic.Int64                         // of the credentials
	suspect   chan struct{}                        // they may have changed
	feedbacks feedbacks
	mu        sync.Mutex
	draining  []*endpoint // replaced, until their calls have ended
	closed    bool
}

// New returns a pool without connections. Close ends it.
func New(cfg Config) *Pool {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = DefaultDialTimeout
	}
	if cfg.QueueLimit <= 0 {
		cfg.QueueLimit = DefaultQueueLimit
	}
	p := &Pool{cfg: cfg, commands: newCommands(), tasks: task.Root(context.Background()), suspect: make(chan struct{}, 1)}
	p.endpoints.Store(&map[string]*endpoint{})
	p.feedbacks = feedbacks{newest: make(map[uint64]*kvrpcpb.HealthFeedback), wake: make(chan struct{}, 1)}
	if creds, ok := cfg.Credentials.(refreshing); ok {
		p.tasks.Go("transport TLS files", func(ctx context.Context) { p.watch(ctx, creds) })
	}
	return p
}

// Target is where a request goes to, and for how long.
type Target struct {
	Addr    string
	Timeout time.Duration // of the attempt; 0: none. It is kept within two tenths of a second
	Forward string        // the store that Addr is to pass the request on to; "": none

	member bool // of PD
	lane   int  // of the connections to Addr
}

// Call sends req and decodes the answer into resp, which must be empty: on the
// address's stream of batched commands where the command is one of those and the server
// has such streams, else as a call of its own. req is fully encoded when Call waits first, so that nobody reads it
// once Call returned; what resp keeps is its own.
//
// Call does not wait for a connection longer than one attempt to make one, and returns
// as soon as ctx ends. An answer may never come (TiKV drops a batched command that
// ends in an internal error), so ctx or the target should have an end. Every error is
// an *Error.
func (p *Pool) Call(ctx context.Context, to Target, req Message, resp Decoder) error {
	cmd, e, err := p.prepare(ctx, to, req)
	if err != nil {
		return err
	}
	if cmd.number == 0 || e.isAlone() {
		return e.invoke(ctx, cmd, req, resp, to.Timeout)
	}
	pending, err := p.lane(e).start(cmd, req, to.Timeout)
	if err != nil {
		return err
	}
	err = pending.Wait(ctx, resp)
	if failed, ok := err.(*Error); ok && failed.Err == errUnbatched {
		return e.invoke(ctx, cmd, req, resp, to.Timeout)
	}
	return err
}

// Start sends req without waiting, so that one caller can have many under way. Commands
// that are not batched are refused: see Batched. req is fully encoded when Start
// returns.
func (p *Pool) Start(ctx context.Context, to Target, req Message) (Pending, error) {
	cmd, e, err := p.prepare(ctx, to, req)
	if err != nil {
		return Pending{}, err
	}
	if cmd.number == 0 {
		return Pending{}, &Error{Addr: to.Addr, Kind: Refused, Err: fmt.Errorf("%T is not batched", req)}
	}
	if e.isAlone() {
		return e.startAlone(cmd, req, to.Timeout)
	}
	return p.lane(e).start(cmd, req, to.Timeout)
}

// Batched reports whether req goes on a stream of batched commands.
func (p *Pool) Batched(req Message) bool {
	cmd := p.commands[reflect.TypeOf(req)]
	return cmd != nil && cmd.number != 0
}

// NewResponse returns an empty response to req, or nil if req is no request.
func (p *Pool) NewResponse(req Message) Response {
	if cmd := p.commands[reflect.TypeOf(req)]; cmd != nil {
		return cmd.reply()
	}
	return nil
}

// Method is the name of req's method in TiKV's service, "" if req is no request.
func (p *Pool) Method(req Message) string {
	if cmd := p.commands[reflect.TypeOf(req)]; cmd != nil {
		return strings.TrimPrefix(cmd.method, service)
	}
	return ""
}

func (p *Pool) prepare(ctx context.Context, to Target, req Message) (*command, *endpoint, error) {
	cmd := p.commands[reflect.TypeOf(req)]
	if cmd == nil {
		return nil, nil, &Error{Addr: to.Addr, Kind: Refused, Err: fmt.Errorf("%T is no command", req)}
	}
	if ctx.Err() != nil {
		return nil, nil, &Error{Addr: to.Addr, Kind: Timeout, Err: context.Cause(ctx)}
	}
	if cmd.stays && to.Forward != "" {
		return nil, nil, &Error{Addr: to.Addr, Kind: Refused, Err: fmt.Errorf("%T: %w", req, ErrNotForwarded)}
	}
	e, err := p.endpoint(to)
	return cmd, e, err
}

// Conn returns the connection to addr, a member of PD, for calls of its services. It ends with Drop and Close; ask again for each call.
func (p *Pool) Conn(addr string) (*grpc.ClientConn, error) {
	e, err := p.endpoint(Target{Addr: addr, member: true})
	if err != nil {
		return nil, err
	}
	return e.conn.ClientConn, nil
}

// Health asks addr whether it serves (grpc.health.v1).
func (p *Pool) Health(ctx context.Context, addr string) error {
	e, err := p.endpoint(Target{Addr: addr})
	if err != nil {
		return err
	}
	return e.health(ctx)
}

// Drop closes the connections to addr; its calls, and those forwarded to it, fail with
// ConnLost. The next call makes
// a new one at once: it is for an address that is no longer used, or that is known to
// have become another's, and not for each failed call, which would undo the pause
// between attempts to connect.
func (p *Pool) Drop(addr string) {
	p.mu.Lock()
	var gone []*endpoint
	rest := maps.Clone(*p.endpoints.Load())
	for _, e := range slices.AppendSeq(slices.Clone(p.draining), maps.Values(rest)) {
		if e.to.Addr == addr || e.to.Forward == addr {
			gone = append(gone, e)
			e.gone.Store(true)
			delete(rest, e.to.key())
		}
	}
	p.endpoints.Store(&rest)
	p.mu.Unlock()
	for _, e := range gone {
		e.close(ConnLost, ErrDropped)
	}
}

// Load is the calls that wait to be written and those that wait for an answer, single
// ones left out.
func (p *Pool) Load() (queued, pending int) {
	for _, e := range *p.endpoints.Load() {
		q, n := e.load()
		queued, pending = queued+q, pending+n
	}
	return queued, pending
}

// Close ends all calls with Closed, and all connections, and returns when every task of
// the pool has ended.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	open := slices.AppendSeq(slices.Clone(p.draining), maps.Values(*p.endpoints.Load()))
	p.endpoints.Store(&map[string]*endpoint{})
	p.mu.Unlock()
	for _, e := range open {
		e.close(Closed, ErrClosed)
	}
	p.tasks.Close(ErrClosed)
}

// swap puts an endpoint in the place of another, which must still be there.
func (p *Pool) swap(old, next *endpoint) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := *p.endpoints.Load()
	key := old.to.key()
	if p.closed || all[key] != old {
		return false
	}
	all = maps.Clone(all)
	all[key] = next
	p.endpoints.Store(&all)
	old.gone.Store(true)
	p.draining = append(p.draining, old)
	return true
}

// remove takes e, which must still be there, from those that are found.
func (p *Pool) remove(e *endpoint) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := *p.endpoints.Load()
	key := e.to.key()
	if p.closed || all[key] != e {
		return false
	}
	all = maps.Clone(all)
	delete(all, key)
	p.endpoints.Store(&all)
	p.draining = append(p.draining, e)
	e.gone.Store(true)
	return true
}

// drained takes e from those that were replaced.
func (p *Pool) drained(e *endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = slices.DeleteFunc(p.draining, func(d *endpoint) bool { return d == e })
}

// endpoint returns that of a target, a new one for its first call.
func (p *Pool) endpoint(to Target) (*endpoint, error) {
	key := to.key()
	if e := (*p.endpoints.Load())[key]; e != nil {
		return e, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, &Error{Addr: to.Addr, Kind: Closed, Err: ErrClosed}
	}
	old := *p.endpoints.Load()
	if e := old[key]; e != nil {
		return e, nil
	}
	e, err := newEndpoint(p, to)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(old)
	all[key] = e
	p.endpoints.Store(&all)
	return e, nil
}

// takeCall returns an idle call.
func (p *Pool) takeCall() *call {
	c, _ := p.calls.Get().(*call)
	if c == nil {
		c = &call{ready: make(chan struct{}, 1)}
	}
	return c
}

// giveCall takes back a call that is idle or done and whose token was taken. What has not
// changed is not written: the writer has read it on another processor.
func (p *Pool) giveCall(c *call) {
	if c.timed {
		c.timer.Stop()
		c.timed = false
	}
	if c.big != nil {
		p.buffers.Put(c.big)
		c.big = nil
	}
	if c.abandon != nil {
		c.abandon = nil
	}
	c.flight = flight{}
	p.calls.Put(c)
}
