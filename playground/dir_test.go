package playground

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
)

// A cluster in a directory comes back as it was: its id, regions, data, safe points,
// and timestamps above those that it gave out.
func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	var id, last uint64
	var regions []Region
	for round := range 3 {
		t.Run("", func(t *testing.T) {
			c := start(t, WithDir(dir, round == 1))
			switch round {
			case 0:
				id = c.ID()
				if _, err := c.Split(KeyTxn, []byte("m")); err != nil {
					t.Fatal(err)
				}
				regions = c.Regions(KeyTxn)
				c.Advance(time.Hour) // a clock that goes back at the restart
				s := c.timestamp()
				c.prewrite(s, "z", "1")
				if p := c.commit(s, c.timestamp(), "z"); p.Error != nil {
					t.Fatal(p)
				}
				for range 50 {
					stream, err := c.pdc().Tso(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					_, last = tsoAsk(t, c, stream, 10000)
				}
				if _, err := c.pdc().AdvanceTxnSafePoint(t.Context(), &pdpb.AdvanceTxnSafePointRequest{Header: c.header(), Target: 42}); err != nil {
					t.Fatal(err)
				}
			default:
				now := c.Regions(KeyTxn)
				if c.ID() != id || len(now) != 2 {
					t.Fatal(c.ID(), now)
				}
				for i, r := range now {
					if r.ID != regions[i].ID || r.Version != regions[i].Version || string(r.Start) != string(regions[i].Start) || r.Leader == 0 {
						t.Fatal(r, regions[i])
					}
				}
				ts := c.timestamp()
				if ts <= last {
					t.Fatalf("timestamp %d after %d", ts, last)
				}
				last = ts
				if g := c.get(ts, "z"); string(g.Value) != "1" {
					t.Fatal(g)
				}
				s, err := c.pdc().GetGCState(t.Context(), &pdpb.GetGCStateRequest{Header: c.header()})
				if err != nil || s.GcState.TxnSafePoint != 42 {
					t.Fatal(s, err)
				}
				r, err := c.pdc().AllocID(t.Context(), &pdpb.AllocIDRequest{Header: c.header()})
				if err != nil || r.Id <= regions[0].ID || r.Id <= regions[1].ID {
					t.Fatal(r, err)
				}
			}
		})
	}
}

func TestDirectoryRemembersItsShape(t *testing.T) {
	dir := t.TempDir()
	c, err := Start(t.Context(), WithDir(dir, false), WithAPIVersion(APIV2), WithStores(2), WithKeyspaces("ks"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), WithDir(dir, false)); err == nil {
		t.Fatal("a directory in use was opened again")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, refuse := range []struct {
		opt  Option
		want string
	}{
		{WithAPIVersion(APIV1), "holds a cluster of API version v2, it cannot become one of v1"},
		{WithStores(3), "holds a cluster of 2 stores, not of 3"},
		{WithMembers(3), "holds a cluster of 1 members"},
		{WithKeyspaces("other"), `has no keyspace "other"`},
	} {
		_, err := Start(t.Context(), WithDir(dir, false), refuse.opt)
		expect(t, err, refuse.want)
	}
	again := start(t, WithDir(dir, false), WithKeyspaces("ks"))
	if again.APIVersion() != APIV2 || len(again.stores) != 2 || again.ID() != c.ID() {
		t.Fatal(again.APIVersion(), len(again.stores))
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, test := range []struct {
		opts []Option
		want string
	}{
		{[]Option{WithStores(0)}, "1 to 1000 stores"},
		{[]Option{WithMembers(-1)}, "members"},
		{[]Option{WithAPIVersion(3)}, "no such API version"},
		{[]Option{WithKeyspaces("a")}, "keyspaces need APIV2"},
		{[]Option{WithAPIVersion(APIV1), WithKeyspaces("a")}, "keyspaces need APIV2"},
		{[]Option{WithAPIVersion(APIV2), WithKeyspaces("a", "a")}, "no name for another keyspace"},
		{[]Option{WithAPIVersion(APIV2), WithKeyspaces("DEFAULT")}, "no name for another keyspace"},
		{[]Option{WithSplitKeys(9, nil)}, "no key mode"},
		{[]Option{WithAPIVersion(APIV1TTL), WithSplitKeys(KeyTxn, []byte("a"))}, "has no transactional keys"},
		{[]Option{WithDir("", false)}, "no path"},
		{[]Option{WithTCP("127.0.0.1", 70000)}, "is no port"},
		{[]Option{WithTCP("", 0)}, "no host"},
		{[]Option{WithTCP("no such host.", 0)}, "playground: "},
		{[]Option{WithLogger(nil)}, "no logger"},
		{[]Option{nil}, "option is nil"},
		{[]Option{WithStores(0), WithMembers(0)}, "members"}, // every bad option is named
	} {
		c, err := Start(t.Context(), test.opts...)
		if err == nil {
			_ = c.Close()
		}
		expect(t, err, test.want)
	}
	if _, err := Start(t.Context(), WithTCP("no such host.", 0), WithDir(t.TempDir(), false)); err == nil {
		t.Fatal("started on no host")
	}
}

// Nothing of a cluster is left when it was closed: TestMain and the bubble look.
func TestStartAndCloseOften(t *testing.T) {
	run := func(t *testing.T, opts ...Option) {
		for range 25 {
			c, err := Start(t.Context(), opts...)
			if err != nil {
				t.Fatal(err)
			}
			tc := &testCluster{Cluster: c, t: t}
			cc, err := tc.dial(c.PD()[0])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pdpb.NewPDClient(cc).GetMembers(t.Context(), &pdpb.GetMembersRequest{}); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil { // with a client that is still there
				t.Fatal(err)
			}
			if err := cc.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("tcp", func(t *testing.T) { run(t, WithTCP("127.0.0.1", 0)) })
	t.Run("synctest", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { run(t) }) })
}

// The end of Start's context does not end the cluster.
func TestContextBoundsTheStartAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c, err := Start(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		tc := &testCluster{Cluster: c, t: t}
		cc, err := tc.dial(c.PD()[0])
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = cc.Close()
			_ = c.Close()
		}()
		if _, err := pdpb.NewPDClient(cc).GetMembers(t.Context(), &pdpb.GetMembersRequest{}); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(Store(1)); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(Store(1)); err != nil {
			t.Fatal(err)
		}
		if _, err := Start(ctx); err == nil {
			t.Fatal("started under a context that has ended")
		}
	})
}
