package region

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

// fleet is 100 stores that answer after a time of their own, of which store dead, if not 0,
// answers nothing: connections to it are given up after dialTime.
type fleet struct {
	dead uint64

	mu     sync.Mutex
	others []time.Duration // times of calls to the stores that live
	after  int             // of them, those that began when nobody waits for the dead one any more
	began  time.Time
	stuck  int       // calls that waited for the dead one
	last   time.Time // when one of them began last
}

const (
	fleetStores = 100
	dialTime    = 5 * time.Second
)

var errDial = errors.New("no answer to a connection")

// call is one request to a region that the store leads, as a router makes it.
func (f *fleet) call(ctx context.Context, c *Cache, key []byte) error {
	began := time.Now()
	r, err := c.Locate(ctx, key)
	if err != nil {
		return err
	}
	s, err := c.Store(ctx, r.Leader().StoreId)
	if err != nil {
		return err
	}
	if err := s.Admit(); err != nil {
		return nil // it goes elsewhere
	}
	if s.ID == f.dead {
		f.mu.Lock()
		f.stuck, f.last = f.stuck+1, began
		f.mu.Unlock()
		sleep(dialTime)
		s.Done(Refused, time.Now(), time.Since(began), errDial)
		return nil
	}
	sleep(time.Duration(10+s.ID%7) * time.Millisecond)
	took := time.Since(began)
	s.Done(Answered, time.Now(), took, nil)
	f.mu.Lock()
	if f.others = append(f.others, took); began.Sub(f.began) > 2*dialTime {
		f.after++
	}
	f.mu.Unlock()
	return nil
}

// run has 20 callers call any of the stores for a while.
func (f *fleet) run(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		pd := &fakePD{stores: map[uint64]*metapb.Store{}}
		for i := range fleetStores {
			one := found(uint64(i+1), fmt.Sprintf("%03d", i), fmt.Sprintf("%03d", i+1), 1, 1)
			one.Meta.Peers[0].StoreId = uint64(i + 1)
			pd.regions = append(pd.regions, one)
			pd.stores[uint64(i+1)] = &metapb.Store{Id: uint64(i + 1), Address: fmt.Sprint("s", i+1)}
		}
		c := NewWith(pd, tasks, Config{Probe: func(ctx context.Context, addr string) error {
			if addr == fmt.Sprint("s", f.dead) {
				return errDial
			}
			return nil
		}})
		for i := range fleetStores { // all is known
			if _, err := c.Locate(t.Context(), fmt.Appendf(nil, "%03d", i)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Store(t.Context(), uint64(i+1)); err != nil {
				t.Fatal(err)
			}
		}
		f.began = time.Now()
		callers, end := task.New(t.Context()), f.began.Add(4*dialTime)
		for i := range 20 {
			rnd := rand.New(rand.NewPCG(uint64(i), 7))
			callers.Go("caller", func(ctx context.Context) {
				for time.Now().Before(end) {
					if err := f.call(ctx, c, fmt.Appendf(nil, "%03d", rnd.IntN(fleetStores))); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		if err := callers.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if known := f.began.Add(dialTime); f.dead != 0 && f.last.After(known) {
			t.Errorf("a call waited for the dead store %v after the others had found out", f.last.Sub(known))
		}
	})
}

func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)*99/100]
}

// Of 100 stores one is dead: the others' p99 is the same, callers do not wait for the dead
// one beyond the first time, and hardly less gets done.
func TestOneOfHundredStoresIsDead(t *testing.T) {
	well, ill := &fleet{}, &fleet{dead: 42}
	well.run(t)
	ill.run(t)
	t.Logf("p99 %v of %d calls, %d after the first seconds; with a dead store %v of %d, %d, and %d waited for it",
		p99(well.others), len(well.others), well.after, p99(ill.others), len(ill.others), ill.after, ill.stuck)
	if p99(well.others) != p99(ill.others) {
		t.Errorf("p99 %v, with a dead store %v", p99(well.others), p99(ill.others))
	}
	if ill.after < well.after*98/100 {
		t.Errorf("%d calls after the first seconds, with a dead store %d", well.after, ill.after)
	}
}

// 3,000 clients want one dead store: each probes it a few times at first, and then at most
// once in five seconds (breaker.go), at moments of its own.
func TestProbesOf3000Clients(t *testing.T) {
	const clients, seconds = 3000, 40
	synctest.Test(t, func(t *testing.T) {
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		pd := &fakePD{stores: map[uint64]*metapb.Store{1: {Id: 1, Address: "s1"}}}
		start := time.Now()
		var mu sync.Mutex
		var second [seconds + 1]int
		most := 0
		for range clients {
			var last time.Time
			c := NewWith(pd, tasks, Config{Probe: func(context.Context, string) error {
				mu.Lock()
				defer mu.Unlock()
				now := time.Now()
				if !last.IsZero() && now.Sub(start) > 20*time.Second && now.Sub(last) < lastProbe/2 {
					most++
				}
				last = now
				second[min(int(now.Sub(start)/time.Second), seconds)]++
				return errDial
			}})
			tasks.Go("client", func(ctx context.Context) {
				s, err := c.Store(ctx, 1)
				if err != nil || s.Admit() != nil {
					t.Error(err)
					return
				}
				s.Done(Refused, time.Now(), 0, errDial)
				for time.Since(start) < seconds*time.Second {
					if s.Admit() == nil {
						t.Error("let through")
					}
					sleep(2 * time.Second)
				}
			})
		}
		sleep((seconds + 1) * time.Second)
		mu.Lock()
		defer mu.Unlock()
		t.Log("probes a second:", second)
		early := 0
		for s, n := range second {
			if s < 10 {
				early += n
			}
			if s >= 20 && n > clients/5 {
				t.Errorf("%d probes in second %d", n, s)
			}
		}
		if early > 6*clients || early < clients || most > 0 {
			t.Errorf("%d probes in the first ten seconds, %d too soon after another later", early, most)
		}
	})
}

// 100 stores are away, and each is wanted all the time: a client probes ten times a
// second, whatever is away, and none of them is forgotten.
func TestProbesOfManyStores(t *testing.T) {
	const stores, seconds = 100, 60
	synctest.Test(t, func(t *testing.T) {
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		pd := &fakePD{stores: map[uint64]*metapb.Store{}}
		start := time.Now()
		var mu sync.Mutex
		var second [seconds + 1]int
		probed := map[string]int{}
		c := NewWith(pd, tasks, Config{Probe: func(_ context.Context, addr string) error {
			mu.Lock()
			defer mu.Unlock()
			second[min(int(time.Since(start)/time.Second), seconds)]++
			probed[addr]++
			return errDial
		}})
		var all []*Store
		for i := range uint64(stores) {
			pd.set(i+1, &metapb.Store{Id: i + 1, Address: fmt.Sprint("s", i+1)})
			s, err := c.Store(t.Context(), i+1)
			if err != nil || s.Admit() != nil {
				t.Fatal(err)
			}
			s.Done(Refused, time.Now(), 0, errDial)
			all = append(all, s)
		}
		start = time.Now()
		for range seconds {
			for _, s := range all {
				if s.Admit() == nil {
					t.Error("let through")
				}
			}
			sleep(time.Second)
		}
		mu.Lock()
		defer mu.Unlock()
		t.Log("probes a second:", second)
		if most := slices.Max(second[:]); most > int(time.Second/probeApart) {
			t.Errorf("%d probes in a second", most)
		}
		if len(probed) != stores {
			t.Errorf("%d of %d stores are probed", len(probed), stores)
		}
	})
}

// A day in which entries come, are used for a while and go: what the cache takes is the
// same all day, and nothing in the end.
func TestMemoryIsFlatOverADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		pd := &walkPD{}
		c := New(pd, tasks)
		var bytes []int64
		var heap []uint64
		for minute := range 24 * 60 {
			if _, err := c.Scan(t.Context(), keys.Range{Start: benchKey(minute * 50)}, 50); err != nil {
				t.Fatal(err)
			}
			for back := range 5 { // the last minutes' are still used
				c.Lookup(benchKey(max(minute-back, 0) * 50))
			}
			if c.Lookup(benchKey(0)) == nil {
				t.Fatal("what is used every minute is gone")
			}
			sleep(time.Minute)
			if minute%240 == 239 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				bytes, heap = append(bytes, c.Stats().Bytes), append(heap, m.HeapAlloc)
			}
		}
		t.Log("bytes each four hours:", bytes, "heap:", heap)
		for i := range bytes {
			if bytes[i] > 50*15*320 || bytes[i] < 50*9*280 || heap[i] > heap[0]+1<<20 {
				t.Errorf("bytes %v, heap %v", bytes, heap)
				break
			}
		}
		sleep(20 * time.Minute)
		synctest.Wait()
		if s := c.Stats(); s.Bytes != 0 || s.Regions != 0 || len(tasks.Running()) != 0 {
			t.Error("idle:", s, tasks.Running())
		}
	})
}

// walkPD has regions without end, made when asked for.
type walkPD struct{ PD }

func (walkPD) ScanRegions(_ context.Context, ranges []keys.Range, limit int) (all []Found, err error) {
	var n int
	if _, err := fmt.Sscanf(string(ranges[0].Start[len(ranges[0].Start)-18:]), "%018d", &n); err != nil {
		return nil, err
	}
	for i := range limit {
		all = append(all, benchFound(n+i))
	}
	return all, nil
}
