package cdc

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/topology"
)

// read takes messages out until nothing comes without time passing.
func (c *client) read() (all []string) {
	for {
		synctest.Wait()
		select {
		case m := <-c.out:
			all = append(all, lines(m)...)
		default:
			return all
		}
	}
}

// What is written just before and after the first scan's snapshot is told once.
func TestNothingBetweenScanAndChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Limits{Interval: time.Hour})
		n := 0
		b.engine.during(func() {
			b.put(fmt.Sprintf("k%02d", n), "v")
			n++
		})
		c := b.client()
		c.register(1)
		got := c.read()
		b.engine.during(nil)
		if n < 2 {
			t.Fatal("nothing was written meanwhile")
		}
		seen := make(map[string]int)
		for _, line := range got {
			if f := strings.Fields(line); f[1] == "COMMIT" || f[1] == "COMMITTED" {
				seen[f[2]]++
			}
		}
		for i := range n {
			if k := fmt.Sprintf("k%02d", i); seen[k] != 1 {
				t.Errorf("%s was told %d times of:\n%s", k, seen[k], strings.Join(got, "\n"))
			}
		}
	})
}

// A timestamp is told behind what was applied when it was found, even if that came in
// just before the locks were looked at.
func TestResolvedComesBehindTheRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Limits{Interval: time.Second})
		c := b.client()
		c.register(1)
		c.read()
		start := b.now.Add(1)
		b.prewrite(start, "k", "v")
		commit := b.now.Add(1)
		c.read()
		var once sync.Once
		b.engine.during(func() { once.Do(func() { b.commit(start, commit, "k") }) })
		<-time.After(time.Second)
		got := c.read()
		if len(got) != 2 || got[0] != "1 COMMIT k" || !strings.HasPrefix(got[1], "1 resolved ") {
			t.Error(got)
		}
	})
}

// A client that does not read uses the store's quota up: the region's subscriptions end
// with what is sent regardless, resolved timestamps are lost, and all is well when it
// reads again.
func TestCongested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Limits{Quota: 20_000})
		c := b.client()
		c.register(1)
		c.register(2)
		c.read()
		for i := range 6 { // two events of 3 kB each
			b.put(fmt.Sprintf("k%d", i), strings.Repeat("v", 3000))
			synctest.Wait() // the first are on their way, the others wait
		}
		<-time.After(3 * time.Second)
		got := c.read()
		if n := len(got); n < 4 || !slices.Equal(got[n-2:], []string{"1 Congested", "2 Congested"}) {
			t.Error(got)
		}
		if slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "resolved") }) {
			t.Error("resolved in spite of the end:", got)
		}
		if used := b.feed.now.quota.used.Load(); used != 0 {
			t.Error(used, "bytes are still reserved")
		}
		c.register(3, func(q *cdcpb.ChangeDataRequest) { q.CheckpointTs = b.now.Load() })
		if got := c.read(); !slices.Equal(got, []string{"3 INITIALIZED "}) {
			t.Error(got)
		}
		// A scan that finds more than there is room for ends its region as well.
		for i := range 8 {
			b.put(fmt.Sprintf("k%d", i), strings.Repeat("v", 3000))
			c.read()
		}
		c.register(4)
		got = c.read()
		slices.Sort(got)
		if !slices.Equal(got, []string{"4 Congested"}) {
			t.Error(got)
		}
	})
}

// Only so many scans run, and so many wait. One that waits for its client holds the others
// up, and its subscription's end discards what it has queued.
func TestScansWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Limits{Scans: 1, PendingScans: 2, Interval: time.Hour})
		for i := range 250 {
			b.put(fmt.Sprintf("k%03d", i), strings.Repeat("v", 40_000))
		}
		c, quick := b.client(), b.client()
		c.register(1)
		synctest.Wait()
		quick.register(2)
		quick.register(3)
		if got := quick.read(); !slices.Equal(got, []string{"3 ServerIsBusy"}) {
			t.Error(got)
		}
		if _, err := b.topo.Split(b.region().ID(), [][]byte{[]byte("k")}); err != nil {
			t.Fatal(err)
		}
		got := c.read()
		n := len(got)
		if n < 1 || n > maxEvents+1 || got[n-1] != "1 EpochNotMatch" {
			t.Errorf("%d: %s ... %s", n, got[0], got[n-1])
		}
		if got := quick.read(); !slices.Equal(got, []string{"2 EpochNotMatch"}) {
			t.Error(got)
		}
		if used := b.feed.now.quota.used.Load(); used != 0 {
			t.Error(used, "bytes are still reserved")
		}
	})
}

// A scan goes through a queue of limited length: all of it arrives, in its order.
func TestLongScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Limits{})
		var want []string
		for i := range 300 {
			k := fmt.Sprintf("k%03d", i)
			b.put(k, strings.Repeat("v", 40_000))
			want = append(want, "1 COMMITTED "+k)
		}
		c := b.client()
		c.register(1)
		if got := c.read(); !slices.Equal(got, append(want, "1 INITIALIZED ")) {
			t.Errorf("%d lines", len(got))
		}
	})
}

// The region's refusal ends what others subscribed to before (TiKV components/cdc/src/
// initializer.rs, deregister_downstream).
func TestRefusalEndsTheRegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Limits{Interval: time.Hour})
		c := b.client()
		c.register(1)
		c.read()
		var once atomic.Bool
		b.refuse = func() *errorpb.Error {
			if once.Swap(true) {
				return nil
			}
			return &errorpb.Error{NotLeader: &errorpb.NotLeader{}}
		}
		c.register(2)
		if got := c.read(); !slices.Equal(got, []string{"1 NotLeader", "2 NotLeader"}) {
			t.Error(got)
		}
		c.register(1)
		if got := c.read(); !slices.Equal(got, []string{"1 INITIALIZED "}) {
			t.Error(got)
		}
		b.put("k", "v")
		if got := c.read(); !slices.Equal(got, []string{"1 PREWRITE k", "1 COMMIT k"}) {
			t.Error(got)
		}
	})
}

// A stream that sends nothing for five minutes while the quota is used up is ended, which
// frees it.
func TestIdleStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Limits{Quota: 10_000})
		c := b.client()
		c.register(1)
		c.read()
		b.put("k", "v")
		synctest.Wait() // the sender has something that nobody takes
		if err := b.feed.now.quota.take(10_000 - int(b.feed.now.quota.used.Load())); err != nil {
			t.Fatal(err)
		}
		<-time.After(4 * time.Minute)
		synctest.Wait()
		select {
		case err := <-c.err:
			t.Fatal(err)
		default:
		}
		<-time.After(3 * time.Minute)
		if err := <-c.err; status.Code(err) != codes.Unknown || status.Convert(err).Message() != "connection cancelled" {
			t.Error(err)
		}
	})
}

// Without streams nobody listens to the engine, and a later stream finds all as before.
func TestNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Limits{Interval: time.Hour})
		for range 3 {
			c := b.client()
			c.register(1)
			c.read()
			b.put("k", "v")
			if got := c.read(); !slices.Equal(got, []string{"1 PREWRITE k", "1 COMMIT k"}) {
				t.Error(got)
			}
			close(c.in)
			if err := <-c.err; err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if running := b.tasks.Running(); len(running) > 0 || b.feed.now != nil {
				t.Error(running)
			}
		}
	})
}

func TestMessages(t *testing.T) {
	event := func(n int) item {
		return item{event: &cdcpb.Event{Event: &cdcpb.Event_Entries_{Entries: &cdcpb.Event_Entries{Entries: []*cdcpb.Event_Row{{Value: bytes.Repeat([]byte{1}, n)}}}}}}
	}
	resolved, barrier := item{resolved: &cdcpb.ResolvedTs{Ts: 1}}, item{barrier: make(chan struct{})}
	for _, test := range []struct {
		items []item
		want  string
	}{
		{nil, ""},
		{[]item{event(1), event(1), event(1)}, "3"},
		{[]item{event(1), resolved, event(1), event(1)}, "1 r 2"},
		{[]item{resolved, resolved}, "r r"},
		{[]item{event(1), barrier, event(1)}, "1 1"},
		{[]item{barrier, event(1)}, "1"},
		{[]item{event(4 << 20), event(1 << 20), event(2 << 20), event(7 << 20), event(1)}, "2 1 1 1"},
	} {
		var got []string
		for _, m := range messages(test.items) {
			if m.ResolvedTs != nil {
				got = append(got, "r")
			} else {
				got = append(got, fmt.Sprint(len(m.Events)))
			}
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%q, want %q", s, test.want)
		}
	}
}

// What scans find and what happens come by turns; of a scan that has ended nothing.
func TestTurns(t *testing.T) {
	c := newConn(&quota{limit: 1 << 20})
	var dropped atomic.Bool
	named := func(name string, of *atomic.Bool) item {
		return item{event: &cdcpb.Event{Event: &cdcpb.Event_Entries_{Entries: &cdcpb.Event_Entries{Entries: []*cdcpb.Event_Row{{Key: []byte(name)}}}}}, dropped: of}
	}
	var live atomic.Bool
	if err := c.putScan(t.Context(), []item{named("s1", &live), named("x1", &dropped), named("s2", &live), named("s3", &live)}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"l1", "l2", "l3", "l4", "l5"} {
		if err := c.put(named(name, nil), false); err != nil {
			t.Fatal(err)
		}
	}
	dropped.Store(true)
	items, last := c.take()
	var got []string
	for _, i := range items {
		got = append(got, string(i.event.GetEntries().Entries[0].Key))
		c.discard(i)
	}
	if want := []string{"s1", "l1", "l2", "s2", "l3", "s3", "l4", "l5"}; !slices.Equal(got, want) || last {
		t.Error(got, want)
	}
	if c.quota.used.Load() != 0 {
		t.Error(c.quota.used.Load())
	}
	for i := range maxEvents + 5 {
		if err := c.put(named(fmt.Sprint(i), nil), true); err != nil {
			t.Fatal(err)
		}
	}
	if items, _ = c.take(); len(items) != maxEvents {
		t.Error(len(items))
	}
	c.close()
	if items, last = c.take(); len(items) != 0 || !last {
		t.Error(items, last)
	}
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]features{
		"":             {},
		"v5.3.0":       {},
		"5.3":          {},
		"5.3.0.1":      {},
		"05.3.0":       {},
		"+5.3.0":       {},
		"5.3.0-":       {},
		"4.0.7":        {},
		"4.0.8-alpha":  {},
		"4.0.8":        {batch: true},
		"4.0.8+build":  {batch: true},
		"5.2.9":        {batch: true},
		"5.3.0-rc.1":   {batch: true},
		"5.3.0":        {batch: true, clusterID: true},
		"5.3.1-beta":   {batch: true, clusterID: true},
		"10.0.0-alpha": {batch: true, clusterID: true},
	} {
		if got := featuresOf(text, false); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	for list, want := range map[string]string{
		"stream-multiplexing":                         "true  true",
		" stream-multiplexing , stream-multiplexing ": "true  true",
		"":                       "false  false",
		"a, stream-multiplexing": "true a false",
		"a,b":                    "false a,b false",
	} {
		multiplexed, unknown, ok := parseFeatures(list)
		if got := fmt.Sprint(multiplexed, " ", unknown, " ", ok); got != want {
			t.Errorf("%q: %s, want %s", list, got, want)
		}
	}
}

func TestOutcomes(t *testing.T) {
	b := newBench(t, Limits{})
	e := newEndpoint(b.feed.cfg, b.tasks)
	r := b.region()
	elsewhere := *r
	elsewhere.Meta, elsewhere.Leader = r.Meta, nil
	gone := *r
	m := *r.Meta
	m.Peers = nil
	gone.Meta = &m
	for _, test := range []struct {
		h    topology.Happening
		want string
	}{
		{topology.Happening{What: topology.Led, Was: r, Now: []*topology.Region{r}}, "none"},
		{topology.Happening{What: topology.Led, Was: r, Now: []*topology.Region{&elsewhere}}, "NotLeader"},
		{topology.Happening{What: topology.Peers, Was: r, Now: []*topology.Region{r}}, "none"},
		{topology.Happening{What: topology.Peers, Was: r, Now: []*topology.Region{&gone}}, "RegionNotFound"},
		{topology.Happening{What: topology.Split, Was: r, Now: []*topology.Region{r, r}}, "EpochNotMatch"},
		{topology.Happening{What: topology.Merged, Was: r}, "EpochNotMatch"},
	} {
		got := "none"
		if err := e.outcome(test.h); err != nil {
			got = lines(&cdcpb.ChangeDataEvent{Events: []*cdcpb.Event{{Event: &cdcpb.Event_Error{Error: eventError(err, r.ID())}}}})[0][2:]
		}
		if got != test.want {
			t.Errorf("%v: %s, want %s", test.h.What, got, test.want)
		}
	}
}
