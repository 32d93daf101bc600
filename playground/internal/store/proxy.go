package store

import (
	"context"
	"errors"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/fault"
)

// Calls that a store passes on to another because their metadata asks for it (TiKV
// src/server/proxy.rs). Stores reach each other inside of the process, but what cuts,
// suspends or stops them stands between them as between processes.

// forwardedHost is the metadata by which a client asks for it (proxy.rs,
// FORWARD_METADATA_KEY): the address of a store.
const forwardedHost = "tikv-forwarded-host"

const (
	// connectTimeout is how long a connection to the other store may take (proxy.rs, call_on).
	connectTimeout = 3 * time.Second
	// silence is after how long a connection on which nothing comes back is given up: the
	// sum of grpc-keepalive-time and grpc-keepalive-timeout (src/server/config.rs).
	silence = 13 * time.Second
)

// errNotPassedOn is what the client sees when a forwarding store drops its call: no
// connection was made in time, the answer cannot be read, or a stream has failed, of
// whatever. (The sink is dropped, which cancels the call: proxy.rs, forward_unary and
// forward_duplex; tests/integrations/server/kv_service.rs, test_forwarding_reconnect.)
func errNotPassedOn() error { return status.Error(codes.Canceled, "CANCELLED") }

// forwardedTo is the address that a call's metadata asks for, or empty (proxy.rs,
// get_target_address). TiFlash does not know it.
func (s *Store) forwardedTo(ctx context.Context) string {
	for _, addr := range metadata.ValueFromIncomingContext(ctx, forwardedHost) {
		if utf8.ValidString(addr) {
			if s.flash() {
				return ""
			}
			return addr
		}
	}
	return ""
}

// stays reports whether a unary call is never passed on: its handler in TiKV does not ask
// (src/server/service/kv.rs: those that are not made by handle_request, but for
// coprocessor and split_region), or it is TiFlash's.
func (c *command) stays() bool {
	switch c.method {
	case "GetHealthFeedback", "GetLockWaitInfo", "GetStoreSafeTS", "KvFlashbackToVersion",
		"KvPrepareFlashbackToVersion", "RawCoprocessor", "UnsafeDestroyRange", "Compact":
		return true
	}
	return c.flash
}

// passed is a command as the store handles it that passes it on to an address. An error of
// the other store is the call's.
func (s *Store) passed(c *command, addr string) *command {
	there := *c
	there.around = func(ctx context.Context, req any) any {
		l, err := s.connect(ctx, addr)
		if err != nil {
			return failed{err}
		}
		answer, err := l.ask(ctx, req)
		if err != nil {
			return failed{err}
		}
		return answer
	}
	return &there
}

// command is one of a stream that goes over l as a whole: an error ends the stream.
func (l *line) command(c *command) *command {
	there := *c
	there.around = func(ctx context.Context, req any) any {
		answer, err := l.ask(ctx, req)
		switch {
		case errors.Is(err, fault.ErrDropped):
			return failed{err}
		case err != nil:
			return failed{errNotPassedOn()}
		}
		return answer
	}
	return &there
}

// receive is a store's, over l. What fails the stream at the other end fails it here.
func (l *line) receive(stream grpc.ServerStream, o *outbox) error {
	if l.from.receive(stream, o, l) != nil {
		return errNotPassedOn()
	}
	return nil
}

// watch ends a stream when its connection ends.
func (l *line) watch(ctx context.Context, o *outbox) {
	_ = l.await(ctx, l.run.Context().Done(), l.to, l.from)
	o.end(errNotPassedOn())
}

// proxy is a store's connections to others by their addresses, of one run. TiKV makes up to
// four to each (forward-max-connections-per-address), which take turns.
type proxy struct {
	mu    sync.Mutex
	lines map[string]*line
}

// line is a connection from a store to one run of another.
type line struct {
	from, to *Store
	run      *task.Group
	once     sync.Once
	broken   chan struct{}
}

func (l *line) close() { l.once.Do(func() { close(l.broken) }) }

// dead reports whether from knows that l has ended.
func (l *line) dead() bool {
	select {
	case <-l.broken:
		return true
	default:
		return l.run.Context().Err() != nil && passes(l.to, l.from)
	}
}

// connect returns the connection to an address, which it makes if there is none.
func (s *Store) connect(ctx context.Context, addr string) (*line, error) {
	timer := time.NewTimer(connectTimeout)
	defer timer.Stop()
	for {
		changed := s.Topology.Changed()
		if l := s.proxy.Load().line(s, addr); l != nil {
			return l, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, errNotPassedOn()
		case <-ctx.Done():
			return nil, errClosing
		}
	}
}

// line returns the connection of from to an address, or nil if none can be made now.
func (p *proxy) line(from *Store, addr string) *line {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.lines[addr]; l != nil && !l.dead() {
		return l
	}
	delete(p.lines, addr)
	to := from.Peer(addr)
	if to == nil || !passes(from, to) || !passes(to, from) {
		return nil
	}
	run := to.server.Tasks()
	if run == nil {
		return nil
	}
	l := &line{from: from, to: to, run: run, broken: make(chan struct{})}
	p.lines[addr] = l
	return l
}

// passes reports whether what one store sends reaches another: packets do, even when
// nobody listens there any more.
func passes(from, to *Store) bool {
	return !from.frozen() && !to.frozen() && from.Topology.Hears(from.ID, to.ID)
}

// frozen reports whether the store runs, but does nothing.
func (s *Store) frozen() bool { return s.server.Running() && !s.Topology.Live(s.ID) }

// ask has the other store answer a request, as it answers any: under its own faults. A
// request that was sent is handled there whatever becomes of the connection.
func (l *line) ask(ctx context.Context, req any) (any, error) {
	if err := l.await(ctx, nil, l.from, l.to); err != nil {
		return nil, err
	}
	c := l.to.commands.of(req)
	done := make(chan struct{})
	var answer any
	var err error
	if !l.run.Go("forwarded", func(life context.Context) {
		defer close(done)
		answer, err = l.to.answer(life, c, req)
	}) {
		err = errClosing
		close(done)
	}
	if lost := l.await(ctx, done, l.to, l.from); lost != nil {
		return nil, lost
	}
	switch {
	case errors.Is(err, fault.ErrDisconnect):
		l.close()
		return nil, errBroken()
	case err != nil:
		return nil, err
	}
	return decoded(c, answer)
}

// decoded reads what a fault has made of an answer.
func decoded(c *command, answer any) (any, error) {
	m, ok := answer.(fault.Mangled)
	if !ok {
		return answer, nil
	}
	data, err := m.Answer.(interface{ Marshal() ([]byte, error) }).Marshal()
	if err != nil {
		return nil, errNotPassedOn()
	}
	changed := c.answer()
	if err := changed.(interface{ Unmarshal([]byte) error }).Unmarshal(m.Change(data)); err != nil {
		return nil, errNotPassedOn()
	}
	return changed, nil
}

// errBroken is what gRPC makes of a connection that has ended.
func errBroken() error { return status.Error(codes.Unavailable, "Socket closed") }

// await waits until done is closed, unless it is nil, and what from sends then reaches to.
// A connection on which one direction is lost for too long is given up.
func (l *line) await(ctx context.Context, done <-chan struct{}, from, to *Store) error {
	var timer *time.Timer
	var lost <-chan time.Time
	stop := func() {
		if timer != nil {
			timer.Stop()
			timer, lost = nil, nil
		}
	}
	defer stop()
	for {
		changed := l.from.Topology.Changed()
		select {
		case <-done:
			done = nil
		default:
		}
		there := passes(from, to)
		if done == nil && there {
			return nil
		}
		switch {
		case there && passes(to, from):
			stop()
		case timer == nil:
			timer = time.NewTimer(silence)
			lost = timer.C
		}
		select {
		case <-done:
		case <-changed:
		case <-lost:
			l.close()
			return status.Error(codes.Unavailable, "keepalive watchdog timeout")
		case <-l.broken:
			return errBroken()
		case <-ctx.Done():
			return errClosing
		}
	}
}
