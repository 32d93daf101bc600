package playground

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A cut between the client and a store, in either direction: what is lost, and what
// Heal brings back.
func TestCutClient(t *testing.T) {
	for name, test := range map[string]struct {
		cut     func(n Node) (from, to Node)
		handled bool
	}{
		"to the store":   {func(n Node) (Node, Node) { return Client(), n }, false},
		"from the store": {func(n Node) (Node, Node) { return n, Client() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t)
				c.rawPut("a", "v")
				at, kv := c.at(KeyRaw, "a")
				store := Store(at.Peer.StoreId)
				from, to := test.cut(store)
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				put := func(d time.Duration, key string) error {
					ctx, cancel := context.WithTimeout(t.Context(), d)
					defer cancel()
					_, err := kv.RawPut(ctx, &kvrpcpb.RawPutRequest{Context: at, Key: []byte(key), Value: []byte("v")})
					return err
				}
				must(c.Cut(from, to))
				if err := put(time.Second, "b"); status.Code(err) != codes.DeadlineExceeded {
					t.Fatal(err)
				}
				synctest.Wait()
				if _, calls := c.Counts().Calls["RawPut"], c.Counts().Calls["RawPut"]-1; (calls == 1) != test.handled {
					t.Fatal("requests that came through:", calls)
				}
				if err := put(time.Minute, "c"); err == nil { // the connection dies of its pings, no new one is made
					t.Fatal("a request passed a cut")
				}
				time.AfterFunc(time.Second, c.Heal)
				for began := time.Now(); put(time.Second, "d") != nil; {
					if time.Since(began) > 5*time.Minute {
						t.Fatal("the client does not reach the store after Heal")
					}
				}
				// Again, with the store stopped meanwhile: its end is not seen before Heal.
				must(c.Cut(store, Client()))
				must(c.Stop(store))
				if err := put(time.Second, "e"); status.Code(err) != codes.DeadlineExceeded {
					t.Fatal("the end of the store was seen:", err)
				}
				c.Heal()
				if err := put(2*time.Minute, "f"); status.Code(err) != codes.Unavailable {
					t.Fatal(err)
				}
			})
		})
	}
}

// A store that one of two others does not hear leads on; one that hears neither does
// not, nor does it know who leads then.
func TestCutStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		at, kv := c.at(KeyRaw, "a")
		leader := at.Peer.StoreId
		a, b := leader%3+1, (leader+1)%3+1
		if err := c.Cut(Store(a), Store(leader)); err != nil {
			t.Fatal(err)
		}
		if r := c.topo.ByID(at.RegionId); r.LeaderStore() != leader {
			t.Fatal("it lost its place to", r.LeaderStore())
		}
		if err := c.TransferLeader(at.RegionId, b); err != nil {
			t.Fatal(err)
		}
		if err := c.TransferLeader(at.RegionId, leader); err != nil {
			t.Fatal(err)
		}
		if err := c.Cut(Store(b), Store(leader)); err != nil {
			t.Fatal(err)
		}
		r := c.topo.ByID(at.RegionId)
		if r.LeaderStore() == leader || r.LeaderStore() == 0 {
			t.Fatal("led by", r.LeaderStore())
		}
		resp, err := kv.RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: at, Key: []byte("a")})
		if err != nil || resp.RegionError.GetNotLeader() == nil || resp.RegionError.NotLeader.Leader != nil {
			t.Fatal(resp, err)
		}
		expect(t, c.TransferLeader(at.RegionId, leader), "cannot lead")
		if err := c.Cut(Store(a), Store(b)); err != nil {
			t.Fatal(err)
		}
		if c.topo.ByID(at.RegionId).Leader != nil {
			t.Fatal("a region is led without a majority")
		}
		c.Heal()
		if !c.topo.Led() {
			t.Fatal("no leader after Heal")
		}
	})
}

// The same for PD's members.
func TestCutMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3))
		if err := c.Cut(Member(0), Member(1)); err != nil || c.pd.Leader() != 0 {
			t.Fatal(c.pd.Leader(), err)
		}
		if err := c.Cut(Member(2), Member(0)); err != nil || c.pd.Leader() != 0 { // its lease runs
			t.Fatal(c.pd.Leader(), err)
		}
		<-time.After(5 * time.Second)
		if c.pd.Leader() != 1 {
			t.Fatal(c.pd.Leader())
		}
		_, err := c.pdc().GetStore(t.Context(), &pdpb.GetStoreRequest{Header: c.header(), StoreId: 1})
		if status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		expect(t, c.TransferPD(0), "cut off")
		c.Heal()
		if err := c.TransferPD(0); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCutRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		expect(t, c.Cut(Client(), Store(9)), "no store 9")
		expect(t, c.Cut(Store(1), Member(0)), "nothing is sent")
		expect(t, c.Cut(Client(), Client()), "nothing is sent")
		expect(t, c.Cut(Node{}, Store(1)), "no any node")
		c.Heal()
	})
}
