package check

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Short hands for histories written by hand.

func r(key int, list ...int) Op { return Op{Key: key, Read: list} }
func a(key, value int) Op       { return Op{Key: key, Append: value} }
func e(key int) Op              { return Op{Key: key, Empty: true} }
func l(key int, list ...int) Op { return Op{Key: key, Read: list, Locked: true} }

// txn is one that committed: its start and its commit were each called and returned at
// the times given.
func txn(begin, began, commit, done int64, ops ...Op) Txn {
	return Txn{Begin: begin, Began: began, Commit: commit, Done: done, Outcome: Done, Ops: ops}
}

// snap is a snapshot.
func snap(begin, began int64, ops ...Op) Txn {
	return Txn{Begin: begin, Began: began, Outcome: Done, Ops: ops}
}

func (t Txn) but(f func(*Txn)) Txn {
	f(&t)
	return t
}

func latest(t *Txn)      { t.Latest = true }
func failing(t *Txn)     { t.Outcome = Failed }
func unknown(t *Txn)     { t.Outcome = Unknown }
func causal(t *Txn)      { t.Causal = true }
func pessimistic(t *Txn) { t.Pessimistic = true }

func pipelined(t *Txn) { t.Pipelined = true }

func stamped(start, commit uint64) func(*Txn) {
	return func(t *Txn) { t.StartTS, t.CommitTS = start, commit }
}

var goodTxns = []struct {
	name string
	txns []Txn
}{
	{"one after the other", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)),
		txn(5, 6, 7, 8, r(1, 1), a(1, 2), r(1, 1, 2)),
		snap(9, 10, r(1, 1, 2)),
	}},
	{"write skew", []Txn{
		txn(1, 3, 5, 7, r(1), r(2), a(1, 1)),
		txn(2, 4, 6, 8, r(1), r(2), a(2, 2)),
		snap(9, 10, r(1, 1), r(2, 2)),
	}},
	{"write skew of three", []Txn{
		txn(1, 4, 7, 10, r(1), r(2), a(1, 1)),
		txn(2, 5, 8, 11, r(2), r(3), a(2, 2)),
		txn(3, 6, 9, 12, r(3), r(1), a(3, 3)),
		snap(13, 14, r(1, 1), r(2, 2), r(3, 3)),
	}},
	{"a snapshot of before a commit that returns first", []Txn{
		txn(1, 2, 4, 6, r(1), a(1, 1)),
		snap(3, 5, r(1)).but(func(t *Txn) { t.Ops = append(t.Ops, r(1)) }),
	}},
	{"an unknown outcome that nobody sees", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)).but(unknown),
		txn(5, 6, 7, 8, r(1), a(1, 2)),
		snap(9, 10, r(1, 2)),
	}},
	{"an unknown outcome that is seen late", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)).but(unknown),
		snap(5, 6, r(1)),
		snap(7, 8, r(1, 1)),
	}},
	{"what failed may have read like a snapshot", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)),
		txn(5, 6, 7, 8, r(1, 1), a(1, 2)).but(failing),
		snap(9, 10, r(1, 1)),
	}},
	{"blind appends at different times", []Txn{
		txn(1, 2, 3, 4, a(1, 1), a(2, 2)),
		txn(5, 6, 7, 8, a(1, 3), a(2, 4)),
		snap(9, 10, r(1, 1, 3), r(2, 2, 4)),
	}},
	{"a pessimistic transaction that began before what it locks was written", []Txn{
		txn(1, 2, 7, 8, r(1), l(1, 1), a(1, 2), r(1, 1, 2)).but(pessimistic),
		txn(3, 4, 5, 6, r(1), a(1, 1)),
		snap(9, 10, r(1, 1, 2)),
	}},
	{"a snapshot read beside a lock", []Txn{
		txn(1, 2, 7, 8, l(1, 1), r(1), a(2, 2)).but(pessimistic),
		txn(3, 4, 5, 6, r(1), a(1, 1)),
	}},
	{"a causal commit below one that returned before it was called", []Txn{
		txn(1, 2, 7, 8, r(2), a(2, 2)).but(causal),
		txn(3, 4, 5, 6, r(1), a(1, 1)),
		snap(1, 20, r(1), r(2, 2)),
	}},
	{"a read of the newest data, during a commit whose timestamp is older than a snapshot", []Txn{
		txn(1, 2, 3, 8, r(1), a(1, 1)),
		snap(4, 5, r(1, 1)),
		snap(6, 7, r(1)).but(latest),
	}},
	{"a list that is written anew", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1), e(1), r(1), a(1, 2), r(1, 1, 2)).but(pipelined),
		snap(5, 6, r(1, 1, 2)),
	}},
	{"what was flushed and rolled back is missed", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 9)),
		txn(5, 6, 7, 8, r(1, 9), a(1, 1), a(1, 2), r(1, 9), r(1, 9, 2), e(1), r(1), r(1, 9)).but(pipelined).but(failing),
	}},
	{"timestamps that fit", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)).but(stamped(10, 20)),
		snap(3, 5, r(1)).but(stamped(19, 0)),
		snap(3, 6, r(1, 1)).but(stamped(20, 0)),
	}},
}

// TestGoodTxns: what snapshot isolation allows is accepted, write skew too.
func TestGoodTxns(t *testing.T) {
	for _, c := range goodTxns {
		t.Run(c.name, func(t *testing.T) {
			for range 5 { // whoever recorded first
				found, err := CheckTxns(c.txns)
				if err != nil || len(found) > 0 {
					t.Fatal(found, err)
				}
				rand.Shuffle(len(c.txns), func(i, j int) { c.txns[i], c.txns[j] = c.txns[j], c.txns[i] })
			}
		})
	}
}

var badTxns = []struct {
	name string
	want string // the anomaly
	who  []int  // the transactions in it
	says string // part of the words
	txns []Txn
}{
	{"its own append is not there", Internal, []int{0}, "read key 1: []", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1), r(1)),
	}},
	{"what it has flushed is not there", Internal, []int{0}, "read key 1: []", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1), r(1)).but(pipelined),
	}},
	{"what it has flushed is not there, nor what was before", Internal, []int{0}, "read key 1: []", []Txn{
		txn(1, 2, 3, 4, r(1, 9), a(1, 1), r(1)).but(pipelined).but(failing),
		txn(1, 1, 2, 2, r(1), a(1, 9)),
	}},
	{"what it has emptied is there", Internal, []int{0}, "read key 1: [9]", []Txn{
		txn(1, 2, 3, 4, r(1, 9), e(1), r(1, 9), a(1, 1)).but(pipelined),
		txn(1, 1, 2, 2, r(1), a(1, 9)),
	}},
	{"a snapshot changes", Internal, []int{1}, "read key 1: [1]", []Txn{
		txn(1, 3, 4, 5, r(1), a(1, 1)),
		snap(2, 6, r(1), r(1, 1)),
	}},
	{"from nowhere", UnknownElement, []int{0}, "with 7", []Txn{
		snap(1, 2, r(1, 7)),
	}},
	{"twice", Duplicate, []int{1, 0}, "with 1", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)),
		snap(5, 6, r(1, 1, 1)),
	}},
	{"aborted, but read", G1a, []int{1, 0}, "with 1", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)).but(failing),
		snap(5, 6, r(1, 1)),
	}},
	{"half of a transaction's appends", G1b, []int{1, 0}, "with 1", []Txn{
		txn(1, 2, 3, 5, r(1), a(1, 1), a(1, 2)),
		snap(4, 6, r(1, 1)),
	}},
	{"two appends to one version", LostUpdate, []int{0, 1}, "both read key 1 as [9]", []Txn{
		txn(4, 6, 8, 10, r(1, 9), a(1, 1)),
		txn(5, 7, 9, 11, r(1, 9), a(1, 2)),
		txn(1, 1, 2, 3, r(1), a(1, 9)),
		snap(12, 13, r(1, 9, 2)),
	}},
	{"two orders", Incompatible, []int{2, 3}, "T3 read key 1 as [2 1], T2 read it as [1 2]", []Txn{
		txn(1, 3, 5, 7, a(1, 1)),
		txn(2, 4, 6, 8, a(1, 2)),
		snap(9, 10, r(1, 1, 2)),
		snap(9, 10, r(1, 2, 1)),
	}},
	{"read before its timestamp", Timestamps, []int{1, 0}, "committed after its start", []Txn{
		txn(1, 2, 3, 5, r(1), a(1, 1)).but(stamped(10, 20)),
		snap(4, 6, r(1, 1)).but(stamped(19, 0)),
	}},
	{"not read behind its timestamp", Timestamps, []int{1, 0}, "committed before its start", []Txn{
		txn(1, 2, 3, 5, r(1), a(1, 1)).but(stamped(10, 20)),
		snap(4, 6, r(1)).but(stamped(20, 0)),
	}},
	{"timestamps against the order", Timestamps, []int{0, 1}, "behind T0", []Txn{
		txn(1, 2, 3, 5, r(1), a(1, 1)).but(stamped(10, 20)),
		txn(4, 6, 7, 8, r(1, 1), a(1, 2)).but(stamped(12, 15)),
	}},
	{"appends in a circle", G0, []int{0, 1}, "right behind", []Txn{
		txn(1, 3, 5, 7, a(1, 1), a(2, 1)),
		txn(2, 4, 6, 8, a(1, 2), a(2, 2)),
		snap(9, 10, r(1, 1, 2), r(2, 2, 1)),
	}},
	{"appends in a circle, pessimistic", G0, []int{0, 1}, "right behind", []Txn{
		txn(1, 3, 5, 7, a(1, 1), a(2, 1)).but(pessimistic),
		txn(2, 4, 6, 8, a(1, 2), a(2, 2)).but(pessimistic),
		snap(9, 10, r(1, 1, 2), r(2, 2, 1)),
	}},
	{"two that read each other", G1c, []int{0, 1}, "read key 2 up to 2, which T1 appended", []Txn{
		txn(1, 3, 5, 7, a(1, 1), r(2, 2)),
		txn(2, 4, 6, 8, a(2, 2), r(1, 1)),
	}},
	{"half of a transaction", GSingle, []int{0, 1}, "T1 read key 2 without 2, which T0 appended", []Txn{
		txn(1, 2, 3, 5, r(1), a(1, 1), r(2), a(2, 2)),
		snap(4, 6, r(1, 1), r(2)),
	}},
	{"half of one whose outcome is unknown", GSingle, []int{0, 1}, "T1 read key 2 without 2, which T0 appended", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1), r(2), a(2, 2)).but(unknown),
		snap(5, 6, r(1, 1), r(2)),
	}},
	{"read skew of one that failed", GSingle, []int{0, 1}, "T1 read key 2 without 2, which T0 appended", []Txn{
		txn(1, 2, 3, 5, r(1), a(1, 1), r(2), a(2, 2)),
		txn(4, 6, 7, 8, r(1, 1), r(2), a(3, 3)).but(failing),
	}},
	{"a long fork", GNonadjacent, []int{0, 1, 2, 3}, "without", []Txn{
		txn(1, 3, 5, 7, r(1), a(1, 1)),
		txn(2, 4, 6, 8, r(2), a(2, 2)),
		snap(5, 9, r(1, 1), r(2)),
		snap(5, 9, r(1), r(2, 2)),
	}},
	{"a lock that did not hold", GSingle, []int{0, 1}, "without", []Txn{
		txn(1, 2, 7, 8, l(1), r(2), a(2, 2)).but(pessimistic), // nobody wrote key 1 before its commit
		txn(3, 4, 5, 9, r(1), a(1, 1), l(2), a(2, 3)).but(pessimistic),
		snap(10, 11, r(2, 3, 2)),
	}},
	{"an old snapshot", GSingle + realTime, []int{0, 1}, "T0's commit returned before T1's start was called", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)),
		snap(5, 6, r(1)),
	}},
	{"an old read of the newest data", GSingle + realTime, []int{0, 1}, "T0's commit returned before T1's start was called", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)),
		snap(5, 6, r(1)).but(latest),
	}},
	{"the newest data, and then older", GSingle + realTime, []int{0, 1, 2}, "T2 read key 1 without 1, which T0 appended", []Txn{
		txn(1, 2, 3, 8, r(1), a(1, 1)),
		snap(4, 5, r(1, 1)).but(latest),
		snap(6, 7, r(1)).but(latest),
	}},
	{"the newest data, and then an older snapshot", GSingle + realTime, []int{0, 1, 2}, "T2 read key 1 without 1, which T0 appended", []Txn{
		txn(1, 2, 3, 8, r(1), a(1, 1)),
		snap(4, 5, r(1, 1)).but(latest),
		snap(6, 7, r(1)),
	}},
	{"an append that is lost", GSingle + realTime, []int{0, 2}, "without 1, which T0 appended", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)),
		snap(5, 6, r(1, 1)),
		snap(7, 8, r(1)),
	}},
	{"a blind append that is lost", GSingle + realTime, []int{0, 1}, "without 1, which T0 appended", []Txn{
		txn(1, 2, 3, 4, a(1, 1)),
		snap(5, 6, r(1)),
	}},
	{"an unknown outcome that is taken back", GSingle + realTime, []int{0, 1, 2}, "without 1, which T0 appended", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)).but(unknown),
		snap(5, 6, r(1, 1)),
		snap(7, 8, r(1)),
	}},
	{"a commit below one that returned before it was called", GSingle + realTime, []int{0, 1, 2}, "T1's commit returned before T0's commit was called", []Txn{
		txn(1, 2, 7, 8, r(2), a(2, 2)),
		txn(3, 4, 5, 6, r(1), a(1, 1)),
		snap(1, 20, r(1), r(2, 2)),
	}},
	{"a commit below a snapshot that was taken before", G1c + realTime, []int{0, 1}, "T1's start returned before T0's commit was called", []Txn{
		txn(1, 2, 7, 8, r(1), a(1, 1)),
		snap(3, 4, r(1, 1)),
	}},
	{"an append below one that returned", G0 + realTime, []int{0, 1}, "T0's start returned before T1's commit was called", []Txn{
		txn(1, 2, 3, 4, a(1, 1)),
		txn(5, 6, 7, 8, a(1, 2)),
		snap(9, 10, r(1, 2, 1)),
	}},
	{"a causal commit that is lost", GSingle + realTime, []int{0, 1}, "without 1, which T0 appended", []Txn{
		txn(1, 2, 3, 4, r(1), a(1, 1)).but(causal),
		snap(5, 6, r(1)),
	}},
}

// TestBadTxns: each anomaly is caught under its name, with the transactions it is about and
// in words.
func TestBadTxns(t *testing.T) {
	for _, c := range badTxns {
		t.Run(c.name, func(t *testing.T) {
			found, err := CheckTxns(c.txns)
			if err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(found, func(a Anomaly) bool { return a.Name == c.want })
			if at < 0 {
				t.Fatalf("found %v, want %s", found, c.want)
			}
			if words := strings.Join(found[at].Words, "\n"); !slices.Equal(found[at].Txns, c.who) || !strings.Contains(words, c.says) {
				t.Errorf("about %v: %s\nwant %v and %q", found[at].Txns, words, c.who, c.says)
			}
		})
	}
}

// Every anomaly is caught by name in a history above.
func TestEveryAnomalyIsCaught(t *testing.T) {
	caught := make(map[string]bool)
	for _, c := range badTxns {
		caught[c.want] = true
	}
	for _, name := range []string{
		Internal, UnknownElement, Duplicate, G1a, G1b, LostUpdate, Incompatible, Timestamps, G0, G1c, GSingle, GNonadjacent,
		G0 + realTime, G1c + realTime, GSingle + realTime,
	} {
		if !caught[name] {
			t.Errorf("no history shows %q", name)
		}
	}
}

func TestAppendedTwice(t *testing.T) {
	if _, err := CheckTxns([]Txn{txn(1, 2, 3, 4, a(1, 1)), txn(5, 6, 7, 8, a(1, 1))}); err == nil {
		t.Error("a history is taken in which two append the same")
	}
}

// A history in a file says the same as before.
func TestHistoryFile(t *testing.T) {
	var all []*History
	for _, c := range badTxns {
		all = append(all, &History{Head: Head{Kind: Lists, Seed: 7, Schedule: c.name}, Txns: c.txns})
	}
	for _, c := range badCalls {
		all = append(all, &History{Head: Head{Kind: Registers}, Calls: c.calls})
	}
	for _, h := range all {
		found, err := h.Check(time.Minute)
		if err != nil || len(found) == 0 {
			t.Fatal(found, err)
		}
		h.Found = found
		var file bytes.Buffer
		if err := h.Write(&file); err != nil {
			t.Fatal(err)
		}
		again, err := ReadHistory(&file)
		if err != nil {
			t.Fatal(err)
		}
		refound, err := again.Check(time.Minute)
		if err != nil || !reflect.DeepEqual(refound, found) || !reflect.DeepEqual(again.Found, found) {
			t.Errorf("%s: found %v, %v; before %v", h.Schedule, refound, err, found)
		}
	}
	for _, bad := range []string{"", "{}", `{"kind":"lists"}` + "\nx", `{"kind":"registers"}` + "\n" + `{"ops":[]}`, `{"kind":"lists"}` + "\n" + `{"outcome":"perhaps"}`} {
		if h, err := ReadHistory(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read as %v", bad, h)
		}
	}
}
