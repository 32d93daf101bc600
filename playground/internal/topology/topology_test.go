package topology

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/meta"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

func bootstrap(t *testing.T, e storage.Engine, stores int, at ...string) *Topology {
	t.Helper()
	topo := New(meta.New(e), stores)
	var bounds [][]byte
	for _, k := range at {
		bounds = append(bounds, []byte(k))
	}
	if err := topo.Bootstrap(bounds, new(meta.Change)); err != nil {
		t.Fatal(err)
	}
	return topo
}

// check checks what must always hold: the regions cover all keys in order, lookups agree,
// ids are used once, and a region is led where it may be.
func check(t *testing.T, topo *Topology) {
	t.Helper()
	all := topo.Scan(keys.Range{}, 0)
	ids := make(map[uint64]bool)
	end := ""
	for i, r := range all {
		if string(r.Meta.StartKey) != end || (i+1 < len(all)) != (len(r.Meta.EndKey) > 0) {
			t.Fatalf("region %d of %d begins at %q after %q", i, len(all), r.Meta.StartKey, end)
		}
		end = string(r.Meta.EndKey)
		live := 0
		for _, p := range r.Meta.Peers {
			if ids[p.Id] {
				t.Fatalf("id %d is used twice", p.Id)
			}
			ids[p.Id] = true
			if topo.Live(p.StoreId) {
				live++
			}
		}
		if ids[r.ID()] || topo.ByID(r.ID()) != r || topo.ByKey(r.Meta.StartKey) != r {
			t.Fatal(r.Meta)
		}
		ids[r.ID()] = true
		if (2*live > len(r.Meta.Peers)) != (r.Leader != nil) || r.Leader != nil && !topo.Live(r.LeaderStore()) {
			t.Fatalf("%d of %d peers live, the leader is %v", live, len(r.Meta.Peers), r.Leader)
		}
		if before := topo.Before(r.Meta.StartKey); i == 0 && before != nil || i > 0 && before != all[i-1] {
			t.Fatal(i, before)
		}
	}
}

func TestRandomChanges(t *testing.T) {
	for _, stores := range []int{1, 2, 3, 5} {
		t.Run(fmt.Sprint(stores), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(stores), 1))
			e := storage.NewMemory()
			topo := bootstrap(t, e, stores, "m", "c", "", "m")
			for range 400 {
				store := r.Uint64N(uint64(stores)) + 1
				all := topo.Scan(keys.Range{}, 0)
				region := all[r.IntN(len(all))]
				switch r.IntN(4) {
				case 0:
					key := fmt.Appendf(nil, "%03d", r.IntN(1000))
					at := topo.ByKey(key)
					parts, err := topo.Split(at.ID(), [][]byte{key})
					if string(at.Meta.StartKey) == string(key) {
						if err == nil {
							t.Fatalf("split at the start %q", key)
						}
						continue
					}
					if err != nil || len(parts) != 2 || parts[1].ID() != at.ID() || parts[0].Meta.RegionEpoch.Version != at.Meta.RegionEpoch.Version+1 {
						t.Fatal(parts, err)
					}
				case 1:
					_ = topo.SetLive(store, false, time.Time{})
				case 2:
					_ = topo.SetLive(store, true, time.Time{})
				case 3:
					err := topo.TransferLeader(region.ID(), store)
					may := region.Peer(store) != nil && topo.Live(store) && region.Leader != nil
					if (err == nil) != may || may && topo.ByID(region.ID()).LeaderStore() != store {
						t.Fatal(err, may)
					}
				}
				check(t, topo)
			}
			again := New(meta.New(e), stores)
			if found, err := again.Load(); err != nil || !found || again.Len() != topo.Len() {
				t.Fatal(found, err)
			}
			check(t, again)
			id, err := again.AllocID(1)
			if err != nil || again.ByID(id) != nil || topo.ByID(id) != nil {
				t.Fatal(id, err)
			}
		})
	}
}

func TestSplitAtSeveralKeys(t *testing.T) {
	topo := bootstrap(t, storage.NewMemory(), 3)
	r := topo.ByKey(nil)
	parts, err := topo.Split(r.ID(), [][]byte{[]byte("b"), []byte("d"), []byte("f")})
	if err != nil || len(parts) != 4 || topo.Splits() != 3 {
		t.Fatal(parts, err)
	}
	for _, p := range parts {
		if p.Meta.RegionEpoch.Version != r.Meta.RegionEpoch.Version+3 || p.LeaderStore() != r.LeaderStore() {
			t.Fatal(p.Meta)
		}
	}
	check(t, topo)
	for _, bad := range [][]string{{"a"}, {"g", "g"}, {"z", "y"}, {""}} {
		var at [][]byte
		for _, k := range bad {
			at = append(at, []byte(k))
		}
		if _, err := topo.Split(r.ID(), at); err == nil {
			t.Errorf("split at %q", bad)
		}
	}
	if near := topo.Siblings(topo.ByKey([]byte("f")), 1, 2); len(near) != 2 || string(near[0].Meta.StartKey) != "d" || string(near[1].Meta.StartKey) != "b" {
		t.Fatal(near)
	}
	check(t, topo)
}

// A split waits for the commands that run in the region.
func TestSplitWaitsForCommands(t *testing.T) {
	topo := bootstrap(t, storage.NewMemory(), 3)
	id := topo.ByKey(nil).ID()
	r := topo.Enter(id)
	tasks := task.New(t.Context())
	defer tasks.Close(nil)
	done := make(chan struct{})
	tasks.Go("split", func(context.Context) {
		defer close(done)
		if _, err := topo.Split(id, [][]byte{[]byte("m")}); err != nil {
			t.Error(err)
		}
	})
	if topo.Len() != 1 || topo.ByID(id) != r {
		t.Fatal("split while a command ran")
	}
	r.Leave()
	<-done
	if topo.Len() != 2 {
		t.Fatal(topo.Len())
	}
	if topo.Enter(99999) != nil {
		t.Fatal("entered a region that is not there")
	}
}

// failing is an engine whose disk is full.
type failing struct {
	storage.Engine
	err error
}

func (f *failing) Apply(b *storage.Batch) error {
	if f.err != nil {
		return f.err
	}
	return f.Engine.Apply(b)
}

// What could not be saved did not happen.
func TestSaveFails(t *testing.T) {
	e := &failing{Engine: storage.NewMemory()}
	topo := bootstrap(t, e, 3)
	e.err = errors.New("disk full")
	if _, err := topo.Split(topo.ByKey(nil).ID(), [][]byte{[]byte("m")}); !errors.Is(err, e.err) || topo.Len() != 1 {
		t.Fatal(err, topo.Len())
	}
	if _, err := topo.AllocID(idWindow * 2); !errors.Is(err, e.err) {
		t.Fatal(err)
	}
	e.err = nil
	if _, err := topo.Split(topo.ByKey(nil).ID(), [][]byte{[]byte("m")}); err != nil {
		t.Fatal(err)
	}
	check(t, topo)
}

// What was applied is known by a number only while nothing is being written, and by
// another one after that.
func TestApplied(t *testing.T) {
	topo := bootstrap(t, storage.NewMemory(), 3)
	r := topo.ByKey(nil)
	before, ok := r.Applied()
	if !ok {
		t.Error("unknown at first")
	}
	r.Writes()
	r.Writes()
	r.Wrote()
	if _, ok := r.Applied(); ok {
		t.Error("known while something is being written")
	}
	r.Wrote()
	if after, ok := topo.ByKey(nil).Applied(); !ok || after <= before {
		t.Error(after, ok, "after", before)
	}
}
