package tikv

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/transport"
)

// CallStream is Call for a method that answers with a stream. The stream lives as long
// as the loop; it is begun again only while nothing has been yielded: a lock that the
// stream met behind its first message is in the last one. Each message is waited for at
// most a minute, or WithRPCTimeout.
func CallStream[Req, Resp any, S interface{ Recv() (*Resp, error) }](ctx context.Context, v *RPC, to Target,
	method func(tikvpb.TikvClient, context.Context, *Req, ...grpc.CallOption) (S, error), req *Req) iter.Seq2[*Resp, error] {
	const op = "CallStream"
	return func(yield func(*Resp, error) bool) {
		if method == nil || req == nil {
			yield(nil, errNilCall(op, method == nil))
			return
		}
		name, traits, err := methodOf(op, true, func(c tikvpb.TikvClient) { _, _ = method(c, ctx, req) })
		if err != nil {
			yield(nil, err)
			return
		}
		s := &streaming[Resp]{}
		a, err := v.begin(op, name, traits, to, req, s)
		if err != nil {
			yield(nil, err)
			return
		}
		s.open = func(ctx context.Context, at *stub) (receiver[Resp], error) { return method(at, ctx, any(a.req).(*Req)) }
		s.run(ctx, a, yield)
	}
}

type receiver[Resp any] interface{ Recv() (*Resp, error) }

// streaming is a call whose answers are a stream. It is the router's Answer: that of the
// first message.
type streaming[Resp any] struct {
	open   func(context.Context, *stub) (receiver[Resp], error)
	at     *stub
	stream receiver[Resp]
	first  *Resp // nil: the stream has ended before it
}

// run yields the messages of the stream.
func (s *streaming[Resp]) run(ctx context.Context, a *asking, yield func(*Resp, error) bool) {
	// The end of the client ends it too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.v.c.engine.router.Closing(), func() { cancel(router.ErrClosed) })()
	defer s.Reset()
	a.call.Timeout = transport.DefaultStreamIdle
	a.call.Exchange = func(ctx context.Context, to transport.Target, _ transport.Message, _ transport.Decoder) error {
		return s.exchange(ctx, a, to)
	}
	if err := a.ask(ctx); err != nil {
		yield(nil, a.fail(err))
		return
	}
	for m := s.first; m != nil; {
		if !yield(m, nil) {
			return
		}
		var err error
		if m, err = s.next(ctx, a); err != nil {
			yield(nil, a.fail(err))
			return
		}
	}
}

// next returns the next message, nil at the end of the stream.
func (s *streaming[Resp]) next(ctx context.Context, a *asking) (*Resp, error) {
	m, err := s.stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, router.Broken(ctx, &a.call, err)
	}
	if e := regionError(m); e != nil {
		if _, ok := a.to.(storeTarget); !ok {
			return nil, router.BrokenAt(ctx, &a.call, e)
		}
	}
	return m, a.decode(m)
}

// exchange begins the stream and takes its first message.
func (s *streaming[Resp]) exchange(ctx context.Context, a *asking, to transport.Target) error {
	if c := a.context(); c != nil { // of the whole stream: to.Timeout is that of a message
		c.MaxExecutionDurationMs = 0
		if deadline, ok := ctx.Deadline(); ok {
			c.MaxExecutionDurationMs = uint64(max(1, time.Until(deadline).Milliseconds()))
		}
	}
	s.at = &stub{pool: a.v.c.engine.pool, to: to}
	var err error
	if s.stream, err = s.open(ctx, s.at); err == nil {
		s.first, err = s.stream.Recv()
	} else if errors.Is(err, io.EOF) && s.at.opened != nil { // the reason is for the receiver
		err = s.at.opened.RecvMsg(&kvrpcpb.Context{})
	}
	if errors.Is(err, io.EOF) {
		s.first, err = nil, nil
	}
	return err
}

func (s *streaming[Resp]) message() any {
	if s.first == nil {
		return nil
	}
	return s.first
}

// Unmarshal implements router.Answer: the stream decodes its messages itself.
func (s *streaming[Resp]) Unmarshal([]byte) error { return nil }

// Reset implements router.Answer: it leaves the stream.
func (s *streaming[Resp]) Reset() {
	if s.at != nil && s.at.opened != nil {
		s.at.opened.Close()
	}
	s.at, s.stream, s.first = nil, nil, nil
}

// GetRegionError is the first message's.
func (s *streaming[Resp]) GetRegionError() *errorpb.Error {
	if s.first == nil {
		return nil
	}
	return regionError(s.first)
}

func regionError(m any) *errorpb.Error {
	if r, ok := m.(interface{ GetRegionError() *errorpb.Error }); ok {
		return r.GetRegionError()
	}
	return nil
}
