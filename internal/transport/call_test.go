package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestTable gives places to calls that come and go in any order; one that stays is met by
// the ids that come round to its place.
func TestTable(t *testing.T) {
	var tab table
	stays := &call{}
	tab.add(stays)
	var live []*call
	seen := map[uint64]bool{stays.id: true}
	for i := range 10 * tableSize {
		c := &call{}
		tab.add(c)
		if seen[c.id] {
			t.Fatalf("id %d twice", c.id)
		}
		seen[c.id] = true
		live = append(live, c)
		if i%3 != 0 || len(live) > 2*tableSize {
			tab.remove(live[0])
			if tab.find(live[0].id) != nil {
				t.Fatal("still there")
			}
			live = live[1:]
		}
		for _, c := range append(live, stays) {
			if tab.find(c.id) != c {
				t.Fatalf("id %d is lost", c.id)
			}
		}
		if tab.n != len(live)+1 || 2*tab.n > len(tab.places) {
			t.Fatalf("%d calls in %d places, want %d", tab.n, len(tab.places), len(live)+1)
		}
	}
	if (&table{}).find(1) != nil {
		t.Error("found in an empty table")
	}
}

// TestQueue: calls stand by priority, then in order, whoever leaves between.
func TestQueue(t *testing.T) {
	var q queue
	rng := rand.New(rand.NewPCG(1, 2))
	var want []*call
	for range 10000 {
		if len(want) > 0 && rng.IntN(5) < 2 {
			i := rng.IntN(len(want))
			q.remove(want[i])
			want = slices.Delete(want, i, i+1)
		} else {
			c := &call{flight: flight{class: class(rng.IntN(int(classes)))}}
			q.push(c)
			want = append(want, c)
			slices.SortStableFunc(want, func(a, b *call) int { return int(a.class) - int(b.class) })
		}
		var got []*call
		for c := q.first; c != nil; c = c.next {
			got = append(got, c)
		}
		if !slices.Equal(got, want) || q.n != len(want) {
			t.Fatalf("%d calls in another order than %d", len(got), len(want))
		}
		if len(want) > 100 {
			for _, c := range want {
				q.remove(c)
			}
			if want = nil; q.first != nil || q.last != [classes]*call{} {
				t.Fatal("something is left")
			}
		}
	}
}

// TestPriorities: where calls wait for a connection those of high priority are sent first.
func TestPriorities(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		var got []string
		n.serve(t, addr, &store{batch: func(s tikvpb.Tikv_BatchCommandsServer) error {
			in, err := s.Recv()
			for _, r := range in.GetRequests() {
				got = append(got, string(r.GetRawGet().GetKey()))
			}
			return errors.Join(err, mute(s))
		}})
		n.hold(addr)
		var all []Pending
		for i, pri := range []kvrpcpb.CommandPri{kvrpcpb.CommandPri_Normal, kvrpcpb.CommandPri_Low, kvrpcpb.CommandPri_High,
			kvrpcpb.CommandPri_Normal, kvrpcpb.CommandPri_High} {
			req := rawGet(fmt.Sprint(pri, i))
			req.Context.Priority = pri
			pending, err := p.Start(t.Context(), Target{Addr: addr}, req)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, pending)
		}
		synctest.Wait()
		n.release(addr)
		synctest.Wait()
		if fmt.Sprint(got) != "[High 2 High 4 Normal 0 Normal 3 Low 1]" {
			t.Error(got)
		}
		for _, pending := range all {
			pending.Cancel()
		}
	})
}

// TestAttemptEnds: an attempt's own time is kept wherever it waits: exactly if it is
// short, within two ticks if not. Later calls are not hurt.
func TestAttemptEnds(t *testing.T) {
	for _, timeout := range []time.Duration{time.Millisecond, exactBelow - 1, exactBelow, 7*time.Second + 30*time.Millisecond, 30 * time.Second} {
		for name, c := range map[string]struct {
			prepare func(t *testing.T, n *network)
			req     Message
			sent    bool
		}{
			"answer": {func(t *testing.T, n *network) { n.serve(t, addr, &store{batch: mute}) }, rawGet("k"), true},
			"queue":  {func(_ *testing.T, n *network) { n.hang[addr] = true }, rawGet("k"), false},
			"single": {func(t *testing.T, n *network) {
				n.serve(t, addr, &store{batch: mute}).unary.cas = func(ctx context.Context, _ *kvrpcpb.RawCASRequest) (*kvrpcpb.RawCASResponse, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
			}, &kvrpcpb.RawCASRequest{}, true},
		} {
			t.Run(fmt.Sprint(name, " ", timeout), func(t *testing.T) {
				inBubble(t, Config{DialTimeout: time.Hour}, func(t *testing.T, n *network, p *Pool) {
					c.prepare(t, n)
					for range 2 { // the clock starts again
						began := time.Now()
						err := p.Call(t.Context(), Target{Addr: addr, Timeout: timeout}, c.req, p.NewResponse(c.req))
						wantError(t, err, Expired, c.sent, ErrNoAnswer)
						d, exact := time.Since(began), name == "single" || timeout < exactBelow
						if d < timeout || exact && d != timeout || d > timeout+2*tick {
							t.Errorf("%v became %v", timeout, d)
						}
						wantLoad(t, p, 0, 0)
					}
				})
			})
		}
	}
}

// TestClockRests: without calls nothing ticks.
func TestClockRests(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		n.serve(t, addr, &store{batch: echo(nil)})
		if err := p.Call(t.Context(), Target{Addr: addr, Timeout: time.Minute}, rawGet("k"), &kvrpcpb.RawGetResponse{}); err != nil {
			t.Fatal(err)
		}
		e, _ := p.endpoint(Target{Addr: addr})
		advance(t, time.Hour)
		if e.mu.Lock(); e.ticking || e.ticks > 1 {
			t.Errorf("%d ticks in an idle hour, ticking %v", e.ticks, e.ticking)
		}
		e.mu.Unlock()
	})
}

// TestStart: one caller has many calls under way, which share a frame, waits for some in
// any order, and gives others up.
func TestStart(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		n.serve(t, addr, &store{batch: echo(nil)})
		n.hold(addr) // nothing is sent yet
		var all []Pending
		for i := range 100 {
			c, err := p.Start(t.Context(), Target{Addr: addr, Timeout: time.Minute}, rawGet(fmt.Sprint(i)))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		if all[99].Cancel() {
			t.Error("sent before anything could be")
		}
		n.release(addr)
		synctest.Wait()
		for i := 97; i >= 0; i-- {
			var resp kvrpcpb.RawGetResponse
			if err := all[i].Wait(t.Context(), &resp); err != nil || string(resp.Value) != fmt.Sprint(i) {
				t.Fatal(i, resp.Value, err)
			}
		}
		if !all[98].Cancel() {
			t.Error("answered and not sent")
		}
		wantLoad(t, p, 0, 0)
		if _, err := p.Start(t.Context(), Target{Addr: addr}, &kvrpcpb.RawCASRequest{}); err == nil || p.Batched(&kvrpcpb.RawCASRequest{}) || !p.Batched(rawGet("k")) {
			t.Error("started what is not batched")
		}
	})
}

type refuses struct{ err error }

func (r refuses) Unmarshal([]byte) error { return r.err }

// TestDecode: an answer that cannot be decoded is its caller's alone; one that shares the
// bytes it is decoded from gets its own.
func TestDecode(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		n.serve(t, addr, &store{batch: echo(nil)})
		bad := errors.New("bad")
		err := p.Call(t.Context(), Target{Addr: addr}, rawGet("k"), refuses{bad})
		wantError(t, err, Refused, true, bad)
		var first coprocessor.Response
		if err := p.Call(t.Context(), Target{Addr: addr}, &coprocessor.Request{Data: make([]byte, 5000)}, &first); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			wantValue(t, <-start(t.Context(), p, rawGet(string(make([]byte, 5000, 6000))+"x")), string(make([]byte, 5000))+"x")
		}
		for i, b := range first.Data {
			if b != 0 {
				t.Fatalf("byte %d was overwritten", i)
			}
		}
		if d := n.dialled(addr); d != 1 {
			t.Errorf("%d connections", d)
		}
	})
}

// lateContext is one whose deadline is known, and whose end has not come about yet.
type lateContext struct {
	context.Context
	deadline time.Time
}

func (c lateContext) Deadline() (time.Time, bool) { return c.deadline, true }

// TestServerEndsFirst: a server that is told a deadline may end the call by it a moment before
// its caller does, who gets its own error all the same.
func TestServerEndsFirst(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		e, err := p.endpoint(Target{Addr: addr})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			code codes.Code
			left time.Duration // of the caller's time, as its own clock has it
			kind Kind
		}{
			{codes.DeadlineExceeded, 0, Timeout},
			{codes.DeadlineExceeded, time.Millisecond, Timeout},
			{codes.Canceled, 0, Timeout},
			{codes.Canceled, time.Millisecond, ConnLost},
			{codes.Unavailable, 0, ConnLost},
		} {
			err := status.Error(c.code, "so it is")
			ctx := lateContext{t.Context(), time.Now().Add(c.left)}
			if got := e.callFailure(ctx, callKind(err), true, err); got.Kind != c.kind || (c.kind == Timeout) != (got.Err == context.DeadlineExceeded) {
				t.Errorf("%v, with %v left: %v", c.code, c.left, got)
			}
		}
	})
}
