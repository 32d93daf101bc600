package membuf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
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
	e.Value, e.Op, e.Flags = nil, op, e.Flags&^ConflictUnchecked|add
	if op == Put {
		e.Value = []byte(value)
	}
	m[key] = e
}

func (m model) mark(key string, add, drop Flags) {
	e := m[key]
	e.Flags = e.Flags&^drop | add
	m[key] = e
}

// undo is what m becomes when it goes back to old.
func (m model) undo(old model) model {
	out := maps.Clone(old)
	for key, e := range m {
		was, ok := old[key]
		if last := e.Flags & Lasting; ok || last != 0 {
			was.Flags = was.Flags&^Lasting | last
			out[key] = was
		}
	}
	return out
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

// saved is a savepoint, what the buffer was then, and whether it has ended.
type saved struct {
	sp    Savepoint
	model model
	ended bool
}

// machine runs a program, two bytes a step, on a buffer and a model.
type machine struct {
	t     *testing.T
	b     Buffer
	m     model
	under model // handed over and not dropped
	views []frozen
	saves []saved
	given Given
}

// key is one of some hundreds, in families that agree in beginnings of all lengths, some
// much longer than a head, some being the beginning of others, and some, those of z, agree
// behind a byte, as rows of tables do, or almost.
func key(op, arg byte) []byte {
	families := []string{"", "a", "abcdefgh", "abcdefgh\x00\x00", "abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz0123456789", "\xff\xff", "z"}
	k := []byte(families[op/32])
	switch {
	case op/32 == 7:
		k = append(k, arg%8)
		k = append(k, "_r\x80\x00\x00\x00\x00\x00\x00"...)
		if arg >= 245 {
			k[2+op%9]++
		}
	case arg%7 == 0:
		k = append(k, make([]byte, arg%5)...)
	}
	return append(k, fmt.Sprintf("%0*d", 1+int(arg%3), arg)...)
}

func (x *machine) step(op, arg byte) {
	k := key(op, arg)
	flags := Flags(binary.LittleEndian.Uint16([]byte{arg ^ op, op * 37})) & (AssertAbsent<<1 - 1)
	switch op % 16 {
	case 0, 1, 2, 3, 4:
		value := bytes.Repeat([]byte{arg}, int(op%5)*int(arg%4))
		if op%16 > 1 {
			flags = 0
		}
		kb := bytes.Clone(k)
		must(x.t, x.b.Put(kb, value, flags))
		x.m.write(string(k), string(value), Put, flags)
		clear(kb) // arguments may be reused
		clear(value)
	case 5:
		must(x.t, x.b.Delete(k, 0))
		x.m.write(string(k), "", Delete, 0)
	case 6:
		must(x.t, x.b.Delete(k, flags))
		x.m.write(string(k), "", Delete, flags)
	case 7:
		must(x.t, x.b.Mark(k, flags, 0))
		x.m.mark(string(k), flags, 0)
	case 8:
		must(x.t, x.b.Mark(k, Locked, flags))
		x.m.mark(string(k), Locked, flags)
	case 9:
		if len(x.views) < 16 {
			x.views = append(x.views, frozen{x.b.Freeze(), maps.Clone(x.m)})
		}
	case 10:
		if len(x.saves) < 40 {
			x.saves = append(x.saves, saved{x.b.Savepoint(), maps.Clone(x.m), false})
		}
	case 11:
		x.rollBack(int(arg))
	case 12:
		if arg < 8 {
			x.handOver(arg)
		}
	default:
		x.get(k)
	}
}

func (x *machine) rollBack(i int) {
	if len(x.saves) == 0 {
		return
	}
	i %= len(x.saves)
	s := &x.saves[i]
	if done := x.b.Undo(s.sp); done == s.ended {
		x.t.Fatalf("undo to savepoint %d: %v, ended: %v", i, done, s.ended)
	}
	if s.ended {
		return
	}
	x.m = x.m.undo(s.model)
	for j := range x.saves[i+1:] {
		x.saves[i+1+j].ended = true
	}
}

func (x *machine) handOver(arg byte) {
	if arg%2 == 0 {
		x.b.Drop()
		x.under = nil
	}
	v, ok := x.b.HandOver()
	if ok != (len(x.m) > 0 && x.under == nil) {
		x.t.Fatalf("handed over: %v, with %d keys, and under them %d", ok, len(x.m), len(x.under))
	}
	if !ok {
		return
	}
	x.given = Given{x.given.Generations + 1, x.given.Keys + len(x.m), x.given.Bytes + x.m.size()}
	x.views = append(x.views, frozen{v, x.m})
	x.under, x.m = x.m, model{}
	for i := range x.saves {
		x.saves[i].ended = true
	}
}

func (x *machine) get(k []byte) {
	got, ok := x.b.Get(k)
	want, present := x.m[string(k)]
	if under, has := x.under[string(k)]; has && want.Op == None {
		if present {
			under.Flags = want.Flags
		}
		want, present = under, true
	}
	want.Key = k
	if ok != present || ok && !same(got, want) {
		x.t.Fatalf("Get(%q) = %v, %v; want %v, %v", k, got, ok, want, present)
	}
}

func (x *machine) check() {
	x.t.Helper()
	if x.b.Len() != len(x.m) || x.b.Size() != x.m.size() || x.b.Given() != x.given {
		x.t.Fatalf("len %d size %d given %v, want %d, %d and %v", x.b.Len(), x.b.Size(), x.b.Given(), len(x.m), x.m.size(), x.given)
	}
	checkTree(x.t, &x.b)
	for _, f := range append(x.views, frozen{x.b.Freeze(), x.m}) {
		checkView(x.t, f)
	}
}

func checkView(t *testing.T, f frozen) {
	t.Helper()
	for _, r := range []keys.Range{
		{}, {Start: []byte("1")}, {End: []byte("2")}, {Start: []byte("1"), End: []byte("200")},
		{Start: []byte("07"), End: []byte("07\x00")}, {Start: []byte("5"), End: []byte("5")},
		{Start: []byte("abcdefgh"), End: []byte("abcdefghijk")}, {Start: []byte("abcdefghijklmnopqrstuvwxyz1")},
		{Start: []byte("abcdefgh\x00"), End: []byte("abcdefgh\x00\x00\x01")}, {Start: []byte("\xff"), End: []byte("\xff\xff2")},
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

// checkTree holds the tree against its own rules.
func checkTree(t *testing.T, b *Buffer) {
	t.Helper()
	memory, count := 0, 0
	depth := -1
	var walk func(n *node, level int, low, high []byte)
	walk = func(n *node, level int, low, high []byte) {
		memory += n.memory()
		count += int(n.n)
		if n.n == 0 {
			t.Fatal("an empty node")
		}
		common := len(b.prefix)
		if low != nil && high != nil {
			common = keys.Common(low, high)
		}
		if int(n.skip) > common {
			t.Fatalf("a node skips %d bytes between %q and %q, the buffer begins with %q", n.skip, low, high, b.prefix)
		}
		last := low
		for i, e := range n.entries[:n.n] {
			k := b.arena.blocks.key(e.place())
			if h, fits := n.head(k); e.head != h || !fits || !bytes.HasPrefix(k, b.prefix) {
				t.Fatalf("%q has the head %x, skip %d, prefix %q", k, e.head, n.skip, b.prefix)
			}
			if last != nil && bytes.Compare(last, k) >= 0 {
				t.Fatalf("%q after %q", k, last)
			}
			if !n.leaf() {
				walk(n.kids[i], level+1, last, k)
			}
			last = k
		}
		switch {
		case !n.leaf():
			walk(n.kids[n.n], level+1, last, high)
		case depth < 0:
			depth = level
		case depth != level:
			t.Fatalf("leaves at levels %d and %d", depth, level)
		}
	}
	if b.root != nil {
		walk(b.root, 0, nil, nil)
	}
	for _, block := range b.arena.blocks {
		memory += len(block)
	}
	memory += len(b.blanks) * nodeSize
	if count != b.Len() || memory != b.Memory() {
		t.Fatalf("%d keys and %d bytes, Len says %d and Memory %d", count, memory, b.Len(), b.Memory())
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, program []byte) {
	x := machine{t: t, m: model{}}
	for i := 0; i+1 < len(program); i += 2 {
		x.step(program[i], program[i+1])
	}
	x.check()
}

func TestModel(t *testing.T) {
	for seed := range uint64(120) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		program := make([]byte, rnd.IntN(3000))
		for i := range program {
			program[i] = byte(rnd.Uint32())
		}
		run(t, program)
	}
}

func FuzzModel(f *testing.F) {
	f.Add([]byte{0, 1, 9, 0, 0, 1, 5, 2, 15, 1})
	f.Add(bytes.Repeat([]byte{0x10, 3, 0x2a, 0, 0x11, 9, 9, 6, 0x27, 8, 0x2b, 0}, 40))
	f.Add(bytes.Repeat([]byte{0x40, 3, 0x63, 4, 0x8c, 1, 0xa8, 9, 0x2a, 6, 0xc5, 8, 0x2b, 0}, 40))
	f.Fuzz(run)
}

// Enough keys for a tree of four levels, in several orders and shapes, with a view and a
// savepoint half way.
func TestLarge(t *testing.T) {
	const n = 20000
	orders := map[string]func(i int) int{
		"up": func(i int) int { return i }, "down": func(i int) int { return n - 1 - i },
		"mixed": func(i int) int { return i * 7919 % n }, "two runs": func(i int) int { return i/2 + i%2*n/2 },
	}
	shapes := map[string]func(i int) []byte{
		"digits": func(i int) []byte { return fmt.Appendf(nil, "key%06d", i) },
		"rows": func(i int) []byte {
			return fmt.Appendf(nil, "t%03d_r_a_gap_%05d", i/500, i%500)
		},
		"tables": func(i int) []byte {
			return fmt.Appendf(nil, "t%08d_a_long_name_of_a_table_%08d_row", i/1000, i%1000)
		},
	}
	for order, at := range orders {
		for shape, key := range shapes {
			t.Run(order+" "+shape, func(t *testing.T) { testLarge(t, n, at, key) })
		}
	}
}

func testLarge(t *testing.T, n int, at func(int) int, key func(int) []byte) {
	var b Buffer
	size := 0
	for i := range n / 2 {
		k := key(at(i))
		must(t, b.Put(k, k, 0))
		size += 2 * len(k)
	}
	half, sp := b.Freeze(), b.Savepoint()
	wantHalf := collect(half, keys.Range{}, false)
	for i := range n {
		must(t, b.Put(key(at(i)), nil, 0))
	}
	checkTree(t, &b)
	all := collect(b.Freeze(), keys.Range{}, true)
	if len(all) != n || b.Len() != n {
		t.Fatalf("%d entries, len %d", len(all), b.Len())
	}
	for i, e := range all {
		if !bytes.Equal(e.Key, key(n-1-i)) || len(e.Value) > 0 {
			t.Fatalf("entry %d is %q", i, e.Key)
		}
	}
	if got := collect(half, keys.Range{}, false); !slices.EqualFunc(got, wantHalf, same) || len(got) != n/2 || len(got[0].Value) == 0 {
		t.Fatal("the view has changed")
	}
	if !b.Undo(sp) || b.Len() != n/2 || b.Size() != size || !slices.EqualFunc(collect(b.view(), keys.Range{}, false), wantHalf, same) {
		t.Fatalf("after the undo: len %d size %d, want %d and %d", b.Len(), b.Size(), n/2, size)
	}
	checkTree(t, &b)
	if got := collect(b.view(), keys.Range{Start: key(10), End: key(n - 10)}, true); len(got) == 0 {
		t.Fatal("nothing in the range")
	}
	for i := range n {
		e, ok := b.Get(key(at(i)))
		if ok != (i < n/2) || ok && !bytes.Equal(e.Value, e.Key) {
			t.Fatalf("%q: %v %v", key(at(i)), e, ok)
		}
		if _, ok := b.Get(append(key(at(i)), 0)); ok {
			t.Fatalf("found what is behind %q", key(at(i)))
		}
	}
}

func TestEmpty(t *testing.T) {
	var b Buffer
	if _, ok := b.Get([]byte("a")); ok || len(collect(b.Freeze(), keys.Range{}, false)) != 0 || len(collect(View{}, keys.Range{}, true)) != 0 {
		t.Fatal("not empty")
	}
	if _, ok := b.HandOver(); ok || b.Undo(Savepoint{}) || b.Memory() != 0 {
		t.Fatal("an empty buffer has something")
	}
	sp := b.Savepoint()
	must(t, b.Put(nil, nil, 0))
	must(t, b.Put([]byte("a"), nil, 0))
	if e, ok := b.Get([]byte("a")); !ok || e.Value == nil || e.Op != Put {
		t.Fatal("an empty value is not nil")
	}
	if e, ok := b.Get(nil); !ok || e.Value == nil || len(e.Key) > 0 {
		t.Fatal("the empty key is not there")
	}
	if !b.Undo(sp) || b.Len() != 0 || b.Memory() != 0 {
		t.Fatal("not empty again")
	}
}

// What lasts through an undo, and what does not, flag by flag, for keys of all histories.
func TestUndoFlags(t *testing.T) {
	for f := Absent; f <= AssertAbsent; f <<= 1 {
		lasts := f&(Locked|Shared|HadValue|ConflictUnchecked) != 0
		for name, test := range map[string]struct {
			before, after func(b *Buffer)
			there, has    bool // after the undo
		}{
			"new key":       {nil, func(b *Buffer) { _ = b.Put([]byte("k"), nil, f) }, lasts, lasts},
			"new mark":      {nil, func(b *Buffer) { _ = b.Mark([]byte("k"), f, 0) }, lasts, lasts},
			"set on old":    {func(b *Buffer) { _ = b.Put([]byte("k"), nil, 0) }, func(b *Buffer) { _ = b.Mark([]byte("k"), f, 0) }, true, lasts},
			"taken off old": {func(b *Buffer) { _ = b.Put([]byte("k"), nil, f) }, func(b *Buffer) { _ = b.Mark([]byte("k"), 0, f) }, true, !lasts},
			"come and gone": {nil, func(b *Buffer) {
				_ = b.Mark([]byte("k"), f, 0)
				_ = b.Mark([]byte("k"), 0, f)
			}, false, false},
			"untouched": {func(b *Buffer) { _ = b.Put([]byte("k"), nil, f) }, func(*Buffer) {}, true, true},
		} {
			var b Buffer
			if test.before != nil {
				test.before(&b)
			}
			sp := b.Savepoint()
			inner := b.Savepoint()
			test.after(&b)
			if !b.Undo(inner) || !b.Undo(sp) || b.Undo(inner) {
				t.Fatal("undo")
			}
			e, ok := b.Get([]byte("k"))
			if ok != test.there || (e.Flags == f) != test.has {
				t.Errorf("%s %b: %v %v", name, f, e, ok)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	var b Buffer
	b.Limit(Limits{Entry: 10, Keys: 3, Bytes: 20, Prefix: 1})
	must(t, b.Put([]byte("xa"), make([]byte, 9), 0))
	must(t, b.Put([]byte("xb"), make([]byte, 9), 0))
	for name, err := range map[string]error{
		"entry": b.Put([]byte("xc"), make([]byte, 10), 0), "bytes": b.Put([]byte("xc"), nil, 0),
		"a key alone": b.Mark([]byte("xc"), Locked, 0), "a deletion": b.Delete([]byte("xc"), 0),
	} {
		if e, ok := err.(*TooLarge); !ok || e.Size <= e.Limit || e.Error() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, b.Put([]byte("xa"), nil, 0)) // there is less now
	must(t, b.Mark([]byte("xc"), Locked, 0))
	if err := b.Mark([]byte("xd"), Locked, 0); err == nil || b.Len() != 3 || b.Size() != 12 {
		t.Error(err, b.Len(), b.Size())
	}
	must(t, b.Delete([]byte("xa"), 0))
	must(t, b.Put([]byte("xc"), make([]byte, 8), 0)) // as much as it can be
	if err := b.Fits(0, 1); err == nil {
		t.Error("fits")
	}
	must(t, b.Fits(0, 0))
	b.Limit(Limits{Bytes: 5})
	must(t, b.Put([]byte("xc"), make([]byte, 7), 0)) // what makes it smaller is allowed
}

// Slots and nodes are as large as they say, and what the buffer says that it takes is
// what the heap says.
func TestMemory(t *testing.T) {
	if n := reflect.TypeFor[node]().Size(); n != nodeSize {
		t.Errorf("a node has %d bytes", n)
	}
	const n = 50_000
	for _, step := range []int{1, 7919} {
		var b Buffer
		best := math.Inf(1)
		for i := 0; i < 5 && best > 0.05; i++ { // the heap is that of all tests
			var before, after runtime.MemStats
			b = Buffer{}
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range n {
				must(t, b.Put(fmt.Appendf(nil, "bench/%018d", i*step%n), make([]byte, 100), 0))
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			best = min(best, math.Abs(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.Memory())-1))
		}
		if perKey := float64(b.Memory()) / n; perKey > 170 || best > 0.05 {
			t.Errorf("%.1f bytes a key, and the heap says %.0f %% else", perKey, best*100)
		}
	}
}

// allocs is the least number of allocations that fn takes.
func allocs(fn func()) float64 {
	least := math.Inf(1)
	for range 5 {
		least = min(least, testing.AllocsPerRun(10, fn))
	}
	return least
}

// Going back over k writes costs k: nothing for the writes, and for each flag that lasts
// as much as to set it, however large the buffer is. The nodes that k writes copy are
// those on the way to them. None of it makes the buffer larger.
func TestUndoCost(t *testing.T) {
	for _, n := range []int{1000, 10_000, 100_000} {
		var b Buffer
		for i := range n {
			must(t, b.Put(fmt.Appendf(nil, "%08d", i*7919%n), []byte("value"), 0))
		}
		depth := 1.0
		for at := b.root; !at.leaf(); at = at.kids[0] {
			depth++
		}
		ks := make([][]byte, 64)
		for i := range ks {
			ks[i] = fmt.Appendf(nil, "%08d", i*n/len(ks))
		}
		memory := b.Memory()
		for _, k := range []int{1, 8, 64} {
			cycle := func(flags Flags) float64 {
				return allocs(func() {
					sp := b.Savepoint()
					for _, key := range ks[:k] {
						_ = b.Put(key, []byte("longer than it was"), flags)
					}
					if !b.Undo(sp) {
						t.Fatal("undo")
					}
				})
			}
			if got, limit := cycle(0), float64(k)*2*depth+2; got > limit {
				t.Errorf("%d keys: %d writes and an undo make %v allocations, want %v at most", n, k, got, limit)
			}
			if got, limit := cycle(Locked), float64(k)*(4*depth+1)+16; got > limit {
				t.Errorf("%d keys: %d locks and an undo make %v allocations, want %v at most", n, k, got, limit)
			}
		}
		sp := b.Savepoint()
		if got := allocs(func() { b.Undo(sp) }); got > 0 {
			t.Errorf("%d keys: undoing nothing makes %v allocations", n, got)
		}
		if b.Memory() > memory+maxBlock {
			t.Errorf("%d keys: %d bytes, then %d", n, memory, b.Memory())
		}
	}
}

// What writing and reading allocate.
func TestAllocations(t *testing.T) {
	key, value := []byte("bench/000000000000000001"), make([]byte, 100)
	var b Buffer
	must(t, b.Put(key, value, 0))
	for name, test := range map[string]struct {
		fn    func()
		limit float64
	}{
		"a buffer with one key": {func() {
			var one Buffer
			_ = one.Put(key, value, 0)
		}, 3}, // a block, the list of blocks, a node
		"overwriting":   {func() { _ = b.Put(key, value, 0) }, 0},
		"reading":       {func() { _, _ = b.Get(key) }, 0},
		"marking":       {func() { _ = b.Mark(key, Locked, 0) }, 0},
		"freezing":      {func() { _ = b.Freeze() }, 0},
		"a cursor":      {func() { b.Freeze().Scan(keys.Range{}, false).Next() }, 1},
		"a savepoint":   {func() { b.Undo(b.Savepoint()) }, 0.2},
		"a copied path": {func() { b.Freeze(); _ = b.Put(key, value, 0) }, 1.2},
	} {
		if got := allocs(test.fn); got > test.limit {
			t.Errorf("%s makes %v allocations, want %v at most", name, got, test.limit)
		}
	}
}
