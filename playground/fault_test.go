package playground

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/task"
)

func (c *testCluster) tryPut(ctx context.Context, key string) error {
	at, kv := c.at(KeyRaw, key)
	resp, err := kv.RawPut(ctx, &kvrpcpb.RawPutRequest{Context: at, Key: c.api.wireKey(KeyRaw, []byte(key)), Value: []byte("v")})
	switch {
	case err != nil:
		return err
	case resp.RegionError != nil:
		return errors.New(kindOf(resp.RegionError).String())
	}
	return nil
}

// A request that is held is handled once it is released, though its caller has left.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.at(KeyRaw, "a")
		held := c.Inject(Fault{Method: "RawPut", Key: []byte("a"), Hold: true})
		ctx, cancel := context.WithCancel(t.Context())
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		ended := make(chan error, 1)
		tasks.Go("put", func(context.Context) { ended <- c.tryPut(ctx, "a") })
		synctest.Wait()
		if w := c.Waiting(); held.Waiting() != 1 || held.Hits() != 1 || len(w) != 1 || w[0].Method != "RawPut" || w[0].Keys != 1 || w[0].Region == 0 || w[0].Node.String() == "any node" {
			t.Fatal(held.Waiting(), held.Hits(), w)
		}
		began := time.Now()
		cancel()
		if err := <-ended; status.Code(err) != codes.Canceled || time.Since(began) != 0 {
			t.Fatal(err, time.Since(began))
		}
		if err := c.tryPut(t.Context(), "b"); err != nil {
			t.Fatal("a request for another key:", err)
		}
		if _, ok := c.rawGet("a"); ok {
			t.Fatal("handled while it was held")
		}
		held.Release()
		synctest.Wait()
		if _, ok := c.rawGet("a"); !ok || held.Waiting() != 0 || len(c.Waiting()) != 0 {
			t.Fatal("not handled after its release")
		}
		tasks.Go("put", func(context.Context) { ended <- c.tryPut(t.Context(), "a") })
		synctest.Wait()
		if held.Waiting() != 1 {
			t.Fatal("a later request is not held")
		}
		held.Remove()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if err := c.tryPut(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	})
}

// The end of a store forgets what is held there.
func TestStopForgetsHeldRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		at, _ := c.at(KeyRaw, "a")
		held := c.Inject(Fault{Method: "RawPut", Hold: true})
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		ended := make(chan error, 1)
		tasks.Go("put", func(context.Context) { ended <- c.tryPut(t.Context(), "a") })
		synctest.Wait()
		if err := c.Stop(Store(at.Peer.StoreId)); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; status.Code(err) != codes.Unavailable || held.Waiting() != 0 {
			t.Fatal(err, held.Waiting())
		}
		held.Remove()
		if _, ok := c.rawGet("a"); ok {
			t.Fatal("it was handled after all")
		}
	})
}

func TestFaultActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.at(KeyRaw, "a")
		short := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			t.Cleanup(cancel)
			return ctx
		}
		once := func(f Fault) *Injection {
			f.Method, f.Times = "RawPut", 1
			return c.Inject(f)
		}
		there := func(key string) bool { _, ok := c.rawGet(key); return ok }

		once(Fault{DropRequest: true})
		if err := c.tryPut(short(), "request"); status.Code(err) != codes.DeadlineExceeded || there("request") {
			t.Fatal(err)
		}
		once(Fault{DropAnswer: true})
		if err := c.tryPut(short(), "answer"); status.Code(err) != codes.DeadlineExceeded || !there("answer") {
			t.Fatal(err)
		}
		once(Fault{Disconnect: true})
		if err := c.tryPut(short(), "cut"); status.Code(err) != codes.Unavailable || !there("cut") {
			t.Fatal(err)
		}
		once(Fault{RegionError: ServerIsBusy})
		if err := c.tryPut(short(), "busy"); err == nil || err.Error() != "ServerIsBusy" || there("busy") {
			t.Fatal(err)
		}
		once(Fault{Delay: 500 * time.Millisecond})
		if began := time.Now(); c.tryPut(short(), "late") != nil || time.Since(began) != 500*time.Millisecond {
			t.Fatal(time.Since(began))
		}
		var order []string
		once(Fault{
			Before: func() { order = append(order, "before"); _, _ = c.Split(KeyRaw, []byte("m")) },
			After:  func() { order = append(order, "after") },
		})
		if err := c.tryPut(short(), "split"); err == nil || err.Error() != "EpochNotMatch" || !slices.Equal(order, []string{"before", "after"}) {
			t.Fatal(err, order)
		}
		twice := once(Fault{Duplicate: true})
		if err := c.tryPut(short(), "twice"); err != nil || twice.Hits() != 1 || !there("twice") {
			t.Fatal(err)
		}
		if n := c.Counts().Dropped; n != 3 {
			t.Fatalf("%d dropped", n)
		}
	})
}

func TestFaultMatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithAPIVersion(APIV2), WithSplitKeys(KeyTxn, []byte("m")))
		ts := c.timestamp()
		region := c.Regions(KeyTxn)[0]
		hits := map[string]*Injection{
			"all":      c.Inject(Fault{}),
			"method":   c.Inject(Fault{Method: "KvGet"}),
			"key":      c.Inject(Fault{Method: "KvGet", Key: []byte("a")}),
			"other":    c.Inject(Fault{Method: "KvGet", Key: []byte("b")}),
			"raw":      c.Inject(Fault{Mode: KeyRaw}),
			"txn":      c.Inject(Fault{Mode: KeyTxn, Method: "KvGet"}),
			"ts":       c.Inject(Fault{Method: "KvGet", StartTS: ts}),
			"other ts": c.Inject(Fault{Method: "KvGet", StartTS: ts + 1}),
			"region":   c.Inject(Fault{Method: "KvGet", Region: region.ID}),
			"store":    c.Inject(Fault{Method: "KvGet", Node: Store(region.Leader)}),
			"no store": c.Inject(Fault{Method: "KvGet", Node: Store(region.Leader%3 + 1)}),
			"member":   c.Inject(Fault{Method: "GetRegion", Node: Member(0)}),
			"skip":     c.Inject(Fault{Method: "KvGet", Skip: 3, Times: 4}),
			"chance":   c.Inject(Fault{Method: "KvGet", Chance: 0.5}),
		}
		for range 10 {
			c.get(ts, "a")
		}
		for name, want := range map[string]int{
			"all": 20, "method": 10, "key": 10, "other": 0, "raw": 0, "txn": 10, "ts": 10, "other ts": 0,
			"region": 10, "store": 10, "no store": 0, "member": 10, "skip": 4,
		} {
			if got := hits[name].Hits(); got != want {
				t.Errorf("%s: %d hits, want %d", name, got, want)
			}
		}
		if n := hits["chance"].Hits(); n == 0 || n == 10 {
			t.Errorf("chance: %d hits of 10", n)
		}
	})
}

// The same seed draws the same chances.
func TestSeed(t *testing.T) {
	draw := func(seed uint64) (all []bool) {
		c := start(t, WithSeed(seed))
		at, kv := c.at(KeyRaw, "a")
		i := c.Inject(Fault{Method: "RawGet", Chance: 0.3})
		for range 64 {
			before := i.Hits()
			if _, err := kv.RawGet(t.Context(), &kvrpcpb.RawGetRequest{Context: at, Key: []byte("a")}); err != nil {
				t.Fatal(err)
			}
			all = append(all, i.Hits() > before)
		}
		return all
	}
	a, b, other := draw(7), draw(7), draw(8)
	if !slices.Equal(a, b) || slices.Equal(a, other) {
		t.Fatal(a, b, other)
	}
}

// A dropped answer of a batch leaves the others alone.
func TestDropInBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		at, kv := c.at(KeyRaw, "a")
		c.Inject(Fault{Method: "RawPut", Key: []byte("b"), DropAnswer: true})
		stream, err := kv.BatchCommands(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := new(tikvpb.BatchCommandsRequest)
		for i, k := range []string{"a", "b", "c"} {
			m.RequestIds = append(m.RequestIds, uint64(i))
			m.Requests = append(m.Requests, &tikvpb.BatchCommandsRequest_Request{
				Cmd: &tikvpb.BatchCommandsRequest_Request_RawPut{RawPut: &kvrpcpb.RawPutRequest{Context: at, Key: []byte(k), Value: []byte("v")}},
			})
		}
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
		if err := stream.CloseSend(); err != nil { // ended by the server once all is answered that will be
			t.Fatal(err)
		}
		var ids []uint64
		for {
			r, err := stream.Recv()
			if err != nil {
				break
			}
			ids = append(ids, r.RequestIds...)
		}
		slices.Sort(ids)
		if !slices.Equal(ids, []uint64{0, 2}) {
			t.Fatal(ids)
		}
		if _, ok := c.rawGet("b"); !ok {
			t.Fatal("b was not handled")
		}
	})
}

func TestFaultsOnPD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		first := c.timestamp()
		tso := c.Inject(Fault{Method: "Tso", Hold: true, Times: 1})
		stream, err := c.pdc().Tso(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pdpb.TsoRequest{Header: c.header(), Count: 1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if tso.Waiting() != 1 {
			t.Fatal(tso.Waiting())
		}
		second := c.timestamp() // another stream goes on
		tso.Release()
		r, err := stream.Recv()
		if err != nil || uint64(r.Timestamp.Physical)<<18|uint64(r.Timestamp.Logical) <= second || second <= first {
			t.Fatal(r, err)
		}

		c.Inject(Fault{Method: "QueryRegion", Key: []byte("q"), Disconnect: true, Times: 1})
		query, err := c.pdc().QueryRegion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := query.Send(&pdpb.QueryRegionRequest{Header: c.header(), Keys: [][]byte{c.api.regionKey(KeyTxn, []byte("q"))}}); err != nil {
			t.Fatal(err)
		}
		if _, err := query.Recv(); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}

		for _, method := range []string{"GetMembers", "GetStore"} {
			c.Inject(Fault{Method: method, DropRequest: true, Times: 1})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if method == "GetMembers" {
				_, err = c.pdc().GetMembers(ctx, &pdpb.GetMembersRequest{})
			} else {
				_, err = c.pdc().GetStore(ctx, &pdpb.GetStoreRequest{Header: c.header(), StoreId: 1})
			}
			if status.Code(err) != codes.DeadlineExceeded {
				t.Fatal(method, err)
			}
		}
	})
}

func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		c.at(KeyRaw, "a")
		trace := c.Trace()
		c.Inject(Fault{Method: "RawPut", Times: 1, Delay: time.Second, RegionError: StaleCommand})
		_ = c.tryPut(t.Context(), "a")
		_ = c.tryPut(t.Context(), "a")
		trace.Stop()
		_ = c.tryPut(t.Context(), "a")
		var puts []Call
		for _, call := range trace.Calls() {
			if call.Method == "RawPut" {
				puts = append(puts, call)
			}
		}
		if len(puts) != 2 || puts[0].RegionError != StaleCommand || puts[0].Took != time.Second || puts[1].RegionError != 0 || puts[1].Keys != 1 || puts[1].Dropped {
			t.Fatal(puts)
		}
	})
}

// A fault's function may stop the very store whose request it was called for.
func TestFunctionsMayStopTheirStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		at, _ := c.at(KeyRaw, "a")
		store := Store(at.Peer.StoreId)
		var stopped error
		c.Inject(Fault{Method: "RawPut", Times: 1, After: func() { stopped = c.Stop(store) }})
		if err := c.tryPut(t.Context(), "a"); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		synctest.Wait()
		if stopped != nil || c.Regions(KeyRaw)[0].Leader == at.Peer.StoreId {
			t.Fatal(stopped)
		}
		if _, ok := c.rawGet("a"); !ok {
			t.Fatal("the put was handled before its store ended")
		}
		if err := c.Cluster.Start(store); err != nil {
			t.Fatal(err)
		}
	})
}
