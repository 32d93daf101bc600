package vnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes one direction of a connection buffers.
const window = 1 << 20

// pair returns the two ends of a connection.
func pair(near, far net.Addr) (net.Conn, net.Conn) {
	there, back := newPipe(), newPipe()
	return &conn{in: back, out: there, local: near, remote: far}, &conn{in: there, out: back, local: far, remote: near}
}

type conn struct {
	in, out       *pipe
	local, remote net.Addr
}

func (c *conn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// Close ends both directions: the other end reads what is buffered, then io.EOF.
func (c *conn) Close() error {
	c.out.closeWriter()
	c.in.closeReader()
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.in.reader.set(c.in, t)
	c.out.writer.set(c.out, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.reader.set(c.in, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.writer.set(c.out, t)
	return nil
}

// pipe is one direction of a connection.
type pipe struct {
	mu             sync.Mutex
	changed        *sync.Cond
	buf            []byte
	head           int // of what was not read yet
	noMore         bool
	gone           bool
	reader, writer deadline
}

func newPipe() *pipe {
	p := new(pipe)
	p.changed = sync.NewCond(&p.mu)
	return p
}

// deadline ends the waits of one side of a pipe; the pipe's lock guards it.
type deadline struct {
	timer *time.Timer
	at    time.Time
}

func (d *deadline) set(p *pipe, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	// One that has passed needs no timer: docs/testing.md says what those do that are due at once.
	if left := time.Until(t); !t.IsZero() && left > 0 && !p.gone && !p.noMore {
		d.timer = time.AfterFunc(left, func() {
			p.mu.Lock()
			p.changed.Broadcast()
			p.mu.Unlock()
		})
	}
	p.changed.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.gone:
			return 0, net.ErrClosed
		case len(b) == 0:
			return 0, nil
		case p.head < len(p.buf):
			n := copy(b, p.buf[p.head:])
			if p.head += n; p.head == len(p.buf) {
				p.buf, p.head = p.buf[:0], 0
			}
			p.changed.Broadcast()
			return n, nil
		case p.noMore:
			return 0, io.EOF
		case p.reader.passed():
			return 0, os.ErrDeadlineExceeded
		}
		p.changed.Wait()
	}
}

func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.noMore:
			return n, net.ErrClosed
		case p.gone:
			return n, syscall.EPIPE
		case len(b) == 0:
			return n, nil
		case p.writer.passed():
			return n, os.ErrDeadlineExceeded
		}
		if free := window - (len(p.buf) - p.head); free > 0 {
			if p.head > 0 && len(p.buf)+len(b) > cap(p.buf) {
				p.buf = p.buf[:copy(p.buf, p.buf[p.head:])]
				p.head = 0
			}
			part := b[:min(free, len(b))]
			p.buf = append(p.buf, part...)
			b = b[len(part):]
			n += len(part)
			p.changed.Broadcast()
			continue
		}
		p.changed.Wait()
	}
}

func (p *pipe) closeWriter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noMore = true
	p.stopTimers()
}

func (p *pipe) closeReader() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	p.buf, p.head = nil, 0
	p.stopTimers()
}

func (p *pipe) stopTimers() {
	for _, d := range []*deadline{&p.reader, &p.writer} {
		if d.timer != nil {
			d.timer.Stop()
			d.timer = nil
		}
	}
	p.changed.Broadcast()
}
