package region

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

// cluster is what regions there are, and what PD knows of them, which may be older.
type cluster struct {
	truth, told []Found
	last        uint64
}

func newCluster() *cluster {
	w := &cluster{last: 1}
	w.truth = []Found{found(1, "", "", 1, 1)}
	w.sync()
	return w
}

// sync lets PD hear of everything.
func (w *cluster) sync() { w.told = slices.Clone(w.truth) }

// next is a region like f at a later epoch.
func next(f Found, version uint64, start, end []byte) Found {
	m := &metapb.Region{Id: f.Meta.Id, StartKey: start, EndKey: end, Peers: f.Meta.Peers,
		RegionEpoch: &metapb.RegionEpoch{Version: version, ConfVer: f.Meta.RegionEpoch.ConfVer}}
	return Found{Meta: m, Leader: f.Leader}
}

// change does one thing to the region at a place: split, merge, another leader, another peer.
func (w *cluster) change(what, at, how byte) {
	i := int(at) % len(w.truth)
	f := w.truth[i]
	m := f.Meta
	switch what % 4 {
	case 0:
		key := fmt.Appendf(nil, "%02x", how)
		if string(key) <= string(m.StartKey) || len(m.EndKey) > 0 && string(key) >= string(m.EndKey) {
			return
		}
		w.last++ // the right part keeps the id
		version := m.RegionEpoch.Version + 1
		left := found(w.last, string(m.StartKey), string(key), version, int(how)%3+1)
		left.Meta.RegionEpoch.ConfVer = m.RegionEpoch.ConfVer
		w.truth = slices.Insert(w.truth, i, left)
		w.truth[i+1] = next(f, version, key, m.EndKey)
	case 1:
		if i+1 == len(w.truth) {
			return
		}
		o := w.truth[i+1]
		version := max(m.RegionEpoch.Version, o.Meta.RegionEpoch.Version) + 1
		w.truth[i] = next(f, version, m.StartKey, o.Meta.EndKey)
		w.truth = slices.Delete(w.truth, i+1, i+2)
	case 2:
		f.Leader = m.Peers[int(how)%len(m.Peers)]
		w.truth[i] = f
	case 3:
		n := next(f, m.RegionEpoch.Version, m.StartKey, m.EndKey)
		n.Meta.RegionEpoch.ConfVer++
		w.last++
		n.Meta.Peers = append(slices.Clone(m.Peers[1:]), &metapb.Peer{Id: w.last << 20, StoreId: w.last})
		n.Leader = n.Meta.Peers[int(how)%len(n.Meta.Peers)]
		w.truth[i] = n
	}
}

func (w *cluster) at(key []byte) (int, Found) {
	i := slices.IndexFunc(w.truth, func(f Found) bool { return span(f).Contains(key) })
	return i, w.truth[i]
}

func span(f Found) keys.Range { return keys.Range{Start: f.Meta.StartKey, End: f.Meta.EndKey} }

func (w *cluster) Region(_ context.Context, key []byte, _ bool) (Found, error) {
	for _, f := range w.told {
		if span(f).Contains(key) {
			return f, nil
		}
	}
	return Found{}, nil
}

func (w *cluster) PrevRegion(context.Context, []byte) (Found, error)    { return Found{}, nil }
func (w *cluster) RegionByID(context.Context, uint64) (Found, error)    { return Found{}, nil }
func (w *cluster) Store(context.Context, uint64) (*metapb.Store, error) { return nil, nil }
func (w *cluster) Stores(context.Context) ([]*metapb.Store, error)      { return nil, nil }
func (w *cluster) ScanRegions(_ context.Context, ranges []keys.Range, limit int) (all []Found, err error) {
	for _, f := range w.told {
		if overlap(ranges[0], span(f)) && len(all) < limit {
			all = append(all, f)
		}
	}
	return all, nil
}

// request does what a router does for a key, with a cluster that answers as TiKV does, and
// reports how many attempts it took.
func (w *cluster) request(t *testing.T, c *Cache, key []byte) {
	for attempt := range 20 {
		if attempt == 6 { // PD hears of it, sooner or later
			w.sync()
		}
		r, err := c.Locate(t.Context(), key)
		if r == nil || err != nil && err != ErrStale {
			t.Fatalf("%q: %v", key, err)
		}
		if !r.Contains(key) {
			t.Fatalf("%q is looked for in %q", key, r.Range)
		}
		store := r.Leader().StoreId
		i := slices.IndexFunc(w.truth, func(f Found) bool {
			return f.Meta.Id == r.ID && slices.ContainsFunc(f.Meta.Peers, func(p *metapb.Peer) bool { return p.StoreId == store })
		})
		switch {
		case i < 0:
			c.Invalidate(r, NotFound)
		case w.truth[i].Leader.StoreId != store:
			c.UpdateLeader(r, w.truth[i].Leader.Id)
		case w.truth[i].Meta.RegionEpoch.Version != r.Epoch.Version:
			current := []*metapb.Region{w.truth[i].Meta}
			for j := i - 1; j >= max(0, i-3); j-- {
				current = append(current, w.truth[j].Meta)
			}
			if c.ReplaceEpoch(r, current, store) {
				t.Fatalf("a store that knows better is taken to be behind: %v, %v", current[0].RegionEpoch, r.Epoch)
			}
		default:
			if _, f := w.at(key); f.Meta.Id != r.ID {
				t.Fatalf("%q was answered by region %d, not %d", key, r.ID, f.Meta.Id)
			}
			return
		}
	}
	_, f := w.at(key)
	t.Fatalf("%q does not find its region: %v leads %v; cached: %v", key, f.Leader, f.Meta, c.Lookup(key))
}

// FuzzCache changes regions at random, with a PD that hears of it late, scans and stale
// answers between, and requests that must find the right leader all the same.
func FuzzCache(f *testing.F) {
	f.Add([]byte("\x00\x00\x80\x05\x00\x90\x06\x00\x10"))
	f.Add([]byte("\x00\x00\x40\x00\x01\x80\x05\x00\x50\x01\x00\x00\x05\x00\x50\x02\x00\x01\x05\x00\x10\x03\x00\x02\x05\x00\xf0"))
	for seed := range byte(8) {
		var data []byte
		for i := range 300 {
			data = append(data, byte(i*int(2*seed+3)>>1)%9, byte(i*7+int(seed)), byte(i*31*int(seed+1)))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		w := newCluster()
		c := New(w, tasks)
		for ; len(data) >= 3 && w.last < 300; data = data[3:] {
			what, at, how := data[0]%9, data[1], data[2]
			key := fmt.Appendf(nil, "%02x", how)
			switch what {
			case 4:
				w.sync()
			case 5:
				w.request(t, c, key)
			case 6:
				if _, err := c.Scan(t.Context(), keys.Range{Start: key}, int(at)%16+1); err != nil {
					t.Fatal(err)
				}
			case 7:
				if r := c.Lookup(key); r != nil {
					c.Invalidate(r, Why(at)%lastWhy)
				}
			case 8: // an answer that was long on its way
				_, _ = c.admit(w.told[int(at)%len(w.told)])
			default:
				w.change(what, at, how)
			}
			checkIndex(t, c.index.Load())
			all := c.index.Load().all()
			for i := 1; i < len(all); i++ {
				if overlap(all[i-1].Range, all[i].Range) {
					t.Fatalf("%q overlaps %q", all[i-1].Range, all[i].Range)
				}
			}
			if r := c.Lookup(key); r != nil && !r.Contains(key) {
				t.Fatalf("%q in %q", key, r.Range)
			}
		}
		for i := range 256 {
			w.request(t, c, fmt.Appendf(nil, "%02x", i))
		}
	})
}
