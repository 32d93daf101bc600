package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/tikv/client-go/v2/tikv"
	pd "github.com/tikv/pd/client"
	"github.com/tikv/pd/client/clients/router"
	"github.com/tikv/pd/client/opt"
	"github.com/tikv/pd/client/pkg/caller"
)

// regionsPD knows n regions like those of internal/region/bench_test.go, and five stores.
type regionsPD struct {
	pd.Client
	n int
}

func regionKey(i int) []byte {
	return fmt.Appendf(nil, "t\x80\x00\x00\x00\x00\x00\x00\x45_r%018d", i)
}

func (p regionsPD) GetClusterID(context.Context) uint64 { return 1 }

func (p regionsPD) WithCallerComponent(caller.Component) pd.Client { return p }

func (p regionsPD) GetRegion(_ context.Context, key []byte, _ ...opt.GetRegionOption) (*router.Region, error) {
	i, err := strconv.Atoi(string(key[11:29]))
	if err != nil || i >= p.n {
		return nil, fmt.Errorf("no region of %q", key)
	}
	r := &router.Region{Meta: &metapb.Region{
		Id: uint64(4*i + 1), StartKey: regionKey(i), EndKey: regionKey(i + 1),
		RegionEpoch: &metapb.RegionEpoch{Version: uint64(i%7) + 1, ConfVer: 5},
	}}
	for at := range uint64(3) {
		r.Meta.Peers = append(r.Meta.Peers, &metapb.Peer{Id: r.Meta.Id + at + 1, StoreId: uint64(i)%5 + at + 1})
	}
	r.Leader = r.Meta.Peers[i%3]
	return r, nil
}

func (p regionsPD) GetStore(_ context.Context, id uint64) (*metapb.Store, error) {
	return &metapb.Store{Id: id, Address: "store" + strconv.FormatUint(id, 10)}, nil
}

func (p regionsPD) GetAllStores(ctx context.Context, _ ...opt.GetStoreOption) ([]*metapb.Store, error) {
	var all []*metapb.Store
	for id := range uint64(8) {
		s, _ := p.GetStore(ctx, id)
		all = append(all, s)
	}
	return all, nil
}

// BenchmarkLocate is internal/region's BenchmarkLocate for the rival's region cache.
func BenchmarkLocate(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		var c *tikv.RegionCache
		ks := make([][]byte, 1<<16)
		for i := range ks {
			ks[i] = append(regionKey(rand.IntN(n)), 'x')
		}
		ready := func(b *testing.B) {
			if c == nil {
				c = filledRival(b, n)
				runtime.GC()
			}
			b.ReportAllocs()
			b.ResetTimer()
		}
		locate := func(b *testing.B, bo *tikv.Backoffer, i int) {
			if _, err := c.LocateKey(bo, ks[i&(1<<16-1)]); err != nil {
				b.Error(err)
			}
		}
		b.Run(fmt.Sprintf("serial/%d", n), func(b *testing.B) {
			ready(b)
			bo := tikv.NewBackofferWithVars(b.Context(), 1000, nil)
			for i := range b.N {
				locate(b, bo, i)
			}
		})
		b.Run(fmt.Sprintf("parallel/%d", n), func(b *testing.B) {
			ready(b)
			var at atomic.Uint32
			b.RunParallel(func(pb *testing.PB) {
				bo := tikv.NewBackofferWithVars(b.Context(), 1000, nil)
				for i := int(at.Add(12345)); pb.Next(); i++ {
					locate(b, bo, i)
				}
			})
		})
		if c != nil {
			c.Close()
		}
	}
}

// filledRival returns a cache of n regions, each found by a miss, and what a region takes.
func filledRival(b *testing.B, n int) *tikv.RegionCache {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := tikv.NewRegionCache(regionsPD{n: n})
	bo := tikv.NewBackofferWithVars(b.Context(), 1000, nil)
	for i := range n {
		if _, err := c.LocateKey(bo, regionKey(i)); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Logf("%.0f bytes a region", float64(after.HeapAlloc-before.HeapAlloc)/float64(n))
	return c
}
