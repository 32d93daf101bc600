package check

import (
	"fmt"
	"slices"
	"strings"
)

// Txn is a transaction of a history, or a snapshot, which only reads. Its times are those
// of one counter that all workers of the history raise before and after every call.
type Txn struct {
	Worker int `json:"worker"`

	// The start timestamp was taken between Begin and Began.
	Begin int64 `json:"begin"`
	Began int64 `json:"began"`
	// Commit was called and returned; 0: it was not. For an outcome that is not known
	// Done means nothing.
	Commit int64 `json:"commit,omitempty"`
	Done   int64 `json:"done,omitempty"`

	Outcome     Outcome `json:"outcome"`
	Latest      bool    `json:"latest,omitempty"`      // reads at a moment between Begin and Began, not at a timestamp
	Causal      bool    `json:"causal,omitempty"`      // may commit below what committed before in real time
	Pessimistic bool    `json:"pessimistic,omitempty"` // may write what was written after it began
	Pipelined   bool    `json:"pipelined,omitempty"`   // wrote to the cluster before its commit
	StartTS     uint64  `json:"start_ts,omitempty"`    // as reported; 0: not
	CommitTS    uint64  `json:"commit_ts,omitempty"`
	Ops         []Op    `json:"ops"`
	Note        string  `json:"note,omitempty"`
}

// Op reads the list of a key, or appends to it an element that nobody else appends, or
// empties it until the transaction appends again: then all is there as before.
type Op struct {
	Key    int   `json:"key"`
	Append int   `json:"append,omitempty"` // 0: it does not
	Empty  bool  `json:"empty,omitempty"`
	Read   []int `json:"read,omitempty"`
	Locked bool  `json:"locked,omitempty"` // a read of the newest list, which stays locked until the end
}

func (o Op) String() string {
	switch {
	case o.Append != 0:
		return fmt.Sprintf("append %d to key %d", o.Append, o.Key)
	case o.Empty:
		return fmt.Sprintf("empty key %d", o.Key)
	case o.Locked:
		return fmt.Sprintf("lock key %d: %v", o.Key, o.Read)
	}
	return fmt.Sprintf("read key %d: %v", o.Key, o.Read)
}

// String tells all of the transaction in a line.
func (t *Txn) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "worker %d, began [%d %d]", t.Worker, t.Begin, t.Began)
	if t.Commit != 0 {
		fmt.Fprintf(&b, ", commit [%d %d]", t.Commit, t.Done)
	}
	fmt.Fprintf(&b, ", %v", t.Outcome)
	if t.StartTS != 0 {
		fmt.Fprintf(&b, ", start %d", t.StartTS)
	}
	if t.CommitTS != 0 {
		fmt.Fprintf(&b, ", committed %d", t.CommitTS)
	}
	for _, o := range t.Ops {
		b.WriteString("; " + o.String())
	}
	if t.Note != "" {
		b.WriteString("; " + t.Note)
	}
	return b.String()
}

// writes reports whether t appends anything.
func (t *Txn) writes() bool {
	return slices.ContainsFunc(t.Ops, func(o Op) bool { return o.Append != 0 })
}

// view is what a transaction saw of one key from outside, and what it made of it. A key
// that was read both as of the start and locked has two.
type view struct {
	key     int
	locked  bool
	read    bool
	seen    []int // the list before its own appends, if read is true
	appends []int
	empty   bool // by now, for the transaction itself
}

// written is the list that the transaction left, if it is known.
func (v *view) written() ([]int, bool) {
	return append(slices.Clip(v.seen), v.appends...), v.read && len(v.appends) > 0
}

// shows reports whether list is what the transaction must read now.
func (v *view) shows(list []int) bool {
	if v.empty {
		return len(list) == 0
	}
	want, _ := v.written()
	return slices.Equal(list, want)
}

// misses reports whether list is what a transaction may read that has flushed what it wrote,
// and was rolled back by others since: what was there before, and some of its appends.
func (v *view) misses(list []int) bool {
	if n := len(v.seen); len(list) < n || !slices.Equal(list[:n], v.seen) {
		return len(list) == 0 && v.empty
	}
	rest := v.appends
	for _, value := range list[len(v.seen):] {
		at := slices.Index(rest, value)
		if at < 0 {
			return false
		}
		rest = rest[at+1:]
	}
	return true
}

// views sums t up by key. The second result is the first of its reads that disagrees with
// what it had read and appended before.
func (t *Txn) views() ([]view, *Op) {
	var (
		all   []view
		wrong *Op
	)
	for i := range t.Ops {
		o := &t.Ops[i]
		v := viewFor(&all, o)
		if o.Append != 0 || o.Empty {
			if v.empty = o.Empty; !o.Empty {
				v.appends = append(v.appends, o.Append)
			}
			continue
		}
		n := len(o.Read) - len(v.appends)
		switch {
		case v.read:
			if !v.shows(o.Read) && !(t.Pipelined && t.Outcome == Failed && v.misses(o.Read)) && wrong == nil {
				wrong = o
			}
		case n >= 0 && slices.Equal(o.Read[n:], v.appends):
			v.seen, v.read = o.Read[:n:n], true
		case wrong == nil:
			wrong = o
		}
	}
	return all, wrong
}

// viewFor returns the view that an operation belongs to: reads of what the transaction has
// appended to see that, whether they lock or not.
func viewFor(all *[]view, o *Op) *view {
	found := -1
	for i, v := range *all {
		switch {
		case v.key != o.Key:
		case len(v.appends) > 0:
			return &(*all)[i]
		case o.Append == 0 && v.locked == o.Locked, o.Append != 0 && (found < 0 || v.locked):
			found = i
		}
	}
	if found >= 0 {
		return &(*all)[found]
	}
	*all = append(*all, view{key: o.Key, locked: o.Locked})
	return &(*all)[len(*all)-1]
}
