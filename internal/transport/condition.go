package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// Condition is what is known of the connections to an address, from what they met.
type Condition struct {
	Connected bool      // a connection stands on which the peer has spoken
	Since     time.Time // of that; zero: nothing was tried yet
	Conns     int       // such connections
	Failures  int       // failures since the peer was heard last
	Failure   error     // the last of them
	Failed    time.Time // its time
}

// Condition tells how the connections to addr are. It sends nothing.
func (p *Pool) Condition(addr string) Condition {
	var all Condition
	for _, e := range p.lanes(addr) {
		all = all.and(e.condition.get())
	}
	return all
}

// and is what two connections tell together: with one that stands the address is
// reachable, whatever befell the other.
func (c Condition) and(d Condition) Condition {
	switch {
	case c.Since.IsZero():
		return d
	case d.Since.IsZero():
		return c
	case d.Connected && !c.Connected || d.Connected == c.Connected && d.Since.Before(c.Since):
		c, d = d, c
	}
	c.Conns += d.Conns
	c.Failures += d.Failures
	if d.Failed.After(c.Failed) {
		c.Failure, c.Failed = d.Failure, d.Failed
	}
	return c
}

// condition gathers an address's Condition.
type condition struct {
	failed func() // called after a failure; nil: nobody

	mu     sync.Mutex
	now    Condition
	unmade error // the last failure, if a connection was not made in it
}

func (c *condition) get() Condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// heard notes the first word of the peer on a new connection.
func (c *condition) heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unmade = nil
	if !c.now.Connected {
		c.now = Condition{Connected: true, Since: time.Now()}
	}
	c.now.Conns++
}

// lost notes the end of a connection on which the peer had spoken.
func (c *condition) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now.Conns--; c.now.Conns == 0 {
		c.now.Connected, c.now.Since = false, time.Now()
	}
}

// fail notes a failure, after which there is a connection less, or there is none, unmade.
func (c *condition) fail(err error, unmade bool) {
	c.mu.Lock()
	if c.unmade = nil; unmade {
		c.unmade = err
	}
	t := time.Now()
	if c.now.Since.IsZero() {
		c.now.Since = t
	}
	c.now.Failures++
	c.now.Failure, c.now.Failed = err, t
	failed := c.failed
	c.mu.Unlock()
	if failed != nil {
		failed()
	}
}

// vain reports whether a connection is sought in vain: there is none, and what failed is more
// than the one that there was.
func (c *condition) vain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.now.Connected && c.now.Failures > 1
}

// reason replaces grpc's words for why there is no connection where the failure itself
// tells more: what could not be dialled, a handshake, silence.
func (c *condition) reason(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := status.FromError(err); ok && c.unmade != nil && !c.now.Connected {
		return c.unmade
	}
	return err
}

// dialer returns dial with its failures noted.
func (c *condition) dialer(dial dialFunc) dialFunc {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dial(ctx, addr)
		if err != nil {
			c.fail(err, true)
		}
		return conn, err
	}
}

// telling is credentials that note how handshakes end and what becomes of their
// connections. grpc does its own settings of a socket before the handshake, which is why
// sockets are wrapped here and not at dialling.
type telling struct {
	credentials.TransportCredentials
	tell    *condition
	sockets *sockets
	addr    string
	onConn  func(addr string) (ended func(error)) // the pool's; nil: nobody
}

// ClientHandshake implements credentials.TransportCredentials.
func (t telling) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := t.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		t.tell.fail(err, true)
		return nil, nil, err
	}
	c := &tellingConn{Conn: conn, told: t}
	t.sockets.shaken(c)
	return c, info, nil
}

// Clone implements credentials.TransportCredentials.
func (t telling) Clone() credentials.TransportCredentials {
	t.TransportCredentials = t.TransportCredentials.Clone()
	return t
}

// tellingConn notes the first bytes of the peer, and the end of the connection.
type tellingConn struct {
	net.Conn
	told  telling
	heard atomic.Bool
	broke atomic.Pointer[error] // what reading ended with

	mu    sync.Mutex
	over  bool
	ended func(error) // the pool's; nil: nobody
}

// Read implements net.Conn.
func (c *tellingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.heard.Load() {
		c.spoken()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) { // by grpc
		c.broke.CompareAndSwap(nil, &err)
	}
	return n, err
}

// spoken notes the first word of the peer.
func (c *tellingConn) spoken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.heard.Swap(true) {
		return
	}
	c.told.tell.heard()
	if c.told.onConn != nil {
		c.ended = c.told.onConn(c.told.addr)
	}
}

// Why grpc gave a connection up that had not broken.
var (
	errMute = errors.New("the peer took the connection and said nothing")
	errGone = errors.New("no answer to a ping, or the peer's farewell")
)

// Close implements net.Conn.
func (c *tellingConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// end notes the end of the connection, once.
func (c *tellingConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over = true
	heard := c.heard.Load()
	if heard {
		c.told.tell.lost()
	}
	err, unmade := error(nil), false
	switch broke := c.broke.Load(); {
	case c.told.sockets.areClosed(): // this side meant it
	case broke != nil:
		err = *broke
	case heard:
		err = errGone
	default:
		err, unmade = errMute, true
	}
	if err != nil {
		c.told.tell.fail(err, unmade)
	}
	if c.ended != nil {
		c.ended(err)
	}
}
