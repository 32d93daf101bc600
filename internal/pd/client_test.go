package pd

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/transport"
)

func TestOpen(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.lead(2)
		for _, addrs := range [][]string{
			{"pd0:2379"}, {"http://pd1:2379/"}, {"nowhere:1", "https://pd2:2379", "pd2:2379"},
		} {
			client, err := Open(t.Context(), addrs, Config{Pool: pool})
			if err != nil {
				t.Fatal(err)
			}
			if client.ClusterID() != 7 || client.Leader() != "pd2:2379" {
				t.Errorf("%v: cluster %d, leader %s", addrs, client.ClusterID(), client.Leader())
			}
			wantTimestamp(t, client)
			client.Close()
		}
	})
}

func TestOpenFails(t *testing.T) {
	for name, c := range map[string]struct {
		addrs   []string
		prepare func(*cluster)
		kind    Kind
		cause   error
		took    time.Duration
	}{
		"no address":  {nil, nil, Rejected, nil, 0},
		"bad address": {[]string{"pd0"}, nil, Rejected, nil, 0},
		"a path":      {[]string{"pd0:2379/pd"}, nil, Rejected, nil, 0},
		"other clusters": {[]string{"pd0:2379", "pd1:2379"}, func(c *cluster) { c.members[1].id = 8 },
			WrongCluster, ErrWrongCluster, 0},
		"no cluster id": {[]string{"pd0:2379"}, func(c *cluster) { c.members[0].id = 0 },
			Unavailable, ErrNoAnswer, DefaultTimeout},
		"no leader": {[]string{"pd0:2379"}, func(c *cluster) { c.members[0].blind = true },
			Unavailable, ErrNoAnswer, DefaultTimeout},
		"dead": {[]string{"pd0:2379"}, func(c *cluster) { c.members[0].stop() },
			Unavailable, ErrNoAnswer, DefaultTimeout},
		"paused": {[]string{"pd0:2379"}, func(c *cluster) { c.members[0].pause() },
			Unavailable, ErrNoAnswer, DefaultTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, cl *cluster, pool *transport.Pool) {
				if c.prepare != nil {
					c.prepare(cl)
				}
				began := time.Now()
				_, err := Open(t.Context(), c.addrs, Config{Pool: pool})
				wantError(t, err, c.kind, c.cause)
				if d := time.Since(began); d != c.took {
					t.Errorf("took %v", d)
				}
				if c.took == 0 {
					return
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				began = time.Now()
				_, err = Open(ctx, c.addrs, Config{Pool: pool})
				wantError(t, err, c.kind, context.DeadlineExceeded)
				if d := time.Since(began); d != 5*time.Second {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}

// TestOpenWithOneSilent: one frozen member costs an attempt, not more.
func TestOpenWithOneSilent(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.members[1].pause()
		began := time.Now()
		c.open(t, pool)
		if d := time.Since(began); d != DefaultAttemptTimeout {
			t.Errorf("took %v", d)
		}
	})
}

func TestOpenWaitsForALeader(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.members[0].blind = true
		time.AfterFunc(4*time.Second, func() {
			c.mu.Lock()
			c.members[0].blind = false
			c.mu.Unlock()
		})
		c.open(t, pool)
	})
}

func (c *cluster) addRegions(bounds ...string) {
	for i := range len(bounds) - 1 {
		c.regions = append(c.regions, &pdpb.Region{
			Region: &metapb.Region{Id: uint64(i + 1), StartKey: []byte(bounds[i]), EndKey: []byte(bounds[i+1])},
			Leader: &metapb.Peer{Id: uint64(100 + i), StoreId: 1},
		})
	}
}

func TestRegions(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.addRegions("", "b", "d", "")
		c.regions[1].Leader = &metapb.Peer{}
		c.regions[2].DownPeers = []*pdpb.PeerStats{{Peer: &metapb.Peer{Id: 5}}, {}}
		c.regions[2].PendingPeers = []*metapb.Peer{{Id: 6}}
		client := c.open(t, pool)
		for _, q := range []struct {
			name string
			get  func(context.Context, []byte, ...LookupOption) (*Region, error)
			key  string
			id   uint64
		}{
			{"Region", client.Region, "", 1}, {"Region", client.Region, "a", 1}, {"Region", client.Region, "b", 2},
			{"Region", client.Region, "z", 3},
			{"PrevRegion", client.PrevRegion, "a", 1}, {"PrevRegion", client.PrevRegion, "b", 1},
			{"PrevRegion", client.PrevRegion, "c", 2}, {"PrevRegion", client.PrevRegion, "d", 2},
			{"PrevRegion", client.PrevRegion, "z", 3}, {"PrevRegion", client.PrevRegion, "", 3},
		} {
			r, err := q.get(t.Context(), []byte(q.key))
			if err != nil || r.Meta.GetId() != q.id {
				t.Errorf("%s(%q): %v, %v", q.name, q.key, r, err)
			}
		}
		r, err := client.RegionByID(t.Context(), 3)
		if err != nil || r.Leader.GetId() != 102 || len(r.Down) != 1 || r.Down[0].Id != 5 || len(r.Pending) != 1 {
			t.Error(r, err)
		}
		if r, err = client.RegionByID(t.Context(), 2); err != nil || r.Leader != nil {
			t.Error("a leader without id:", r, err)
		}
		if r, err = client.RegionByID(t.Context(), 99); err != nil || r != nil {
			t.Error(r, err)
		}
		for _, q := range []struct {
			start, end string
			limit      int
			ids        []uint64
		}{
			{"", "", 0, []uint64{1, 2, 3}}, {"", "", 2, []uint64{1, 2}}, {"b", "c", 0, []uint64{2}},
			{"c", "", 0, []uint64{2, 3}}, {"", "b", -1, []uint64{1}}, {"c", "c", 0, nil}, {"d", "c", 0, nil},
		} {
			regions, err := client.ScanRegions(t.Context(), keys.Range{Start: []byte(q.start), End: []byte(q.end)}, q.limit)
			var ids []uint64
			for _, r := range regions {
				ids = append(ids, r.Meta.Id)
			}
			if err != nil || len(ids) != len(q.ids) {
				t.Fatalf("%v: %v, %v", q, ids, err)
			}
			for i := range ids {
				if ids[i] != q.ids[i] {
					t.Errorf("%v: %v", q, ids)
				}
			}
		}
	})
}

func TestRegionsThatPDDoesNotKnow(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		for _, key := range []string{"", "k"} {
			if r, err := client.Region(t.Context(), []byte(key)); r != nil || err != nil {
				t.Error(r, err)
			}
			if r, err := client.PrevRegion(t.Context(), []byte(key)); r != nil || err != nil {
				t.Error(r, err)
			}
		}
		if r, err := client.ScanRegions(t.Context(), keys.Range{}, 0); len(r) != 0 || err != nil {
			t.Error(r, err)
		}
	})
}

func TestStores(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.stores[1] = &metapb.Store{Id: 1, Address: "store1:20160"}
		c.stores[2] = &metapb.Store{Id: 2, State: metapb.StoreState_Tombstone}
		client := c.open(t, pool)
		if s, err := client.Store(t.Context(), 1); err != nil || s.Address != "store1:20160" {
			t.Error(s, err)
		}
		if s, err := client.Store(t.Context(), 2); err != nil || s.State != metapb.StoreState_Tombstone {
			t.Error(s, err)
		}
		_, err := client.Store(t.Context(), 3)
		wantError(t, err, NotFound, ErrStoreNotFound)
		if s, err := client.Stores(t.Context()); err != nil || len(s) != 1 || s[0].Id != 1 {
			t.Error(s, err)
		}
	})
}

func TestKeyspacesAndSafePoints(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		for name, id := range map[string]uint32{"": 0, "DEFAULT": 0, "mine": 42} {
			if m, err := client.Keyspace(t.Context(), name); err != nil || m.GetId() != id {
				t.Error(name, m, err)
			}
		}
		_, err := client.Keyspace(t.Context(), "none")
		wantError(t, err, NotFound, ErrKeyspaceNotFound)
		_, err = client.Keyspace(t.Context(), "huge")
		wantError(t, err, Rejected, nil)
		for _, id := range []uint32{42, codec.NullKeyspaceID} {
			txn, gc, err := client.GCState(t.Context(), id)
			if err != nil || txn != uint64(id)+2 || gc != uint64(id)+1 {
				t.Error(txn, gc, err)
			}
		}
	})
}

// TestFollowsTheLeader: a member that leads no more says so, dies, or says nothing.
func TestFollowsTheLeader(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*cluster)
		took time.Duration
	}{
		"resigns": {func(c *cluster) { c.lead(1) }, 0},
		"dies":    {func(c *cluster) { c.members[0].stop(); c.lead(1) }, 0},
		"paused":  {func(c *cluster) { c.members[0].pause(); c.lead(1) }, DefaultAttemptTimeout + patience},
		"dies, election after the lease": {func(c *cluster) {
			c.members[0].stop()
			time.AfterFunc(leaseTime, func() { c.lead(1) })
		}, leaseTime + 3*time.Second},
		"resigns, others late to know": {func(c *cluster) {
			c.lead(1)
			c.members[2].stuck = "http://pd0:2379"
			c.members[0].stuck = "http://pd0:2379"
			time.AfterFunc(time.Second, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.members[2].stuck = ""
			})
		}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, cl *cluster, pool *transport.Pool) {
				cl.addRegions("", "")
				client := cl.open(t, pool)
				c.end(cl)
				began := time.Now()
				if r, err := client.Region(t.Context(), []byte("k")); err != nil || r == nil {
					t.Fatal(r, err)
				}
				if d := time.Since(began); d > c.took {
					t.Errorf("took %v", d)
				}
				if l := client.Leader(); l != "pd1:2379" {
					t.Errorf("leader %s", l)
				}
			})
		})
	}
}

// TestSearchIsShared: many calls that fail together ask the members once.
func TestSearchIsShared(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster, pool *transport.Pool) {
		c.addRegions("", "")
		client := c.open(t, pool)
		c.lead(1)
		before := c.count("GetMembers")
		done := make(chan error)
		for range 100 {
			go func() {
				_, err := client.Region(t.Context(), nil)
				done <- err
			}()
		}
		for range 100 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := c.count("GetMembers") - before; n != 3 {
			t.Errorf("%d GetMembers", n)
		}
	})
}

func TestHeaderErrors(t *testing.T) {
	for typ, kind := range map[pdpb.ErrorType]Kind{
		pdpb.ErrorType_UNKNOWN:          Rejected,
		pdpb.ErrorType_INVALID_VALUE:    Rejected,
		pdpb.ErrorType_NOT_BOOTSTRAPPED: 0, // tried again
		pdpb.ErrorType_REGION_NOT_FOUND: 0,
	} {
		t.Run(typ.String(), func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
				c.addRegions("", "")
				client := c.open(t, pool)
				c.headerErr = &pdpb.Error{Type: typ, Message: "so it is"}
				regions, err := client.ScanRegions(t.Context(), keys.Range{}, 0)
				if kind == 0 {
					if err != nil || len(regions) != 1 {
						t.Error(regions, err)
					}
					return
				}
				wantError(t, err, kind, nil)
				if e := err.(*Error); e.Code != typ || e.Op != "BatchScanRegions" || e.Addr != "pd0:2379" {
					t.Errorf("%#v", e)
				}
			})
		})
	}
}

// TestAnotherCluster: the address now leads to a PD of another cluster. That is an error
// at once, of timestamps too, whether PD says so or only its answers show it.
func TestAnotherCluster(t *testing.T) {
	for _, lax := range []bool{false, true} {
		inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
			client := c.open(t, pool)
			wantTimestamp(t, client)
			c.mu.Lock()
			c.members[0].id, c.members[0].lax = 8, lax
			c.mu.Unlock()
			began := time.Now()
			_, err := client.Stores(t.Context())
			wantError(t, err, WrongCluster, ErrWrongCluster)
			_, err = client.Timestamp(t.Context())
			wantError(t, err, WrongCluster, ErrWrongCluster)
			if d := time.Since(began); d != 0 {
				t.Errorf("took %v", d)
			}
		})
	}
}

func TestElect(t *testing.T) {
	view := func(from, leader string) *members { return &members{from: from, leader: leader} }
	for want, answers := range map[string][]*members{
		"":  {},
		"a": {view("1", "a")},
		"b": {view("1", "a"), view("2", "b"), view("3", "b")},
		"c": {view("1", "c"), view("2", "d")},
	} {
		if m := elect(answers); (m == nil) != (want == "") || m != nil && m.leader != want {
			t.Errorf("elected %v, not %q", m, want)
		}
	}
}

// TestMembersThatDisagree: each search names another leader, and none of them leads. The
// client does not run in circles.
func TestMembersThatDisagree(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		c.members[1].stop()
		c.members[2].stop()
		c.mu.Lock()
		c.leader = 1
		c.members[0].flips = []string{"http://pd1:2379", "http://pd0:2379"}
		c.mu.Unlock()
		before := c.count("GetMembers")
		_, err := client.Region(t.Context(), nil)
		wantError(t, err, Unavailable, ErrNoAnswer)
		if n := c.count("GetMembers") - before; n > 60 {
			t.Errorf("%d GetMembers", n)
		}
		began := len(c.tsoRequests())
		_, err = client.Timestamp(t.Context())
		wantError(t, err, Unavailable, ErrNoAnswer)
		if n := c.count("GetMembers") - before; n > 200 || len(c.tsoRequests()) != began {
			t.Errorf("%d GetMembers", n)
		}
	})
}

// TestCallsAreBounded: with PD gone each call ends after its default or with its
// context.
func TestCallsAreBounded(t *testing.T) {
	for name, end := range map[string]func(*member){"dead": (*member).stop, "paused": (*member).pause} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
				client := c.open(t, pool)
				end(c.members[0])
				began := time.Now()
				_, err := client.Region(t.Context(), nil)
				wantError(t, err, Unavailable, ErrNoAnswer)
				if d := time.Since(began); d != DefaultTimeout {
					t.Errorf("took %v", d)
				}

				ctx, cancel := context.WithCancelCause(t.Context())
				failed := make(chan error)
				go func() {
					_, err := client.PrevRegion(ctx, []byte("k"))
					failed <- err
				}()
				synctest.Wait()
				began = time.Now()
				cancel(errEnough)
				wantError(t, <-failed, Unavailable, errEnough)
				if d := time.Since(began); d != 0 {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}

// TestPoolClosed: the connections are the owner's of the client; without them it does
// not try for long.
func TestPoolClosed(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster, pool *transport.Pool) {
		client := c.open(t, pool)
		wantTimestamp(t, client)
		pool.Close()
		began := time.Now()
		_, err := client.Stores(t.Context())
		wantError(t, err, Closed, ErrClosed)
		_, err = client.Timestamp(t.Context())
		wantError(t, err, Closed, ErrClosed)
		if d := time.Since(began); d > time.Second {
			t.Errorf("took %v", d)
		}
	})
}

func TestHostPort(t *testing.T) {
	for in, want := range map[string]string{
		"pd:2379": "pd:2379", " pd:2379 ": "pd:2379", "http://pd:2379": "pd:2379", "https://pd:2379/": "pd:2379",
		"[::1]:2379": "[::1]:2379", "http://[fd00::1]:2379": "[fd00::1]:2379", "127.0.0.1:1": "127.0.0.1:1",
		"": "", "pd": "", ":2379": "", "pd:": "", "http://": "", "http://pd:2379/v1": "", "pd:2379?x=1": "", "::1:2379": "",
		"a b:1": "", "pd:99999": "", "pd:0": "", "pd:x": "", "[fe80::1%eth0]:1": "",
	} {
		if got, err := hostPort(in); got != want || (err != nil) != (want == "") {
			t.Errorf("hostPort(%q) = %q, %v", in, got, err)
		}
	}
}
