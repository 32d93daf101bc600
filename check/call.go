package check

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// Call is a call on one raw key. Values are numbers, each written by one call; 0 stands
// for an absent key.
type Call struct {
	Worker  int     `json:"worker"`
	Key     int     `json:"key"`
	Do      Do      `json:"do"`
	Old     int     `json:"old,omitempty"` // what Swap expects
	New     int     `json:"new,omitempty"` // what Write and Swap store
	Called  int64   `json:"called"`
	Ended   int64   `json:"ended"`
	Outcome Outcome `json:"outcome"`
	Got     int     `json:"got,omitempty"`     // what Read and Swap found
	Swapped bool    `json:"swapped,omitempty"` // as reported
	Note    string  `json:"note,omitempty"`
}

// Do is what a call does.
type Do string

// The calls: Write also deletes, with 0.
const (
	Read  Do = "read"
	Write Do = "write"
	Swap  Do = "swap"
)

// String tells all of the call.
func (c *Call) String() string {
	what := map[Do]string{
		Read:  fmt.Sprintf("read %d", c.Got),
		Write: fmt.Sprintf("wrote %d", c.New),
		Swap:  fmt.Sprintf("swapped %d for %d: %t, found %d", c.Old, c.New, c.Swapped, c.Got),
	}[c.Do]
	out := fmt.Sprintf("[%d %d] worker %d, key %d: %s, %v", c.Called, c.Ended, c.Worker, c.Key, what, c.Outcome)
	if c.Note != "" {
		out += "; " + c.Note
	}
	return out
}

// register is what a key does, one call after the other.
func register() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return 0 },
		Step: func(state, input, _ any) (bool, any) { return input.(*Call).step(state.(int)) },
	}
}

// step reports whether the call can have found the value, and what it left. A call that
// nobody heard of has found anything.
func (c *Call) step(value int) (ok bool, left int) {
	sure := c.Outcome == Done
	switch {
	case c.Do == Read:
		return !sure || c.Got == value, value
	case c.Do == Write:
		return true, c.New
	case sure && c.Got != value, sure && c.Swapped != (c.Old == value):
		return false, value
	case c.Old == value:
		return true, c.New
	}
	return true, value
}

// unlinearizable is the anomaly of calls.
const unlinearizable = "not linearizable"

// CheckCalls returns an anomaly for every key whose calls are not linearizable. It gives a
// key up as undecided, which is an error, after limit.
func CheckCalls(calls []Call, limit time.Duration) ([]Anomaly, error) {
	byKey := make(map[int][]int)
	for i := range calls {
		byKey[calls[i].Key] = append(byKey[calls[i].Key], i)
	}
	var found []Anomaly
	for _, key := range sortedKeys(byKey) {
		index := happened(calls, byKey[key])
		ok, err := linearizable(calls, index, limit)
		if err != nil {
			return found, fmt.Errorf("check: key %d: %w", key, err)
		}
		if !ok {
			found = append(found, explain(calls, index, limit))
		}
	}
	return found, nil
}

// happened leaves out the calls that say nothing: reads that failed, writes that did, and
// writes without an answer whose value nobody has found. Such a one may as well never have
// happened: where it did, what was there until the next write was seen by nobody.
func happened(calls []Call, index []int) []int {
	found := make(map[int]bool)
	for _, i := range index {
		if c := &calls[i]; c.Outcome == Done {
			found[c.Got] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(index), func(i int) bool {
		c := &calls[i]
		return c.Outcome == Failed || c.Outcome == Unknown && (c.Do == Read || c.New != 0 && !found[c.New])
	})
}

// linearizable asks porcupine about the calls of one key.
func linearizable(calls []Call, index []int, limit time.Duration) (bool, error) {
	found := make(map[int]int64) // when a value was known to be there
	for _, i := range index {
		c := &calls[i]
		if end, ok := found[c.Got]; c.Outcome == Done && (!ok || c.Ended < end) {
			found[c.Got] = c.Ended
		}
	}
	ops := make([]porcupine.Operation, 0, len(index))
	for _, i := range index {
		c := &calls[i]
		end := c.Ended
		if c.Outcome == Unknown {
			end = math.MaxInt64
			if at, ok := found[c.New]; ok && c.New != 0 {
				end = max(at, c.Called)
			}
		}
		ops = append(ops, porcupine.Operation{ClientId: c.Worker, Input: c, Call: c.Called, Return: end})
	}
	switch porcupine.CheckOperationsTimeout(register(), ops, limit) {
	case porcupine.Ok:
		return true, nil
	case porcupine.Illegal:
		return false, nil
	}
	return false, fmt.Errorf("not decided within %v", limit)
}

// explain finds a small part of the calls that has no order either: as few as possible
// from the beginning, those still under way then as without an answer, and without reads
// that do not matter.
func explain(calls []Call, index []int, limit time.Duration) Anomaly {
	fails := func(calls []Call, index []int) bool {
		ok, err := linearizable(calls, happened(calls, index), limit)
		return err == nil && !ok
	}
	ends := make([]int64, 0, len(index))
	for _, i := range index {
		ends = append(ends, calls[i].Ended)
	}
	slices.Sort(ends)
	n := sort.Search(len(ends), func(i int) bool { return fails(upTo(calls, index, ends[i])) })
	cut, part := upTo(calls, index, ends[min(n, len(ends)-1)])
	for i := 0; i < len(part); {
		c := &cut[part[i]]
		without := slices.Delete(slices.Clone(part), i, i+1)
		if c.Outcome == Done && (c.Do == Read || c.Do == Swap && !c.Swapped) && fails(cut, without) {
			part = without
		} else {
			i++
		}
	}
	out := Anomaly{Name: unlinearizable, Txns: part}
	for _, i := range part {
		out.Words = append(out.Words, fmt.Sprintf("C%d: %v", i, &cut[i]))
	}
	return out
}

// upTo returns the calls as they were known at a time.
func upTo(calls []Call, index []int, end int64) ([]Call, []int) {
	cut := slices.Clone(calls)
	var part []int
	for _, i := range index {
		if c := &cut[i]; c.Called < end {
			if c.Ended > end {
				c.Outcome, c.Note = Unknown, "under way"
			}
			part = append(part, i)
		}
	}
	return cut, part
}
