package storage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/tikv-go/tikv/internal/keys"
)

func TestMain(m *testing.M) {
	if crashChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

// engines runs the suite's test on each engine; reopen gives an engine with the same
// contents, reopened where it can be.
func engines(t *testing.T, test func(t *testing.T, e Engine, reopen func() Engine)) {
	t.Run("memory", func(t *testing.T) {
		e := NewMemory()
		test(t, e, func() Engine { return e })
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	})
	for _, fsync := range []bool{false, true} {
		t.Run(fmt.Sprintf("dir/fsync=%v", fsync), func(t *testing.T) {
			path := t.TempDir()
			open := func() Engine {
				e, err := OpenDir(path, fsync)
				if err != nil {
					t.Fatal(err)
				}
				return e
			}
			e := open()
			test(t, e, func() Engine {
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
				e = open()
				return e
			})
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// model is what an engine must hold: for each family its keys and values.
type model [numCF]map[string]string

func newModel() (m model) {
	for cf := range m {
		m[cf] = map[string]string{}
	}
	return m
}

func (m model) clone() model {
	c := newModel()
	for cf := range m {
		for k, v := range m[cf] {
			c[cf][k] = v
		}
	}
	return c
}

func (m model) scan(cf CF, r keys.Range, reverse bool) (pairs []string) {
	var in []string
	for k := range m[cf] {
		if r.Contains([]byte(k)) {
			in = append(in, k)
		}
	}
	slices.Sort(in)
	if reverse {
		slices.Reverse(in)
	}
	for _, k := range in {
		pairs = append(pairs, k+"="+m[cf][k])
	}
	return pairs
}

func scan(s Snapshot, cf CF, r keys.Range, reverse bool) (pairs []string) {
	for k, v := range s.Scan(cf, r, reverse) {
		pairs = append(pairs, string(k)+"="+string(v))
	}
	return pairs
}

type random struct{ *rand.Rand }

// key is short, over few letters, and now and then empty: keys meet, and are each
// other's prefixes.
func (r random) key() []byte {
	k := make([]byte, r.IntN(5))
	for i := range k {
		k[i] = []byte{0, 'a', 'b', 0xff}[r.IntN(4)]
	}
	return k
}

func (r random) bounds() keys.Range { return keys.Range{Start: r.key(), End: r.key()} }

// batch returns a random batch and applies it to m.
func (r random) batch(m model) *Batch {
	b := new(Batch)
	for range 1 + r.IntN(20) {
		cf, k := CF(r.IntN(int(numCF))), r.key()
		switch n := r.IntN(20); {
		case n < 14:
			v := fmt.Appendf(nil, "%d", r.IntN(1000))
			if r.IntN(10) == 0 {
				v = nil
			}
			if r.IntN(50) == 0 {
				v = bytes.Repeat([]byte{'v'}, 20_000)
			}
			b.Put(cf, k, v)
			m[cf][string(k)] = string(v)
		case n < 19:
			b.Delete(cf, k)
			delete(m[cf], string(k))
		default:
			bounds := r.bounds()
			b.DeleteRange(cf, bounds)
			for k := range m[cf] {
				if bounds.Contains([]byte(k)) {
					delete(m[cf], k)
				}
			}
		}
	}
	return b
}

func (r random) check(t *testing.T, s Snapshot, m model) {
	t.Helper()
	for cf := range numCF {
		for range 5 {
			k := r.key()
			got, ok := s.Get(cf, k)
			want, has := m[cf][string(k)]
			if ok != has || string(got) != want {
				t.Fatalf("Get(%v, %q) = %q, %v; want %q, %v", cf, k, got, ok, want, has)
			}
		}
		for _, bounds := range []keys.Range{{}, r.bounds(), r.bounds()} {
			for _, reverse := range []bool{false, true} {
				if got, want := scan(s, cf, bounds, reverse), m.scan(cf, bounds, reverse); !slices.Equal(got, want) {
					t.Fatalf("Scan(%v, %q, %v) = %q; want %q", cf, bounds, reverse, got, want)
				}
			}
		}
	}
}

func TestAgainstModel(t *testing.T) {
	engines(t, func(t *testing.T, e Engine, reopen func() Engine) {
		r, m := random{rand.New(rand.NewPCG(1, 2))}, newModel()
		type held struct {
			Snapshot
			model
		}
		var old []held // snapshots that later batches must not change
		for i := range 400 {
			if err := e.Apply(r.batch(m)); err != nil {
				t.Fatal(err)
			}
			s := e.Snapshot()
			r.check(t, s, m)
			if old = append(old, held{s, m.clone()}); len(old) > 10 {
				n := r.IntN(len(old))
				r.check(t, old[n], old[n].model)
				old[n].Close()
				old[n].Close()
				old = slices.Delete(old, n, n+1)
			}
			if i%100 == 99 {
				for _, h := range old {
					r.check(t, h, h.model)
					h.Close()
				}
				old = nil
				e = reopen()
			}
		}
	})
}

func TestScanStopsAndNests(t *testing.T) {
	engines(t, func(t *testing.T, e Engine, _ func() Engine) {
		b := new(Batch)
		for _, k := range []string{"", "a", "b", "c"} {
			b.Put(Default, []byte(k), []byte("v"+k))
		}
		if err := e.Apply(b); err != nil {
			t.Fatal(err)
		}
		s := e.Snapshot()
		defer s.Close()
		var got []string
		for k, v := range s.Scan(Default, keys.Range{}, false) {
			more := new(Batch)
			more.Put(Default, append([]byte("z"), k...), v)
			if err := e.Apply(more); err != nil { // a held snapshot blocks no batch
				t.Fatal(err)
			}
			for k2 := range s.Scan(Default, keys.Range{Start: k}, true) {
				got = append(got, string(k)+"/"+string(k2))
				break
			}
			if string(k) == "b" {
				break
			}
		}
		if want := []string{"/c", "a/c", "b/c"}; !slices.Equal(got, want) {
			t.Fatalf("%q", got)
		}
		if v, ok := s.Get(Default, nil); !ok || string(v) != "v" {
			t.Fatalf("the empty key: %q %v", v, ok)
		}
		if v, ok := s.Get(Default, []byte("z")); ok {
			t.Fatalf("a later write shows: %q", v)
		}
	})
}

// Values are valid after Close, also when later batches reuse the space.
func TestResultsOutliveTheSnapshot(t *testing.T) {
	engines(t, func(t *testing.T, e Engine, _ func() Engine) {
		value := bytes.Repeat([]byte{'x'}, 3000)
		write := func(v []byte) {
			b := new(Batch)
			b.Put(Default, []byte("k"), v)
			if err := e.Apply(b); err != nil {
				t.Fatal(err)
			}
		}
		write(value)
		s := e.Snapshot()
		got, _ := s.Get(Default, []byte("k"))
		var scanned []byte
		for _, v := range s.Scan(Default, keys.Range{}, false) {
			scanned = v
		}
		s.Close()
		for range 20 {
			write(bytes.Repeat([]byte{'y'}, 3000))
		}
		if !bytes.Equal(got, value) || !bytes.Equal(scanned, value) {
			t.Fatal("a result changed")
		}
	})
}

// Two counters are always changed together: whoever reads sees them equal, and never
// sees them go back.
func TestConcurrentReadersSeeWholeBatches(t *testing.T) {
	engines(t, func(t *testing.T, e Engine, _ func() Engine) {
		const batches = 100
		var wg sync.WaitGroup
		for range 3 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				last := ""
				for last != fmt.Sprintf("%04d", batches) {
					s := e.Snapshot()
					a, _ := s.Get(Default, []byte("a"))
					b, _ := s.Get(Write, []byte("b"))
					s.Close()
					if string(a) != string(b) || string(a) < last {
						t.Errorf("saw %q and %q after %q", a, b, last)
						return
					}
					last = string(a)
				}
			}()
		}
		for i := range batches {
			v := fmt.Appendf(nil, "%04d", i+1)
			b := new(Batch)
			b.Put(Default, []byte("a"), v)
			b.Put(Write, []byte("b"), v)
			if err := e.Apply(b); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
	})
}

func TestClosed(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) Engine{
		"memory": func(*testing.T) Engine { return NewMemory() },
		"dir": func(t *testing.T) Engine {
			e, err := OpenDir(t.TempDir(), false)
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t)
			for range 2 {
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Apply(new(Batch)); err != ErrClosed {
				t.Fatal(err)
			}
			s := e.Snapshot()
			if _, ok := s.Get(Default, []byte("a")); ok || len(scan(s, Default, keys.Range{}, false)) > 0 {
				t.Fatal("a closed engine has keys")
			}
			s.Close()
		})
	}
}

func TestBatchCounts(t *testing.T) {
	var b, o Batch
	b.Put(Default, []byte("abc"), []byte("de"))
	b.Delete(Lock, []byte("f"))
	o.DeleteRange(Write, keys.Range{Start: []byte("gh"), End: []byte("i")})
	b.Append(&o)
	if b.Len() != 3 || b.Size() != 9 {
		t.Fatal(b.Len(), b.Size())
	}
}

func BenchmarkMemory(b *testing.B) {
	e := NewMemory()
	key := func(i int) []byte { return fmt.Appendf(nil, "user%010d", i*7919%100_000) }
	for i := range 100_000 {
		batch := new(Batch)
		batch.Put(Default, key(i), make([]byte, 100))
		if err := e.Apply(batch); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("get", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i++
			if _, ok := e.Snapshot().Get(Default, key(i)); !ok {
				b.Fatal("absent")
			}
		}
	})
	b.Run("put", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i++
			batch := new(Batch)
			batch.Put(Default, key(i), make([]byte, 100))
			if err := e.Apply(batch); err != nil {
				b.Fatal(err)
			}
		}
	})
}
