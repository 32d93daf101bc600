package transport

import (
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// farewell is how long grpc waits for a socket that takes no more bytes to take its
// farewell (http2_client.go, goAwayLoopyWriterTimeout). A TCP socket takes them, or ends
// after keepaliveTimeout.
const farewell = 5 * time.Second

// TestCondition: what a pool knows of an address follows what its connections meet.
func TestCondition(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		call := func() error {
			return p.Call(t.Context(), Target{Addr: addr, Timeout: 20 * time.Second}, rawGet("k"), &kvrpcpb.RawGetResponse{})
		}
		if c := p.Condition(addr); c != (Condition{}) {
			t.Fatal(c)
		}
		born := time.Now()
		wantError(t, call(), Dial, false, errRefused)
		c := p.Condition(addr)
		if c.Connected || c.Failures != 1 || !errors.Is(c.Failure, errRefused) || !c.Failed.Equal(born) || !c.Since.Equal(born) {
			t.Fatalf("%+v", c)
		}
		advance(t, 10*time.Second)
		if c = p.Condition(addr); c.Failures < 2 || !c.Failed.After(born) || !c.Since.Equal(born) {
			t.Fatalf("%+v", c)
		}

		// Taken and not answered.
		l := n.listen(addr)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				if _, err := l.Accept(); err != nil {
					return
				}
			}
		}()
		wantError(t, call(), Dial, false, nil)
		advance(t, 10*time.Second)
		if c = p.Condition(addr); c.Connected || c.Failure != errMute {
			t.Fatalf("%+v", c)
		}

		l.Close()
		n.serve(t, addr, &store{batch: echo(nil)})
		advance(t, 10*time.Second)
		if err := call(); err != nil {
			t.Fatal(err)
		}
		if c = p.Condition(addr); !c.Connected || c.Failures != 0 || c.Failure != nil || !c.Since.After(born) {
			t.Fatalf("%+v", c)
		}

		// Silent from now on: found out by a ping, at the latest.
		n.freeze(addr)
		frozen := time.Now()
		wantError(t, call(), ConnLost, true, nil)
		synctest.Wait()
		if c = p.Condition(addr); c.Failures == 0 || time.Since(frozen) > keepaliveTime+keepaliveTimeout+farewell {
			t.Fatalf("%+v, after %v", c, time.Since(frozen))
		}
		if err := call(); err != nil {
			t.Fatal(err)
		}

		n.cut(addr)
		synctest.Wait()
		if c = p.Condition(addr); c.Failures != 1 || !c.Failed.Equal(time.Now()) {
			t.Fatalf("%+v", c)
		}

		// What this side ends is no failure.
		if err := call(); err != nil {
			t.Fatal(err)
		}
		e := (*p.endpoints.Load())[addr]
		p.Drop(addr)
		synctest.Wait()
		if c := e.condition.get(); c.Connected || c.Failures != 0 {
			t.Fatalf("%+v", c)
		}
	})
}

// TestNoPingsWithoutCalls: a connection without calls is left in peace, also by a server
// that ends connections for pings, as PD's is. With a stream it is pinged, which no
// server minds, and found dead soon after its next call.
func TestNoPingsWithoutCalls(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, n *network, p *Pool) {
		// As PD has it: a ping each 5 s, and none without a call.
		n.serve(t, addr, &store{batch: echo(nil)}, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}))
		if err := p.Health(t.Context(), addr); err != nil {
			t.Fatal(err)
		}
		advance(t, IdleLimit-time.Second)
		if d := n.dialled(addr); d != 1 || !p.Condition(addr).Connected {
			t.Fatalf("%d connections", d)
		}
		if _, err := ask(t.Context(), p, addr, rawGet("k")); err != nil { // opens a stream, which stays
			t.Fatal(err)
		}
		advance(t, IdleLimit-time.Second)
		if d := n.dialled(addr); d != 1 || !p.Condition(addr).Connected {
			t.Fatalf("%d connections", d)
		}
		n.freeze(addr)
		began := time.Now()
		_, err := ask(t.Context(), p, addr, rawGet("k"))
		if err == nil || time.Since(began) > keepaliveTime+keepaliveTimeout+farewell {
			t.Fatal(err, time.Since(began))
		}
	})
}

// TestErrorsNameWhatWasDialled: an address that PD advertises, and what became of it.
func TestErrorsNameWhatWasDialled(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want []string
	}{
		"as it is": {Config{}, []string{addr + ": dial: dialling " + addr + ": connection refused"}},
		"mapped": {Config{AddressMap: func(string) string { return "10.0.0.1:1" }},
			[]string{addr + ": dial: ", "dialling 10.0.0.1:1, to which " + addr + " is mapped: connection refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, c.cfg, func(t *testing.T, _ *network, p *Pool) {
				for _, req := range []Message{rawGet("k"), &kvrpcpb.RawCASRequest{}} {
					_, err := ask(t.Context(), p, addr, req)
					wantError(t, err, Dial, false, errRefused)
					for _, want := range c.want {
						if !strings.Contains(err.Error(), want) {
							t.Errorf("%v lacks %q", err, want)
						}
					}
					var dial *DialError
					if !errors.As(err, &dial) || dial.Advertised != addr {
						t.Errorf("%#v", err)
					}
				}
			})
		})
	}
	// What hangs is named as well: it is what an address out of reach does.
	inBubble(t, Config{AddressMap: func(string) string { return "10.0.0.1:1" }}, func(t *testing.T, n *network, p *Pool) {
		n.stall("10.0.0.1:1")
		for _, way := range ways {
			if _, err := way.call(t.Context(), p, "k"); err == nil || !strings.Contains(err.Error(), "dialling 10.0.0.1:1, to which "+addr+" is mapped: ") {
				t.Errorf("%s: %v", way.name, err)
			}
		}
	})
	// The system's own dialler says it in its way.
	p := New(Config{DialTimeout: time.Hour})
	defer p.Close()
	gone := deafAddress(t)
	_, err := ask(t.Context(), p, gone, rawGet("k"))
	if err == nil || !strings.Contains(err.Error(), gone+": connect: connection refused") {
		t.Error(err)
	}
}

// deafAddress is one where nobody listens, nor can until the test has ended: that of the other
// end of a connection.
func deafAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

// TestConditionsTogether: of several connections, one that stands counts.
func TestConditionsTogether(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	up := Condition{Connected: true, Since: at(5), Conns: 1}
	failing := Condition{Since: at(2), Failures: 3, Failure: errRefused, Failed: at(9)}
	older := Condition{Connected: true, Since: at(1), Conns: 2}
	for _, c := range []struct{ a, b, want Condition }{
		{Condition{}, up, up},
		{Condition{}, Condition{}, Condition{}},
		{up, failing, Condition{Connected: true, Since: at(5), Conns: 1, Failures: 3, Failure: errRefused, Failed: at(9)}},
		{up, older, Condition{Connected: true, Since: at(1), Conns: 3}},
	} {
		if got := c.a.and(c.b); got != c.want {
			t.Errorf("%+v", got)
		}
		if got := c.b.and(c.a); got != c.want {
			t.Errorf("turned: %+v", got)
		}
	}
}
