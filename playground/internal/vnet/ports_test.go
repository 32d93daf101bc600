//go:build unix

package vnet

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// A port that was let go refuses connections and is given to nobody else, until its owner
// listens again or all is closed.
func TestPorts(t *testing.T) {
	p := NewPorts()
	defer p.Close()
	l, err := p.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	// stranger is given only what nobody has, as any port for 0 is.
	stranger := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
		}), err)
	}}
	for range 3 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		served, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Fatal(err)
			}
		}
		if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal("a port that is only kept:", err)
		}
		if s, err := stranger.Listen(t.Context(), "tcp", addr); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal("a stranger is given a port that is kept:", s, err)
		}
		if l, err = p.Listen(addr); err != nil {
			t.Fatal("its owner:", err)
		}
		if len(p.kept) != 0 {
			t.Fatal(p.kept)
		}
		if _, err := p.Listen(addr); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal("it is listened on twice:", err)
		}
		conn.Close()
		served.Close()
	}
	if err := l.Close(); err != nil || len(p.kept) != 1 {
		t.Fatal(err, p.kept)
	}
	p.Close()
	if l, err = p.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil || len(p.kept) != 0 {
		t.Fatal(err, p.kept)
	}
}
