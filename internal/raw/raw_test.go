package raw

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/transport/transporttest"
	"github.com/tikv-go/tikv/internal/wire"
)

// fake is a PD and stores that hold a sorted list of keys, cut into regions at borders,
// which it may move: a request at an old border is answered with the new regions.
type fake struct {
	mu      sync.Mutex
	borders []string // of all regions but the first
	version uint64
	data    map[string]string
	sizes   []int // keys in each write request
	move    func(f *fake)
}

func (f *fake) meta(i int) *metapb.Region {
	m := &metapb.Region{Id: uint64(i + 1), RegionEpoch: &metapb.RegionEpoch{Version: f.version}, Peers: []*metapb.Peer{{Id: 1, StoreId: 1}}}
	if i > 0 {
		m.StartKey = []byte(f.borders[i-1])
	}
	if i < len(f.borders) {
		m.EndKey = []byte(f.borders[i])
	}
	return m
}

func (f *fake) find(fits func(r *metapb.Region) bool) (region.Found, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range len(f.borders) + 1 {
		if m := f.meta(i); fits(m) {
			return region.Found{Meta: m}, nil
		}
	}
	return region.Found{}, nil
}

func (f *fake) Region(_ context.Context, key []byte, _ bool) (region.Found, error) {
	return f.find(func(m *metapb.Region) bool { return keys.Range{Start: m.StartKey, End: m.EndKey}.Contains(key) })
}

func (f *fake) PrevRegion(_ context.Context, key []byte) (region.Found, error) {
	return f.find(func(m *metapb.Region) bool {
		return len(key) == 0 && len(m.EndKey) == 0 || string(m.StartKey) < string(key) && keys.CompareEnds(key, m.EndKey) <= 0
	})
}

func (f *fake) ScanRegions(_ context.Context, ranges []keys.Range, limit int) ([]region.Found, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []region.Found
	for i := range len(f.borders) + 1 {
		m := f.meta(i)
		if slices.ContainsFunc(ranges, func(r keys.Range) bool { return !r.Intersect(keys.Range{Start: m.StartKey, End: m.EndKey}).Empty() }) && len(out) < limit {
			out = append(out, region.Found{Meta: m})
		}
	}
	return out, nil
}

func (f *fake) RegionByID(context.Context, uint64) (region.Found, error) {
	return region.Found{}, context.Canceled // not asked here
}

func (f *fake) Stores(context.Context) ([]*metapb.Store, error) {
	return nil, context.Canceled // not asked here
}

func (f *fake) Store(context.Context, uint64) (*metapb.Store, error) {
	return &metapb.Store{Id: 1, Address: "s1"}, nil
}

// Call checks the region as TiKV does, then does the work.
func (f *fake) call(_ context.Context, _ string, msg transport.Message) (transport.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.move != nil {
		f.move(f)
	}
	c := msg.(transport.Request).GetContext()
	var re *errorpb.Error
	if c.RegionEpoch.Version != f.version {
		re = &errorpb.Error{EpochNotMatch: &errorpb.EpochNotMatch{}}
	}
	in := keys.Range{}
	if re == nil {
		m := f.meta(int(c.RegionId - 1))
		in = keys.Range{Start: m.StartKey, End: m.EndKey}
	}
	switch req := msg.(type) {
	case *kvrpcpb.RawBatchPutRequest:
		for _, p := range req.Pairs {
			if re == nil {
				f.put(in, p.Key, p.Value)
			}
		}
		if re == nil {
			f.sizes = append(f.sizes, len(req.Pairs))
		}
		return &kvrpcpb.RawBatchPutResponse{RegionError: re}, nil
	case *kvrpcpb.RawBatchGetRequest:
		resp := &kvrpcpb.RawBatchGetResponse{RegionError: re}
		for _, key := range req.Keys {
			if v, ok := f.data[string(key)]; ok && re == nil {
				resp.Pairs = append(resp.Pairs, &kvrpcpb.KvPair{Key: key, Value: []byte(v)})
			}
		}
		return resp, nil
	case *kvrpcpb.RawScanRequest:
		resp := &kvrpcpb.RawScanResponse{RegionError: re}
		if re == nil {
			resp.Kvs = f.scan(in, req)
		}
		return resp, nil
	}
	panic(fmt.Sprintf("%T", msg))
}

func (f *fake) put(in keys.Range, key, value []byte) {
	if !in.Contains(key) {
		panic("key outside of the region")
	}
	f.data[string(key)] = string(value)
}

func (f *fake) scan(in keys.Range, req *kvrpcpb.RawScanRequest) (out []*kvrpcpb.KvPair) {
	r := keys.Range{Start: req.StartKey, End: req.EndKey}
	if req.Reverse {
		r = keys.Range{Start: req.EndKey, End: req.StartKey}
		if len(req.StartKey) == 0 {
			return nil // as TiKV
		}
	}
	r = r.Intersect(in)
	for k, v := range f.data {
		if r.Contains([]byte(k)) {
			out = append(out, &kvrpcpb.KvPair{Key: []byte(k), Value: []byte(v)})
		}
	}
	slices.SortFunc(out, func(a, b *kvrpcpb.KvPair) int {
		if req.Reverse {
			a, b = b, a
		}
		return bytes.Compare(a.Key, b.Key)
	})
	return out[:min(len(out), int(req.Limit))]
}

func newKV(t *testing.T) (*KV, *fake) {
	f := &fake{data: make(map[string]string), version: 1}
	tasks := task.New(t.Context())
	t.Cleanup(func() { tasks.Close(nil) })
	r := router.New(tasks.Context(), router.Config{Regions: region.New(f, tasks), Transport: transporttest.New(f.call)})
	return &KV{Router: r, Pool: &Pool{}, Call: router.Call{Codec: codec.New(codec.V1, codec.Raw, 0)}}, f
}

// Batches and scans see all keys once, in order, however regions move under them.
func TestRegionsMoveUnderBatchesAndScans(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { moveRegions(t, rand.New(rand.NewPCG(seed, 9))) })
		})
	}
}

func moveRegions(t *testing.T, rnd *rand.Rand) {
	kv, f := newKV(t)
	f.move = func(f *fake) {
		if rnd.IntN(4) > 0 {
			return
		}
		cuts := make(map[string]bool)
		for range rnd.IntN(6) {
			cuts[fmt.Sprintf("%03d", 1+rnd.IntN(299))] = true
		}
		f.version++
		f.borders = nil
		for i := range 300 {
			if k := fmt.Sprintf("%03d", i); cuts[k] {
				f.borders = append(f.borders, k)
			}
		}
	}
	var ks, vs [][]byte
	for range 500 {
		ks = append(ks, fmt.Appendf(nil, "%03d", rnd.IntN(300)))
		vs = append(vs, fmt.Appendf(nil, "%d", len(vs)))
	}
	if err := kv.BatchPut(t.Context(), "Op", ks, vs, nil); err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for i := range ks {
		want[string(ks[i])] = string(vs[i])
	}
	if len(f.data) != len(want) {
		t.Fatal(len(f.data), len(want))
	}
	got, err := kv.BatchGet(t.Context(), "Op", append(ks, []byte("none")))
	if err != nil || got[len(ks)] != nil {
		t.Fatal(err, got[len(ks)])
	}
	for i := range ks {
		if string(got[i]) != want[string(ks[i])] {
			t.Fatalf("%s is %s, not %s", ks[i], got[i], want[string(ks[i])])
		}
	}
	for _, s := range []Scan{{}, {Reverse: true}, {PageSize: 7}, {PageSize: 7, Reverse: true}, {Limit: 50}, {Limit: 50, Reverse: true, PageSize: 50}} {
		var seen []string
		pages := kv.Pages("Op", s)
		for {
			page, err := pages.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, p := range page {
				seen = append(seen, string(p.Key))
			}
		}
		pages.End()
		if s.Reverse {
			slices.Reverse(seen)
		}
		n := len(want)
		if s.Limit > 0 {
			n = s.Limit
		}
		if len(seen) != n || !slices.IsSorted(seen) || len(slices.Compact(seen)) != n {
			t.Fatalf("%+v: %d keys of %d", s, len(seen), n)
		}
	}
}

// No request has more keys or bytes than its limits.
func TestBatchSizes(t *testing.T) {
	kv, f := newKV(t)
	var ks, vs [][]byte
	for i := range 1100 {
		ks, vs = append(ks, fmt.Appendf(nil, "%04d", i)), append(vs, nil)
	}
	if err := kv.BatchPut(t.Context(), "Op", ks, vs, nil); err != nil {
		t.Fatal(err)
	}
	slices.Sort(f.sizes)
	if !slices.Equal(f.sizes, []int{76, 512, 512}) {
		t.Fatal(f.sizes)
	}
	f.sizes = nil
	for i := range vs {
		vs[i] = make([]byte, 4096-4)
	}
	if err := kv.BatchPut(t.Context(), "Op", ks[:10], vs[:10], nil); err != nil {
		t.Fatal(err)
	}
	slices.Sort(f.sizes)
	if !slices.Equal(f.sizes, []int{2, 4, 4}) {
		t.Fatal(f.sizes)
	}
}

// An answer that does not fit its request is refused, and a pair's error is heard.
func TestValues(t *testing.T) {
	ks := [][]byte{[]byte("a"), []byte("b"), []byte("b"), []byte("c")}
	pair := func(k string) *kvrpcpb.KvPair { return &kvrpcpb.KvPair{Key: []byte(k)} }
	for i, c := range []struct {
		pairs []*kvrpcpb.KvPair
		ok    bool
	}{
		{nil, true},
		{[]*kvrpcpb.KvPair{pair("a"), pair("b"), pair("b"), pair("c")}, true},
		{[]*kvrpcpb.KvPair{pair("b"), pair("c")}, true},
		{[]*kvrpcpb.KvPair{pair("x")}, false},
		{[]*kvrpcpb.KvPair{pair("c"), pair("a")}, false},
		{[]*kvrpcpb.KvPair{{Key: []byte("a"), Error: &kvrpcpb.KeyError{Abort: "no"}}}, false},
		{[]*kvrpcpb.KvPair{{Error: &kvrpcpb.KeyError{Retryable: "no"}}}, false},
		{[]*kvrpcpb.KvPair{{Error: &kvrpcpb.KeyError{}}}, false},
	} {
		values := make([][]byte, len(ks))
		r := &read{}
		for _, p := range c.pairs {
			r.got.Pairs = append(r.got.Pairs, wire.Pair{Key: p.Key, Value: []byte{}, Error: p.Error})
		}
		r.order.Begin(ks)
		err := r.values(&router.Call{}, func(n int, value []byte) { values[n] = value })
		if (err == nil) != c.ok {
			t.Errorf("%d: %v", i, err)
		}
		found := 0
		for _, v := range values {
			if v != nil {
				found++
			}
		}
		if c.ok && found != len(c.pairs) {
			t.Errorf("%d: %d values", i, found)
		}
	}
}

func TestLastOfEqual(t *testing.T) {
	last, winner := lastOfEqual([][]byte{[]byte("a"), []byte("b"), []byte("a"), nil, {}})
	if !slices.Equal(last, []int{1, 2, 4}) || !slices.Equal(winner, []int{2, 1, 2, 4, 4}) {
		t.Fatal(last, winner)
	}
}

// A get allocates its request with its call, and nothing else of its own.
func TestGetAllocations(t *testing.T) {
	kv, _ := newKV(t)
	kv2 := *kv
	data, err := (&kvrpcpb.RawGetResponse{Value: []byte("v")}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	kv2.Router = router.New(t.Context(), router.Config{Regions: region.New(&fake{version: 1}, task.New(t.Context())), Transport: constant{data}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	least := 1e9
	for range 5 {
		least = min(least, testing.AllocsPerRun(200, func() {
			if v, found, err := kv2.Get(ctx, "Op", []byte("k")); err != nil || !found || string(v) != "v" {
				t.Fatal(v, found, err)
			}
		}))
	}
	t.Logf("%v allocations", least)
	if least > 8 {
		t.Errorf("%v allocations", least)
	}
}

type constant struct{ resp []byte }

func (c constant) Call(_ context.Context, _ transport.Target, _ transport.Message, resp transport.Decoder) error {
	return resp.Unmarshal(c.resp)
}

func (c constant) NewResponse(transport.Message) transport.Response {
	return &kvrpcpb.RawGetResponse{}
}
