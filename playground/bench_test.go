package playground_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground"
)

// The figures of docs/performance.md: go test -run '^$' -bench . ./playground

// BenchmarkStart is the life of an empty cluster; heap-MB is what it holds in between.
func BenchmarkStart(b *testing.B) {
	for _, stores := range []int{1, 3} {
		b.Run(fmt.Sprintf("%d_stores", stores), func(b *testing.B) { benchmarkStart(b, playground.WithStores(stores)) })
	}
	b.Run("1000_regions", func(b *testing.B) {
		var bounds [][]byte
		for i := range 999 {
			bounds = append(bounds, fmt.Appendf(nil, "k%03d", i))
		}
		benchmarkStart(b, playground.WithSplitKeys(playground.KeyRaw, bounds...))
	})
}

func benchmarkStart(b *testing.B, opts ...playground.Option) {
	before := heap()
	var held uint64
	for b.Loop() {
		c, err := playground.Start(b.Context(), opts...)
		if err != nil {
			b.Fatal(err)
		}
		if held == 0 {
			b.StopTimer()
			held = max(1, heap()-min(before, heap()))
			b.StartTimer()
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(held)/1e6, "heap-MB")
}

// heap is what is reachable.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSplit splits one region into a thousand, one at a time, as a running cluster.
func BenchmarkSplit(b *testing.B) {
	for b.Loop() {
		c, err := playground.Start(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for i := range 999 {
			if _, err := c.Split(playground.KeyRaw, fmt.Appendf(nil, "k%03d", i)); err != nil {
				b.Fatal(err)
			}
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRawGet gets 100-byte values with this project's client, in this process, over
// loopback TCP and over the network in memory, with one caller and with 256.
func BenchmarkRawGet(b *testing.B) {
	for _, network := range []string{"loopback", "memory"} {
		for _, callers := range []int{1, 256} {
			b.Run(fmt.Sprintf("%s/%d_callers", network, callers), func(b *testing.B) {
				var opts []playground.Option
				if network == "loopback" {
					opts = append(opts, playground.WithTCP("127.0.0.1", 0))
				}
				benchmarkRawGet(b, callers, opts...)
			})
		}
	}
}

func benchmarkRawGet(b *testing.B, callers int, opts ...playground.Option) {
	c, err := playground.Start(b.Context(), opts...)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	dial := func(ctx context.Context, addr string) (net.Conn, error) { return c.DialContext(ctx, addr) }
	client, err := tikv.Open(b.Context(), c.PD(), tikv.WithDialer(dial))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	raw := client.Raw()
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "k%023d", i)
		if err := raw.Put(b.Context(), keys[i], make([]byte, 100)); err != nil {
			b.Fatal(err)
		}
	}
	tasks := task.New(b.Context())
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	for range callers {
		tasks.Go("caller", func(ctx context.Context) {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if _, err := raw.Get(ctx, keys[i%int64(len(keys))]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	if err := tasks.Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "gets/s")
}

// A thousand clusters leave nothing behind: no goroutine (TestMain), no memory.
func TestThousandStarts(t *testing.T) {
	cycle := func(n int) {
		for range n {
			c, err := playground.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	cycle(10) // what is made once
	goroutines, before := runtime.NumGoroutine(), heap()
	cycle(1000)
	// What has said that it is done may not be gone yet.
	tick, limit := time.NewTicker(10*time.Millisecond), time.NewTimer(5*time.Minute)
	defer tick.Stop()
	defer limit.Stop()
	for runtime.NumGoroutine() > goroutines || heap() > before+1<<20 {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%d goroutines, before %d; %d bytes of heap, before %d", runtime.NumGoroutine(), goroutines, heap(), before)
		}
	}
}

// What docs/performance.md says of the size holds as a bound; its times are measured.
func TestClusterIsSmall(t *testing.T) {
	before := heap()
	c, err := playground.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if held := int64(heap()) - int64(before); held > 30<<20 {
		t.Errorf("a cluster of three stores holds %d bytes", held)
	}
}
