package vnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv/internal/task"
)

// connect returns both ends of a connection; the far one is what the listener accepted.
func connect(t *testing.T, n *Network, l net.Listener) (near, far net.Conn) {
	t.Helper()
	near, err := n.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func listen(t *testing.T, n *Network, addr string) net.Listener {
	t.Helper()
	l, err := n.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		if _, err := n.Dial(t.Context(), "a"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		l := listen(t, n, "a")
		if _, err := n.Listen("a"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		near, far := connect(t, n, l)
		if near.RemoteAddr().String() != "a" || far.LocalAddr().String() != "a" || near.LocalAddr().String() != far.RemoteAddr().String() {
			t.Fatal(near.RemoteAddr(), far.LocalAddr(), near.LocalAddr(), far.RemoteAddr())
		}
		waiting, err := n.Dial(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := waiting.Read(make([]byte, 1)); err == nil {
			t.Fatal("a connection that nobody accepted outlives its listener")
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if _, err := n.Dial(t.Context(), "a"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		if _, err := near.Write([]byte("x")); err != nil {
			t.Fatal("connections outlive the listener:", err)
		}
		again := listen(t, n, "a")
		defer again.Close()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := n.Dial(ended, "a"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

// Bytes arrive whole and in order, though there are more than a direction buffers.
func TestConnCarriesMoreThanItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l := listen(t, n, "a")
		defer l.Close()
		near, far := connect(t, n, l)
		sent := make([]byte, 5*window/2)
		for i := range sent {
			sent[i] = byte(i * 31 >> 3)
		}
		tasks := task.New(t.Context())
		tasks.Go("write", func(context.Context) {
			for b := sent; len(b) > 0; {
				part := b[:min(len(b), 100_003)]
				if k, err := near.Write(part); k != len(part) || err != nil {
					t.Error(k, err)
				}
				b = b[len(part):]
			}
			_ = near.Close()
		})
		synctest.Wait() // the writer waits: the window is full
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatal(len(got), err)
		}
		tasks.Close(nil)
		if _, err := far.Write([]byte("x")); err == nil {
			t.Fatal("written to a closed connection")
		}
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l := listen(t, n, "a")
		defer l.Close()
		near, far := connect(t, n, l)
		defer near.Close()
		defer far.Close()
		b := make([]byte, window+1)
		for name, f := range map[string]func() error{
			"read": func() error {
				_ = near.SetReadDeadline(time.Now().Add(time.Second))
				_, err := near.Read(b)
				return err
			},
			"write": func() error {
				_ = near.SetWriteDeadline(time.Now().Add(time.Second))
				_, err := near.Write(b)
				return err
			},
		} {
			if began, err := time.Now(), f(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
				t.Fatal(name, err, time.Since(began))
			}
		}
		if err := near.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if k, err := near.Read(b); k != 1 || err != nil {
			t.Fatal(k, err)
		}
	})
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		g := NewGate(listen(t, n, "a"))
		defer g.Close()
		near, far := connect(t, n, g)
		other, far2 := connect(t, n, g)
		g.Pause()
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		var got []byte
		tasks.Go("read", func(context.Context) {
			b := make([]byte, 10)
			k, err := far.Read(b)
			if err != nil {
				t.Error(err)
			}
			got = b[:k]
		})
		tasks.Go("write", func(context.Context) {
			if _, err := far.Write([]byte("back")); err != nil {
				t.Error(err)
			}
		})
		if _, err := near.Write([]byte("there")); err != nil {
			t.Fatal(err)
		}
		// The server may close a connection; the other side sees it after Resume.
		if err := far2.Close(); err != nil {
			t.Fatal(err)
		}
		_ = other.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := other.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if got != nil || len(tasks.Running()) != 2 {
			t.Fatal("something passed a closed gate:", got, tasks.Running())
		}
		g.Resume()
		back := make([]byte, 10)
		if k, err := near.Read(back); string(back[:k]) != "back" || err != nil {
			t.Fatal(k, err)
		}
		synctest.Wait()
		if string(got) != "there" {
			t.Fatal(got)
		}
		_ = other.SetReadDeadline(time.Time{})
		if _, err := other.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if g.Conns() != 1 {
			t.Fatal(g.Conns())
		}
		g.Disconnect(near.LocalAddr().String())
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || g.Conns() != 0 {
			t.Fatal(err, g.Conns())
		}
	})
}
