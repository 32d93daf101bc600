package pd

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/transport"
)

// TestOneOfThreeAnswers: two of the members that the user named are away.
func TestOneOfThreeAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		away func(*member)
		took time.Duration
	}{"dead": {(*member).stop, 0}, "paused": {(*member).pause, DefaultAttemptTimeout}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, cl *cluster, pool *transport.Pool) {
				cl.addRegions("", "")
				cl.lead(2)
				c.away(cl.members[0])
				c.away(cl.members[1])
				began := time.Now()
				client := cl.open(t, pool)
				if d := time.Since(began); d != c.took {
					t.Errorf("took %v", d)
				}
				began = time.Now()
				wantTimestamp(t, client)
				if r, err := client.Region(t.Context(), nil); err != nil || r == nil {
					t.Error(r, err)
				}
				if d := time.Since(began); d != 0 {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}

// TestOneOfThreeIsLeft: two of the members go away under a client that is used; the third
// leads, at once or after an election. Calls go on as soon as it does, and those that come
// later do not wait.
func TestOneOfThreeIsLeft(t *testing.T) {
	for name, c := range map[string]struct {
		away func(*member)
		took time.Duration // beside the election
	}{
		"dead": {(*member).stop, 0},
		"swallowed": {func(m *member) {
			m.cluster.mu.Lock()
			m.cluster.lost[m.addr] = true
			m.cluster.mu.Unlock()
			m.stop()
		}, DefaultAttemptTimeout + patience}, // a stream for timestamps that does not open
		"paused": {(*member).pause, suspicion + patience},
	} {
		for _, election := range []time.Duration{0, leaseTime} {
			for call, do := range calls {
				if call == "Keyspace" { // which the fake does not have
					continue
				}
				t.Run(fmt.Sprint(name, " ", election, " ", call), func(t *testing.T) {
					inBubble(t, 3, func(t *testing.T, cl *cluster, pool *transport.Pool) {
						cl.addRegions("", "")
						client := cl.open(t, pool)
						must(t, do(t.Context(), client))
						c.away(cl.members[0])
						c.away(cl.members[1])
						if election == 0 {
							cl.lead(2)
						} else {
							time.AfterFunc(election, func() { cl.lead(2) })
						}
						synctest.Wait()
						began := time.Now()
						must(t, do(t.Context(), client))
						most := election + c.took
						if election > 0 {
							most += backoff.PD.Cap // until it is tried again
						}
						if d := time.Since(began); d > most {
							t.Errorf("took %v", d)
						}
						for range 10 {
							began = time.Now()
							must(t, do(t.Context(), client))
							if d := time.Since(began); d != 0 {
								t.Errorf("took %v afterwards", d)
							}
						}
					})
				})
			}
		}
	}
}

// TestMovedNames: all members are replaced by others at other addresses, and only the name
// that the user gave leads to one of them. It is looked up again for each connection. What
// is sent to the old addresses is refused, or swallowed.
func TestMovedNames(t *testing.T) {
	for name, took := range map[string]time.Duration{"refused": 0, "swallowed": DefaultAttemptTimeout + patience} {
		t.Run(name, func(t *testing.T) { testMovedNames(t, name == "swallowed", took) })
	}
}

func testMovedNames(t *testing.T, swallowed bool, took time.Duration) {
	inBubble(t, 3, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.names = map[string]int{"pd.service:2379": 0}
		client, err := Open(t.Context(), []string{"pd.service:2379"}, Config{Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		before := wantTimestamp(t, client)
		for _, m := range c.members {
			m.stop()
			c.mu.Lock()
			c.lost[m.addr] = swallowed
			m.addr = "new-" + m.addr
			c.mu.Unlock()
			m.start()
		}
		c.mu.Lock()
		c.names["pd.service:2379"], c.leader = 2, 1
		c.mu.Unlock()
		synctest.Wait()
		began := time.Now()
		if ts := wantTimestamp(t, client); ts <= before || client.Leader() != "new-pd1:2379" {
			t.Error(ts, before, client.Leader())
		}
		if d := time.Since(began); d > took {
			t.Errorf("took %v", d)
		}
	})
}

// TestViewIsRefreshed: a client that is used learns of new members without a failure, and
// one that is not asks nobody.
func TestViewIsRefreshed(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		wantTimestamp(t, client)
		before := c.count("GetMembers")
		advance(t, time.Hour)
		if n := c.count("GetMembers") - before; n != 0 {
			t.Errorf("%d calls of an idle client", n)
		}
		c.mu.Lock()
		other := c.members[2]
		other.addr = "pd9:2379"
		c.mu.Unlock()
		for range 600 {
			wantTimestamp(t, client)
			advance(t, time.Second)
		}
		if n := c.count("GetMembers") - before; n < 10 || n > 21 {
			t.Errorf("%d calls in ten minutes", n)
		}
		if m := client.members.Load(); m.addrs[2] != "pd9:2379" {
			t.Error(m.addrs)
		}
	})
}

// TestServiceModeSwitches: services appear beside PD, and go, while timestamps are asked
// for.
func TestServiceModeSwitches(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		last := wantTimestamp(t, client)
		ask := func(d time.Duration) {
			t.Helper()
			for until := time.Now().Add(d); time.Now().Before(until); {
				ts := wantTimestamp(t, client)
				if ts <= last {
					t.Fatal(ts, last)
				}
				last = ts
				advance(t, time.Second)
			}
		}
		for _, services := range []bool{true, false, true} {
			c.serve(services)
			if !services { // they end
				for _, m := range c.members {
					m.stop()
					m.start()
				}
			}
			ask(refreshEvery + 5*time.Second)
			pd, beside := c.count("Tso"), c.count("service")
			ask(10 * time.Second)
			pd, beside = c.count("Tso")-pd, c.count("service")-beside
			if services && (pd != 0 || beside != 10) || !services && (pd != 10 || beside != 0) {
				t.Errorf("services %v: %d of PD, %d of services", services, pd, beside)
			}
			c.lead((c.leader + 1) % 3)
			ask(time.Second)
		}
	})
}

// TestNonsense: what PD answers cannot be. It is asked again, and never believed.
func TestNonsense(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.addRegions("", "")
		client := c.open(t, pool)
		c.headerErr = &pdpb.Error{Type: 99, Message: "what is this"}
		_, err := client.Stores(t.Context())
		wantError(t, err, Rejected, nil)
		// Members without addresses, of no cluster, of another one: the last view stays.
		for _, flips := range [][]string{{""}, {"no address"}, {"http://:0"}} {
			c.mu.Lock()
			c.members[0].flips = flips
			c.mu.Unlock()
			client.search(t.Context(), client.members.Load())
			if l := client.Leader(); l != "pd0:2379" {
				t.Error(l)
			}
		}
		c.mu.Lock()
		c.members[0].flips, c.members[0].id = nil, 8
		c.mu.Unlock()
		client.search(t.Context(), client.members.Load())
		if id := client.ClusterID(); id != 7 {
			t.Error(id)
		}
		c.mu.Lock()
		c.members[0].id = 7
		c.regions[0].Region.Id = 0 // a region that is none
		c.mu.Unlock()
		if r, err := client.Region(t.Context(), nil); r != nil || err != nil {
			t.Error(r, err)
		}
		if scan, err := client.BatchScanRegions(t.Context(), []keys.Range{{}}, 0); err != nil || len(scan.Regions) != 0 || len(scan.Gaps) != 1 {
			t.Error(scan, err)
		}
	})
}

// TestNoMember: what is at the address of a member is none. Open and calls end with their
// time, and say what they met.
func TestNoMember(t *testing.T) {
	for name, c := range map[string]struct {
		raw  func(net.Conn)
		want string
	}{
		"another protocol": {func(c net.Conn) {
			go fmt.Fprint(c, "220 mail.example.org ESMTP at your service\r\n")
			_, _ = io.Copy(io.Discard, c)
		}, "frame"},
		"closed": {func(c net.Conn) { _, _ = io.CopyN(io.Discard, c, 24); c.Close() }, "closed pipe"},
		"silent": {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "preface"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, cl *cluster, pool *transport.Pool) {
				client := cl.open(t, pool)
				wantTimestamp(t, client)
				cl.mu.Lock()
				cl.raw = c.raw
				cl.mu.Unlock()
				cl.members[0].stop()
				synctest.Wait()
				for call, do := range map[string]func() error{
					"Open":      func() error { _, err := Open(t.Context(), cl.addrs(), Config{Pool: pool}); return err },
					"Stores":    func() error { return calls["Stores"](t.Context(), client) },
					"Timestamp": func() error { return calls["Timestamp"](t.Context(), client) },
				} {
					began := time.Now()
					err := do()
					wantError(t, err, Unavailable, ErrNoAnswer)
					if !strings.Contains(err.Error(), "pd0:2379") || !strings.Contains(err.Error(), c.want) {
						t.Errorf("%s: %v", call, err)
					}
					want := DefaultTimeout
					if call == "Timestamp" {
						want = DefaultTimestampTimeout
					}
					if d := time.Since(began); d != want {
						t.Errorf("%s: took %v", call, d)
					}
				}
			})
		})
	}
}

// TestIdleClient: one connection, one task, and nothing sent; also while PD is away.
func TestIdleClient(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.addRegions("", "")
		client := c.open(t, pool)
		wantTimestamp(t, client)
		if _, err := client.Region(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		advance(t, time.Hour)
		if names := client.tasks.Running(); len(names) != 1 {
			t.Errorf("running: %v", names)
		}
		c.mu.Lock()
		open := 0
		for _, conns := range c.conns {
			for _, conn := range conns {
				conn.mu.Lock()
				if !conn.closed {
					open++
				}
				conn.mu.Unlock()
			}
		}
		dials := c.dials
		c.mu.Unlock()
		if open != 1 {
			t.Errorf("%d connections", open)
		}
		for _, m := range c.members {
			m.stop()
		}
		advance(t, time.Hour)
		if n := c.dialled() - dials; n != 0 {
			t.Errorf("%d connections sought for nobody", n)
		}
	})
}
