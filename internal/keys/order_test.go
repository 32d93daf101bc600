package keys

import (
	"slices"
	"strconv"
	"testing"
)

func TestOrder(t *testing.T) {
	batch := func(s ...string) (keys [][]byte) {
		for _, k := range s {
			keys = append(keys, []byte(k))
		}
		return keys
	}
	var o Order
	for _, tt := range []struct {
		sent, answer [][]byte
		want         []int
	}{
		{batch("a", "b", "c"), batch("a", "b", "c"), []int{0, 1, 2}},
		{batch("a", "b", "c"), batch("c"), []int{2}},
		{batch("a", "b", "c"), batch("b", "a"), []int{1, -1}},
		{batch("a", "a", ""), batch("a", "a", "", ""), []int{0, 1, 2, -1}},
		{batch("a", "b"), batch("x", "a", "y", "b"), []int{-1, 0, -1, 1}},
		{nil, batch("a"), []int{-1}},
	} {
		o.Begin(tt.sent)
		for range 2 {
			o.Again()
			var got []int
			for _, key := range tt.answer {
				got = append(got, o.Find(key))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%q in %q: %v, not %v", tt.answer, tt.sent, got, tt.want)
			}
		}
	}
	var many [][]byte
	for i := range 1024 {
		many = append(many, strconv.AppendInt(nil, int64(i), 10))
	}
	if n := testing.AllocsPerRun(10, func() { o.Begin(many) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for i := range many {
		if got := o.Find(many[i]); got != i {
			t.Fatalf("%d: %d", i, got)
		}
	}
}
