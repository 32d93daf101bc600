package vnet

import (
	"net"
	"sync"
	"time"
)

// Gate stands between a listener and its server. It closes single connections, and
// holds all of them still without closing any, as a suspended process does: what was
// sent to it waits, what it would send waits, new connections are made and wait.
type Gate struct {
	inner net.Listener

	mu     sync.Mutex
	conns  map[string]*gated // by remote address
	open   chan struct{}     // closed while the gate is open
	paused bool
	ended  []net.Conn // closed by the server while paused; the other side sees it later
}

// NewGate returns an open gate before l.
func NewGate(l net.Listener) *Gate {
	g := &Gate{inner: l, conns: make(map[string]*gated), open: make(chan struct{})}
	close(g.open)
	return g
}

// Accept returns the next connection, behind the gate.
func (g *Gate) Accept() (net.Conn, error) {
	c, err := g.inner.Accept()
	if err != nil {
		return nil, err
	}
	gc := &gated{Conn: c, gate: g, closed: make(chan struct{})}
	g.mu.Lock()
	g.conns[c.RemoteAddr().String()] = gc
	g.mu.Unlock()
	return gc, nil
}

// Close closes the listener; connections stay.
func (g *Gate) Close() error { return g.inner.Close() }

// Addr is the listener's.
func (g *Gate) Addr() net.Addr { return g.inner.Addr() }

// Pause holds all connections still until Resume.
func (g *Gate) Pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.paused {
		g.paused, g.open = true, make(chan struct{})
	}
}

// Resume ends Pause.
func (g *Gate) Resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused {
		g.paused = false
		close(g.open)
		for _, c := range g.ended {
			_ = c.Close()
		}
		g.ended = nil
	}
}

// Disconnect closes the connection from remote, as net.Addr's String gives it.
func (g *Gate) Disconnect(remote string) {
	g.mu.Lock()
	c := g.conns[remote]
	g.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

// Conns is the number of open connections.
func (g *Gate) Conns() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

type gated struct {
	net.Conn
	gate   *Gate
	once   sync.Once
	closed chan struct{}
}

// pass waits until the gate is open or the connection closed.
func (c *gated) pass() error {
	for {
		c.gate.mu.Lock()
		open, paused := c.gate.open, c.gate.paused
		c.gate.mu.Unlock()
		if !paused {
			return nil
		}
		select {
		case <-open:
		case <-c.closed:
			return net.ErrClosed
		}
	}
}

func (c *gated) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if stop := c.pass(); stop != nil {
		return 0, stop
	}
	return n, err
}

func (c *gated) Write(b []byte) (int, error) {
	if err := c.pass(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Close closes the connection: for the server now, for the other side once the gate is
// open, since a process that is suspended closes nothing.
func (c *gated) Close() error {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	var err error
	c.once.Do(func() {
		close(c.closed)
		if remote := c.RemoteAddr().String(); c.gate.conns[remote] == c {
			delete(c.gate.conns, remote)
		}
		if c.gate.paused {
			c.gate.ended = append(c.gate.ended, c.Conn)
			err = c.Conn.SetDeadline(aLongTimeAgo()) // ends what the server waits for
			return
		}
		err = c.Conn.Close()
	})
	return err
}

func aLongTimeAgo() time.Time { return time.Unix(1, 0) }
