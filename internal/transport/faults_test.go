package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-go/tikv/internal/task"
)

// attemptTime is the time that calls of these tests have.
const attemptTime = time.Minute

// ways are the ways in which a request travels, each with a function that makes one and
// waits for its first answer.
var ways = []struct {
	name string
	call func(ctx context.Context, p *Pool, key string) (string, error)
}{
	{"batched", func(ctx context.Context, p *Pool, key string) (string, error) {
		var resp kvrpcpb.RawGetResponse
		err := p.Call(ctx, Target{Addr: addr, Timeout: attemptTime}, rawGet(key), &resp)
		return string(resp.Value), err
	}},
	{"single", func(ctx context.Context, p *Pool, key string) (string, error) {
		var resp kvrpcpb.RawCASResponse
		err := p.Call(ctx, Target{Addr: addr, Timeout: attemptTime}, &kvrpcpb.RawCASRequest{Value: []byte(key)}, &resp)
		return string(resp.PreviousValue), err
	}},
	{"streaming", func(ctx context.Context, p *Pool, key string) (string, error) {
		s, err := askStream(ctx, p, Target{Addr: addr, Timeout: attemptTime}, "CoprocessorStream", &coprocessor.Request{Data: []byte(key)})
		if err != nil {
			return "", err
		}
		defer s.Close()
		return recv(s)
	}},
}

// peer is a store that answers all ways alike, each request with its key, once it is let.
type peer struct {
	streamer
	arrived chan struct{} // a request has
	let     chan struct{} // closed: answer
}

func (n *network) servePeer(t *testing.T) *peer {
	s := &peer{arrived: make(chan struct{}, 10), let: make(chan struct{})}
	s.batch = func(b tikvpb.Tikv_BatchCommandsServer) error {
		for {
			in, err := b.Recv()
			if err != nil {
				return err
			}
			if err := s.wait(b.Context()); err != nil {
				return err
			}
			out := &tikvpb.BatchCommandsResponse{RequestIds: in.RequestIds}
			for _, r := range in.Requests {
				out.Responses = append(out.Responses, answer(r))
			}
			if err := b.Send(out); err != nil {
				return err
			}
		}
	}
	s.unary.cas = func(ctx context.Context, r *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
		return &kvrpcpb.RawCASResponse{PreviousValue: r.Value}, s.wait(ctx)
	}
	s.cop = func(r *coprocessor.Request, out tikvpb.Tikv_CoprocessorStreamServer) error {
		return errors.Join(s.wait(out.Context()), out.Send(&coprocessor.Response{Data: r.Data}))
	}
	s.implementation = s
	n.serve(t, addr, &s.store)
	return s
}

func (s *peer) wait(ctx context.Context) error {
	s.arrived <- struct{}{}
	select {
	case <-s.let:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// accept lets f have each connection to addr.
func (n *network) accept(t *testing.T, addr string, f func(net.Conn)) {
	l := n.listen(addr)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f(c)
		}
	}()
}

// TestFaults is what a caller sees of an address that fails, and how soon, in whichever
// way the request travels. After each fault the address comes back, and calls succeed at
// the latest with grpc's next attempt to connect.
func TestFaults(t *testing.T) {
	const success = Kind(0)
	for _, f := range []struct {
		name   string
		before func(t *testing.T, n *network)          // is there already when the call comes
		during func(t *testing.T, n *network, s *peer) // comes when the server has the request
		kind   Kind
		sent   bool
		after  time.Duration // from the call, or from when it was in the server's hands
		late   time.Duration // how much later it may be
	}{
		{name: "refused", before: func(*testing.T, *network) {}, kind: Dial},
		{name: "blackholed", before: func(_ *testing.T, n *network) { n.stall(addr) }, kind: Dial, after: DefaultDialTimeout},
		{name: "taken by the kernel of a paused store", before: func(t *testing.T, n *network) { n.accept(t, addr, func(net.Conn) {}) },
			kind: Dial, after: DefaultDialTimeout},
		{name: "taken and closed", before: func(t *testing.T, n *network) { n.accept(t, addr, func(c net.Conn) { c.Close() }) }, kind: Dial},
		{name: "another protocol", before: func(t *testing.T, n *network) {
			n.accept(t, addr, func(c net.Conn) { fmt.Fprint(c, "220 mail.example.org ESMTP at your service\r\n"); c.Close() })
		}, kind: Dial},

		{name: "reset", during: func(_ *testing.T, n *network, _ *peer) { n.cut(addr) }, kind: ConnLost, sent: true},
		{name: "stopped", during: func(_ *testing.T, _ *network, s *peer) { s.Stop() }, kind: ConnLost, sent: true},
		{name: "blackholed later", during: func(_ *testing.T, n *network, _ *peer) { n.swallow(addr) },
			kind: ConnLost, sent: true, after: keepaliveTime, late: keepaliveTimeout},
		{name: "blackholed later, with buffers full", during: func(_ *testing.T, n *network, _ *peer) { n.freeze(addr) },
			kind: ConnLost, sent: true, after: keepaliveTime, late: keepaliveTimeout + farewell},
		{name: "paused for a while", during: func(t *testing.T, n *network, s *peer) {
			thaw := n.freeze(addr)
			close(s.let)
			time.AfterFunc(5*time.Second, thaw)
		}, kind: success, after: 5 * time.Second},
		{name: "slow", during: func(_ *testing.T, _ *network, s *peer) {
			time.AfterFunc(attemptTime-time.Second, func() { close(s.let) })
		}, kind: success, after: attemptTime - time.Second},
		{name: "too slow", during: func(_ *testing.T, _ *network, s *peer) {
			time.AfterFunc(attemptTime+time.Second, func() { close(s.let) })
		}, kind: Expired, sent: true, after: attemptTime, late: 2 * tick},
		{name: "no answer at all", during: func(*testing.T, *network, *peer) {}, kind: Expired, sent: true, after: attemptTime, late: 2 * tick},
		{name: "GOAWAY, and an answer still", during: func(_ *testing.T, _ *network, s *peer) {
			go s.GracefulStop()
			time.AfterFunc(time.Second, func() { close(s.let) })
		}, kind: success, after: time.Second},
		{name: "GOAWAY, and the end", during: func(_ *testing.T, _ *network, s *peer) {
			go s.GracefulStop()
			time.AfterFunc(time.Second, s.Stop)
		}, kind: ConnLost, sent: true, after: time.Second},
	} {
		for _, way := range ways {
			t.Run(f.name+", "+way.name, func(t *testing.T) {
				inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
					var s *peer
					if f.before != nil {
						f.before(t, n)
					} else {
						s = n.servePeer(t)
					}
					type outcome struct {
						value string
						err   error
					}
					got := make(chan outcome, 1)
					go func() {
						v, err := way.call(t.Context(), p, "k")
						got <- outcome{v, err}
					}()
					began := time.Now()
					if f.during != nil {
						<-s.arrived
						synctest.Wait()
						began = time.Now()
						f.during(t, n, s)
					}
					o := <-got
					took := time.Since(began)
					if f.kind == success {
						if o.err != nil || o.value != "k" {
							t.Fatal(o.value, o.err)
						}
					} else {
						wantError(t, o.err, f.kind, f.sent, nil)
					}
					if took < f.after || took > f.after+f.late {
						t.Errorf("after %v", took)
					}
					t.Logf("%v: %v", took, o.err)

					n.repair(s)
					s = n.servePeer(t)
					close(s.let)
					began = time.Now()
					for {
						v, err := way.call(t.Context(), p, "again")
						if err == nil && v == "again" {
							break
						}
						if time.Since(began) > reconnectMax*6/5+DefaultDialTimeout {
							t.Fatal("not back:", err)
						}
						advance(t, 100*time.Millisecond)
					}
					wantLoad(t, p, 0, 0)
					synctest.Wait()
					if p.busy(addr) {
						t.Error("calls are left")
					}
				})
			})
		}
	}
}

// repair ends all faults of addr, and the server that was there.
func (n *network) repair(s *peer) {
	n.mu.Lock()
	n.hang[addr] = false
	n.mu.Unlock()
	n.unlisten(addr)
	if s != nil {
		s.Stop()
	}
}

// TestOddFrames: what a server may make of the answers to a frame. The call beside it
// shows who else suffers; afterwards all is well, on the same connection.
func TestOddFrames(t *testing.T) {
	type requests = *tikvpb.BatchCommandsRequest
	const oddCalls = 3
	good := func(in requests) *tikvpb.BatchCommandsResponse {
		out := &tikvpb.BatchCommandsResponse{RequestIds: in.RequestIds}
		for _, r := range in.Requests {
			out.Responses = append(out.Responses, answer(r))
		}
		return out
	}
	send := func(s tikvpb.Tikv_BatchCommandsServer, data []byte) error {
		return s.SendMsg(&frame{mem.BufferSlice{mem.SliceBuffer(data)}})
	}
	encoded := func(m *tikvpb.BatchCommandsResponse) []byte {
		data, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, c := range map[string]struct {
		odd   func(s tikvpb.Tikv_BatchCommandsServer, in requests) error
		kind  Kind // of the calls of the frame; 0: they succeed
		other Kind // of a call before them, answered after; 0: it succeeds
	}{
		"cut short": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			data := encoded(good(in))
			return send(s, data[:len(data)-1])
		}, ConnLost, ConnLost},
		"nonsense": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			return send(s, []byte("nonsense"))
		}, ConnLost, ConnLost},
		"a broken answer in a whole frame": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			data := encoded(&tikvpb.BatchCommandsResponse{RequestIds: in.RequestIds})
			for range in.Requests { // a RawGetResponse whose value is longer than the message
				broken := protowire.AppendBytes(protowire.AppendTag(nil, 13, protowire.BytesType), []byte{0x1a, 9, 'x'})
				data = protowire.AppendBytes(protowire.AppendTag(data, 1, protowire.BytesType), broken)
			}
			return send(s, data)
		}, Refused, 0},
		"empty": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			return errors.Join(send(s, nil), s.Send(good(in)))
		}, 0, 0},
		"reordered": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			out := good(in)
			for i, j := 0, len(out.RequestIds)-1; i < j; i, j = i+1, j-1 {
				out.RequestIds[i], out.RequestIds[j] = out.RequestIds[j], out.RequestIds[i]
				out.Responses[i], out.Responses[j] = out.Responses[j], out.Responses[i]
			}
			return s.Send(out)
		}, 0, 0},
		"one by one": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			out := good(in)
			for i := range out.RequestIds {
				if err := s.Send(&tikvpb.BatchCommandsResponse{RequestIds: out.RequestIds[i : i+1], Responses: out.Responses[i : i+1]}); err != nil {
					return err
				}
			}
			return nil
		}, 0, 0},
		"duplicated": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			return errors.Join(s.Send(good(in)), s.Send(good(in)))
		}, 0, 0},
		"unasked": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			early := good(in)
			early.RequestIds = []uint64{in.RequestIds[len(in.RequestIds)-1] + 1000, 1 << 60, 0}[:len(early.Responses)]
			return errors.Join(s.Send(early), s.Send(good(in)))
		}, 0, 0},
		"unknown, and no others": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			out := good(in)
			for i := range out.RequestIds {
				out.RequestIds[i] += 1000
			}
			return s.Send(out)
		}, Expired, 0},
		"none": {func(tikvpb.Tikv_BatchCommandsServer, requests) error { return nil }, Expired, 0},
		"more answers than ids": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			out := good(in)
			out.RequestIds = out.RequestIds[1:]
			return s.Send(out)
		}, ConnLost, ConnLost},
		"without results": {func(s tikvpb.Tikv_BatchCommandsServer, in requests) error {
			out := good(in)
			for i := range out.Responses {
				out.Responses[i] = &response{}
			}
			return s.Send(out)
		}, Refused, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
				n.serve(t, addr, &store{batch: func(s tikvpb.Tikv_BatchCommandsServer) error {
					var first requests
					odd := &tikvpb.BatchCommandsRequest{} // the calls of one frame, however many they came in
					for {
						in, err := s.Recv()
						if err != nil {
							return err
						}
						switch string(in.Requests[0].GetRawGet().Key) {
						case "first":
							first = in
							continue
						case "last":
							if err = s.Send(good(in)); err == nil && first != nil {
								err = s.Send(good(first))
							}
						default:
							odd.Requests, odd.RequestIds = append(odd.Requests, in.Requests...), append(odd.RequestIds, in.RequestIds...)
							if len(odd.Requests) == oddCalls {
								err = c.odd(s, odd)
							}
						}
						if err != nil {
							return err
						}
					}
				}})
				get := func(key string) chan result {
					ch := make(chan result, 1)
					go func() {
						var resp kvrpcpb.RawGetResponse
						err := p.Call(t.Context(), Target{Addr: addr, Timeout: attemptTime}, rawGet(key), &resp)
						ch <- result{&resp, err}
					}()
					return ch
				}
				judge := func(r result, key string, kind Kind) {
					t.Helper()
					if kind == 0 {
						wantValue(t, r, key)
					} else {
						wantError(t, r.err, kind, true, nil)
					}
				}
				first := get("first")
				synctest.Wait()
				began := time.Now()
				n.hold(addr) // nothing is dialled again
				var odd []chan result
				for i := range oddCalls {
					odd = append(odd, get(fmt.Sprint(i)))
				}
				for i, ch := range odd {
					judge(<-ch, fmt.Sprint(i), c.kind)
				}
				took := time.Since(began)
				if c.kind == Expired && (took < attemptTime || took > attemptTime+2*tick) || c.kind != Expired && took != 0 {
					t.Errorf("took %v", took)
				}
				if c.kind == Expired {
					wantError(t, (<-first).err, Expired, true, ErrNoAnswer) // it is as old
					wantValue(t, <-get("last"), "last")
				} else {
					wantValue(t, <-get("last"), "last")
					judge(<-first, "first", c.other)
				}
				n.release(addr)
				if d := n.dialled(addr); d != 1 {
					t.Errorf("%d connections", d)
				}
				wantLoad(t, p, 0, 0)
			})
		})
	}
}

// TestDeadOfHundred: calls to 96 stores take no longer for the 4 that are dead, each in
// its way.
func TestDeadOfHundred(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		dead := []string{"refused", "blackholed", "silent", "deaf"}
		n.stall("blackholed")
		n.accept(t, "silent", func(net.Conn) {})
		n.serve(t, "deaf", &store{batch: deaf})
		var others []string
		for i := range 96 {
			others = append(others, fmt.Sprintf("other%d:20160", i))
			n.serve(t, others[i], &store{batch: echo(nil)})
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 100 {
			go ask(ctx, p, dead[i%len(dead)], rawGet("dead"))
		}
		synctest.Wait()
		began := time.Now()
		for range 5 {
			for _, to := range others {
				if _, err := ask(t.Context(), p, to, rawGet("k")); err != nil {
					t.Fatal(err)
				}
			}
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("took %v", d)
		}
	})
}

// TestDeadAddressIsDialledSeldom: however many want a dead address, it is dialled no more
// often than once in reconnectMax less a fifth of it, and not at all once nobody has
// wanted it for VainLimit.
func TestDeadAddressIsDialledSeldom(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, n *network){
		"refused":    func(*testing.T, *network) {},
		"blackholed": func(_ *testing.T, n *network) { n.stall(addr) },
		"silent":     func(t *testing.T, n *network) { n.accept(t, addr, func(net.Conn) {}) },
		"closed":     func(t *testing.T, n *network) { n.accept(t, addr, func(c net.Conn) { c.Close() }) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
				end(t, n)
				ctx, cancel := context.WithCancel(t.Context())
				callers := task.New(ctx)
				for range 20 {
					callers.Go("caller", func(ctx context.Context) {
						for ctx.Err() == nil {
							if _, err := ask(ctx, p, addr, rawGet("k")); err == nil {
								t.Error("an answer")
							}
							advance(t, 100*time.Millisecond)
						}
					})
				}
				const least = reconnectMax * 4 / 5
				advance(t, 20*time.Second) // in which the pauses grow
				if d := n.dialled(addr); d > 16 {
					t.Errorf("%d times in the first 20 s", d)
				}
				before := n.dialled(addr)
				advance(t, time.Minute)
				if d := n.dialled(addr) - before; d > int(time.Minute/least)+1 || d < int(time.Minute/(DefaultDialTimeout+2*reconnectMax)) {
					t.Errorf("%d times in the next minute", d)
				}
				cancel()
				callers.Close(nil)
				advance(t, 2*VainLimit)
				before = n.dialled(addr)
				advance(t, time.Hour)
				if d := n.dialled(addr) - before; d != 0 {
					t.Errorf("%d times for nobody", d)
				}
			})
		})
	}
}
