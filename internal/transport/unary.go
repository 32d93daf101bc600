package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// invoke sends req in a call of its own, and decodes the answer.
func (e *endpoint) invoke(ctx context.Context, cmd *command, req Message, resp Decoder, timeout time.Duration) error {
	data, err := req.Marshal()
	if err != nil {
		return &Error{Addr: e.addr, Kind: Refused, Err: err}
	}
	return e.attempt(ctx, timeout, func(ctx context.Context) error {
		in, err := e.exchange(ctx, cmd, data)
		if err != nil {
			return err
		}
		defer in.data.Free()
		body := in.data.ReadOnlyData()
		if cmd.shares {
			body = bytes.Clone(body)
		}
		if err := resp.Unmarshal(body); err != nil {
			return &Error{Addr: e.addr, Kind: Refused, Sent: true, Err: err}
		}
		return nil
	})
}

// attempt runs f with a time of its own (0: none). Where that ends before ctx, the end
// is told from that of ctx.
func (e *endpoint) attempt(ctx context.Context, timeout time.Duration, f func(context.Context) error) error {
	deadline, bounded := ctx.Deadline()
	if timeout <= 0 || bounded && time.Until(deadline) <= timeout {
		return f(ctx)
	}
	attempt, cancel := context.WithTimeoutCause(ctx, timeout, ErrNoAnswer)
	defer cancel()
	err := f(attempt)
	if failed, ok := err.(*Error); ok && failed.Kind == Timeout && ctx.Err() == nil {
		failed.Kind, failed.Err = Expired, ErrNoAnswer
	}
	return err
}

// exchange sends an encoded request in a call of its own and returns the answer. It is
// grpc's Invoke in its three steps, because the step that fails tells whether the server
// can have seen the request.
func (e *endpoint) exchange(ctx context.Context, cmd *command, data []byte) (in received, err error) {
	gctx, cancel := context.WithCancel(e.outgoing(ctx))
	defer cancel() // grpc asks for it, where a stream is left before its end
	s, err := e.conn.NewStream(gctx, &grpc.StreamDesc{ClientStreams: true}, cmd.method)
	if err != nil {
		return in, e.callFailure(ctx, Dial, false, err)
	}
	if err := s.SendMsg(&frame{mem.BufferSlice{mem.SliceBuffer(data)}}); err != nil {
		if errors.Is(err, io.EOF) { // the reason is for the receiver
			if err = s.RecvMsg(&in); err == nil {
				in.data.Free()
				err = io.ErrUnexpectedEOF
			}
		}
		return in, e.callFailure(ctx, callKind(err), false, err)
	}
	if err = s.CloseSend(); err == nil {
		err = s.RecvMsg(&in)
	}
	if err != nil {
		return in, e.callFailure(ctx, callKind(err), true, err)
	}
	return in, nil
}

// callFailure is failure, but for a caller's context that has ended.
func (e *endpoint) callFailure(ctx context.Context, kind Kind, wasSent bool, err error) *Error {
	if ctx.Err() != nil {
		return &Error{Addr: e.addr, Kind: Timeout, Sent: wasSent, Err: context.Cause(ctx)}
	}
	// The server's clock may be ahead of ours by a moment: grpc sends it the deadline, and ends
	// the call there by cancelling it too (internal/transport/http2_server.go, operateHeaders),
	// so that its handler may have met either.
	if d, ok := ctx.Deadline(); ok {
		code := status.Code(err)
		if code == codes.DeadlineExceeded || code == codes.Canceled && !time.Now().Before(d) {
			return &Error{Addr: e.addr, Kind: Timeout, Sent: wasSent, Err: context.DeadlineExceeded}
		}
	}
	return e.failure(kind, wasSent, err)
}

// callKind tells an answer that is an error from a connection that broke. TiKV fails a
// call that ends in an internal error with UNKNOWN (src/server/service/kv.rs).
func callKind(err error) Kind {
	switch status.Code(err) {
	case codes.OK, codes.Unavailable, codes.Canceled, codes.Internal, codes.Aborted, codes.DeadlineExceeded:
		return ConnLost
	}
	return Refused
}

// health asks for the state of the whole server.
func (e *endpoint) health(ctx context.Context) error {
	resp, err := healthpb.NewHealthClient(e.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		kind := callKind(err)
		if status.Code(err) == codes.Unavailable {
			kind = Dial
		}
		return e.callFailure(ctx, kind, kind != Dial, err)
	}
	if s := resp.GetStatus(); s != healthpb.HealthCheckResponse_SERVING {
		return &Error{Addr: e.addr, Kind: Refused, Sent: true, Err: fmt.Errorf("health: %s", s)}
	}
	return nil
}
