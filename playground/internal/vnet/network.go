// Package vnet is the network under an embedded cluster: listeners and connections in
// memory, and gates that stop, pause and break what passes through any listener. Its
// waits are channels, timers and condition variables, so that a testing/synctest bubble
// sees them as durable.
package vnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// Network is a set of listeners in memory, found by address.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	dialled   int
}

// New returns a network without listeners.
func New() *Network { return &Network{listeners: make(map[string]*listener)} }

// addr is a name on a Network.
type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }

// backlog is how many dialled connections may wait for Accept.
const backlog = 128

// Listen claims address, which may be any text.
func (n *Network) Listen(address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Addr: addr(address), Err: syscall.EADDRINUSE}
	}
	l := &listener{network: n, addr: addr(address), queue: make(chan net.Conn, backlog), closed: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

// Dial connects to the listener at address; it is refused where there is none.
func (n *Network) Dial(ctx context.Context, address string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: addr(address), Err: err}
	}
	if err := context.Cause(ctx); err != nil {
		return fail(err)
	}
	n.mu.Lock()
	l := n.listeners[address]
	n.dialled++
	from := addr(fmt.Sprintf("client-%d", n.dialled))
	n.mu.Unlock()
	if l == nil {
		return fail(syscall.ECONNREFUSED)
	}
	near, far := pair(from, l.addr)
	select {
	case l.queue <- far:
	case <-l.closed:
		return fail(syscall.ECONNREFUSED)
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
	select {
	case <-l.closed: // the queue is drained by Close, perhaps before it got far
		_ = far.Close()
	default:
	}
	return near, nil
}

type listener struct {
	network *Network
	addr    addr
	queue   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "memory", Addr: l.addr, Err: net.ErrClosed}
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "memory", Addr: l.addr, Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		delete(l.network.listeners, string(l.addr))
		l.network.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.queue:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }
