package tikv

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"
)

// pdOptions are options of connections to PD by which hooks see the requests on them; nil
// if nobody looks.
func (w *watch) pdOptions() []grpc.DialOption {
	if len(w.rpc) == 0 {
		return nil
	}
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(w.unaryPD), grpc.WithChainStreamInterceptor(w.streamPD)}
}

// pdRequest is a request to PD under the eyes of hooks.
type pdRequest struct {
	watch *watch
	ctx   context.Context
	info  CallInfo
	began time.Time
}

// startPD tells of a request by its full method ("/pdpb.PD/GetRegion").
func (w *watch) startPD(ctx context.Context, cc *grpc.ClientConn, method string, req any) *pdRequest {
	r := &pdRequest{watch: w, began: time.Now(), info: CallInfo{
		Method: Method(method[strings.LastIndexByte(method, '/')+1:]), Addr: strings.TrimPrefix(cc.Target(), "passthrough:///"), RequestBytes: sizeOf(req),
	}}
	r.info.Call.Deadline, _ = ctx.Deadline()
	r.ctx = w.startRPC(ctx, r.info)
	return r
}

// end tells what came of it. PD's own errors are in the header of an answer.
func (r *pdRequest) end(resp any, err error) {
	res := CallResult{Elapsed: time.Since(r.began)}
	if err == nil {
		res.ResponseBytes = sizeOf(resp)
		if a, ok := resp.(interface{ GetHeader() *pdpb.ResponseHeader }); ok && a.GetHeader().GetError().GetType() != pdpb.ErrorType_OK {
			err = errors.New(a.GetHeader().GetError().GetType().String() + ": " + a.GetHeader().GetError().GetMessage())
		}
	}
	if err != nil {
		res.Reason, res.Err = ReasonPD, public(err)
	}
	r.watch.endRPC(r.ctx, r.info, res)
}

func sizeOf(m any) int {
	if s, ok := m.(interface{ Size() int }); ok {
		return s.Size()
	}
	return 0
}

// unaryPD is a grpc.UnaryClientInterceptor.
func (w *watch) unaryPD(ctx context.Context, method string, req, resp any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	r := w.startPD(ctx, cc, method, req)
	err := next(r.ctx, method, req, resp, cc, opts...)
	r.end(resp, err)
	return err
}

// streamPD is a grpc.StreamClientInterceptor. PD answers each message on the streams that
// the client uses, in order.
func (w *watch) streamPD(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := next(ctx, desc, cc, method, opts...)
	if err != nil || !desc.ClientStreams || !desc.ServerStreams {
		return s, err
	}
	return &pdStream{ClientStream: s, start: func(req any) *pdRequest { return w.startPD(ctx, cc, method, req) }}, nil
}

// pdStream is a stream of PD's under the eyes of hooks. One goroutine sends while another
// receives.
type pdStream struct {
	grpc.ClientStream
	start func(req any) *pdRequest

	mu   sync.Mutex
	sent []*pdRequest // without an answer yet
	over error        // why there will be none
}

// SendMsg implements grpc.ClientStream.
func (s *pdStream) SendMsg(m any) error {
	r := s.start(m)
	s.mu.Lock()
	over := s.over
	if over == nil {
		s.sent = append(s.sent, r)
	}
	s.mu.Unlock()
	if over != nil {
		r.end(nil, over)
	}
	return s.ClientStream.SendMsg(m)
}

// RecvMsg implements grpc.ClientStream.
func (s *pdStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	for _, r := range s.answered(err) {
		r.end(m, err)
	}
	return err
}

// answered takes the oldest request, or all if the stream ends by err.
func (s *pdStream) answered(err error) (done []*pdRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(1, len(s.sent))
	if err != nil {
		s.over, n = err, len(s.sent)
	}
	done, s.sent = s.sent[:n:n], s.sent[n:]
	return done
}
