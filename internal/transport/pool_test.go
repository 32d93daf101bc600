package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const addr = "store1:20160"

// inBubble runs f with a network and a pool on it, in fake time.
func inBubble(t *testing.T, cfg Config, f func(t *testing.T, n *network, p *Pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		cfg.Dial = n.dial
		p := New(cfg)
		t.Cleanup(p.Close)
		f(t, n, p)
	})
}

func rawGet(key string) *kvrpcpb.RawGetRequest {
	return &kvrpcpb.RawGetRequest{Context: &kvrpcpb.Context{RegionId: 1}, Key: []byte(key)}
}

type result struct {
	resp Message
	err  error
}

// ask makes a call without a time of its own.
func ask(ctx context.Context, p *Pool, addr string, req Message) (Message, error) {
	resp := p.NewResponse(req)
	if resp == nil {
		resp = &kvrpcpb.RawGetResponse{}
	}
	if err := p.Call(ctx, Target{Addr: addr}, req, resp); err != nil {
		return nil, err
	}
	return resp, nil
}

// start makes a call in the background.
func start(ctx context.Context, p *Pool, req Message) chan result {
	ch := make(chan result, 1)
	go func() {
		resp, err := ask(ctx, p, addr, req)
		ch <- result{resp, err}
	}()
	return ch
}

func wantError(t *testing.T, err error, kind Kind, sent bool, cause error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != kind || e.Sent != sent || e.Addr != addr {
		t.Fatalf("error %v (%#v), want %v, sent %v", err, e, kind, sent)
	}
	if cause != nil && !errors.Is(err, cause) {
		t.Fatalf("error %v, want one because of %v", err, cause)
	}
}

func wantLoad(t *testing.T, p *Pool, queued, pending int) {
	t.Helper()
	if q, n := p.Load(); q != queued || n != pending {
		t.Fatalf("%d calls queued and %d pending, want %d and %d", q, n, queued, pending)
	}
}

func wantValue(t *testing.T, r result, value string) {
	t.Helper()
	if r.err != nil {
		t.Fatal(r.err)
	}
	if got := r.resp.(*kvrpcpb.RawGetResponse).Value; string(got) != value {
		t.Fatalf("value %q, want %q", got, value)
	}
}

func TestConcurrentCallsShareFrames(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		var frames atomic.Int64
		n.serve(t, addr, &store{batch: echo(&frames)})
		const calls = 300
		n.hold(addr)
		results := make([]chan result, calls)
		for i := range calls {
			results[i] = start(t.Context(), p, rawGet(fmt.Sprint("key", i)))
		}
		synctest.Wait()
		wantLoad(t, p, calls, 0)
		n.release(addr)
		for i := range calls {
			wantValue(t, <-results[i], fmt.Sprint("key", i))
		}
		wantLoad(t, p, 0, 0)
		if f := frames.Load(); f != (calls+frameCalls-1)/frameCalls {
			t.Errorf("%d frames for %d calls", f, calls)
		}
		if d := n.dialled(addr); d != 1 {
			t.Errorf("%d connections", d)
		}
	})
}

func TestCommandsOfTheirOwn(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		s := n.serve(t, addr, &store{batch: echo(nil)})
		s.unary.cas = func(_ context.Context, r *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
			return &kvrpcpb.RawCASResponse{Succeed: true, PreviousValue: r.Value}, nil
		}
		resp, err := ask(t.Context(), p, addr, &kvrpcpb.RawCASRequest{Key: []byte("k"), Value: []byte("v")})
		if err != nil || !resp.(*kvrpcpb.RawCASResponse).Succeed || string(resp.(*kvrpcpb.RawCASResponse).PreviousValue) != "v" {
			t.Fatal(resp, err)
		}
		resp, err = ask(t.Context(), p, addr, &kvrpcpb.StoreSafeTSRequest{})
		if err != nil || resp.(*kvrpcpb.StoreSafeTSResponse).SafeTs != 7 {
			t.Fatal(resp, err)
		}
		_, err = ask(t.Context(), p, addr, &metapb.Region{})
		wantError(t, err, Refused, false, nil)

		// TiKV's way to say that something went wrong inside.
		s.unary.cas = func(context.Context, *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
			return nil, status.Error(codes.Unknown, "canceled")
		}
		_, err = ask(t.Context(), p, addr, &kvrpcpb.RawCASRequest{Key: []byte("k")})
		wantError(t, err, Refused, true, nil)
	})
}

var errEnough = errors.New("enough")

// TestCancelWhereverItWaits cancels a call at each place where it can wait: it returns
// in no time at all, with the cause, and leaves nothing behind.
func TestCancelWhereverItWaits(t *testing.T) {
	big := &kvrpcpb.RawPutRequest{Key: []byte("k"), Value: make([]byte, 1<<20)}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, n *network, p *Pool)
		req     Message
		sent    bool
	}{
		"dial":    {func(_ *testing.T, n *network, _ *Pool) { n.hang[addr] = true }, rawGet("k"), false},
		"nothing": {func(_ *testing.T, n *network, _ *Pool) { n.listen(addr) }, rawGet("k"), false},
		"answer":  {func(t *testing.T, n *network, _ *Pool) { n.serve(t, addr, &store{batch: mute}) }, rawGet("k"), true},
		"write": {func(t *testing.T, n *network, p *Pool) {
			// The first takes the server's window and the quota of the writer.
			n.serve(t, addr, &store{batch: deaf})
			start(t.Context(), p, big)
			synctest.Wait()
		}, big, true},
		"queue": {func(t *testing.T, n *network, p *Pool) {
			n.serve(t, addr, &store{batch: deaf})
			for range 2 {
				start(t.Context(), p, big)
				synctest.Wait()
			}
		}, big, false},
		"single dial": {func(_ *testing.T, n *network, _ *Pool) { n.hang[addr] = true }, &kvrpcpb.RawCASRequest{}, false},
		"single answer": {func(t *testing.T, n *network, _ *Pool) {
			s := n.serve(t, addr, &store{batch: mute})
			s.unary.cas = func(ctx context.Context, _ *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}, &kvrpcpb.RawCASRequest{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
				c.prepare(t, n, p)
				queued, pending := p.Load()
				ctx, cancel := context.WithCancelCause(t.Context())
				got := start(ctx, p, c.req)
				synctest.Wait()
				began := time.Now()
				cancel(errEnough)
				r := <-got
				wantError(t, r.err, Timeout, c.sent, errEnough)
				if d := time.Since(began); d != 0 {
					t.Errorf("took %v", d)
				}
				wantLoad(t, p, queued, pending)

				_, err := ask(ctx, p, addr, c.req)
				wantError(t, err, Timeout, false, errEnough)
			})
		})
	}
}

// TestDeadlineLeavesTheRestAlone: a call whose answer never comes ends with its
// deadline; the stream and the others on it go on.
func TestDeadlineLeavesTheRestAlone(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		n.serve(t, addr, &store{batch: func(s tikvpb.Tikv_BatchCommandsServer) error {
			for first := true; ; first = false {
				in, err := s.Recv()
				if err != nil {
					return err
				}
				if !first {
					s.Send(&tikvpb.BatchCommandsResponse{
						Responses:  []*response{answer(in.Requests[0])},
						RequestIds: in.RequestIds,
					})
				}
			}
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		lost := start(ctx, p, rawGet("lost"))
		synctest.Wait()
		wantValue(t, <-start(t.Context(), p, rawGet("found")), "found")
		r := <-lost
		wantError(t, r.err, Timeout, true, context.DeadlineExceeded)
		if d := time.Since(began); d != time.Minute {
			t.Errorf("took %v", d)
		}
		wantValue(t, <-start(t.Context(), p, rawGet("again")), "again")
		if d := n.dialled(addr); d != 1 {
			t.Errorf("%d connections", d)
		}
	})
}

func TestBrokenConnection(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		s := n.serve(t, addr, &store{batch: mute})
		began := time.Now()
		var pending []chan result
		for range 10 {
			pending = append(pending, start(t.Context(), p, rawGet("k")))
		}
		synctest.Wait()
		wantLoad(t, p, 0, 10)
		s.batch = echo(nil)
		n.cut(addr)
		for _, ch := range pending {
			r := <-ch
			wantError(t, r.err, ConnLost, true, nil)
		}
		wantValue(t, <-start(t.Context(), p, rawGet("next")), "next")
		wantLoad(t, p, 0, 0)
		if d := time.Since(began); d != 0 {
			t.Errorf("took %v", d)
		}
	})
}

// TestBrokenWhileWriting: what was only about to be written was certainly not sent, and
// what was still in the queue goes to the next stream.
func TestBrokenWhileWriting(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		big := &kvrpcpb.RawPutRequest{Key: []byte("k"), Value: make([]byte, 1<<20)}
		s := n.serve(t, addr, &store{batch: deaf})
		written := start(t.Context(), p, big)
		synctest.Wait()
		blocked := start(t.Context(), p, big)
		synctest.Wait()
		waiting := start(t.Context(), p, rawGet("k"))
		synctest.Wait()
		wantLoad(t, p, 1, 2)
		s.batch = echo(nil)
		n.cut(addr)
		r := <-written
		wantError(t, r.err, ConnLost, true, nil)
		r = <-blocked
		wantError(t, r.err, ConnLost, false, nil)
		wantValue(t, <-waiting, "k")
		wantLoad(t, p, 0, 0)
	})
}

// TestFrozenConnection: nothing is closed, bytes just stop. The ping after 10 s has no
// answer for 3 s.
func TestFrozenConnection(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		s := n.serve(t, addr, &store{batch: mute})
		lost := start(t.Context(), p, rawGet("k"))
		synctest.Wait()
		s.batch = echo(nil)
		n.freeze(addr)
		began := time.Now()
		r := <-lost
		wantError(t, r.err, ConnLost, true, nil)
		if d := time.Since(began); d > 2*keepaliveTime+keepaliveTimeout {
			t.Errorf("noticed after %v", d)
		}
		wantValue(t, <-start(t.Context(), p, rawGet("next")), "next")
	})
}

// TestDeadAddress: calls fail when the attempt fails, at once while grpc waits for its
// next one, and work soon after the address is back.
func TestDeadAddress(t *testing.T) {
	for name, batched := range map[string]bool{"batched": true, "single": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
				var req Message = rawGet("k")
				if !batched {
					req = &kvrpcpb.StoreSafeTSRequest{}
				}
				began := time.Now()
				for range 100 {
					_, err := ask(t.Context(), p, addr, req)
					wantError(t, err, Dial, false, nil)
				}
				if d := time.Since(began); d != 0 {
					t.Errorf("100 calls took %v", d)
				}
				advance(t, time.Minute)
				if d := n.dialled(addr); d > 30 {
					t.Errorf("%d attempts in a minute", d)
				}
				n.serve(t, addr, &store{batch: echo(nil)})
				advance(t, 4*time.Second)
				if _, err := ask(t.Context(), p, addr, req); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// advance lets fake time pass.
func advance(t *testing.T, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// TestSilentAddress: the dial hangs, or the connection opens and nobody speaks.
func TestSilentAddress(t *testing.T) {
	for name, silence := range map[string]func(*network){
		"dial":      func(n *network) { n.hang[addr] = true },
		"handshake": func(n *network) { n.listen(addr) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{DialTimeout: 2 * time.Second}, func(t *testing.T, n *network, p *Pool) {
				silence(n)
				began := time.Now()
				first := start(t.Context(), p, rawGet("k"))
				synctest.Wait()
				advance(t, time.Second)
				second := start(t.Context(), p, rawGet("k"))
				for _, ch := range []chan result{first, second} {
					r := <-ch
					wantError(t, r.err, Dial, false, nil)
				}
				if d := time.Since(began); d != 2*time.Second {
					t.Errorf("took %v", d)
				}
				wantLoad(t, p, 0, 0)
			})
		})
	}
}

func TestQueueFull(t *testing.T) {
	inBubble(t, Config{QueueLimit: 3}, func(t *testing.T, n *network, p *Pool) {
		n.serve(t, addr, &store{batch: echo(nil)})
		n.hold(addr)
		ctx, cancel := context.WithCancelCause(t.Context())
		leaves := start(ctx, p, rawGet("k"))
		stays := []chan result{start(t.Context(), p, rawGet("k")), start(t.Context(), p, rawGet("k"))}
		synctest.Wait()
		_, err := ask(t.Context(), p, addr, rawGet("k"))
		wantError(t, err, QueueFull, false, nil)
		cancel(errEnough)
		r := <-leaves
		wantError(t, r.err, Timeout, false, errEnough)
		stays = append(stays, start(t.Context(), p, rawGet("k"))) // in the place that became free
		synctest.Wait()
		wantLoad(t, p, 3, 0)
		n.release(addr)
		for _, ch := range stays {
			wantValue(t, <-ch, "k")
		}
	})
}

func TestCloseEndsAll(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		big := &kvrpcpb.RawPutRequest{Key: []byte("k"), Value: make([]byte, 1<<20)}
		s := n.serve(t, addr, &store{batch: deaf})
		s.unary.cas = func(ctx context.Context, _ *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		var calls []chan result
		for _, req := range []Message{big, big, rawGet("k"), &kvrpcpb.RawCASRequest{}} {
			calls = append(calls, start(t.Context(), p, req))
			synctest.Wait()
		}
		p.Close()
		for i, sent := range []bool{true, false, false, true} {
			r := <-calls[i]
			wantError(t, r.err, Closed, sent, ErrClosed)
		}
		if names := p.tasks.Running(); len(names) != 0 {
			t.Errorf("still running: %v", names)
		}
		_, err := ask(t.Context(), p, addr, rawGet("k"))
		wantError(t, err, Closed, false, ErrClosed)
		_, err = p.Conn(addr)
		wantError(t, err, Closed, false, ErrClosed)
		wantError(t, p.Health(t.Context(), addr), Closed, false, ErrClosed)
		p.Close()
	})
}

// TestCloseWhileDialling: what waits for a connection ends as closed, not as a failed
// dial.
func TestCloseWhileDialling(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		n.hang[addr] = true
		got := start(t.Context(), p, rawGet("k"))
		synctest.Wait()
		p.Close()
		r := <-got
		wantError(t, r.err, Closed, false, ErrClosed)
	})
}

// TestNoStream: the connection is there, but the server lets nobody open a stream.
func TestNoStream(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		s := n.serve(t, addr, &store{batch: echo(nil)}, grpc.MaxConcurrentStreams(1))
		release := make(chan struct{})
		s.unary.cas = func(ctx context.Context, _ *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
			<-release
			return &kvrpcpb.RawCASResponse{}, nil
		}
		single := start(t.Context(), p, &kvrpcpb.RawCASRequest{})
		synctest.Wait()
		began := time.Now()
		_, err := ask(t.Context(), p, addr, rawGet("k"))
		wantError(t, err, Dial, false, errDialTimeout)
		if d := time.Since(began); d != DefaultDialTimeout+tick {
			t.Errorf("took %v", d)
		}
		close(release)
		if r := <-single; r.err != nil {
			t.Error(r.err)
		}
		wantValue(t, <-start(t.Context(), p, rawGet("k")), "k")
	})
}

// A server that ends a stream on which it has answered has broken it off, whatever it says:
// of what has no answer some may have run.
func TestStreamEndsAfterAnswers(t *testing.T) {
	for _, c := range []struct {
		answers int
		kind    Kind
	}{{0, Refused}, {1, ConnLost}} {
		inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
			n.serve(t, addr, &store{batch: func(s tikvpb.Tikv_BatchCommandsServer) error {
				for range c.answers {
					in, err := s.Recv()
					if err == nil {
						err = s.Send(&tikvpb.BatchCommandsResponse{RequestIds: in.RequestIds, Responses: []*response{answer(in.Requests[0])}})
					}
					if err != nil {
						return err
					}
				}
				_, _ = s.Recv()
				return status.Error(codes.PermissionDenied, "not any more")
			}})
			for range c.answers {
				wantValue(t, <-start(t.Context(), p, rawGet("k")), "k")
			}
			_, err := ask(t.Context(), p, addr, rawGet("k"))
			wantError(t, err, c.kind, true, nil)
		})
	}
}

func TestDrop(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		s := n.serve(t, addr, &store{batch: mute})
		lost := start(t.Context(), p, rawGet("k"))
		synctest.Wait()
		s.batch = echo(nil)
		p.Drop(addr)
		p.Drop("unheard-of:1")
		r := <-lost
		wantError(t, r.err, ConnLost, true, ErrDropped)
		wantValue(t, <-start(t.Context(), p, rawGet("next")), "next")
		if d := n.dialled(addr); d != 2 {
			t.Errorf("%d connections", d)
		}

		// An address that was dropped is tried again at once, not after a delay.
		n.cut(addr)
		n.unlisten(addr)
		synctest.Wait()
		_, err := ask(t.Context(), p, addr, rawGet("k"))
		wantError(t, err, Dial, false, nil)
		n.serve(t, addr, &store{batch: echo(nil)})
		p.Drop(addr)
		wantValue(t, <-start(t.Context(), p, rawGet("k")), "k")
	})
}

func TestBigMessages(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		s := n.serve(t, addr, &store{batch: echo(nil)})
		s.unary.cas = func(_ context.Context, r *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
			return &kvrpcpb.RawCASResponse{PreviousValue: r.Value}, nil
		}
		key := strings.Repeat("0123456789abcdef", 1<<19) // 8 MiB
		calls := []chan result{
			start(t.Context(), p, rawGet(key)),
			start(t.Context(), p, rawGet("small")),
			start(t.Context(), p, rawGet(key[1:])),
		}
		wantValue(t, <-calls[0], key)
		wantValue(t, <-calls[1], "small")
		wantValue(t, <-calls[2], key[1:])
		resp, err := ask(t.Context(), p, addr, &kvrpcpb.RawCASRequest{Value: []byte(key)})
		if err != nil || string(resp.(*kvrpcpb.RawCASResponse).PreviousValue) != key {
			t.Fatal(err)
		}
	})
}

// TestAnswersBelongToTheCaller: later frames do not write into the bytes of earlier
// answers, those included that kvproto does not copy.
func TestAnswersBelongToTheCaller(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		n.serve(t, addr, &store{batch: echo(nil)})
		var kept [][]byte
		fill := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 5000) }
		for i := range 50 {
			resp, err := ask(t.Context(), p, addr, &coprocessor.Request{Data: fill(i)})
			if err != nil {
				t.Fatal(err)
			}
			kept = append(kept, resp.(*coprocessor.Response).Data)
			r := <-start(t.Context(), p, rawGet(string(fill(i))))
			kept = append(kept, r.resp.(*kvrpcpb.RawGetResponse).Value)
		}
		for i, data := range kept {
			if !bytes.Equal(data, fill(i/2)) {
				t.Fatalf("answer %d was overwritten", i)
			}
		}
	})
}

// TestRequestIsFreeOnReturn: the caller may change the request as soon as its call
// returned, wherever the call was (the race detector watches).
func TestRequestIsFreeOnReturn(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		n.serve(t, addr, &store{batch: echo(nil)})
		n.hold(addr)
		req := rawGet("before")
		for i := range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
			if _, err := ask(ctx, p, addr, req); err == nil {
				t.Fatal("no error")
			}
			cancel()
			req.Key[0]++
		}
		n.release(addr)
		if _, err := ask(t.Context(), p, addr, req); err != nil {
			t.Fatal(err)
		}
		req.Key[0]++
	})
}

func TestOddAnswers(t *testing.T) {
	reply := func(f func(in *tikvpb.BatchCommandsRequest, out *tikvpb.BatchCommandsResponse) error) func(tikvpb.Tikv_BatchCommandsServer) error {
		return func(s tikvpb.Tikv_BatchCommandsServer) error {
			for {
				in, err := s.Recv()
				if err != nil {
					return err
				}
				out := &tikvpb.BatchCommandsResponse{}
				if err := f(in, out); err != nil {
					return err
				}
				if err := s.Send(out); err != nil {
					return err
				}
			}
		}
	}
	type frames = *tikvpb.BatchCommandsRequest
	type answers = *tikvpb.BatchCommandsResponse
	for name, c := range map[string]struct {
		reply func(in frames, out answers) error
		kind  Kind // 0: the call succeeds
	}{
		"none for a command": {func(in frames, out answers) error {
			out.Responses, out.RequestIds = []*response{{}}, in.RequestIds
			return nil
		}, Refused},
		"of another command": {func(in frames, out answers) error {
			out.Responses = []*response{{Cmd: &tikvpb.BatchCommandsResponse_Response_RawPut{RawPut: &kvrpcpb.RawPutResponse{}}}}
			out.RequestIds = in.RequestIds
			return nil
		}, Refused},
		"for nobody, twice": {func(in frames, out answers) error {
			a := answer(in.Requests[0])
			out.Responses = []*response{a, a, a}
			out.RequestIds = []uint64{in.RequestIds[0] + 1000, in.RequestIds[0], in.RequestIds[0]}
			return nil
		}, 0},
		"fewer ids": {func(in frames, out answers) error {
			out.Responses = []*response{answer(in.Requests[0])}
			return nil
		}, ConnLost},
		"wrong cluster": {func(frames, answers) error { return status.Error(codes.InvalidArgument, "cluster id") }, Refused},
		"unavailable":   {func(frames, answers) error { return status.Error(codes.Unavailable, "closing") }, ConnLost},
		"end":           {func(frames, answers) error { return errors.New("internal") }, ConnLost},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
				s := n.serve(t, addr, &store{batch: reply(c.reply)})
				r := <-start(t.Context(), p, rawGet("k"))
				if c.kind == 0 {
					wantValue(t, r, "k")
				} else {
					wantError(t, r.err, c.kind, true, nil)
				}
				synctest.Wait()
				s.batch = echo(nil)
				n.cut(addr)
				synctest.Wait()
				wantValue(t, <-start(t.Context(), p, rawGet("k")), "k")
				wantLoad(t, p, 0, 0)
			})
		})
	}
}

func TestHealth(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		wantError(t, p.Health(t.Context(), addr), Dial, false, nil)
		s := n.serve(t, addr, &store{batch: deaf})
		p.Drop(addr)
		if err := p.Health(t.Context(), addr); err != nil {
			t.Fatal(err)
		}
		s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		wantError(t, p.Health(t.Context(), addr), Refused, true, nil)
		n.freeze(addr)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errEnough)
		defer cancel()
		wantError(t, p.Health(ctx, addr), Timeout, true, errEnough)
		began := time.Now()
		p.Close()
		if d := time.Since(began); d != 0 {
			t.Errorf("Close took %v with a peer that takes no bytes", d)
		}
	})
}

func TestAddressMap(t *testing.T) {
	cfg := Config{AddressMap: func(a string) string { return "nat:" + a }}
	inBubble(t, cfg, func(t *testing.T, n *network, p *Pool) {
		n.serve(t, "nat:"+addr, &store{batch: echo(nil)})
		wantValue(t, <-start(t.Context(), p, rawGet("k")), "k")
	})
}
