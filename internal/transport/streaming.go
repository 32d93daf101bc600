package transport

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// DefaultStreamIdle is how long a streaming call waits for a message if its target does
// not say: TiKV sends resolved timestamps every second, and answers a request of the
// coprocessor in a minute (client-go internal/client/client.go, ReadTimeoutMedium).
const DefaultStreamIdle = time.Minute

// ErrIdle is the cause of errors of a streaming call on which no message came in time.
var ErrIdle = errors.New("no message in time on a stream")

// Stream is a call that is a stream of messages: coprocessor, MPP, the change feed. It
// is a grpc.ClientStream, so that kvproto's generated types fit around it. One goroutine
// may send while another receives.
//
// It ends with an error or io.EOF from RecvMsg, with its context, with Close, and with
// its address or pool; whoever leaves it before it has ended must call Close.
type Stream struct {
	grpc.ClientStream
	e      *endpoint
	caller context.Context
	cancel context.CancelCauseFunc
	idle   time.Duration
	lease  *time.Timer
	sent   atomic.Bool

	mu    sync.Mutex
	until time.Time // when the message that is waited for must be there; zero: none is
}

// Stream opens a streaming call to a method by its full name ("/tikvpb.Tikv/…"). It
// waits for a connection no longer than one attempt to make one. to.Timeout bounds each
// wait for a message (0: DefaultStreamIdle), and the time between messages is nobody's
// while RecvMsg is not called. No store passes on streaming calls: a target with a
// Forward is refused. Every error is an *Error.
func (p *Pool) Stream(ctx context.Context, to Target, desc *grpc.StreamDesc, method string) (*Stream, error) {
	if ctx.Err() != nil {
		return nil, &Error{Addr: to.Addr, Kind: Timeout, Err: context.Cause(ctx)}
	}
	if to.Forward != "" {
		return nil, &Error{Addr: to.Addr, Kind: Refused, Err: ErrNotForwarded}
	}
	e, err := p.endpoint(to)
	if err != nil {
		return nil, err
	}
	s := &Stream{e: e, caller: ctx, idle: to.Timeout}
	if s.idle <= 0 {
		s.idle = DefaultStreamIdle
	}
	gctx, cancel := context.WithCancelCause(ctx)
	s.cancel = cancel
	late := time.AfterFunc(p.cfg.DialTimeout+tick, func() { cancel(errDialTimeout) })
	s.ClientStream, err = e.conn.NewStream(gctx, desc, method)
	late.Stop()
	if err == nil && gctx.Err() != nil { // late came with the stream
		err = context.Cause(gctx)
	}
	if err != nil {
		if errors.Is(context.Cause(gctx), errDialTimeout) {
			err = errDialTimeout
		}
		cancel(err)
		return nil, e.callFailure(ctx, Dial, false, err)
	}
	s.lease = time.AfterFunc(s.idle, s.expire)
	s.lease.Stop()
	return s, nil
}

// expire ends the stream if it has waited for a message long enough.
func (s *Stream) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.until.IsZero() && !time.Now().Before(s.until) {
		s.cancel(ErrIdle)
	}
}

// wait starts and ends the lease.
func (s *Stream) wait(begins bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !begins {
		s.until = time.Time{}
		s.lease.Stop()
		return
	}
	s.until = time.Now().Add(s.idle)
	s.lease.Reset(s.idle)
}

// SendMsg sends a message. It is io.EOF when the stream has ended: RecvMsg tells why.
func (s *Stream) SendMsg(m any) error {
	s.sent.Store(true)
	err := s.ClientStream.SendMsg(m)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return s.failure(err)
}

// RecvMsg decodes the next message into m. It is io.EOF at the regular end of the
// stream; any other error is an *Error: Expired when no message came in time.
func (s *Stream) RecvMsg(m any) error {
	s.wait(true)
	err := s.ClientStream.RecvMsg(m)
	s.wait(false)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
	default:
		err = s.failure(err)
	}
	s.cancel(err) // frees what it has of the caller's context
	return err
}

// Close ends the stream, whatever it waits for. It may be called again, and at any time.
func (s *Stream) Close() { s.cancel(errLeft) }

var errLeft = errors.New("stream closed by its user")

func (s *Stream) failure(err error) *Error {
	sent, kind := s.sent.Load(), callKind(err)
	if s.caller.Err() == nil {
		switch context.Cause(s.Context()) {
		case ErrIdle:
			return &Error{Addr: s.e.addr, Kind: Expired, Sent: sent, Err: ErrIdle}
		case errLeft:
			kind, err = ConnLost, errLeft
		}
	}
	return s.e.callFailure(s.caller, kind, sent, err)
}
