package check

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Short hands for calls on one key.

func read1(called, ended int64, got int) Call {
	return Call{Do: Read, Called: called, Ended: ended, Got: got, Outcome: Done}
}

func write1(called, ended int64, value int) Call {
	return Call{Do: Write, Called: called, Ended: ended, New: value, Outcome: Done}
}

func swap1(called, ended int64, old, value, got int) Call {
	return Call{Do: Swap, Called: called, Ended: ended, Old: old, New: value, Got: got, Swapped: old == got, Outcome: Done}
}

func (c Call) as(o Outcome) Call {
	c.Outcome = o
	return c
}

var goodCalls = []struct {
	name  string
	calls []Call
}{
	{"one after the other", []Call{read1(1, 2, 0), write1(3, 4, 1), read1(5, 6, 1), write1(7, 8, 0), read1(9, 10, 0)}},
	{"at the same time", []Call{write1(1, 6, 1), write1(2, 7, 2), read1(3, 4, 0), read1(8, 9, 1)}},
	{"swaps", []Call{swap1(1, 2, 0, 1, 0), swap1(3, 4, 0, 2, 1), swap1(5, 6, 1, 3, 1), swap1(7, 8, 3, 0, 3), read1(9, 10, 0)}},
	{"failed", []Call{write1(1, 2, 1), write1(3, 4, 2).as(Failed), read1(5, 6, 1)}},
	{"unknown, never seen", []Call{write1(1, 2, 1), write1(3, 4, 2).as(Unknown), read1(5, 6, 1)}},
	{"unknown, seen late", []Call{write1(1, 2, 1), write1(3, 4, 2).as(Unknown), read1(5, 6, 1), read1(7, 8, 2)}},
	{"unknown, overwritten", []Call{write1(1, 2, 1).as(Unknown), write1(3, 4, 2), read1(5, 6, 1), read1(7, 8, 1)}},
	{"unknown deletion, late", []Call{write1(1, 2, 1), write1(3, 4, 0).as(Unknown), read1(5, 6, 1), read1(7, 8, 0)}},
	{"unknown swap that does not fit", []Call{write1(1, 2, 1), swap1(3, 4, 7, 8, 7).as(Unknown), read1(5, 6, 1)}},
	{"unknown swap, seen by a swap", []Call{write1(1, 2, 1), swap1(3, 4, 1, 2, 1).as(Unknown), read1(5, 6, 1), swap1(7, 8, 2, 3, 2)}},
	{"a read without an answer", []Call{write1(1, 2, 1), read1(3, 4, 0).as(Failed), read1(5, 6, 1)}},
}

// TestGoodCalls: what is linearizable is accepted.
func TestGoodCalls(t *testing.T) {
	for _, c := range goodCalls {
		t.Run(c.name, func(t *testing.T) {
			if found, err := CheckCalls(c.calls, time.Minute); err != nil || len(found) > 0 {
				t.Fatal(found, err)
			}
		})
	}
}

var badCalls = []struct {
	name  string
	calls []Call
	who   []int // the calls that explain it
}{
	{"a stale read", []Call{write1(1, 2, 1), read1(2, 3, 1), write1(3, 4, 2), read1(4, 5, 2), read1(5, 6, 1), read1(7, 8, 2)}, []int{0, 2, 4}},
	{"a write that is lost", []Call{write1(1, 2, 1), read1(3, 4, 0)}, []int{0, 1}},
	{"a failed write that is seen", []Call{write1(1, 2, 1).as(Failed), read1(3, 4, 1)}, []int{1}},
	{"a value from nowhere", []Call{read1(1, 2, 5)}, []int{0}},
	{"two swaps of one value", []Call{write1(1, 2, 1), swap1(3, 5, 1, 2, 1), swap1(4, 6, 1, 3, 1)}, []int{0, 1, 2}},
	{"a swap that did not happen", []Call{write1(1, 2, 1), swap1(3, 4, 1, 2, 1), read1(5, 6, 1)}, []int{0, 1, 2}},
	{"a swap that says no, but fits", []Call{write1(1, 2, 1), {Do: Swap, Called: 3, Ended: 4, Old: 1, New: 2, Got: 1, Outcome: Done}}, []int{0, 1}},
	{"an unknown write that comes twice", []Call{write1(1, 2, 1).as(Unknown), read1(3, 4, 1), write1(5, 6, 2), read1(7, 8, 2), read1(9, 10, 1)}, []int{0, 1, 2, 4}},
	{"a read that ends before its write", []Call{read1(1, 2, 1), write1(3, 4, 1)}, []int{0}},
}

// TestBadCalls: what is not linearizable is caught, and told by the calls that matter.
func TestBadCalls(t *testing.T) {
	for _, c := range badCalls {
		t.Run(c.name, func(t *testing.T) {
			found, err := CheckCalls(c.calls, time.Minute)
			if err != nil || len(found) != 1 || found[0].Name != unlinearizable {
				t.Fatal(found, err)
			}
			if !slices.Equal(found[0].Txns, c.who) {
				t.Errorf("explained by %v, want %v:\n%s", found[0].Txns, c.who, strings.Join(found[0].Words, "\n"))
			}
		})
	}
}

// Keys do not matter to each other.
func TestCallsByKey(t *testing.T) {
	one, other := badCalls[0].calls, goodCalls[0].calls
	var calls []Call
	for _, c := range other {
		c.Key = 1
		calls = append(calls, c)
	}
	for _, c := range one {
		c.Key = 2
		calls = append(calls, c)
	}
	found, err := CheckCalls(calls, time.Minute)
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Words[0], "key 2") {
		t.Fatal(found, err)
	}
}
