package playground

import (
	"context"
	"io"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/serve"
)

// through lets a store pass a call on to the store at an address.
func through(ctx context.Context, addr string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "tikv-forwarded-host", addr)
}

// proxied is a cluster with a request for the region of "a", its leader, and another store,
// through which the leader is asked.
type proxied struct {
	*testCluster
	at            *kvrpcpb.Context
	leader, proxy uint64
	addr          string
}

func startProxied(t *testing.T, opts ...Option) *proxied {
	c := start(t, opts...)
	at, _ := c.at(KeyRaw, "a")
	leader := at.Peer.StoreId
	return &proxied{c, at, leader, leader%3 + 1, c.store(leader).Server().Addr()}
}

// put is answered by the other store, perhaps that it leads no more.
func (p *proxied) put(d time.Duration) error {
	ctx, cancel := context.WithTimeout(through(p.t.Context(), p.addr), d)
	defer cancel()
	_, err := p.tikv(p.proxy).RawPut(ctx, &kvrpcpb.RawPutRequest{Context: p.at, Key: []byte("a"), Value: []byte("v")})
	return err
}

// later puts in the background.
func (p *proxied) later(d time.Duration) <-chan error {
	done := make(chan error, 1)
	p.root.Go("test", func(context.Context) { done <- p.put(d) })
	synctest.Wait()
	return done
}

func (p *proxied) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// wait is the time that f takes.
func wait(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

// Which unary calls are passed on: those of TiKV's src/server/service/kv.rs that ask for it.
func TestForwardedMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startProxied(t)
		stay := []string{
			"BatchCoprocessor", "CancelMPPTask", "Compact", "CoprocessorStream", "DispatchMPPTask", "EstablishMPPConnection",
			"GetHealthFeedback", "GetLockWaitInfo", "GetStoreSafeTS", "IsAlive", "KvFlashbackToVersion",
			"KvPrepareFlashbackToVersion", "RawCoprocessor", "UnsafeDestroyRange",
		}
		service := reflect.TypeFor[tikvpb.TikvServer]()
		n := 0
		for i := range service.NumMethod() {
			m := service.Method(i)
			if m.Type.NumIn() != 2 || m.Type.NumOut() != 2 { // a stream
				continue
			}
			req := reflect.New(m.Type.In(1).Elem())
			if f := req.Elem().FieldByName("Context"); f.IsValid() && f.Type() == reflect.TypeFor[*kvrpcpb.Context]() {
				f.Set(reflect.ValueOf(p.at))
			}
			before := p.Counts().Calls[m.Name]
			trace := p.Trace()
			var resp serve.Raw
			err := p.conn(p.store(p.proxy).Server().Addr()).Invoke(through(t.Context(), p.addr), "/tikvpb.Tikv/"+m.Name, req.Interface(), &resp)
			trace.Stop()
			if status.Code(err) == codes.Unimplemented {
				continue
			}
			if err != nil {
				t.Error(m.Name, err)
			}
			var nodes []Node
			for _, call := range trace.Calls() {
				nodes = append(nodes, call.Node)
			}
			want := []Node{Store(p.leader), Store(p.proxy)} // in the order in which they end
			if slices.Contains(stay, m.Name) {
				want = want[1:]
			}
			if n++; !slices.Equal(nodes, want) || p.Counts().Calls[m.Name]-before != len(want) {
				t.Error(m.Name, "went to", nodes)
			}
		}
		if n < 38 {
			t.Error("methods looked at:", n)
		}
		// Streams of answers stay.
		trace := p.Trace()
		stream, err := p.tikv(p.proxy).CoprocessorStream(through(t.Context(), p.addr), &coprocessor.Request{Context: p.at})
		p.must(err)
		if _, err := stream.Recv(); err != nil && err != io.EOF {
			t.Log(err)
		}
		for _, call := range trace.Calls() {
			if call.Node != Store(p.proxy) {
				t.Error("CoprocessorStream went to", call.Node)
			}
		}
	})
}

// Where a call ends up.
func TestForwardedTo(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		p := startProxied(t, opts...)
		get := func(store uint64, addrs ...string) *kvrpcpb.RawGetResponse {
			t.Helper()
			ctx := t.Context()
			for _, addr := range addrs {
				ctx = through(ctx, addr)
			}
			resp, err := p.tikv(store).RawGet(ctx, &kvrpcpb.RawGetRequest{Context: p.at, Key: []byte("a")})
			p.must(err)
			return resp
		}
		other := 6 - p.leader - p.proxy
		for name, test := range map[string]struct {
			store uint64
			addrs []string
			right bool
		}{
			"to the leader":          {p.proxy, []string{p.addr}, true},
			"by the leader":          {p.leader, []string{p.addr}, true},
			"the first counts":       {p.proxy, []string{p.addr, "nowhere"}, true},
			"to nobody":              {p.proxy, nil, false},
			"to no address":          {p.leader, []string{""}, true},
			"an empty first one":     {p.proxy, []string{"", p.addr}, false},
			"away from the leader":   {p.leader, []string{p.store(other).Server().Addr()}, false},
			"to where it is already": {p.proxy, []string{p.store(p.proxy).Server().Addr()}, false},
		} {
			if e := get(test.store, test.addrs...).RegionError; (e == nil) != test.right || !test.right && e.StoreNotMatch == nil {
				t.Error(name, e)
			}
		}
		p.must(p.SetStore(p.leader, StoreState{Advertise: "store.example:20160"}))
		if e := get(p.proxy, "store.example:20160").RegionError; e != nil {
			t.Error("by its advertised address:", e)
		}
		if e := get(p.proxy, p.addr).RegionError; e != nil {
			t.Error("by the address it listens at:", e)
		}
		// The first store looks at the cluster, the second at the rest.
		at := *p.at
		at.ClusterId++
		trace := p.Trace()
		_, err := p.tikv(p.proxy).RawGet(through(t.Context(), p.addr), &kvrpcpb.RawGetRequest{Context: &at, Key: []byte("a")})
		refused(t, err, codes.InvalidArgument, "does not match")
		if len(trace.Calls()) != 0 {
			t.Error(trace.Calls())
		}
	})
}

// Faults meet a call that is passed on at both stores.
func TestForwardedMeetsFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startProxied(t)
		// A swap tells how often it was done.
		last := ""
		swap := func() (*kvrpcpb.RawCASResponse, error) {
			ctx, cancel := context.WithTimeout(through(t.Context(), p.addr), time.Second)
			defer cancel()
			return p.tikv(p.proxy).RawCompareAndSwap(ctx, &kvrpcpb.RawCASRequest{
				Context: p.at, Key: []byte("a"), PreviousNotExist: last == "", PreviousValue: []byte(last), Value: []byte(last + "+"),
			})
		}
		truncate := func(b []byte) []byte { return b[:max(0, len(b)-1)] }
		leader, proxy, other := Store(p.leader), Store(p.proxy), Store(6-p.leader-p.proxy)
		for _, test := range []struct {
			name  string
			fault Fault
			code  codes.Code
			done  bool
		}{
			{"before the first", Fault{Node: proxy, DropRequest: true}, codes.DeadlineExceeded, false},
			{"before the second", Fault{Node: leader, DropRequest: true}, codes.DeadlineExceeded, false},
			{"behind the second", Fault{Node: leader, DropAnswer: true}, codes.DeadlineExceeded, true},
			{"behind the first", Fault{Node: proxy, DropAnswer: true}, codes.DeadlineExceeded, true},
			{"broken at the second", Fault{Node: leader, Disconnect: true}, codes.Unavailable, true},
			{"broken at the first", Fault{Node: proxy, Disconnect: true}, codes.Unavailable, true},
			{"mangled by the second", Fault{Node: leader, Mangle: truncate}, codes.Canceled, true},
			{"mangled by the first", Fault{Node: proxy, Mangle: truncate}, codes.Internal, true},
			{"mangled by both", Fault{Mangle: truncate}, codes.Canceled, true},
			{"refused by the first", Fault{Node: proxy, RegionError: ServerIsBusy}, codes.OK, false},
			{"refused by the second", Fault{Node: leader, RegionError: ServerIsBusy}, codes.OK, false},
			{"delayed by both", Fault{Delay: 400 * time.Millisecond}, codes.OK, true},
			{"delayed by both for too long", Fault{Delay: 600 * time.Millisecond}, codes.DeadlineExceeded, true},
			{"at another", Fault{Node: other, DropRequest: true}, codes.OK, true},
		} {
			test.fault.Method = "RawCompareAndSwap"
			f := p.Inject(test.fault)
			resp, err := swap()
			<-time.After(time.Second)
			f.Remove()
			hits := 1
			switch test.fault.Node {
			case Node{}:
				hits = 2
			case other:
				hits = 0
			}
			if status.Code(err) != test.code || f.Hits() != hits {
				t.Errorf("%s: %v, %d hits", test.name, err, f.Hits())
			}
			if r := test.fault.RegionError; r != 0 && kindOf(resp.GetRegionError()) != r {
				t.Errorf("%s: %v", test.name, resp)
			}
			got, _ := p.rawGet("a")
			if test.done {
				last += "+"
			}
			if got != last {
				t.Fatalf("%s: %q, want %q", test.name, got, last)
			}
		}
	})
}

// A client that is cut off from the leader alone reaches it through another store.
func TestForwardedAroundACut(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		p := startProxied(t, opts...)
		p.must(p.Cut(Client(), Store(p.leader)))
		p.must(p.Cut(Store(p.leader), Client()))
		p.must(p.put(time.Minute))
		stream, err := p.tikv(p.proxy).BatchCommands(through(t.Context(), p.addr))
		p.must(err)
		for id := range uint64(3) {
			p.must(stream.Send(rawGets(p.at, id)))
			m, err := stream.Recv()
			p.must(err)
			if len(m.Responses) != 1 || string(m.Responses[0].GetRawGet().GetValue()) != "v" {
				t.Fatal(m)
			}
		}
		p.must(stream.CloseSend())
		if m, err := stream.Recv(); err != io.EOF {
			t.Fatal(m, err)
		}
	})
}

// What stands between the two stores: before a connection, which is waited for as long as
// TiKV does, and on one.
func TestForwardedOverALostWay(t *testing.T) {
	lose := map[string]func(p *proxied) error{
		"cut there":  func(p *proxied) error { return p.Cut(Store(p.proxy), Store(p.leader)) },
		"cut back":   func(p *proxied) error { return p.Cut(Store(p.leader), Store(p.proxy)) },
		"the second": func(p *proxied) error { return p.Pause(Store(p.leader)) },
	}
	find := func(p *proxied) error {
		p.Heal()
		return p.Start(Store(p.leader))
	}
	for name, lose := range lose {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := startProxied(t)
				// took asserts how a call ends that is lost, and after how long.
				took := func(code codes.Code, want time.Duration) {
					t.Helper()
					var err error
					if d := wait(func() { err = p.put(time.Minute) }); status.Code(err) != code || d != want {
						t.Errorf("%v after %v, want %v after %v", err, d, code, want)
					}
				}
				p.must(lose(p))
				took(codes.Canceled, 3*time.Second) // no connection
				done := p.later(time.Minute)
				<-time.After(2 * time.Second)
				p.must(find(p))
				p.must(<-done) // it was made in time
				p.must(lose(p))
				took(codes.Unavailable, 13*time.Second) // there is one, which says nothing
				took(codes.Canceled, 3*time.Second)
				p.must(find(p))
				p.must(p.put(time.Minute))

				// A call under way is lost, and found.
				hold := p.Inject(Fault{Node: Store(p.leader), Method: "RawPut", Hold: true})
				done = p.later(time.Hour)
				<-time.After(time.Minute) // a quiet connection stays
				p.must(lose(p))
				<-time.After(12 * time.Second)
				hold.Release()
				synctest.Wait()
				select {
				case err := <-done:
					if name != "cut there" {
						t.Fatal("an answer passed:", err)
					}
					p.must(err)
					done = nil
				default:
					if name == "cut there" {
						t.Fatal("the way back is not cut")
					}
				}
				p.must(find(p))
				if done != nil {
					p.must(<-done)
				}
				// And a stream, though nothing is asked on it.
				hold.Remove()
				stream, err := p.tikv(p.proxy).BatchCommands(through(t.Context(), p.addr))
				p.must(err)
				p.must(stream.Send(rawGets(p.at, 1)))
				_, err = stream.Recv()
				p.must(err)
				p.must(lose(p))
				if d := wait(func() { _, err = stream.Recv() }); status.Code(err) != codes.Canceled || d != 13*time.Second {
					t.Error(err, "after", d)
				}
			})
		})
	}
}

// The stores themselves end, freeze and move.
func TestForwardedToStoppedStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startProxied(t)
		code := func(err error, want codes.Code) {
			t.Helper()
			if status.Code(err) != want {
				t.Errorf("%v, want %v", err, want)
			}
		}
		under := func() (*Injection, <-chan error, grpc.BidiStreamingClient[tikvpb.BatchCommandsRequest, tikvpb.BatchCommandsResponse]) {
			hold := p.Inject(Fault{Node: Store(p.leader), Method: "RawPut", Hold: true})
			stream, err := p.conn(p.store(p.proxy).Server().Addr()).NewStream(through(t.Context(), p.addr),
				&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/tikvpb.Tikv/BatchCommands")
			p.must(err)
			return hold, p.later(time.Hour), &grpc.GenericClientStream[tikvpb.BatchCommandsRequest, tikvpb.BatchCommandsResponse]{ClientStream: stream}
		}
		// The second store ends while it works.
		hold, done, stream := under()
		if hold.Waiting() != 1 {
			t.Fatal(hold.Waiting())
		}
		p.must(p.Stop(Store(p.leader)))
		code(<-done, codes.Unavailable)
		_, err := stream.Recv()
		code(err, codes.Canceled)
		// While it is away, nobody is there; nor at an address of nobody.
		for _, addr := range []string{p.addr, "nowhere:1"} {
			ctx := through(t.Context(), addr)
			began := time.Now()
			_, err := p.tikv(p.proxy).RawGet(ctx, &kvrpcpb.RawGetRequest{Context: p.at, Key: []byte("a")})
			code(err, codes.Canceled)
			stream, err := p.tikv(p.proxy).BatchCommands(ctx)
			p.must(err)
			_, err = stream.Recv()
			code(err, codes.Canceled)
			if d := time.Since(began); d != 6*time.Second {
				t.Error(addr, d)
			}
		}
		hold.Remove()
		p.must(p.Start(Store(p.leader)))
		code(p.put(time.Minute), codes.OK)

		// The first one ends.
		hold, done, stream = under()
		p.must(p.Stop(Store(p.proxy)))
		code(<-done, codes.Unavailable)
		_, err = stream.Recv()
		code(err, codes.Unavailable)
		if hold.Waiting() != 1 {
			t.Error("what it had passed on ended with it")
		}
		p.must(p.Start(Store(p.proxy)))
		hold.Remove()

		// The first one freezes, and the answer waits for it.
		hold, done, _ = under()
		p.must(p.Pause(Store(p.proxy)))
		hold.Release()
		<-time.After(5 * time.Second)
		select {
		case err := <-done:
			t.Fatal("a frozen store answered:", err)
		default:
		}
		p.must(p.Start(Store(p.proxy)))
		p.must(<-done)
		hold.Remove()

		// The second one moves.
		p.must(p.Move(Store(p.leader)))
		code(p.put(time.Minute), codes.Canceled)
		p.addr = p.store(p.leader).Server().Addr()
		code(p.put(time.Minute), codes.OK)
	})
}

// rawGets is a batch of gets of "a".
func rawGets(at *kvrpcpb.Context, ids ...uint64) *tikvpb.BatchCommandsRequest {
	m := new(tikvpb.BatchCommandsRequest)
	for _, id := range ids {
		m.RequestIds = append(m.RequestIds, id)
		m.Requests = append(m.Requests, &tikvpb.BatchCommandsRequest_Request{
			Cmd: &tikvpb.BatchCommandsRequest_Request_RawGet{RawGet: &kvrpcpb.RawGetRequest{Context: at, Key: []byte("a")}},
		})
	}
	return m
}

// A stream goes to the other store whole, and fails whole.
func TestForwardedBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startProxied(t)
		p.rawPut("a", "v")
		open := func() tikvpb.Tikv_BatchCommandsClient {
			stream, err := p.tikv(p.proxy).BatchCommands(through(t.Context(), p.addr))
			p.must(err)
			return stream
		}
		stream := open()
		trace := p.Trace()
		ids := make([]uint64, 300)
		for i := range ids {
			ids[i] = uint64(i)
		}
		p.must(stream.Send(rawGets(p.at, ids...)))
		seen := make(map[uint64]bool)
		for reports := 0; len(seen) < len(ids); {
			m, err := stream.Recv()
			p.must(err)
			for i, r := range m.Responses {
				if string(r.GetRawGet().GetValue()) != "v" || seen[m.RequestIds[i]] {
					t.Fatal(m.RequestIds[i], r)
				}
				seen[m.RequestIds[i]] = true
			}
			if m.HealthFeedback != nil {
				reports++
				if m.HealthFeedback.StoreId != p.leader {
					t.Error("the health of", m.HealthFeedback.StoreId)
				}
			}
			if reports == 0 {
				t.Error("no word of its health")
			}
		}
		trace.Stop()
		at := make(map[string]int)
		for _, call := range trace.Calls() {
			at[call.Node.String()]++
		}
		if len(at) != 2 || at[Store(p.leader).String()] != len(ids) || at[Store(p.proxy).String()] != len(ids) {
			t.Error("who was asked how often:", at)
		}
		// An answer that is lost is no answer; one alone is lost.
		lost := p.Inject(Fault{Node: Store(p.leader), Times: 1, DropAnswer: true})
		p.must(stream.Send(rawGets(p.at, 1)))
		synctest.Wait()
		p.must(stream.Send(rawGets(p.at, 2)))
		if m, err := stream.Recv(); err != nil || lost.Hits() != 1 || len(m.RequestIds) != 1 || m.RequestIds[0] != 2 {
			t.Fatal(m, err)
		}
		// What the other does not understand, or refuses, or breaks, ends the stream.
		foreign := *p.at
		foreign.ClusterId++
		truncate := func(b []byte) []byte { return b[:max(0, len(b)-1)] }
		for name, test := range map[string]struct {
			fault Fault
			send  *tikvpb.BatchCommandsRequest
			code  codes.Code
		}{
			"another cluster":       {Fault{}, rawGets(&foreign, 1), codes.Canceled},
			"no id":                 {Fault{}, &tikvpb.BatchCommandsRequest{Requests: rawGets(p.at, 1).Requests}, codes.Canceled},
			"mangled by the second": {Fault{Node: Store(p.leader), Mangle: truncate}, rawGets(p.at, 1), codes.Canceled},
			"broken by the second":  {Fault{Node: Store(p.leader), Disconnect: true}, rawGets(p.at, 1), codes.Canceled},
			"broken by the first":   {Fault{Node: Store(p.proxy), Disconnect: true}, rawGets(p.at, 1), codes.Unavailable},
		} {
			stream, fault := open(), p.Inject(test.fault)
			p.must(stream.Send(test.send))
			m, err := stream.Recv()
			if fault.Remove(); status.Code(err) != test.code {
				t.Errorf("%s: %v %v", name, m, err)
			}
		}
		// A connection that breaks takes all down that goes over it.
		hold := p.Inject(Fault{Node: Store(p.leader), Method: "RawPut", Hold: true})
		done, stream := p.later(time.Hour), open()
		synctest.Wait()
		breaks := p.Inject(Fault{Node: Store(p.leader), Method: "RawGet", Disconnect: true})
		p.must(open().Send(rawGets(p.at, 1)))
		refused(t, <-done, codes.Unavailable, "closed")
		if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
			t.Error(err)
		}
		hold.Remove()
		breaks.Remove()
		p.must(p.put(time.Second))
	})
}
