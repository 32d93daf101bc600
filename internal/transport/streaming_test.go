package transport

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/mpp"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
)

// streamer answers streaming calls of the coprocessor with its function.
type streamer struct {
	store
	cop func(*coprocessor.Request, tikvpb.Tikv_CoprocessorStreamServer) error
}

func (s *streamer) CoprocessorStream(r *coprocessor.Request, out tikvpb.Tikv_CoprocessorStreamServer) error {
	return s.cop(r, out)
}

func (s *streamer) BatchCoprocessor(_ *coprocessor.BatchRequest, out tikvpb.Tikv_BatchCoprocessorServer) error {
	return out.Send(&coprocessor.BatchResponse{Data: []byte("batch")})
}

func (s *streamer) EstablishMPPConnection(_ *mpp.EstablishMPPConnectionRequest, out tikvpb.Tikv_EstablishMPPConnectionServer) error {
	return out.Send(&mpp.MPPDataPacket{Data: []byte("mpp")})
}

// serveStreams starts a store with streams at addr.
func (n *network) serveStreams(t *testing.T, addr string, cop func(*coprocessor.Request, tikvpb.Tikv_CoprocessorStreamServer) error) *streamer {
	s := &streamer{cop: cop}
	s.batch = mute
	s.implementation = s
	n.serve(t, addr, &s.store)
	return s
}

// page answers with one page, and then waits for the end.
func page(r *coprocessor.Request, out tikvpb.Tikv_CoprocessorStreamServer) error {
	if err := out.Send(&coprocessor.Response{Data: r.Data}); err != nil {
		return err
	}
	<-out.Context().Done()
	return out.Context().Err()
}

// askStream opens a call that is answered by a stream.
func askStream(ctx context.Context, p *Pool, to Target, method string, req Message) (*Stream, error) {
	s, err := p.Stream(ctx, to, &grpc.StreamDesc{ServerStreams: true}, service+method)
	if err == nil {
		err = s.SendMsg(req)
	}
	if err == nil {
		err = s.CloseSend()
	}
	return s, err
}

func askCop(ctx context.Context, p *Pool, to Target) (*Stream, error) {
	return askStream(ctx, p, to, "CoprocessorStream", &coprocessor.Request{Data: []byte("d")})
}

func mustAskCop(t *testing.T, ctx context.Context, p *Pool, to Target) *Stream {
	t.Helper()
	s, err := askCop(ctx, p, to)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// recv returns the next page.
func recv(s *Stream) (string, error) {
	var m coprocessor.Response
	err := s.RecvMsg(&m)
	return string(m.Data), err
}

func TestStreams(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		n.serveStreams(t, addr, func(r *coprocessor.Request, out tikvpb.Tikv_CoprocessorStreamServer) error {
			for i := range byte(3) {
				if err := out.Send(&coprocessor.Response{Data: append(r.Data, i)}); err != nil {
					return err
				}
			}
			return nil
		})
		to := Target{Addr: addr}
		s := mustAskCop(t, t.Context(), p, to)
		for i := range 3 {
			if m, err := recv(s); err != nil || m != "d"+string(rune(i)) {
				t.Fatalf("%q, %v", m, err)
			}
		}
		if _, err := recv(s); err != io.EOF {
			t.Fatal(err)
		}
		s, err := askStream(t.Context(), p, to, "BatchCoprocessor", &coprocessor.BatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var batch coprocessor.BatchResponse
		if err := s.RecvMsg(&batch); err != nil || string(batch.Data) != "batch" {
			t.Fatal(&batch, err)
		}
		if err := s.RecvMsg(&batch); err != io.EOF {
			t.Fatal(err)
		}
		if s, err = askStream(t.Context(), p, to, "EstablishMPPConnection", &mpp.EstablishMPPConnectionRequest{}); err != nil {
			t.Fatal(err)
		}
		var packet mpp.MPPDataPacket
		if err := s.RecvMsg(&packet); err != nil || string(packet.Data) != "mpp" {
			t.Fatal(&packet, err)
		}
		if err := s.RecvMsg(&packet); err != io.EOF {
			t.Fatal(err)
		}
		// One that the server does not have.
		if s, err = askStream(t.Context(), p, to, "Nonsense", &coprocessor.Request{}); err != nil {
			t.Fatal(err)
		}
		_, err = recv(s)
		wantError(t, err, Refused, true, nil)
		if p.busy(addr) {
			t.Error("calls are left")
		}
	})
}

// busy reports whether the endpoint of addr has calls.
func (p *Pool) busy(addr string) bool { return (*p.endpoints.Load())[addr].busy() }

// A change feed is a stream in both directions.
type feedServer struct {
	cdcpb.UnimplementedChangeDataServer
}

func (*feedServer) EventFeed(s cdcpb.ChangeData_EventFeedServer) error {
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&cdcpb.ChangeDataEvent{Events: []*cdcpb.Event{{RegionId: r.RegionId}}}); err != nil {
			return err
		}
	}
}

func TestFeedStream(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		n.register = func(s *grpc.Server) { cdcpb.RegisterChangeDataServer(s, &feedServer{}) }
		n.serve(t, addr, &store{batch: mute})
		feed, err := p.Stream(t.Context(), Target{Addr: addr}, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/cdcpb.ChangeData/EventFeed")
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(5) {
			if err := feed.SendMsg(&cdcpb.ChangeDataRequest{RegionId: i}); err != nil {
				t.Fatal(err)
			}
			var m cdcpb.ChangeDataEvent
			if err := feed.RecvMsg(&m); err != nil || m.Events[0].RegionId != i {
				t.Fatal(&m, err)
			}
		}
		if err := feed.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := feed.RecvMsg(&cdcpb.ChangeDataEvent{}); err != io.EOF {
			t.Fatal(err)
		}
		if p.busy(addr) {
			t.Error("calls are left")
		}
	})
}

// TestStreamLease: it is the wait for a message that has a limit, not the user between
// two.
func TestStreamLease(t *testing.T) {
	for name, c := range map[string]struct{ asked, limit time.Duration }{
		"default": {0, DefaultStreamIdle}, "asked": {7 * time.Second, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
				n.serveStreams(t, addr, func(r *coprocessor.Request, out tikvpb.Tikv_CoprocessorStreamServer) error {
					advance(t, c.limit-time.Second)
					if err := out.Send(&coprocessor.Response{}); err != nil {
						return err
					}
					return page(r, out)
				})
				s := mustAskCop(t, t.Context(), p, Target{Addr: addr, Timeout: c.asked})
				if _, err := recv(s); err != nil {
					t.Fatal(err)
				}
				advance(t, 3*c.limit)
				if _, err := recv(s); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				_, err := recv(s)
				wantError(t, err, Expired, true, ErrIdle)
				if d := time.Since(began); d != c.limit {
					t.Errorf("waited %v", d)
				}
				if p.busy(addr) {
					t.Error("calls are left")
				}
			})
		})
	}
}

// TestStreamEnds ends a stream while its user waits on it, in each way.
func TestStreamEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(n *network, p *Pool, s *Stream, cancel context.CancelCauseFunc)
		kind  Kind
		cause error
	}{
		"context": {func(_ *network, _ *Pool, _ *Stream, cancel context.CancelCauseFunc) { cancel(errEnough) }, Timeout, errEnough},
		"left":    {func(_ *network, _ *Pool, s *Stream, _ context.CancelCauseFunc) { s.Close(); s.Close() }, ConnLost, nil},
		"drop":    {func(_ *network, p *Pool, _ *Stream, _ context.CancelCauseFunc) { p.Drop(addr) }, ConnLost, ErrDropped},
		"close":   {func(_ *network, p *Pool, _ *Stream, _ context.CancelCauseFunc) { p.Close() }, Closed, ErrClosed},
		"cut":     {func(n *network, _ *Pool, _ *Stream, _ context.CancelCauseFunc) { n.cut(addr) }, ConnLost, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
				n.serveStreams(t, addr, page)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				s := mustAskCop(t, ctx, p, Target{Addr: addr})
				if m, err := recv(s); err != nil || m != "d" {
					t.Fatal(m, err)
				}
				got := make(chan error, 1)
				go func() { _, err := recv(s); got <- err }()
				synctest.Wait()
				began := time.Now()
				c.end(n, p, s, cancel)
				wantError(t, <-got, c.kind, true, c.cause)
				if d := time.Since(began); d != 0 {
					t.Errorf("took %v", d)
				}
				_, err := recv(s)
				wantError(t, err, c.kind, true, c.cause)
			})
		})
	}
}

// TestStreamCannotOpen: an address without a server, in each way.
func TestStreamCannotOpen(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(n *network)
		took    time.Duration
	}{
		"refused": {func(*network) {}, 0},
		"hangs":   {func(n *network) { n.stall(addr) }, DefaultDialTimeout},
		"mute":    {func(n *network) { n.listen(addr) }, DefaultDialTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
				c.prepare(n)
				began := time.Now()
				_, err := askCop(t.Context(), p, Target{Addr: addr})
				wantError(t, err, Dial, false, nil)
				if d := time.Since(began); d != c.took {
					t.Errorf("took %v", d)
				}
				n.stall(addr)
				ctx, cancel := context.WithCancelCause(t.Context())
				cancel(errEnough)
				_, err = askCop(ctx, p, Target{Addr: addr})
				wantError(t, err, Timeout, false, errEnough)
				p.Close()
				_, err = askCop(t.Context(), p, Target{Addr: addr})
				wantError(t, err, Closed, false, ErrClosed)
			})
		})
	}
}

// TestStreamIsCancelledWhereverItWaits: at opening, at sending, and before either.
func TestStreamIsCancelledWhereverItWaits(t *testing.T) {
	big := &cdcpb.ChangeDataRequest{CheckpointTs: 1, StartKey: make([]byte, 1<<20)}
	open := func(ctx context.Context, p *Pool) (*Stream, error) {
		return p.Stream(ctx, Target{Addr: addr}, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/cdcpb.ChangeData/EventFeed")
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, n *network)
		wait    func(ctx context.Context, p *Pool) error
		sent    bool
	}{
		"dial": {func(_ *testing.T, n *network) { n.stall(addr) },
			func(ctx context.Context, p *Pool) error { _, err := open(ctx, p); return err }, false},
		"hello": {func(t *testing.T, n *network) { n.accept(t, addr, func(net.Conn) {}) },
			func(ctx context.Context, p *Pool) error { _, err := open(ctx, p); return err }, false},
		"send": {func(t *testing.T, n *network) {
			n.register = func(s *grpc.Server) { cdcpb.RegisterChangeDataServer(s, &deafFeed{}) }
			n.serve(t, addr, &store{batch: mute})
		}, func(ctx context.Context, p *Pool) error {
			s, err := open(ctx, p)
			if err != nil {
				return err
			}
			for err == nil {
				err = s.SendMsg(big)
			}
			if err == io.EOF { // the reason is Recv's to tell
				err = s.RecvMsg(&cdcpb.ChangeDataEvent{})
			}
			return err
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
				c.prepare(t, n)
				ctx, cancel := context.WithCancelCause(t.Context())
				got := make(chan error, 1)
				go func() { got <- c.wait(ctx, p) }()
				synctest.Wait()
				began := time.Now()
				cancel(errEnough)
				wantError(t, <-got, Timeout, c.sent, errEnough)
				if d := time.Since(began); d != 0 {
					t.Errorf("took %v", d)
				}
				synctest.Wait()
				if p.busy(addr) {
					t.Error("calls are left")
				}
			})
		})
	}
}

// deafFeed is a change feed that reads nothing.
type deafFeed struct {
	cdcpb.UnimplementedChangeDataServer
}

func (*deafFeed) EventFeed(s cdcpb.ChangeData_EventFeedServer) error {
	<-s.Context().Done()
	return s.Context().Err()
}
