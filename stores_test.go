package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// Stores shows a store that stops and comes back, and a client that nobody uses leaves it
// alone.
func TestStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyRaw, []byte("g"), []byte("p")), playground.WithLabels(1, map[string]string{"zone": "a"}))
		for i, r := range c.Regions(playground.KeyRaw) {
			if err := c.TransferLeader(r.ID, uint64(i+1)); err != nil {
				t.Fatal(err)
			}
		}
		client := c.Open(tikv.WithMaxInFlight(100), tikv.WithRegionCacheBytes(1<<20))
		if got := client.Stores(); len(got) != 0 {
			t.Fatal(got)
		}
		use := func() {
			t.Helper()
			for _, k := range []string{"a", "h", "q"} {
				if err := client.Raw().Put(t.Context(), []byte(k), []byte("v")); err != nil {
					t.Fatal(err)
				}
			}
		}
		open := func() (out string) {
			for _, s := range client.Stores() {
				out += fmt.Sprint(" ", s.ID, s.Reachable, s.Open, s.LastErr != nil)
			}
			return out
		}
		use()
		all := client.Stores()
		if got := open(); got != " 1 true false false 2 true false false 3 true false false" {
			t.Fatal(got)
		}
		if s := all[0]; s.Labels["zone"] != "a" || s.Addr == "" || s.State.String() != "up" || s.TiFlash || s.SlowScore != 1 || s.Conns != 1 || s.InFlight != 0 {
			t.Fatalf("%+v", s)
		}
		if err := c.Stop(playground.Store(2)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the client has seen its connection end; the next call dials in vain
		if got := open(); got != " 1 true false false 2 false false true 3 true false false" {
			t.Fatal(got)
		}
		use()
		if got := open(); got != " 1 true false false 2 false true true 3 true false false" {
			t.Fatal(got)
		}
		if err := c.Start(playground.Store(2)); err != nil {
			t.Fatal(err)
		}
		for _, r := range c.Regions(playground.KeyRaw) {
			if err := c.TransferLeader(r.ID, 2); err != nil {
				t.Fatal(err)
			}
		}
		use()                     // through another store, as long as this one is taken to be away
		<-time.After(time.Second) // in which it is probed
		use()
		if got := open(); got != " 1 true false false 2 true false true 3 true false false" {
			t.Fatal(got)
		}
	})
}

// A store that stops while it has a request: a connection that is lost says nothing of the
// store yet. The next call that wants it finds out.
func TestStoreStopsUnderACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t, playground.WithStores(1))
		client := c.Open()
		put := func(ctx context.Context) error { return client.Raw().Put(ctx, b("k"), b("v")) }
		must(t, put(t.Context()))
		held := c.Inject(playground.Fault{Method: "RawPut", Hold: true, Times: 1})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := start(ctx, put)
		synctest.Wait()
		must(t, c.Stop(playground.Store(1)))
		synctest.Wait() // the call has lost its connection, and waits before it tries again
		if s := client.Stores()[0]; s.Reachable || s.Open || s.LastErr == nil || s.Conns != 0 || held.Hits() != 1 {
			t.Fatalf("%+v", s)
		}
		<-time.After(100 * time.Millisecond)
		synctest.Wait()
		if s := client.Stores()[0]; s.Reachable || !s.Open || s.LastErr == nil {
			t.Fatalf("%+v", s)
		}
		cancel()
		if err := <-done; !errors.Is(err, tikv.ErrUndetermined) {
			t.Fatal(err)
		}
	})
}

func TestRegionOptions(t *testing.T) {
	for _, o := range []tikv.Option{tikv.WithMaxInFlight(0), tikv.WithRegionCacheBytes(-1)} {
		if _, err := tikv.Open(t.Context(), []string{"h:1"}, o); err == nil {
			t.Error("taken")
		}
	}
}

// After Warm, calls find all regions and stores, and connections to them.
func TestWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyRaw, []byte("g"), []byte("p")), playground.WithSplitKeys(playground.KeyTxn, []byte("k")))
		for i, r := range c.Regions(playground.KeyRaw) {
			if err := c.TransferLeader(r.ID, uint64(i%3+1)); err != nil {
				t.Fatal(err)
			}
		}
		for mode, err := range map[tikv.KeyMode]bool{tikv.KeyRaw: false, tikv.KeyTxn: false, 0: true} {
			client := c.Open()
			if got := client.Warm(t.Context(), mode, tikv.Range{End: []byte("g")}, tikv.Range{Start: []byte("h")}); (got != nil) != err {
				t.Fatal(mode, got)
			}
			if err {
				continue
			}
			for _, s := range client.Stores() {
				if !s.Reachable {
					t.Errorf("%v: store %d is not connected to", mode, s.ID)
				}
			}
			asked := c.Trace()
			put := client.Raw().Put
			if mode == tikv.KeyTxn {
				put = func(ctx context.Context, k, v []byte, _ ...tikv.PutOption) error {
					_, err := tikv.Optional(client.Latest().Get(ctx, k))
					return err
				}
			}
			for _, k := range []string{"a", "h", "q"} {
				if err := put(t.Context(), []byte(k), []byte("v")); err != nil {
					t.Fatal(err)
				}
			}
			for _, call := range asked.Calls() {
				switch call.Method {
				case "GetRegion", "QueryRegion", "BatchScanRegions", "GetStore":
					t.Errorf("%v: %s after Warm", mode, call.Method)
				}
			}
			asked.Stop()
		}
		client := c.Open()
		if err := client.Warm(t.Context(), tikv.KeyRaw, tikv.Range{Start: []byte("b"), End: []byte("a")}); !errors.Is(err, tikv.ErrInvalid) {
			t.Error(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for i := range c.PD() {
			if err := c.Pause(playground.Member(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.Warm(short, tikv.KeyRaw, tikv.Range{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if err := client.Warm(t.Context(), tikv.KeyRaw, tikv.Range{}); !errors.Is(err, tikv.ErrClosed) {
			t.Error(err)
		}
	})
}
