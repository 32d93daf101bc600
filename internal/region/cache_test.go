package region

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

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

// fakePD answers from a list of regions. Each call takes delay and is written down.
type fakePD struct {
	mu      sync.Mutex
	regions []Found
	stores  map[uint64]*metapb.Store
	delay   time.Duration
	err     error
	log     []string
}

func (p *fakePD) begin(ctx context.Context, format string, args ...any) error {
	p.mu.Lock()
	p.log = append(p.log, fmt.Sprintf(format, args...))
	err, delay := p.err, p.delay
	p.mu.Unlock()
	if delay <= 0 { // see sleep
		return err
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return err
	case <-ctx.Done():
		p.mu.Lock()
		p.log = append(p.log, "left")
		p.mu.Unlock()
		return context.Cause(ctx)
	}
}

func (p *fakePD) took() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := strings.Join(p.log, "; ")
	p.log = nil
	return out
}

func (p *fakePD) find(fits func(keys.Range) bool) Found {
	for _, f := range p.regions {
		if fits(keys.Range{Start: f.Meta.StartKey, End: f.Meta.EndKey}) {
			return f
		}
	}
	return Found{}
}

func (p *fakePD) Region(ctx context.Context, key []byte, fresh bool) (Found, error) {
	err := p.begin(ctx, "region %.8q%s", key, map[bool]string{true: " fresh"}[fresh])
	return p.find(func(r keys.Range) bool { return r.Contains(key) }), err
}

func (p *fakePD) PrevRegion(ctx context.Context, key []byte) (Found, error) {
	err := p.begin(ctx, "prev %q", key)
	return p.find(func(r keys.Range) bool { return (&Region{Range: r}).ContainsEnd(key) }), err
}

func (p *fakePD) RegionByID(ctx context.Context, id uint64) (Found, error) {
	err := p.begin(ctx, "id %d", id)
	for _, f := range p.regions {
		if f.Meta.Id == id {
			return f, err
		}
	}
	return Found{}, err
}

func (p *fakePD) ScanRegions(ctx context.Context, ranges []keys.Range, limit int) ([]Found, error) {
	err := p.begin(ctx, "scan %d..%q %d", len(ranges), ranges[0].Start, limit)
	var out []Found
	for _, f := range p.regions {
		held := keys.Range{Start: f.Meta.StartKey, End: f.Meta.EndKey}
		if slices.ContainsFunc(ranges, func(r keys.Range) bool { return overlap(r, held) }) && len(out) < limit {
			out = append(out, f)
		}
	}
	return out, err
}

func (p *fakePD) Store(ctx context.Context, id uint64) (*metapb.Store, error) {
	err := p.begin(ctx, "store %d", id)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stores[id], err
}

func (p *fakePD) Stores(ctx context.Context) ([]*metapb.Store, error) {
	err := p.begin(ctx, "stores")
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*metapb.Store
	for _, s := range p.stores {
		all = append(all, s)
	}
	return all, err
}

// found makes a region whose version is ver, with peers on stores 1, 2 and 3.
func found(id uint64, start, end string, ver uint64, leader int) Found {
	f := Found{Meta: &metapb.Region{
		Id: id, StartKey: []byte(start), EndKey: []byte(end), RegionEpoch: &metapb.RegionEpoch{Version: ver, ConfVer: 1},
	}}
	for i := range uint64(3) {
		f.Meta.Peers = append(f.Meta.Peers, &metapb.Peer{Id: id*10 + i + 1, StoreId: i + 1})
	}
	if leader > 0 {
		f.Leader = f.Meta.Peers[leader-1]
	}
	return f
}

// bubble runs a test with a cache in fake time.
func bubble(t *testing.T, test func(t *testing.T, pd *fakePD, c *Cache)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		pd := &fakePD{stores: map[uint64]*metapb.Store{}, delay: time.Second}
		test(t, pd, New(pd, tasks))
	})
}

func TestLoadIsShared(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "", "m", 1, 2), found(2, "m", "", 1, 0)}
		callers := task.New(t.Context())
		for range 10 {
			callers.Go("caller", func(ctx context.Context) {
				r, err := c.Locate(ctx, []byte("a"))
				if err != nil || r.ID != 1 || r.Leader().StoreId != 2 {
					t.Error(r, err)
				}
			})
		}
		start := time.Now()
		if err := callers.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := pd.took(); got != `region "a"` || time.Since(start) != time.Second {
			t.Fatal(got, time.Since(start))
		}
		if r, err := c.Locate(t.Context(), []byte("b")); err != nil || r.ID != 1 || pd.took() != "" {
			t.Fatal("a cached region is loaded again", err)
		}
		if r, err := c.Locate(t.Context(), []byte("z")); err != nil || r.Leader().StoreId != 1 {
			t.Fatal("a region without leader has its first peer for one", err)
		}
	})
}

func TestOneCallerLeavesALoad(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "", "", 1, 1)}
		over := errors.New("over")
		ctx, cancel := context.WithCancelCause(t.Context())
		callers := task.New(t.Context())
		key := []byte("a")
		callers.Go("leaver", func(context.Context) {
			start := time.Now()
			if _, err := c.Locate(ctx, key); err != over || time.Since(start) != 0 {
				t.Error(err, time.Since(start))
			}
			key[0] = 'x' // the caller's again
		})
		synctest.Wait()
		callers.Go("stayer", func(ctx context.Context) {
			if r, err := c.Locate(ctx, []byte("a")); err != nil || r.ID != 1 {
				t.Error(r, err)
			}
		})
		synctest.Wait()
		cancel(over)
		if err := callers.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := pd.took(); got != `region "a"` {
			t.Fatal(got)
		}
	})
}

func TestLastCallerEndsTheLoad(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "", "", 1, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		callers := task.New(t.Context())
		for range 3 {
			callers.Go("caller", func(context.Context) {
				if _, err := c.Locate(ctx, []byte("a")); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		start := time.Now()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if running := c.tasks.Running(); len(running) != 0 || len(c.loads.loads) != 0 || time.Since(start) != 0 {
			t.Fatal(running, len(c.loads.loads), time.Since(start))
		}
		if got := pd.took(); got != `region "a"; left` {
			t.Fatal(got)
		}
		if r, err := c.Locate(t.Context(), []byte("a")); err != nil || r.ID != 1 {
			t.Fatal("who asks next shares the end of the others:", err)
		}
	})
}

func TestLoadEndsWithTheClient(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		over := errors.New("over")
		callers := task.New(t.Context())
		callers.Go("caller", func(ctx context.Context) {
			if _, err := c.Locate(ctx, []byte("a")); err != over {
				t.Error(err)
			}
		})
		synctest.Wait()
		c.tasks.Close(over)
		_ = callers.Wait(t.Context())
		if _, err := c.Locate(t.Context(), []byte("a")); err != over {
			t.Fatal(err)
		}
	})
}

func TestFailedLoads(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		if _, err := c.Locate(t.Context(), []byte("a")); err != ErrNoRegion {
			t.Fatal(err)
		}
		f := found(1, "", "", 1, 0)
		for _, p := range f.Meta.Peers {
			p.Role = metapb.PeerRole_Learner
		}
		pd.regions = []Found{f}
		if _, err := c.Locate(t.Context(), []byte("a")); err != ErrNoPeer {
			t.Fatal(err)
		}
		pd.err = errors.New("down")
		if _, err := c.Locate(t.Context(), []byte("a")); err != pd.err {
			t.Fatal(err)
		}
		if c.Len() != 0 {
			t.Fatal(c.Len())
		}
	})
}

func TestPDBehindTheStores(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "", "", 1, 1)}
		r, err := c.Locate(t.Context(), []byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		// The store tells of a split, but of one part only.
		if c.ReplaceEpoch(r, []*metapb.Region{found(1, "m", "", 2, 0).Meta}, 3) {
			t.Fatal("a newer epoch is behind")
		}
		if got := c.Lookup([]byte("z")); got.Epoch.Version != 2 || got.Leader().StoreId != 3 {
			t.Fatal("the store that answered is not the leader:", got.Leader())
		}
		got, err := c.Locate(t.Context(), []byte("a"))
		if err != ErrStale || got.Epoch.Version != 1 {
			t.Fatal(got, err)
		}
		if got := c.Lookup([]byte("a")); got != nil {
			t.Fatal("what is stale is cached")
		}
		if got, err := c.Locate(t.Context(), []byte("n")); err != nil || got.Epoch.Version != 2 {
			t.Fatal(got, err)
		}
	})
}

// What has turned out to be wrong is asked of who knows best: another may say it again.
func TestWrongEntriesAreLoadedFresh(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "", "", 1, 1)}
		for _, want := range []string{`region "a"`, `region "a" fresh`} {
			r, err := c.Locate(t.Context(), []byte("a"))
			if got := pd.took(); err != nil || got != want {
				t.Fatalf("%q, not %q: %v", got, want, err)
			}
			c.Invalidate(r, NotFound)
		}
	})
}

// A PD that answers with other regions than those asked for finds nothing, and holds nobody
// up for ever.
func TestNonsenseOfPD(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		c.pd = odd{pd}
		if r, err := c.Locate(t.Context(), []byte("x")); err != ErrNoRegion || c.Len() != 0 {
			t.Fatal(r, err, c.Len())
		}
		if err := c.Preload(t.Context(), keys.Range{Start: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	})
}

// odd is a PD that answers always the same.
type odd struct{ *fakePD }

func (odd) Region(context.Context, []byte, bool) (Found, error) { return found(1, "a", "b", 1, 1), nil }

func (odd) ScanRegions(context.Context, []keys.Range, int) ([]Found, error) {
	return []Found{found(1, "a", "b", 1, 1)}, nil
}

func TestLocateEnd(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "", "g", 1, 1), found(2, "g", "p", 1, 1), found(3, "p", "", 1, 1)}
		for _, want := range []struct {
			key string
			id  uint64
			log string
		}{
			{"g", 1, `prev "g"`}, {"g", 1, ""}, {"b", 1, ""}, {"h", 2, `prev "h"`}, {"p", 2, ""},
			{"", 3, `prev ""`}, {"", 3, ""}, {"q", 3, ""},
		} {
			r, err := c.LocateEnd(t.Context(), []byte(want.key))
			if log := pd.took(); err != nil || r.ID != want.id || !strings.HasPrefix(log, want.log) || (want.log == "") != (log == "") {
				t.Fatalf("%q: %v %v after %q", want.key, r, err, log)
			}
		}
	})
}

func TestIdleEntriesExpire(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.delay = 0
		for i := range 20 {
			pd.regions = append(pd.regions, found(uint64(i+1), fmt.Sprintf("%02d", i), fmt.Sprintf("%02d", i+1), 1, 1))
			if _, err := c.Locate(t.Context(), fmt.Appendf(nil, "%02d", i)); err != nil {
				t.Fatal(err)
			}
		}
		pd.took()
		left := map[time.Duration]int{}
		for m := range 14 {
			sleep(upkeepRound)
			if c.Lookup([]byte("00")) == nil {
				t.Fatal("a region that is used goes")
			}
			left[time.Duration(m+1)] = c.Len()
		}
		if left[9] != 20 || left[11] <= 1 || left[11] >= 20 || left[13] != 1 {
			t.Fatal("entries after minutes:", left)
		}
		if got := pd.took(); got != "" {
			t.Fatal(got)
		}
		sleep(15 * time.Minute)
		if s := c.Stats(); s.Regions != 0 || s.Bytes != 0 || s.Evicted != 20 || len(c.tasks.Running()) != 0 {
			t.Fatal(s, c.tasks.Running())
		}
	})
}

// What is in doubt is loaded again in the background, while it serves.
func TestRefreshBeforeItIsNeeded(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "", "b", 1, 1), found(2, "b", "c", 1, 1), found(3, "c", "d", 1, 1), found(4, "d", "", 1, 1)}
		pd.regions[1].Down = pd.regions[1].Meta.Peers[1:2]
		for _, k := range []string{"a", "b", "c", "d"} {
			if _, err := c.Locate(t.Context(), []byte(k)); err != nil {
				t.Fatal(err)
			}
		}
		c.Doubt(c.Lookup([]byte("c")))
		pd.took()
		use := func(minutes int) {
			for range minutes * 60 {
				sleep(time.Second)
				for _, k := range []string{"a", "b", "c"} {
					if c.Lookup([]byte(k)) == nil {
						t.Fatal(k, "is waited for")
					}
				}
			}
		}
		use(2)
		if got := pd.took(); got != `scan 1.."c" 1` {
			t.Fatal("after two minutes:", got)
		}
		pd.regions[1].Down = nil
		use(9)
		if got := pd.took(); got != `scan 1.."b" 1` || c.Lookup([]byte("b")).Down(1) {
			t.Fatal("after eleven minutes:", got)
		}
		use(20)
		if got := pd.took(); got != "" {
			t.Fatal("what is in no doubt is loaded again:", got)
		}
	})
}

func TestReload(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "", "", 1, 1)}
		r, err := c.Locate(t.Context(), []byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		c.Reload(r)
		if pd.err = errors.New("down"); c.Lookup([]byte("a")) != nil {
			t.Fatal("not loaded again")
		}
		if old, err := c.Locate(t.Context(), []byte("a")); err != nil || old != r {
			t.Fatal("PD does not answer, and what is known is not used:", err)
		}
		c.Invalidate(r, WrongKeys)
		if _, err := c.Locate(t.Context(), []byte("a")); err != pd.err {
			t.Fatal(err)
		}
		pd.err = nil
		if next, err := c.Locate(t.Context(), []byte("a")); err != nil || next == r || c.Lookup([]byte("b")) != next {
			t.Fatal(err)
		}
		c.Invalidate(c.Lookup(nil), WrongKeys)
		c.Invalidate(r, WrongKeys)
		if got := c.Stats(); got.Invalidated[WrongKeys] != 2 {
			t.Fatal(got)
		}
	})
}

// A region without a leader is tried with another, if PD has not heard of an election.
func TestNoLeaderTriesTheNext(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "", "", 1, 3)}
		for _, want := range []uint64{3, 1, 3} {
			r, err := c.Locate(t.Context(), []byte("a"))
			if err != nil || r.Leader().StoreId != want {
				t.Fatal(r.Leader(), want, err)
			}
			c.Invalidate(r, NoLeader)
		}
	})
}

func TestLocateID(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "", "m", 1, 1), found(2, "m", "", 1, 1)}
		if r, err := c.LocateID(t.Context(), 2); err != nil || r.ID != 2 || c.Lookup([]byte("z")) != r {
			t.Fatal(r, err)
		}
		if _, err := c.LocateID(t.Context(), 3); err != ErrNoRegion {
			t.Fatal(err)
		}
		c.insert(found(1, "", "g", 2, 1).Region())
		if r, err := c.LocateID(t.Context(), 1); err != nil || r.Epoch.Version != 2 {
			t.Fatal("what PD has not learned yet is lost:", r, err)
		}
	})
}

// Many keys that are missed at once are few requests.
func TestLoadsAreBatched(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		const n = 1000
		for i := range n {
			pd.regions = append(pd.regions, found(uint64(i+1), fmt.Sprintf("%04d", i), fmt.Sprintf("%04d", i+1), 1, 1))
		}
		callers := task.New(t.Context())
		for i := range n + 1 {
			callers.Go("caller", func(ctx context.Context) {
				r, err := c.Locate(ctx, fmt.Appendf(nil, "%04dx", i))
				if i == n && err != ErrNoRegion || i < n && (err != nil || r.ID != uint64(i+1)) {
					t.Error(i, r, err)
				}
			})
		}
		synctest.Wait()
		if got := c.tasks.Running(); len(got) != loadTasks {
			t.Error(got)
		}
		if err := callers.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		log := strings.Split(pd.took(), "; ")
		if len(log) > n/loadBatch+2*loadTasks {
			t.Fatal(len(log), "requests")
		}
	})
}

func TestPDsErrorIsEveryones(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.err = errors.New("down")
		callers := task.New(t.Context())
		for i := range 50 {
			callers.Go("caller", func(ctx context.Context) {
				if _, err := c.Locate(ctx, []byte{byte(i)}); err != pd.err {
					t.Error(err)
				}
			})
		}
		if err := callers.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(c.loads.loads)+len(c.loads.queue)+c.loads.tasks != 0 {
			t.Fatal("something is left")
		}
	})
}

func TestQueuedLoadIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		ctx, cancel := context.WithCancel(t.Context())
		callers := task.New(t.Context())
		for i := range 2 * loadTasks {
			callers.Go("caller", func(context.Context) { _, _ = c.Locate(ctx, []byte{byte(i)}) })
			synctest.Wait() // one after the other: the first are asked for, the rest is queued
		}
		start := time.Now()
		cancel()
		synctest.Wait()
		if len(c.loads.loads)+len(c.loads.queue)+c.loads.tasks != 0 || len(callers.Running()) != 0 || time.Since(start) != 0 {
			t.Fatal(len(c.loads.loads), len(c.loads.queue), c.loads.tasks)
		}
	})
}

// The budget holds, and what is used stays.
func TestBudget(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		one := found(1, "00000", "00001", 1, 1).Region().size()
		c.cfg.Bytes = 100 * int64(one)
		key := func(i int) []byte { return fmt.Appendf(nil, "%05d", i) }
		for i := range 5000 {
			r := found(uint64(i+1), string(key(i)), string(key(i+1)), 1, 1).Region()
			r.marks.Store(0) // as if nobody had asked for it
			c.insert(r)
			if c.Lookup(key(0)) == nil {
				t.Fatal("after", i, "entries one that is always used is gone")
			}
			if s := c.Stats(); s.Bytes > c.cfg.Bytes || s.Bytes != int64(s.Regions)*int64(one) {
				t.Fatal(s)
			}
		}
		if n := c.Len(); n < 90 {
			t.Fatal("only", n, "entries")
		}
		c.cfg.Bytes = 1
		c.insert(found(9, "", "", 9, 1).Region())
		if c.Len() != 1 || c.Lookup(nil).ID != 9 {
			t.Fatal("one entry must fit")
		}
	})
}

func TestPreload(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		var mu sync.Mutex
		var probed []string
		c.cfg.Probe = func(_ context.Context, addr string) error {
			mu.Lock()
			defer mu.Unlock()
			probed = append(probed, addr)
			return errors.New("no route")
		}
		const n = 2*preloadPage + 10
		for i := range n {
			pd.regions = append(pd.regions, found(uint64(i+1), fmt.Sprintf("%05d", i), fmt.Sprintf("%05d", i+1), 1, i%3+1))
		}
		pd.regions[n-1].Meta.EndKey = nil
		for id := range uint64(2) { // PD does not know the third
			pd.set(id+1, &metapb.Store{Id: id + 1, Address: fmt.Sprint("s", id+1)})
		}
		if err := c.Preload(t.Context(), keys.Range{Start: []byte("00005")}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(probed)
		if got := strings.Count(pd.took(), "scan"); got != 3 || c.Len() != n-5 || fmt.Sprint(probed) != "[s1 s2]" {
			t.Fatal(got, c.Len(), probed)
		}
		if r, err := c.Locate(t.Context(), []byte("00007")); err != nil || r.ID != 8 || pd.took() != "" {
			t.Fatal("what was preloaded is loaded:", err)
		}
		if err := c.Preload(t.Context(), keys.Range{Start: []byte("z")}); err != nil {
			t.Fatal(err)
		}
		pd.took()
		c.cfg.Bytes = 200 * 1024
		if err := c.Preload(t.Context(), keys.Range{}); err != nil || c.Stats().Bytes > c.cfg.Bytes || strings.Count(pd.took(), "scan") != 1 {
			t.Fatal("preloading goes on although there is no room:", err)
		}
		pd.fail(errors.New("down"))
		if err := c.Preload(t.Context(), keys.Range{}); err != pd.err {
			t.Fatal(err)
		}
	})
}

func TestBuckets(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		pd.regions = []Found{found(1, "b", "p", 1, 1)}
		pd.regions[0].Buckets = &metapb.Buckets{Version: 5, Keys: [][]byte{[]byte("a"), []byte("e"), []byte("k"), []byte("z")}}
		r, err := c.Locate(t.Context(), []byte("c"))
		if err != nil {
			t.Fatal(err)
		}
		check := func(r *Region, version uint64, want string) {
			t.Helper()
			var got []string
			for _, k := range []string{"b", "d", "e", "j", "k", "o"} {
				part := r.Bucket([]byte(k))
				got = append(got, fmt.Sprintf("%s-%s", part.Start, part.End))
			}
			if r.BucketVersion() != version || strings.Join(got, " ") != want {
				t.Errorf("%d: %v, not %s", r.BucketVersion(), got, want)
			}
		}
		check(r, 5, "b-e b-e e-k e-k k-p k-p")
		before := c.Stats().Bytes
		c.UpdateBuckets(r, 4, [][]byte{[]byte("a"), []byte("z")})
		check(r, 5, "b-e b-e e-k e-k k-p k-p")
		c.UpdateBuckets(r, 6, [][]byte{nil, []byte("d"), []byte("e"), []byte("f"), []byte("o"), nil})
		check(r, 6, "b-d d-e e-f f-o f-o o-p")
		if c.Stats().Bytes <= before {
			t.Error("buckets cost nothing")
		}
		c.Invalidate(r, Other)
		if r, err = c.Locate(t.Context(), []byte("c")); err != nil {
			t.Fatal(err)
		}
		check(r, 6, "b-d d-e e-f f-o f-o o-p") // PD has an older version
		c.insert(found(1, "", "", 2, 1).Region())
		check(c.Lookup(nil), 6, "-d d-e e-f f-o f-o o-")
		c.insert(found(2, "", "", 3, 1).Region())
		check(c.Lookup(nil), 0, "- - - - - -")
	})
}

func TestPeersThatMayLead(t *testing.T) {
	f := found(1, "", "", 1, 3)
	f.Meta.Peers[0].IsWitness = true
	f.Down, f.Pending = f.Meta.Peers[1:2], f.Meta.Peers[2:3]
	f.Meta.Peers = append(f.Meta.Peers, &metapb.Peer{Id: 9, StoreId: 9, Role: metapb.PeerRole_Learner})
	describe := func(f Found) string {
		r := f.Region()
		if r == nil {
			return "none"
		}
		var out strings.Builder
		for i, p := range r.Peers() {
			fmt.Fprintf(&out, " %d", p.StoreId)
			if r.Able(i) {
				out.WriteString("*")
			}
			if r.Down(i) {
				out.WriteString("d")
			}
			if r.Pending(i) {
				out.WriteString("p")
			}
			if i == r.LeaderIndex() {
				out.WriteString("L")
			}
		}
		return out.String()
	}
	check := func(why, want string) {
		t.Helper()
		if got := describe(f); got != want {
			t.Errorf("%s: %s, not %s", why, got, want)
		}
	}
	check("a leader, one that is down, a witness and a learner", " 1 2d 3*pL 9")
	f.Leader, f.Down = nil, f.Meta.Peers[1:3]
	check("with all of them down, there must still be someone to ask", " 1 2*dL 3*dp 9")
	f.Leader = f.Meta.Peers[0]
	check("a witness that leads", " 1*L 2*d 3*dp 9")
	f.Leader, f.Down, f.Pending = &metapb.Peer{Id: 77}, nil, nil
	check("a leader that is no peer", " 1 2*L 3* 9")
	f.Leader = f.Meta.Peers[3]
	check("a learner cannot lead", " 1 2*L 3* 9")
	f.Meta.Peers = f.Meta.Peers[3:]
	check("nobody may lead", "none")
}

func TestScanKeepsWhatIsNewer(t *testing.T) {
	bubble(t, func(t *testing.T, pd *fakePD, c *Cache) {
		c.insert(found(2, "g", "p", 5, 1).Region())
		pd.regions = []Found{found(1, "", "g", 1, 1), found(2, "g", "p", 4, 1), found(3, "p", "", 1, 1)}
		got, err := c.Scan(t.Context(), keys.Range{}, 10)
		if err != nil || len(got) != 2 || c.Len() != 3 || c.Lookup([]byte("h")).Epoch.Version != 5 {
			t.Fatal(got, err)
		}
	})
}
