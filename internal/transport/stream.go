package transport

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/wire"
)

// stream is one stream of batched commands. Its owner writes it, its reader reads it.
type stream struct {
	endpoint *endpoint
	grpc     grpc.ClientStream
	cancel   context.CancelCauseFunc
	ended    chan struct{} // closed when the reader has ended

	ids    []uint64 // the owner's: of the frame that take made last
	copied int      // and its size, about
	woken  []*call  // the reader's: answered by the last frame
	heard  bool     // the reader's: there was a frame

	// Under the endpoint's mutex.
	calls table // in the frame being written, or without an answer
	err   error // why the stream ended; nil: it has not
}

const batchMethod = service + "BatchCommands"

// open opens a stream and starts its reader. It waits for a connection no longer than
// one attempt to make one.
func (e *endpoint) open() (*stream, *Error) {
	if e.isAlone() {
		return nil, &Error{Addr: e.addr, Kind: ConnLost, Err: errUnbatched}
	}
	ctx, cancel := context.WithCancelCause(e.ctx)
	late := time.AfterFunc(e.pool.cfg.DialTimeout+tick, func() { cancel(errDialTimeout) }) // the dial's own end tells more
	g, err := e.conn.NewStream(e.outgoing(ctx), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, batchMethod)
	late.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(err)
		e.pool.cfg.Logger.Debug("no stream", "addr", e.addr, "err", err)
		return nil, e.failure(Dial, false, err)
	}
	s := &stream{endpoint: e, grpc: g, cancel: cancel, ended: make(chan struct{})}
	if !e.pool.tasks.Go("transport reader", s.read) {
		cancel(ErrClosed)
		return nil, e.failure(Closed, false, ErrClosed)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.err == nil {
		e.stream = s
	}
	return s, nil
}

// written takes note that the frame's write returned err: its calls were sent, or
// certainly not (grpc hands a message to the connection whole or not at all).
func (s *stream) written(err error) {
	if err != nil {
		if !errors.Is(err, io.EOF) { // which says that the stream has ended
			s.cancel(err)
		}
		<-s.ended // then s.err says why
	}
	e := s.endpoint
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range s.ids {
		switch c := s.calls.find(id); {
		case c == nil: // answered or withdrawn by now
		case s.err != nil:
			s.fail(c, err == nil)
		default:
			c.state = sent
		}
	}
}

// fail ends c, which has no answer, after the stream ended; the endpoint's mutex is
// held.
func (s *stream) fail(c *call, wasSent bool) {
	e := s.endpoint
	e.forget(c)
	err := &Error{Addr: e.addr, Kind: s.kind(), Sent: wasSent && s.err != errUnbatched, Err: s.err}
	if e.over != nil {
		err.Kind, err.Err = e.over.Kind, e.over.Err
	}
	c.fail(err)
}

// read is the reader: it hands out answers until the stream ends, then fails the calls
// that wait for one.
func (s *stream) read(context.Context) {
	defer close(s.ended)
	err := s.refused(s.receive())
	s.cancel(err)
	e := s.endpoint
	e.mu.Lock()
	s.err = err
	if e.stream == s {
		e.stream = nil
	}
	lost := 0
	for _, c := range s.calls.places {
		if c != nil && c.state == sent { // one that is writing is the owner's to judge
			s.fail(c, true)
			lost++
		}
	}
	over := e.over != nil
	e.mu.Unlock()
	if !over {
		e.pool.cfg.Logger.Warn("stream ended", "addr", e.addr, "lost", lost, "err", err)
	}
}

var errNoAnswer = errors.New("answer without a result, or with that of another command")

// receive reads frames until the stream ends.
func (s *stream) receive() error {
	var f received
	var r wire.Response
	for {
		if err := s.grpc.RecvMsg(&f); err != nil {
			return err
		}
		s.heard = true
		err := r.Parse(f.data.ReadOnlyData())
		if err == nil {
			s.deliver(&r, f.data)
			if r.Health != nil {
				s.endpoint.pool.hear(r.Health)
			}
		}
		f.data.Free()
		if err != nil {
			return err
		}
	}
}

// deliver hands the answers of a frame to their calls, each with a reference to its
// bytes. One whose call is gone, or that the server made up, is nobody's.
func (s *stream) deliver(r *wire.Response, data mem.Buffer) {
	e := s.endpoint
	woken := s.woken[:0]
	e.mu.Lock()
	for i, id := range r.IDs {
		c := s.calls.find(id)
		if c == nil {
			continue
		}
		e.forget(c)
		c.state, c.answer = done, r.Answers[i]
		woken = append(woken, c)
	}
	e.count()
	e.mu.Unlock()
	e.woken.Store(int32(len(woken)))
	for _, c := range woken { // nobody else touches them: they are done and have no token
		data.Ref()
		c.frame = data
		c.ready <- struct{}{}
	}
	clear(woken)
	s.woken = woken
}

// kind is that of the stream's end. Where there were answers, it has broken, whatever the
// server says of it: what has no answer may have run as well as what has one.
func (s *stream) kind() Kind {
	if s.heard {
		return ConnLost
	}
	return streamKind(s.err)
}

// streamKind tells a server that ended the stream on purpose (a wrong cluster id, a
// client it does not let in, no such method) from a stream that broke.
func streamKind(err error) Kind {
	if errors.Is(err, io.EOF) {
		return ConnLost
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.Unimplemented, codes.PermissionDenied,
		codes.Unauthenticated, codes.FailedPrecondition:
		return Refused
	}
	return ConnLost
}
