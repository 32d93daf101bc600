package pd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	rmpb "github.com/pingcap/kvproto/pkg/resource_manager"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/playground"
)

// onPlayground runs f in fake time with a client of an embedded cluster.
func onPlayground(t *testing.T, cfg Config, opts []playground.Option, f func(t *testing.T, cluster *playground.Cluster, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cluster, err := playground.Start(t.Context(), opts...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := cluster.Close(); err != nil {
				t.Error(err)
			}
		})
		cfg.Pool = transport.New(transport.Config{Dial: cluster.DialContext})
		t.Cleanup(cfg.Pool.Close)
		c, err := Open(t.Context(), cluster.PD(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		f(t, cluster, c)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// leaderOf is the index of the member that leads.
func leaderOf(t *testing.T, cluster *playground.Cluster, c *Client) int {
	t.Helper()
	i := slices.Index(cluster.PD(), c.Leader())
	if i < 0 {
		t.Fatalf("%s is none of %v", c.Leader(), cluster.PD())
	}
	return i
}

// calls are those that ask PD in different ways: a stream, a call that any member passes
// on, a lookup, and a call that only the leader answers.
var calls = map[string]func(context.Context, *Client) error{
	"Timestamp": func(ctx context.Context, c *Client) error { _, err := c.Timestamp(ctx); return err },
	"Stores":    func(ctx context.Context, c *Client) error { _, err := c.Stores(ctx); return err },
	"Region": func(ctx context.Context, c *Client) error {
		r, err := c.Region(ctx, []byte("k"))
		if err == nil && r == nil {
			return errors.New("no region")
		}
		return err
	},
	"Keyspace": func(ctx context.Context, c *Client) error { _, err := c.Keyspaces(ctx, 0, 0); return err },
}

// lease is how long a leader of the embedded cluster that is not heard of keeps its place.
const lease = 5 * time.Second

// TestElections: whatever becomes of the leader, all calls go on as soon as there is
// another, and those that come later do not wait.
func TestElections(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*playground.Cluster, playground.Node) error
		took time.Duration
	}{
		"stops":    {(*playground.Cluster).Stop, time.Second},
		"is moved": {(*playground.Cluster).Move, time.Second},
		"pauses":   {(*playground.Cluster).Pause, lease + suspicion + 3*patience},
		"is cut off from the others": {func(c *playground.Cluster, leader playground.Node) error {
			for i := range c.PD() {
				if m := playground.Member(i); m != leader {
					if err := errors.Join(c.Cut(leader, m), c.Cut(m, leader)); err != nil {
						return err
					}
				}
			}
			return nil
		}, lease + suspicion + 3*patience},
	} {
		t.Run(name, func(t *testing.T) {
			for _, services := range []bool{false, true} {
				opts := []playground.Option{playground.WithMembers(3)}
				if services {
					opts = append(opts, playground.WithPDServices())
				}
				for call, do := range calls {
					onPlayground(t, Config{}, opts, func(t *testing.T, cluster *playground.Cluster, client *Client) {
						must(t, do(t.Context(), client))
						must(t, c.do(cluster, playground.Member(leaderOf(t, cluster, client))))
						began := time.Now()
						must(t, do(t.Context(), client))
						if d := time.Since(began); d > c.took {
							t.Errorf("%s (services %v) took %v", call, services, d)
						}
						for range 3 {
							began = time.Now()
							must(t, do(t.Context(), client))
							// A router that is silent may be met only now.
							if d := time.Since(began); d != 0 && (d > suspicion || !services || call != "Region") {
								t.Errorf("%s (services %v) took %v afterwards", call, services, d)
							}
						}
					})
				}
			}
		})
	}
}

// TestRelay: the leader is out of reach from us alone. Calls go through another member at
// once or after a moment, and to the leader again when it is back.
func TestRelay(t *testing.T) {
	onPlayground(t, Config{}, []playground.Option{playground.WithMembers(3)}, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		for call, do := range calls {
			if call != "Keyspace" { // which no member passes on
				must(t, do(t.Context(), c))
			}
		}
		leader := playground.Member(leaderOf(t, cluster, c))
		must(t, errors.Join(cluster.Cut(playground.Client(), leader), cluster.Cut(leader, playground.Client())))
		for i, call := range []string{"Timestamp", "Region", "Stores", "Timestamp"} {
			began := time.Now()
			must(t, calls[call](t.Context(), c))
			if d := time.Since(began); i == 0 && d > suspicion+3*patience || i > 0 && d != 0 {
				t.Errorf("%s took %v", call, d)
			}
		}
		if m := c.members.Load(); m.relay == "" || m.relay == m.leader || m.leader != c.Leader() {
			t.Errorf("relay %q, leader %s", m.relay, m.leader)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := calls["Keyspace"](ctx, c)
		wantError(t, err, Unavailable, context.DeadlineExceeded)
		if e := err.(*Error); len(e.Attempts) < 2 || e.Attempts[0].Addr != c.Leader() {
			t.Errorf("%#v", e.Attempts)
		}

		cluster.Heal()
		for range 20 {
			must(t, calls["Timestamp"](t.Context(), c))
			advance(t, time.Second)
		}
		trace := cluster.Trace()
		if m := c.members.Load(); m.relay != "" {
			t.Errorf("still through %s", m.relay)
		}
		for call, do := range calls {
			began := time.Now()
			must(t, do(t.Context(), c))
			if d := time.Since(began); d != 0 {
				t.Errorf("%s took %v", call, d)
			}
		}
		for _, made := range trace.Calls() {
			if made.Node != leader {
				t.Errorf("%s still at %v", made.Method, made.Node)
			}
		}
	})
}

// TestRelayUnused: who does not call is not asked for, however long the leader is away.
func TestRelayUnused(t *testing.T) {
	onPlayground(t, Config{}, []playground.Option{playground.WithMembers(3)}, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		leader := playground.Member(leaderOf(t, cluster, c))
		must(t, errors.Join(cluster.Cut(playground.Client(), leader), cluster.Cut(leader, playground.Client())))
		must(t, calls["Stores"](t.Context(), c))
		advance(t, 10*time.Second)
		if m := c.members.Load(); m.relay != "" {
			t.Error("relay", m.relay)
		}
		trace := cluster.Trace()
		advance(t, time.Hour)
		if n := len(trace.Calls()); n != 0 {
			t.Errorf("%d calls of an idle client", n)
		}
	})
}

// TestStalledTimestamps: PD answers no timestamp. Callers wait no longer than they want;
// with the others they go on when it does.
func TestStalledTimestamps(t *testing.T) {
	onPlayground(t, Config{}, nil, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		must(t, calls["Timestamp"](t.Context(), c))
		cluster.StallTSO(true)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		long, cancelLong := context.WithTimeout(t.Context(), time.Minute)
		defer cancelLong()
		short, bounded, patient := startTimestamp(ctx, c), startTimestamp(t.Context(), c), startTimestamp(long, c)
		began := time.Now()
		wantError(t, (<-short).err, Unavailable, context.DeadlineExceeded)
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("took %v", d)
		}
		err := (<-bounded).err
		wantError(t, err, Unavailable, ErrNoAnswer)
		if d := time.Since(began); d != DefaultTimestampTimeout {
			t.Errorf("took %v", d)
		}
		if e := err.(*Error); len(e.Attempts) < 2 || e.Addr == "" || e.Message == "" {
			t.Errorf("%#v", e)
		}
		must(t, calls["Stores"](t.Context(), c))
		cluster.StallTSO(false)
		if s := <-patient; s.err != nil || time.Since(began) > DefaultTimestampTimeout+DefaultAttemptTimeout+time.Second {
			t.Error(s.err, time.Since(began))
		}
	})
}

// TestServices: timestamps come from the service for them, lookups from the routers; where
// these are gone PD answers.
func TestServices(t *testing.T) {
	onPlayground(t, Config{}, []playground.Option{playground.WithMembers(3), playground.WithPDServices()}, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		m := c.members.Load()
		if len(m.tso()) != 3 || len(m.routers()) != 3 {
			t.Fatalf("%#v", m.services)
		}
		must(t, calls["Timestamp"](t.Context(), c))
		c.oracle.mu.Lock()
		group := c.oracle.stream.group
		c.oracle.mu.Unlock()
		if group == nil || group.primary != c.Leader() {
			t.Fatalf("%#v", group)
		}
		asked := map[playground.Node]bool{}
		trace := cluster.Trace()
		for range 50 {
			must(t, calls["Region"](t.Context(), c))
		}
		for _, made := range trace.Calls() {
			asked[made.Node] = true
		}
		if len(asked) != 3 {
			t.Errorf("asked %v", asked)
		}
		c.UseKeyspace(7) // the stream is made again for it
		before, err := c.Timestamp(t.Context())
		must(t, err)
		for i := range 2 {
			must(t, cluster.TransferPD(i)) // and with it the primary
			ts, err := c.Timestamp(t.Context())
			if err != nil || ts <= before {
				t.Fatal(ts, before, err)
			}
			before = ts
		}
	})
}

// TestFollowerProxy: timestamps come through all members, and grow. One that is gone is
// left out.
func TestFollowerProxy(t *testing.T) {
	onPlayground(t, Config{TSOFollowerProxy: true}, []playground.Option{playground.WithMembers(3)}, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		through := map[string]bool{}
		var last uint64
		next := func() {
			t.Helper()
			ts, err := c.Timestamp(t.Context())
			if err != nil || ts <= last {
				t.Fatal(ts, last, err)
			}
			last = ts
			c.oracle.mu.Lock()
			s := c.oracle.stream
			c.oracle.mu.Unlock()
			through[s.addr] = true
			s.cancel(errMoved) // to choose again
			synctest.Wait()
		}
		for range 50 {
			next()
		}
		if len(through) != 3 {
			t.Fatalf("through %v", through)
		}
		gone := (leaderOf(t, cluster, c) + 1) % 3
		must(t, cluster.Pause(playground.Member(gone)))
		began := time.Now()
		for range 50 {
			next()
		}
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("50 timestamps took %v", d)
		}
	})
}

// TestFollowerReads: lookups go to followers, and to the leader where these fail, do not
// know or may not be asked.
func TestFollowerReads(t *testing.T) {
	onPlayground(t, Config{FollowerReads: true}, []playground.Option{playground.WithMembers(3), playground.WithSplitKeys(playground.KeyRaw, []byte("m"))}, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		leader := playground.Member(leaderOf(t, cluster, c))
		nodes := func(options ...LookupOption) map[playground.Node]int {
			t.Helper()
			trace := cluster.Trace()
			for range 20 {
				r, err := c.Region(t.Context(), []byte("z"), options...)
				if err != nil || string(r.Meta.StartKey) != "m" {
					t.Fatal(r, err)
				}
				regions, err := c.ScanRegions(t.Context(), keys.Range{}, 0, options...)
				if err != nil || len(regions) != 2 {
					t.Fatal(regions, err)
				}
			}
			count := map[playground.Node]int{}
			for _, made := range trace.Calls() {
				if made.Method == opRegion || made.Method == opScan {
					count[made.Node]++
				}
			}
			return count
		}
		if n := nodes(); len(n) != 2 || n[leader] != 0 {
			t.Errorf("asked %v", n)
		}
		for _, option := range []LookupOption{Fresh, NeedBuckets} {
			if n := nodes(option); len(n) != 1 || n[leader] != 40 {
				t.Errorf("asked %v", n)
			}
		}
		for i := range 3 {
			if m := playground.Member(i); m != leader {
				must(t, cluster.Pause(m))
			}
		}
		began := time.Now()
		if n := nodes(); n[leader] == 0 {
			t.Errorf("asked %v", n)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// TestScansTellWhatIsMissing: gaps, and regions without a leader.
func TestScansTellWhatIsMissing(t *testing.T) {
	opts := []playground.Option{playground.WithStores(3), playground.WithSplitKeys(playground.KeyRaw, []byte("b"), []byte("d"), []byte("f"))}
	onPlayground(t, Config{}, opts, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		all, err := c.ScanRegions(t.Context(), keys.Range{}, 0)
		if err != nil || len(all) != 4 {
			t.Fatal(all, err)
		}
		must(t, cluster.HideRegion(all[1].Meta.Id, true))
		rangeOf := func(start, end string) keys.Range { return keys.Range{Start: []byte(start), End: []byte(end)} }
		for _, q := range []struct {
			ranges  []keys.Range
			limit   int
			regions int
			gaps    string
		}{
			{[]keys.Range{rangeOf("", "")}, 0, 3, "[b,d)"},
			{[]keys.Range{rangeOf("", "c")}, 0, 1, "[b,c)"},
			{[]keys.Range{rangeOf("c", "e")}, 0, 1, "[c,d)"},
			{[]keys.Range{rangeOf("b", "c")}, 0, 0, "[b,c)"},
			{[]keys.Range{rangeOf("a", "c"), rangeOf("c", "d"), rangeOf("e", "")}, 0, 3, "[b,c)[c,d)"},
			{[]keys.Range{rangeOf("", "")}, 1, 1, ""},
			{[]keys.Range{rangeOf("", "")}, 2, 2, "[b,d)"},
			{[]keys.Range{rangeOf("d", "")}, 0, 2, ""},
			{nil, 0, 0, ""},
		} {
			scan, err := c.BatchScanRegions(t.Context(), q.ranges, q.limit)
			var gaps string
			for _, g := range scan.Gaps {
				gaps += fmt.Sprintf("[%s,%s)", g.Start, g.End)
			}
			if err != nil || len(scan.Regions) != q.regions || gaps != q.gaps {
				t.Errorf("%s limit %d: %d regions, gaps %s, %v", q.ranges, q.limit, len(scan.Regions), gaps, err)
			}
		}
		_, err = c.BatchScanRegions(t.Context(), []keys.Range{rangeOf("c", "d"), rangeOf("a", "b")}, 0)
		wantError(t, err, Rejected, nil)

		for i := range 2 {
			must(t, cluster.Stop(playground.Store(uint64(i+1))))
		}
		scan, err := c.BatchScanRegions(t.Context(), []keys.Range{rangeOf("d", "")}, 0)
		if err != nil || len(scan.Regions) != 2 || scan.Regions[0].Leader != nil {
			t.Error(scan, err)
		}
	})
}

// TestStoresAndMembers: with states, labels and those that are gone.
func TestStoresAndMembers(t *testing.T) {
	opts := []playground.Option{playground.WithStores(4), playground.WithMembers(3), playground.WithLabels(2, map[string]string{"zone": "z2"})}
	onPlayground(t, Config{}, opts, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		must(t, cluster.RemoveStore(4))
		living, err := c.Stores(t.Context())
		must(t, err)
		all, err := c.AllStores(t.Context())
		if err != nil || len(living) != 3 || len(all) != 4 {
			t.Fatal(living, all, err)
		}
		for _, s := range all {
			gone := s.State == metapb.StoreState_Tombstone
			if gone != (s.Id == 4) || s.Id == 2 && (len(s.Labels) != 1 || s.Labels[0].Value != "z2") {
				t.Error(s)
			}
		}
		members, err := c.Members(t.Context())
		if err != nil || len(members) != 3 {
			t.Fatal(members, err)
		}
		for i, m := range members {
			if !slices.Equal(m.Addrs, cluster.PD()[i:i+1]) || m.Leader != (m.Addrs[0] == c.Leader()) || m.Name == "" || m.Version == "" {
				t.Errorf("%#v", m)
			}
		}
	})
}

// TestBuckets: only for who asks.
func TestBucketsAreAskedFor(t *testing.T) {
	onPlayground(t, Config{}, nil, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		r, err := c.Region(t.Context(), nil)
		must(t, err)
		must(t, cluster.SetBuckets(r.Meta.Id, playground.KeyRaw, []byte("g"), []byte("p")))
		for _, get := range []func(...LookupOption) (*Region, error){
			func(o ...LookupOption) (*Region, error) { return c.Region(t.Context(), []byte("k"), o...) },
			func(o ...LookupOption) (*Region, error) { return c.RegionByID(t.Context(), r.Meta.Id, o...) },
			func(o ...LookupOption) (*Region, error) { return c.PrevRegion(t.Context(), nil, o...) },
			func(o ...LookupOption) (*Region, error) {
				all, err := c.ScanRegions(t.Context(), keys.Range{}, 0, o...)
				return all[0], err
			},
		} {
			if r, err := get(); err != nil || r.Buckets != nil {
				t.Error(r, err)
			}
			if r, err := get(NeedBuckets); err != nil || len(r.Buckets.GetKeys()) != 4 {
				t.Error(r, err)
			}
		}
	})
}

func TestGCCalls(t *testing.T) {
	opts := []playground.Option{playground.WithAPIVersion(playground.APIV2), playground.WithKeyspaces("ks")}
	onPlayground(t, Config{}, opts, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		const null = codec.NullKeyspaceID
		ctx := t.Context()
		now, err := c.Timestamp(ctx)
		must(t, err)
		b, err := c.SetGCBarrier(ctx, null, "backup", now-100, 1500*time.Millisecond)
		if err != nil || b != (GCBarrier{"backup", now - 100, 2 * time.Second}) {
			t.Fatal(b, err)
		}
		if b, err = c.SetGlobalGCBarrier(ctx, "all", now-50, Forever); err != nil || b.TTL != Forever {
			t.Fatal(b, err)
		}
		a, err := c.AdvanceTxnSafePoint(ctx, null, now-10)
		if err != nil || a.Old != 0 || a.New != now-100 || a.Blocker == "" {
			t.Fatal(a, err)
		}
		if a, err = c.AdvanceGCSafePoint(ctx, null, now-200); err != nil || a != (GCAdvance{0, now - 200, ""}) {
			t.Fatal(a, err)
		}
		_, err = c.AdvanceGCSafePoint(ctx, null, now) // above the transaction safe point
		wantError(t, err, Rejected, nil)
		_, err = c.AdvanceTxnSafePoint(ctx, null, 1)
		wantError(t, err, Rejected, nil)
		_, err = c.SetGCBarrier(ctx, null, "late", 1, time.Hour)
		wantError(t, err, Rejected, nil)

		state, err := c.GCStateWithBarriers(ctx, null)
		if err != nil || state.Keyspace != null || state.TxnSafePoint != now-100 || state.GCSafePoint != now-200 || len(state.Barriers) != 1 {
			t.Error(state, err)
		}
		txn, gc, err := c.GCState(ctx, null)
		if err != nil || txn != now-100 || gc != now-200 {
			t.Error(txn, gc, err)
		}
		states, global, err := c.GCStates(ctx)
		if err != nil || len(global) != 1 || global[0].ID != "all" || !slices.ContainsFunc(states, func(s GCState) bool { return s.Keyspace == null && s.TxnSafePoint == now-100 }) {
			t.Error(states, global, err)
		}
		for want, del := range map[bool]func() (bool, error){
			true:  func() (bool, error) { return c.DeleteGCBarrier(ctx, null, "backup") },
			false: func() (bool, error) { return c.DeleteGCBarrier(ctx, null, "none") },
		} {
			if was, err := del(); err != nil || was != want {
				t.Error(was, want, err)
			}
		}
		if was, err := c.DeleteGlobalGCBarrier(ctx, "all"); err != nil || !was {
			t.Error(was, err)
		}
		if a, err = c.AdvanceTxnSafePoint(ctx, null, now-10); err != nil || a.New != now-10 || a.Blocker != "" {
			t.Error(a, err)
		}
	})
}

func TestKeyspaceCalls(t *testing.T) {
	opts := []playground.Option{playground.WithAPIVersion(playground.APIV2), playground.WithKeyspaces("a", "b")}
	onPlayground(t, Config{}, opts, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		ctx := t.Context()
		a, err := c.Keyspace(ctx, "a")
		must(t, err)
		byID, err := c.KeyspaceByID(ctx, a.GetId())
		if err != nil || byID.Name != "a" {
			t.Error(byID, err)
		}
		all, err := c.Keyspaces(ctx, 0, 0)
		if err != nil || len(all) != 3 || all[0].Name != "DEFAULT" {
			t.Error(all, err)
		}
		if some, err := c.Keyspaces(ctx, all[1].GetId(), 1); err != nil || len(some) != 1 || some[0].Name != all[1].Name {
			t.Error(some, err)
		}
		changed, err := c.SetKeyspaceState(ctx, a.GetId(), keyspacepb.KeyspaceState_DISABLED)
		if err != nil || changed.State != keyspacepb.KeyspaceState_DISABLED {
			t.Error(changed, err)
		}
		_, err = c.SetKeyspaceState(ctx, a.GetId(), keyspacepb.KeyspaceState_TOMBSTONE)
		wantError(t, err, Rejected, nil)
		_, err = c.KeyspaceByID(ctx, 4711)
		wantError(t, err, NotFound, ErrKeyspaceNotFound)
		_, err = c.SetKeyspaceState(ctx, 4711, keyspacepb.KeyspaceState_DISABLED)
		wantError(t, err, NotFound, ErrKeyspaceNotFound)
	})
}

func TestResourceGroupCalls(t *testing.T) {
	onPlayground(t, Config{}, []playground.Option{playground.WithMembers(3), playground.WithResourceGroup("rg", 1000)}, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		ctx := t.Context()
		all, err := c.ResourceGroups(ctx, codec.NullKeyspaceID)
		if err != nil || len(all) != 2 {
			t.Fatal(all, err)
		}
		g, err := c.ResourceGroup(ctx, codec.NullKeyspaceID, "rg")
		if err != nil || g.GetRUSettings().GetRU().GetSettings().GetFillRate() != 1000 {
			t.Error(g, err)
		}
		began := time.Now()
		_, err = c.ResourceGroup(ctx, codec.NullKeyspaceID, "none")
		wantError(t, err, NotFound, ErrGroupNotFound)
		if d := time.Since(began); d != 0 {
			t.Errorf("took %v", d)
		}
		req := &rmpb.TokenBucketsRequest{ClientUniqueId: 1, TargetRequestPeriodMs: 5000, Requests: []*rmpb.TokenBucketRequest{{
			ResourceGroupName: "rg",
			Request: &rmpb.TokenBucketRequest_RuItems{RuItems: &rmpb.TokenBucketRequest_RequestRU{
				RequestRU: []*rmpb.RequestUnitItem{{Type: rmpb.RequestUnitType_RU, Value: 100}}}},
		}}}
		granted, err := c.AcquireTokens(ctx, req)
		if err != nil || len(granted) != 1 || granted[0].GrantedRUTokens[0].GrantedTokens.Tokens != 100 {
			t.Error(granted, err)
		}
		// Another leads by now: it did nothing, so that the request goes to the right one.
		must(t, cluster.TransferPD((leaderOf(t, cluster, c)+1)%3))
		if granted, err = c.AcquireTokens(ctx, req); err != nil || len(granted) != 1 {
			t.Error(granted, err)
		}
		// The answer is lost: it is not sent again.
		lost := cluster.Inject(playground.Fault{Method: "AcquireTokenBuckets", DropAnswer: true})
		_, err = c.AcquireTokens(ctx, req)
		wantError(t, err, Unavailable, nil)
		if n := lost.Hits(); n != 1 {
			t.Errorf("sent %d times", n)
		}
	})
}

func TestPublishedTimestamps(t *testing.T) {
	onPlayground(t, Config{}, nil, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		ctx := t.Context()
		now, err := c.Timestamp(ctx)
		must(t, err)
		if least, err := c.MinTimestamp(ctx); err != nil || least <= now || least > now+1<<logicalBits {
			t.Error(least, now, err)
		}
		if ts, err := c.ExternalTimestamp(ctx); err != nil || ts != 0 {
			t.Error(ts, err)
		}
		must(t, c.SetExternalTimestamp(ctx, now))
		if ts, err := c.ExternalTimestamp(ctx); err != nil || ts != now {
			t.Error(ts, err)
		}
		// The answer is lost, and PD refuses what it has done already.
		lost := cluster.Inject(playground.Fault{Method: "SetExternalTimestamp", DropAnswer: true, Times: 1})
		must(t, c.SetExternalTimestamp(ctx, now+1))
		if ts, err := c.ExternalTimestamp(ctx); err != nil || ts != now+1 || lost.Hits() != 1 {
			t.Error(ts, err, lost.Hits())
		}
		for _, bad := range []uint64{now - 1, now + 1, now + 3600_000<<logicalBits} {
			wantError(t, c.SetExternalTimestamp(ctx, bad), Rejected, nil)
		}
	})
}

func TestPlacementCalls(t *testing.T) {
	onPlayground(t, Config{}, []playground.Option{playground.WithStores(4)}, func(t *testing.T, cluster *playground.Cluster, c *Client) {
		ctx := t.Context()
		ids, percent, err := c.SplitRegions(ctx, [][]byte{[]byte("g"), []byte("p")}, 3)
		if err != nil || percent != 100 || len(ids) != 2 {
			t.Fatal(ids, percent, err)
		}
		s, err := c.ScatterRegions(ctx, ids, "mine", 3)
		if err != nil || s.Percent != 100 || len(s.Failed) != 0 {
			t.Error(s, err)
		}
		if ids, split, scattered, err := c.SplitAndScatterRegions(ctx, [][]byte{[]byte("t")}, "mine", 3); err != nil || split != 100 || scattered != 100 || len(ids) != 1 {
			t.Error(ids, split, scattered, err)
		}
		cluster.SetOperatorTime(time.Minute)
		for _, id := range ids {
			_, err = c.ScatterRegions(ctx, []uint64{id}, "other", 3)
			must(t, err)
		}
		began, known := time.Now(), 0
		for _, id := range append(ids, 4711) {
			op, err := c.Operator(ctx, id)
			must(t, err)
			if op != nil {
				known++
				if op.Status != pdpb.OperatorStatus_RUNNING && op.Status != pdpb.OperatorStatus_SUCCESS || op.Desc == "" {
					t.Errorf("%#v", op)
				}
			}
		}
		if d := time.Since(began); d != 0 || known == 0 || known > len(ids) {
			t.Errorf("%d operators, took %v", known, d)
		}
	})
}
