package region

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/task"
)

// benchKey is the border at i: 30 bytes, as a table's encoded row key has.
func benchKey(i int) []byte { return fmt.Appendf(nil, "t\x80\x00\x00\x00\x00\x00\x00\x45_r%018d", i) }

// benchFound is region i of many, with three peers.
func benchFound(i int) Found {
	f := Found{Meta: &metapb.Region{
		Id: uint64(4*i + 1), StartKey: benchKey(i), EndKey: benchKey(i + 1),
		RegionEpoch: &metapb.RegionEpoch{Version: uint64(i%7) + 1, ConfVer: 5},
	}}
	for p := range uint64(3) {
		f.Meta.Peers = append(f.Meta.Peers, &metapb.Peer{Id: f.Meta.Id + p + 1, StoreId: uint64(i)%5 + p + 1})
	}
	f.Leader = f.Meta.Peers[i%3]
	return f
}

// filled returns a cache of n regions.
func filled(tb testing.TB, n int) *Cache {
	tasks := task.New(tb.Context())
	tb.Cleanup(func() { tasks.Close(nil) })
	c := NewWith(nil, tasks, Config{Bytes: 1 << 40})
	for at := 0; at < n; {
		batch := make([]*Region, min(n-at, loadBatch))
		for i := range batch {
			batch[i] = benchFound(at + i).Region()
		}
		at += len(batch)
		c.insert(batch...)
	}
	if c.Len() != n {
		tb.Fatal(c.Len())
	}
	return c
}

var sizes = []int{1000, 1_000_000}

func BenchmarkLocate(b *testing.B) {
	for _, n := range sizes {
		var c *Cache
		ks := make([][]byte, 1<<16)
		for i := range ks {
			ks[i] = append(benchKey(rand.IntN(n)), 'x')
		}
		ready := func(b *testing.B) {
			if c == nil {
				c = filled(b, n)
				runtime.GC()
			}
			b.ReportAllocs()
			b.ResetTimer()
		}
		b.Run(fmt.Sprintf("serial/%d", n), func(b *testing.B) {
			ready(b)
			for i := range b.N {
				if c.Lookup(ks[i&(1<<16-1)]) == nil {
					b.Fatal("missed")
				}
			}
		})
		b.Run(fmt.Sprintf("parallel/%d", n), func(b *testing.B) {
			ready(b)
			var at atomic.Uint32
			b.RunParallel(func(pb *testing.PB) {
				i := at.Add(12345)
				for ; pb.Next(); i++ {
					if c.Lookup(ks[i&(1<<16-1)]) == nil {
						b.Error("missed")
						return
					}
				}
			})
		})
		c = nil
	}
}

// BenchmarkInsert replaces one region of many by a newer epoch of it.
func BenchmarkInsert(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := filled(b, n)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				f := benchFound(rand.IntN(n))
				f.Meta.RegionEpoch.Version = 1 << 40
				c.insert(f.Region())
			}
		})
	}
}

func BenchmarkStore(b *testing.B) {
	c := filled(b, 1)
	s := c.newStore(&metapb.Store{Id: 1, Address: "a"}, nil, 0)
	now := c.start
	b.Run("admit and done", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if s.Admit() == nil {
				s.Done(Answered, now, 1000, nil)
			}
		}
	})
}

// bytesPerRegion is the memory of a cache over its regions.
func bytesPerRegion(tb testing.TB, n int) (measured, accounted float64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := filled(tb, n)
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	measured = float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
	accounted = float64(c.Stats().Bytes) / float64(n)
	runtime.KeepAlive(c)
	return measured, accounted
}

func BenchmarkBytesPerRegion(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for range b.N {
				measured, accounted := bytesPerRegion(b, n)
				b.ReportMetric(measured, "B/region")
				b.ReportMetric(accounted, "accounted-B/region")
			}
		})
	}
}

// A cached region takes at most 400 bytes, and what is accounted for is what is taken.
func TestBytesPerRegion(t *testing.T) {
	measured, accounted := bytesPerRegion(t, 20_000)
	t.Logf("%.0f bytes a region, %.0f accounted for", measured, accounted)
	if measured > 400 || accounted < 0.85*measured || accounted > 1.15*measured {
		t.Errorf("%.0f bytes a region, %.0f accounted for", measured, accounted)
	}
}

// Putting a region in costs about the same in a small and in a large cache.
func TestInsertCopiesLittle(t *testing.T) {
	c := filled(t, 50_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 200
	for i := range n {
		f := benchFound(i * 211)
		f.Meta.RegionEpoch.Version = 1 << 40
		c.insert(f.Region())
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > 12<<10 {
		t.Errorf("%d bytes for one of 50000", each)
	}
}
