package vnet

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// Ports listens on TCP. A port that was let go is kept until Close: who dials it is
// refused, and no other process is given it, so that a node that stopped finds its own
// port when it starts again, and nobody takes a stranger for it meanwhile.
type Ports struct {
	mu     sync.Mutex
	kept   map[string]io.Closer // by address
	closed bool
}

// NewPorts returns a Ports that keeps nothing yet.
func NewPorts() *Ports { return &Ports{kept: make(map[string]io.Closer)} }

// Listen claims an address, one that is kept too.
func (p *Ports) Listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) && p.free(address) { // where a port that is kept is in use
		l, err = net.Listen("tcp", address)
	}
	if err != nil {
		return nil, err
	}
	p.free(address)
	return &port{Listener: l, ports: p}, nil
}

// Close lets go of all that is kept, and of what is closed later at once.
func (p *Ports) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for address, c := range p.kept {
		_ = c.Close()
		delete(p.kept, address)
	}
}

// free ends the keeping of an address.
func (p *Ports) free(address string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.kept[address]
	if c == nil {
		return false
	}
	delete(p.kept, address)
	_ = c.Close()
	return true
}

// keep begins it, as well as the system can.
func (p *Ports) keep(address net.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := address.(*net.TCPAddr)
	if !ok || p.closed {
		return
	}
	if c, err := reserve(at); err == nil {
		p.kept[at.String()] = c
	}
}

// port is a listener whose port is kept when it is closed.
type port struct {
	net.Listener
	ports *Ports
	once  sync.Once
}

func (l *port) Close() error {
	err := l.Listener.Close()
	l.once.Do(func() { l.ports.keep(l.Addr()) })
	return err
}
