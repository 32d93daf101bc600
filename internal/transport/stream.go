package transport

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stream is one stream of batched commands. Its owner writes it, its reader reads it.
type stream struct {
	endpoint *endpoint
	grpc     grpc.ClientStream
	cancel   context.CancelCauseFunc
	ended    chan struct{} // closed when the reader has ended

	// The owner's: what take made last.
	parts []*[]byte
	frame []uint64

	// Under the endpoint's mutex.
	calls map[uint64]*call // in the frame being written, or without an answer
	err   error            // why the stream ended; nil: it has not
}

const batchMethod = service + "BatchCommands"

// open opens a stream and starts its reader. It waits for a connection no longer than
// one attempt to make one.
func (e *endpoint) open() (*stream, *Error) {
	ctx, cancel := context.WithCancelCause(e.ctx)
	late := time.AfterFunc(e.pool.cfg.DialTimeout, func() { cancel(errDialTimeout) })
	g, err := e.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, batchMethod)
	late.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(err)
		e.pool.cfg.Logger.Debug("no stream", "addr", e.addr, "err", err)
		return nil, e.failure(Dial, false, err)
	}
	s := &stream{
		endpoint: e, grpc: g, cancel: cancel,
		ended: make(chan struct{}), calls: make(map[uint64]*call),
	}
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
	for _, id := range s.frame {
		switch c := s.calls[id]; {
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
	err := &Error{Addr: e.addr, Kind: streamKind(s.err), Sent: wasSent, Err: s.err}
	if e.over != nil {
		err.Kind, err.Err = e.over.Kind, e.over.Err
	}
	c.finish(nil, err)
}

// read is the reader: it hands out answers until the stream ends, then fails the calls
// that wait for one.
func (s *stream) read(context.Context) {
	defer close(s.ended)
	err := s.receive()
	s.cancel(err)
	e := s.endpoint
	e.mu.Lock()
	s.err = err
	if e.stream == s {
		e.stream = nil
	}
	lost := 0
	for _, c := range s.calls {
		if c.state == sent { // one that is writing is the owner's to judge
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

var (
	errBadFrame = errors.New("frame with unequal numbers of answers and ids")
	errNoAnswer = errors.New("answer without a result, or with that of another command")
)

// receive reads frames until the stream ends.
func (s *stream) receive() error {
	var f tikvpb.BatchCommandsResponse
	for {
		clear(f.Responses)
		f = tikvpb.BatchCommandsResponse{Responses: f.Responses[:0], RequestIds: f.RequestIds[:0]}
		if err := s.grpc.RecvMsg(&f); err != nil {
			return err
		}
		if len(f.Responses) != len(f.RequestIds) {
			return errBadFrame
		}
		s.deliver(&f)
	}
}

// deliver gives the answers of a frame to their calls. One whose call is gone, or that
// the server made up, is nobody's.
func (s *stream) deliver(f *tikvpb.BatchCommandsResponse) {
	e := s.endpoint
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, id := range f.RequestIds {
		c := s.calls[id]
		if c == nil {
			continue
		}
		e.forget(c)
		if resp := c.cmd.unwrap(f.Responses[i]); resp != nil {
			c.finish(resp, nil)
		} else {
			c.finish(nil, &Error{Addr: e.addr, Kind: Refused, Sent: true, Err: errNoAnswer})
		}
	}
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
