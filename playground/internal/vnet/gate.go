package vnet

import (
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// Gate stands between a listener and its server. It closes single connections, and
// holds all of them still without closing any, as a suspended process does: what was
// sent to it waits, what it would send waits, new connections are made and wait. It also
// cuts one direction of all, or both.
type Gate struct {
	inner net.Listener

	mu     sync.Mutex
	conns  map[string]*gated // by remote address
	paused bool
	cut    Directions
	change chan struct{} // closed at the next change of the two
	ended  []net.Conn    // closed by the server while nothing got out; the other side sees it later
	quit   bool
}

// Directions are those of a connection, as the server has them.
type Directions struct{ In, Out bool }

// NewGate returns an open gate before l.
func NewGate(l net.Listener) *Gate {
	return &Gate{inner: l, conns: make(map[string]*gated), change: make(chan struct{})}
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
	quit := g.quit
	g.mu.Unlock()
	if quit {
		_ = gc.Close()
	}
	return gc, nil
}

// Quit closes all connections, and those that come, for the server: also those that it is
// still making, which wait for the gate or for the other side.
func (g *Gate) Quit() {
	g.mu.Lock()
	g.quit = true
	conns := slices.Collect(maps.Values(g.conns))
	g.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// Close closes the listener; connections stay.
func (g *Gate) Close() error { return g.inner.Close() }

// Addr is the listener's.
func (g *Gate) Addr() net.Addr { return g.inner.Addr() }

// Pause holds all connections still until Resume.
func (g *Gate) Pause() { g.set(func() { g.paused = true }) }

// Resume ends Pause.
func (g *Gate) Resume() { g.set(func() { g.paused = false }) }

// Cut lets nothing pass in the given directions, and all in the others. As on a network
// that loses packets, what was sent arrives once its direction is open again, if the
// connection still stands.
func (g *Gate) Cut(d Directions) { g.set(func() { g.cut = d }) }

func (g *Gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	close(g.change)
	g.change = make(chan struct{})
	if !g.shut().Out {
		for _, c := range g.ended {
			_ = c.Close()
		}
		g.ended = nil
	}
}

// shut are the directions in which nothing passes. Callers hold the lock.
func (g *Gate) shut() Directions {
	return Directions{In: g.paused || g.cut.In, Out: g.paused || g.cut.Out}
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

// pass waits until a direction is open or the connection closed.
func (c *gated) pass(shut func(Directions) bool) error {
	for {
		c.gate.mu.Lock()
		change, wait := c.gate.change, shut(c.gate.shut())
		c.gate.mu.Unlock()
		if !wait {
			return nil
		}
		select {
		case <-change:
		case <-c.closed:
			return net.ErrClosed
		}
	}
}

func (c *gated) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if stop := c.pass(func(d Directions) bool { return d.In }); stop != nil {
		return 0, stop
	}
	return n, err
}

func (c *gated) Write(b []byte) (int, error) {
	if err := c.pass(func(d Directions) bool { return d.Out }); err != nil {
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
		if c.gate.shut().Out {
			c.gate.ended = append(c.gate.ended, c.Conn)
			err = c.Conn.SetDeadline(aLongTimeAgo()) // ends what the server waits for
			return
		}
		err = c.Conn.Close()
	})
	return err
}

func aLongTimeAgo() time.Time { return time.Unix(1, 0) }
