package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// events is a hook that writes down what it is told beside calls.
type events struct {
	mu    sync.Mutex
	lines []string
	infos []tikv.TopologyInfo
	conns map[tikv.ConnInfo]int // that have come and not gone
	then  func()                // is called with each event
}

func (e *events) add(line string) {
	e.mu.Lock()
	e.lines = append(e.lines, line)
	then := e.then
	e.mu.Unlock()
	if then != nil {
		then()
	}
}

func (e *events) count(info tikv.ConnInfo, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		e.conns = make(map[tikv.ConnInfo]int)
	}
	if e.conns[info] += n; e.conns[info] == 0 {
		delete(e.conns, info)
	}
}

func (e *events) OnConnect(info tikv.ConnInfo) {
	e.count(info, 1)
	e.add(fmt.Sprint("connect ", info.StoreID))
}

func (e *events) OnDisconnect(info tikv.ConnInfo, err error) {
	e.count(info, -1)
	if err != nil {
		e.add(fmt.Sprint("lost ", info.StoreID))
	} else {
		e.add(fmt.Sprint("disconnect ", info.StoreID))
	}
}

func (e *events) OnTopologyChange(info tikv.TopologyInfo) {
	e.mu.Lock()
	e.infos = append(e.infos, info)
	e.mu.Unlock()
	line := info.Event.String()
	if info.RegionID != 0 {
		line += fmt.Sprint(" r", info.RegionID)
	}
	if info.StoreID != 0 {
		line += fmt.Sprint(" s", info.StoreID)
	}
	e.add(line)
}

// last is what was told of a topology event last.
func (e *events) last(event string) (last tikv.TopologyInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, info := range e.infos {
		if strings.HasPrefix(event, info.Event.String()) {
			last = info
		}
	}
	return last
}

func (e *events) OnClose(tikv.CloseInfo) { e.add("close") }

// String is what was told, in order.
func (e *events) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.lines, ", ")
}

// take is String, and begins anew.
func (e *events) take() string {
	synctest.Wait()
	text := e.String()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = nil
	return text
}

// Connections come with their first use, and go by the store, after a time without use, and
// with the client.
func TestConnHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1), playground.WithAPIVersion(playground.APIV2))
		told := &events{}
		c := cluster.Open(tikv.WithHooks(told))
		step := func(want string) {
			t.Helper()
			got := slices.DeleteFunc(strings.Split(told.take(), ", "), func(s string) bool {
				return !strings.Contains(s, "connect") && !strings.HasPrefix(s, "lost") && s != "close"
			})
			if len(got) > 1 && strings.HasPrefix(got[0], "disconnect") && strings.HasPrefix(got[1], "disconnect") {
				slices.Sort(got[:2]) // they end in any order
			}
			if got := strings.Join(got, ", "); got != want {
				t.Fatalf("%q, not %q", got, want)
			}
		}
		step("connect 0")
		put(t, c.Raw(), "k", "v")
		step("connect 1")
		for info, n := range told.conns {
			if info.Addr == "" || n != 1 {
				t.Error(info, n)
			}
		}
		must(t, cluster.Stop(playground.Store(1)))
		step("lost 1")
		must(t, cluster.Start(playground.Store(1)))
		put(t, c.Raw(), "k", "v")
		step("connect 1")
		<-time.After(12 * time.Minute) // without use
		step("disconnect 1")
		put(t, c.Raw(), "k", "v")
		step("connect 1")
		must(t, c.Close())
		step("disconnect 0, disconnect 1, close")
		if len(told.conns) > 0 {
			t.Error(told.conns)
		}
		// What a failed Open has connected to goes as well.
		if c, err := tikv.Open(t.Context(), cluster.PD(), append(cluster.ClientOptions(), tikv.WithHooks(told), tikv.WithKeyspace("none"))...); err == nil {
			t.Error(c.Close())
		}
		step("connect 0, disconnect 0")
	})
}

// A client learns of regions and stores as it uses them.
func TestTopologyHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithMembers(3))
		region := cluster.Regions(playground.KeyRaw)[0].ID
		lead := func(store uint64) {
			for _, r := range cluster.Regions(playground.KeyRaw) {
				if r.Leader != store {
					must(t, cluster.TransferLeader(r.ID, store))
				}
			}
		}
		lead(1)
		told := &events{}
		c := cluster.Open(tikv.WithHooks(told))
		use := func() {
			t.Helper()
			put(t, c.Raw(), "a", "v")
			put(t, c.Raw(), "z", "v")
		}
		topology := func() string {
			return strings.Join(slices.DeleteFunc(strings.Split(told.take(), ", "), func(s string) bool { return strings.Contains(s, "connect") }), ", ")
		}
		use()
		if got, want := topology(), fmt.Sprintf("region loaded r%d s1, new store s1", region); got != want {
			t.Fatalf("%q, not %q", got, want)
		}
		lead(2)
		use()
		if got := topology(); !strings.HasPrefix(got, fmt.Sprintf("leader moved r%d s2", region)) {
			t.Fatal(got)
		}
		_, err := cluster.Split(playground.KeyRaw, []byte("m"))
		must(t, err)
		both := cluster.Regions(playground.KeyRaw)
		added := both[0].ID + both[1].ID - region
		use()
		if got := topology(); !strings.Contains(got, fmt.Sprintf("region changed r%d s2", region)) || !strings.Contains(got, fmt.Sprintf("region loaded r%d", added)) {
			t.Fatal(got)
		}
		// until uses the client until it is told.
		until := func(want string) tikv.TopologyInfo {
			t.Helper()
			for range 200 {
				use()
				<-time.After(time.Second)
				if got := topology(); strings.Contains(got, want) {
					return told.last(want)
				}
			}
			t.Fatalf("never told: %s", want)
			return tikv.TopologyInfo{}
		}
		must(t, cluster.Stop(playground.Store(2)))
		if i := until("store down s2"); i.Addr == "" {
			t.Errorf("%+v", i)
		}
		must(t, cluster.Start(playground.Store(2)))
		lead(2)
		until("store up s2")
		must(t, cluster.SetStore(2, playground.StoreState{SlowScore: 100}))
		until("store slow s2")
		must(t, cluster.SetStore(2, playground.StoreState{}))
		until("store quick s2")
		before := c.Stores()
		must(t, cluster.Move(playground.Store(2)))
		i := until("store moved s2")
		if at := slices.IndexFunc(before, func(s tikv.StoreHealth) bool { return s.ID == 2 }); i.Addr == before[at].Addr || i.Addr == "" {
			t.Errorf("%+v, before %+v", i, before[at])
		}
		must(t, cluster.TransferPD(1))
		for range 5 { // the cluster's members may be asked in the background
			if _, err := c.Timestamp(t.Context()); err != nil {
				t.Error(err)
			}
			<-time.After(time.Minute)
		}
		if i := until("PD's leader moved"); i.Addr == "" || i.StoreID != 0 {
			t.Errorf("%+v", i)
		}
		<-time.After(time.Hour)
		if got := topology(); !strings.Contains(got, fmt.Sprintf("region evicted r%d", region)) || !strings.Contains(got, fmt.Sprintf("region evicted r%d", added)) {
			t.Error(got)
		}
	})
}

// A store that was removed is gone.
func TestTopologyHookStoreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(4))
		told := &events{}
		c := cluster.Open(tikv.WithHooks(told))
		r := cluster.Regions(playground.KeyRaw)[0]
		put(t, c.Raw(), "k", "v")
		gone := r.Leader
		for id := range uint64(4) {
			if !slices.Contains(r.Stores, id+1) {
				must(t, cluster.AddPeer(r.ID, id+1, playground.Voter), cluster.TransferLeader(r.ID, id+1), cluster.RemovePeer(r.ID, gone))
			}
		}
		must(t, cluster.RemoveStore(gone))
		want := fmt.Sprint("store gone s", gone)
		for range 300 {
			put(t, c.Raw(), "k", "v")
			<-time.After(time.Second)
			if strings.Contains(told.take(), want) {
				return
			}
		}
		t.Error("never told")
	})
}

// A hook of connections and topology that blocks holds up Close, and nothing else; it may
// use the client.
func TestTheClientDoesNotWaitForHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		blocked, opened := make(chan struct{}), make(chan struct{})
		var c *tikv.Client
		told := &events{}
		told.then = func() {
			<-opened
			if err := c.Raw().Put(t.Context(), []byte("of a hook"), nil); err != nil && !errors.Is(err, tikv.ErrClosed) {
				t.Error(err)
			}
			<-blocked
		}
		c = cluster.Open(tikv.WithHooks(told))
		close(opened)
		put(t, c.Raw(), "k", "v")
		if err := c.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error { return tx.Put([]byte("k"), nil) }); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := told.String(); got != "connect 0" {
			t.Errorf("told at once: %q", got)
		}
		done := start(t.Context(), func(context.Context) error { return c.Close() })
		<-time.After(time.Minute)
		select {
		case err := <-done:
			t.Errorf("closed before its hooks: %v", err)
		default:
		}
		close(blocked)
		must(t, <-done)
		if got := told.String(); !strings.HasSuffix(got, "close") || len(told.conns) > 0 {
			t.Errorf("%q %v", got, told.conns)
		}
	})
}

// Requests to PD are told to hooks of calls: single ones, and those on streams.
func TestHooksSeePD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithAPIVersion(playground.APIV2), playground.WithSplitKeys(playground.KeyTxn, []byte("m")))
		rec := &recorder{}
		c := cluster.Open(tikv.WithHooks(rec))
		seen := func(do func() error, want ...string) {
			t.Helper()
			rec.mu.Lock()
			rec.pd = nil
			rec.mu.Unlock()
			err := do()
			synctest.Wait()
			rec.mu.Lock()
			defer rec.mu.Unlock()
			for _, w := range want {
				if !slices.Contains(rec.pd, w) {
					t.Errorf("no %q in %q (%v)", w, rec.pd, err)
				}
			}
		}
		rec.mu.Lock()
		opened := slices.Clone(rec.pd)
		rec.mu.Unlock()
		for _, want := range []string{"GetMembers none", "GetClusterInfo none", "LoadKeyspace none"} {
			if !slices.Contains(opened, want) {
				t.Errorf("no %q in %q", want, opened)
			}
		}
		seen(func() error { _, err := c.Timestamp(t.Context()); return err }, "Tso none")
		seen(func() error { return c.Warm(t.Context(), tikv.KeyRaw, tikv.Range{}) }, "BatchScanRegions none", "GetStore none")
		held := cluster.Inject(playground.Fault{Method: "GetRegion", Hold: true})
		seen(func() error { // two at once share the stream
			one := start(t.Context(), func(ctx context.Context) error { return ignoreNotFound(second(c.Latest().Get(ctx, []byte("a")))) })
			synctest.Wait()
			two := ignoreNotFound(second(c.Latest().Get(t.Context(), []byte("z"))))
			held.Remove()
			return errors.Join(<-one, two)
		}, "GetRegion none", "QueryRegion none")
		must(t, cluster.Stop(playground.Member(0)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		seen(func() error { _, err := c.Timestamp(ctx); return err }, "GetMembers pd")
		must(t, cluster.Start(playground.Member(0)))
		seen(func() error { _, err := c.Timestamp(t.Context()); return err }, "Tso none")
		// What is under way on a stream when it breaks ends as well.
		stalled := cluster.Inject(playground.Fault{Method: "Tso", Hold: true})
		waiting := start(t.Context(), func(ctx context.Context) error { _, err := c.Timestamp(ctx); return err })
		synctest.Wait()
		seen(func() error { return cluster.Stop(playground.Member(0)) }, "Tso pd")
		stalled.Remove()
		must(t, cluster.Start(playground.Member(0)))
		must(t, <-waiting)
	})
}
