package lag

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a Log over a storage, with a clock and timestamps of its own.
type fixture struct {
	*Log
	now  time.Time
	last uint64
}

func newFixture(e storage.Engine) *fixture {
	f := &fixture{now: time.Unix(1000, 0)}
	f.Log = New(e, Config{Now: func() time.Time { return f.now }, Resolve: func() (uint64, bool) {
		f.last++
		return f.last, f.last%5 != 0
	}})
	return f
}

func (f *fixture) put(t *testing.T, key, value string) {
	t.Helper()
	b := new(storage.Batch)
	b.Put(storage.Default, []byte(key), []byte(value))
	if err := f.Apply(b); err != nil {
		t.Fatal(err)
	}
}

// content is what a store has, nil if it has everything.
func (f *fixture) content(store, leader uint64) map[string]string {
	v := f.View(store, leader, 0)
	if v == nil {
		return nil
	}
	defer v.Close()
	return read(v.Snapshot())
}

func read(snap storage.Snapshot) map[string]string {
	defer snap.Close()
	all := make(map[string]string)
	for k, v := range snap.Scan(storage.Default, keys.Range{}, false) {
		all[string(k)] = string(v)
	}
	return all
}

func engines(t *testing.T, f func(t *testing.T, e storage.Engine)) {
	t.Run("memory", func(t *testing.T) { f(t, storage.NewMemory()) })
	t.Run("directory", func(t *testing.T) {
		e, err := storage.OpenDir(t.TempDir(), false)
		if err != nil {
			t.Fatal(err)
		}
		f(t, e)
	})
}

// Random writes, lags, cuts and moves of the clock, against a model that keeps all.
func TestRandomStates(t *testing.T) {
	engines(t, func(t *testing.T, e storage.Engine) {
		f, r := newFixture(e), rand.New(rand.NewPCG(1, 2))
		type moment struct {
			at      time.Time
			content map[string]string
		}
		type place struct {
			lag  time.Duration
			from int
		}
		moments, places, cut := []moment{{f.now, map[string]string{}}}, map[uint64]place{}, map[uint64]int{}
		// has is the index of what a store has of what store 1 leads.
		has := func(id uint64) int {
			i := len(moments) - 1
			if p, ok := places[id]; ok {
				for i > p.from && f.now.Sub(moments[i].at) < p.lag {
					i--
				}
			}
			if at, ok := cut[id]; ok {
				i = min(i, at)
			}
			return i
		}
		for step := range 1000 {
			id := uint64(r.IntN(2) + 2)
			switch n := r.IntN(40); {
			case n < 25:
				key := fmt.Sprint(r.IntN(20))
				f.put(t, key, fmt.Sprint(step))
				now := maps.Clone(moments[len(moments)-1].content)
				now[key] = fmt.Sprint(step)
				moments = append(moments, moment{f.now, now})
			case n < 35:
				f.now = f.now.Add(time.Duration(r.IntN(300)) * time.Millisecond)
				f.Moved()
			case n < 37 && len(cut) == 0:
				lag := time.Duration(r.IntN(3)) * time.Second
				if p, ok := places[id]; lag == 0 {
					delete(places, id)
				} else if !ok || p.lag != lag {
					places[id] = place{lag, has(id)}
				}
				f.SetLag(id, lag)
			case n == 38:
				if _, ok := cut[id]; !ok {
					cut[id] = len(moments) - 1
				}
				f.Cut(id, 1)
			case n == 39:
				clear(cut)
				f.Heal()
			}
			for id := range uint64(3) {
				id++
				got, want := f.content(id, 1), moments[has(id)].content
				if id == 1 {
					want = nil
				}
				if got == nil {
					got, want = read(f.Snapshot()), moments[len(moments)-1].content
					if id != 1 && has(id) != len(moments)-1 {
						t.Fatalf("step %d: store %d has everything, not %v", step, id, has(id))
					}
				}
				if !maps.Equal(got, want) {
					t.Fatalf("step %d: store %d has %v, not %v", step, id, got, want)
				}
			}
			if behind := len(places)+len(cut) > 0; behind != f.Keeping() || !behind && f.States() != 0 {
				t.Fatalf("step %d: %d states are kept: %v", step, f.States(), f.Keeping())
			}
		}
		f.Forget()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// What a view has shown stays open when its state is forgotten, and what is closed twice
// is closed once.
func TestViewOutlivesItsState(t *testing.T) {
	engines(t, func(t *testing.T, e storage.Engine) {
		f := newFixture(e)
		f.put(t, "a", "old")
		f.SetLag(2, time.Hour)
		f.put(t, "a", "new")
		v := f.View(2, 1, 0)
		one, other := v.Snapshot(), v.Snapshot()
		v.Close()
		f.SetLag(2, 0)
		one.Close()
		one.Close()
		if got, ok := other.Get(storage.Default, []byte("a")); !ok || string(got) != "old" {
			t.Fatalf("%q, %v", got, ok)
		}
		other.Close()
		if err := f.Close(); err != nil { // a directory's waits for snapshots
			t.Fatal(err)
		}
	})
}

// Who has been promised something by a later state is not shown an earlier one.
func TestViewGoesNotBack(t *testing.T) {
	f := newFixture(storage.NewMemory())
	f.SetLag(3, 1) // so that all states are told apart
	f.Cut(1, 2)
	f.put(t, "a", "1")
	seq := f.Last()
	f.put(t, "a", "2")
	v := f.View(2, 1, seq)
	if v == nil || v.Seq != seq || read(v.Snapshot())["a"] != "1" {
		t.Fatal(v)
	}
	v.Close()
	if v = f.View(2, 1, seq+1); v != nil {
		t.Fatal(v)
	}
}

func TestWritten(t *testing.T) {
	f := newFixture(storage.NewMemory())
	f.SetLag(2, 1<<63-1)
	base := f.Last()
	in := func(start, end string) keys.Range { return keys.Range{Start: []byte(start), End: []byte(end)} }
	f.put(t, "b", "1")
	f.put(t, "d", "1")
	b := new(storage.Batch)
	b.Put(storage.Meta, []byte("zz"), nil)
	if err := f.Apply(b); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		in   keys.Range
		want bool
	}{
		{in("a", "b"), false}, {in("b", "c"), true}, {in("c", "d"), false}, {in("d", ""), true}, {in("e", ""), false}, {in("", ""), true},
	} {
		if got := f.Written(c.in, base) != 0; got != c.want {
			t.Errorf("%q: %v", c.in, got)
		}
	}
	if f.Written(in("", ""), f.Last()) != 0 {
		t.Error("written after the last state")
	}
	for i := range 2000 { // more than are told apart
		f.put(t, fmt.Sprintf("f%04d", i), "1")
	}
	if f.Written(in("b", "c"), base) == 0 || f.Written(in("g", ""), base) != 0 || f.States() > 3 {
		t.Error("spans were lost", f.States())
	}
	b = new(storage.Batch)
	b.DeleteRange(storage.Default, in("h", ""))
	if err := f.Apply(b); err != nil || f.Written(in("x", "y"), base) == 0 {
		t.Error("a deletion of a range was not noticed", err)
	}
}
