package membuf

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tikv-go/tikv/internal/keys"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model is a buffer as simple as can be.
type model map[string]Entry

func (m model) write(key, value string, op Op, add Flags) {
	e := m[key]
	e.Value, e.Op, e.Flags = nil, op, e.Flags|add
	if op == Put {
		e.Value = []byte(value)
	}
	m[key] = e
}

func (m model) mark(key string, add Flags) {
	e := m[key]
	e.Flags |= add
	m[key] = e
}

func (m model) scan(r keys.Range, reverse bool) []Entry {
	var out []Entry
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if r.Contains([]byte(key)) {
			e := m[key]
			e.Key = []byte(key)
			out = append(out, e)
		}
	}
	if reverse {
		slices.Reverse(out)
	}
	return out
}

func (m model) size() (n int) {
	for key, e := range m {
		n += len(key) + len(e.Value)
	}
	return n
}

func same(a, b Entry) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil) &&
		a.Op == b.Op && a.Flags == b.Flags
}

func collect(v View, r keys.Range, reverse bool) []Entry {
	var out []Entry
	c := v.Scan(r, reverse)
	for e, ok := c.Next(); ok; e, ok = c.Next() {
		out = append(out, e)
	}
	if _, ok := c.Next(); ok {
		panic("an entry after the end")
	}
	return out
}

// frozen is a view and what it must show for ever.
type frozen struct {
	view  View
	model model
}

// run does what program says, two bytes a step, to a buffer and a model, and compares.
func run(t *testing.T, program []byte) {
	t.Helper()
	var (
		b     Buffer
		m     = model{}
		views []frozen
	)
	for i := 0; i+1 < len(program); i += 2 {
		op, arg := program[i], program[i+1]
		key := fmt.Sprintf("%0*d", 1+int(arg%3), arg)
		switch op % 8 {
		case 0, 1, 2:
			value := bytes.Repeat([]byte{op}, int(op)/8)
			kb := []byte(key)
			b.Put(kb, value, 0)
			m.write(key, string(value), Put, 0)
			clear(kb) // arguments may be reused
			clear(value)
		case 3:
			b.Put([]byte(key), []byte("v"), Absent)
			m.write(key, "v", Put, Absent)
		case 4:
			b.Delete([]byte(key))
			m.write(key, "", Delete, 0)
		case 5:
			b.Mark([]byte(key), Flags(op>>3)&(Absent|Locked))
			m.mark(key, Flags(op>>3)&(Absent|Locked))
		case 6:
			if len(views) < 16 {
				views = append(views, frozen{b.Freeze(), maps.Clone(m)})
			}
		case 7:
			got, ok := b.Get([]byte(key))
			want, present := m[key]
			want.Key = []byte(key)
			if ok != present || ok && !same(got, want) {
				t.Fatalf("Get(%q) = %v, %v; want %v, %v", key, got, ok, want, present)
			}
		}
	}
	if b.Len() != len(m) || b.Size() != m.size() {
		t.Fatalf("len %d size %d, want %d and %d", b.Len(), b.Size(), len(m), m.size())
	}
	views = append(views, frozen{b.Freeze(), m})
	for _, f := range views {
		for _, r := range []keys.Range{
			{}, {Start: []byte("1")}, {End: []byte("2")}, {Start: []byte("1"), End: []byte("200")},
			{Start: []byte("07"), End: []byte("07\x00")}, {Start: []byte("5"), End: []byte("5")},
		} {
			for _, reverse := range []bool{false, true} {
				got, want := collect(f.view, r, reverse), f.model.scan(r, reverse)
				if !slices.EqualFunc(got, want, same) {
					t.Fatalf("scan %q reverse=%v:\n got %v\nwant %v", r, reverse, got, want)
				}
			}
		}
		for key, want := range f.model {
			want.Key = []byte(key)
			if got, ok := f.view.Get([]byte(key)); !ok || !same(got, want) {
				t.Fatalf("view's Get(%q) = %v, %v; want %v", key, got, ok, want)
			}
		}
	}
}

func TestModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		program := make([]byte, rnd.IntN(4000))
		for i := range program {
			program[i] = byte(rnd.Uint32())
		}
		run(t, program)
	}
}

func FuzzModel(f *testing.F) {
	f.Add([]byte{0, 1, 6, 0, 0, 1, 4, 2, 7, 1})
	f.Add(bytes.Repeat([]byte{0x10, 3, 0x11, 9, 6, 6, 0x25, 8}, 40))
	f.Fuzz(run)
}

// Enough keys for a tree of three levels, in three orders, with a view half way.
func TestLarge(t *testing.T) {
	const n = 20000
	orders := map[string]func(i int) int{
		"up": func(i int) int { return i }, "down": func(i int) int { return n - 1 - i },
		"mixed": func(i int) int { return i * 7919 % n },
	}
	for name, at := range orders {
		var b Buffer
		key := func(i int) []byte { return fmt.Appendf(nil, "key%06d", i) }
		for i := range n / 2 {
			b.Put(key(at(i)), key(i), 0)
		}
		half := b.Freeze()
		for i := range n {
			b.Put(key(at(i)), nil, 0)
		}
		if got := collect(half, keys.Range{}, false); len(got) != n/2 || len(got[0].Value) == 0 {
			t.Fatalf("%s: the view has %d entries", name, len(got))
		}
		all := collect(b.Freeze(), keys.Range{}, true)
		if len(all) != n || b.Len() != n || b.Size() != n*len("key000000") {
			t.Fatalf("%s: %d entries, len %d, size %d", name, len(all), b.Len(), b.Size())
		}
		for i, e := range all {
			if !bytes.Equal(e.Key, key(n-1-i)) {
				t.Fatalf("%s: entry %d is %q", name, i, e.Key)
			}
		}
	}
}

func TestEmpty(t *testing.T) {
	var b Buffer
	if _, ok := b.Get([]byte("a")); ok || len(collect(b.Freeze(), keys.Range{}, false)) != 0 || len(collect(View{}, keys.Range{}, true)) != 0 {
		t.Fatal("not empty")
	}
	b.Put([]byte("a"), nil, 0)
	if e, ok := b.Get([]byte("a")); !ok || e.Value == nil || e.Op != Put {
		t.Fatal("an empty value is not nil")
	}
}

func BenchmarkPut(b *testing.B) {
	key := make([]byte, 16)
	rnd := rand.New(rand.NewPCG(1, 2))
	var buf Buffer
	for i := range b.N {
		if i%100_000 == 0 {
			buf = Buffer{}
		}
		for j := range key {
			key[j] = byte(rnd.Uint32())
		}
		buf.Put(key, key, 0)
	}
}
