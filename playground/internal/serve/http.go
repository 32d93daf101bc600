package serve

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"

	"github.com/tikv-go/tikv/internal/task"
)

// fork stands between a listener and gRPC. A connection that begins as HTTP/1 does is
// served here, request by request; all others pass on.
type fork struct {
	net.Listener
	tasks   *task.Group
	handler http.Handler
	others  chan net.Conn
	failed  chan struct{} // closed once err is why no more come
	err     error
}

func newFork(l net.Listener, tasks *task.Group, h http.Handler) *fork {
	return &fork{Listener: l, tasks: tasks, handler: h, others: make(chan net.Conn), failed: make(chan struct{})}
}

// Accept returns the next connection for gRPC.
func (f *fork) Accept() (net.Conn, error) {
	select {
	case c := <-f.others:
		return c, nil
	case <-f.failed:
		return nil, f.err
	}
}

// run takes the listener's connections until it is closed.
func (f *fork) run(context.Context) {
	defer close(f.failed)
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			f.err = err
			return
		}
		if !f.tasks.Go("connection", func(ctx context.Context) { f.sort(ctx, c) }) {
			_ = c.Close()
		}
	}
}

// sort looks at what a connection begins with.
func (f *fork) sort(ctx context.Context, c net.Conn) {
	keep := context.AfterFunc(ctx, func() { _ = c.Close() })
	head := make([]byte, len("GET "))
	if _, err := io.ReadFull(c, head); err != nil {
		_ = c.Close()
		return
	}
	if isHTTP(head) {
		f.serve(ctx, c, head)
		_ = c.Close()
		return
	}
	if !keep() {
		return // closed, or about to be
	}
	select {
	case f.others <- &begun{Conn: c, head: head}:
	case <-f.failed:
		_ = c.Close()
	}
}

// isHTTP knows the methods of HTTP/1; HTTP/2 begins with PRI, TLS with a byte of its own.
func isHTTP(head []byte) bool {
	switch string(head) {
	case "GET ", "POST", "PUT ", "DELE", "HEAD", "PATC", "OPTI":
		return true
	}
	return false
}

// begun is a connection of which the first bytes were read.
type begun struct {
	net.Conn
	head []byte
}

// Read returns those first.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.head) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.head)
	b.head = b.head[n:]
	return n, nil
}

// serve answers one request after the other.
func (f *fork) serve(ctx context.Context, c net.Conn, head []byte) {
	in := bufio.NewReader(io.MultiReader(bytes.NewReader(head), c))
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		w := &answer{header: make(http.Header)}
		f.handler.ServeHTTP(w, req.WithContext(ctx))
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if err := w.response(req).Write(c); err != nil || req.Close {
			return
		}
	}
}

// answer collects what a handler writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header is that of the answer.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader sets the status, once.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write adds to the body.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

func (a *answer) response(req *http.Request) *http.Response {
	a.WriteHeader(http.StatusOK)
	return &http.Response{
		StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, Request: req, Close: req.Close,
		Header: a.header, ContentLength: int64(a.body.Len()), Body: io.NopCloser(&a.body),
	}
}
