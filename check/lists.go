package check

import (
	"fmt"
	"slices"
)

// element is one that was appended.
type element struct{ key, value int }

// analysis is what is concluded from transactions.
type analysis struct {
	txns    []Txn
	views   [][]view        // by transaction
	writer  map[element]int // who appended it
	shown   []bool          // of a transaction whose outcome is not known: others saw its work
	orders  map[int][]int   // of each key, the longest list that was there
	at      map[element]int // places in those
	readers map[int][]sight // of each key
	found   []Anomaly
}

// sight is a view of somebody who read.
type sight struct {
	txn int
	*view
}

// CheckTxns returns what snapshot isolation, with timestamps in real-time order, forbids in
// a history; nothing, if there is nothing. It is an error if two transactions append the
// same element: such a history says nothing.
func CheckTxns(txns []Txn) ([]Anomaly, error) {
	a := &analysis{
		txns: txns, views: make([][]view, len(txns)), writer: make(map[element]int), shown: make([]bool, len(txns)),
		orders: make(map[int][]int), at: make(map[element]int), readers: make(map[int][]sight),
	}
	if err := a.index(); err != nil {
		return nil, err
	}
	a.readElements()
	a.order()
	a.lostUpdates()
	a.timestamps()
	a.cycles()
	return a.found, nil
}

func (a *analysis) report(name string, txns []int, format string, args ...any) {
	a.found = append(a.found, Anomaly{Name: name, Words: append([]string{fmt.Sprintf(format, args...)}, a.tell(txns)...), Txns: txns})
}

// tell is each of the transactions in a line.
func (a *analysis) tell(txns []int) []string {
	var words []string
	for _, i := range txns {
		words = append(words, fmt.Sprintf("T%d: %v", i, &a.txns[i]))
	}
	return words
}

// committed reports whether a transaction certainly took effect.
func (a *analysis) committed(i int) bool {
	return a.txns[i].writes() && (a.txns[i].Outcome == Done || a.txns[i].Outcome == Unknown && a.shown[i])
}

// index looks at each transaction by itself.
func (a *analysis) index() error {
	for i := range a.txns {
		for _, o := range a.txns[i].Ops {
			e := element{o.Key, o.Append}
			if other, ok := a.writer[e]; ok && o.Append != 0 {
				return fmt.Errorf("check: T%d and T%d append %d to key %d", other, i, o.Append, o.Key)
			}
			if o.Append != 0 {
				a.writer[e] = i
			}
		}
	}
	for i := range a.txns {
		views, wrong := a.txns[i].views()
		if wrong != nil {
			a.report(Internal, []int{i}, "T%d's own operations contradict %v", i, *wrong)
		}
		a.views[i] = views
		for at := range views {
			if v := &views[at]; v.read {
				a.readers[v.key] = append(a.readers[v.key], sight{i, v})
			}
		}
	}
	return nil
}

// readElements looks at what each read shows: whose work it is, and all of it.
func (a *analysis) readElements() {
	for _, key := range sortedKeys(a.readers) {
		told := make(map[int]bool) // of each wrong element once
		for _, s := range a.readers[key] {
			seen := make(map[int]bool, len(s.seen))
			for at, value := range s.seen {
				name, other := a.judge(s, at, seen[value])
				seen[value] = true
				if name == "" || told[value] {
					continue
				}
				told[value] = true
				txns := []int{s.txn}
				if other >= 0 {
					txns = append(txns, other)
				}
				a.report(name, txns, "T%d read key %d as %v, with %d", s.txn, key, s.seen, value)
			}
		}
	}
}

// judge returns what is wrong with one element of a read, and whose it is.
func (a *analysis) judge(s sight, at int, again bool) (name string, writer int) {
	value := s.seen[at]
	w, ok := a.writer[element{s.key, value}]
	switch {
	case !ok:
		return UnknownElement, -1
	case w == s.txn:
		return Internal, w // from outside it cannot have come
	case again:
		return Duplicate, w
	case a.txns[w].Outcome == Failed:
		return G1a, w
	}
	a.shown[w] = true
	if at == len(s.seen)-1 {
		appends := a.appends(w, s.key)
		if appends[len(appends)-1] != value {
			return G1b, w
		}
	}
	return "", w
}

// appends are what a transaction appends to a key.
func (a *analysis) appends(txn, key int) []int {
	for _, v := range a.views[txn] {
		if v.key == key && len(v.appends) > 0 {
			return v.appends
		}
	}
	return nil
}

// order finds the order of each key's elements: every list that was there, read or left
// by a committed transaction that had read it, is the beginning of the longest.
func (a *analysis) order() {
	type list struct {
		values []int
		txn    int
		left   bool
	}
	lists := make(map[int][]list)
	for i := range a.txns {
		for at := range a.views[i] {
			v := &a.views[i][at]
			if v.read {
				lists[v.key] = append(lists[v.key], list{v.seen, i, false})
			}
			if values, ok := v.written(); ok && a.committed(i) {
				lists[v.key] = append(lists[v.key], list{values, i, true})
			}
		}
	}
	verb := map[bool]string{false: "read", true: "left"}
	for _, key := range sortedKeys(lists) {
		longest := slices.MaxFunc(lists[key], func(x, y list) int { return len(x.values) - len(y.values) })
		for _, l := range lists[key] {
			if !slices.Equal(l.values, longest.values[:len(l.values)]) {
				a.report(Incompatible, distinct(l.txn, longest.txn), "T%d %s key %d as %v, T%d %s it as %v",
					l.txn, verb[l.left], key, l.values, longest.txn, verb[longest.left], longest.values)
				break
			}
		}
		a.orders[key] = longest.values
		for at, value := range longest.values {
			if e := (element{key, value}); a.at[e] == 0 {
				a.at[e] = at + 1
			}
		}
	}
}

func distinct(txns ...int) []int {
	slices.Sort(txns)
	return slices.Compact(txns)
}

// lostUpdates looks for transactions that append to the same list as they read it.
func (a *analysis) lostUpdates() {
	type version struct{ key, last int }
	first := make(map[version]int)
	for i := range a.txns {
		if !a.committed(i) {
			continue
		}
		for _, v := range a.views[i] {
			if _, ok := v.written(); !ok {
				continue
			}
			read := version{v.key, 0}
			if n := len(v.seen); n > 0 {
				read.last = v.seen[n-1]
			}
			if other, ok := first[read]; ok {
				a.report(LostUpdate, []int{other, i}, "T%d and T%d both read key %d as %v, appended to it and committed", other, i, v.key, v.seen)
				continue
			}
			first[read] = i
		}
	}
}

// timestamps holds the timestamps that were reported against what was seen: a snapshot
// shows what committed up to its start, and no more.
func (a *analysis) timestamps() {
	for _, key := range sortedKeys(a.orders) {
		order := a.orders[key]
		last, by := uint64(0), -1
		for _, value := range order {
			w, ok := a.writer[element{key, value}]
			if !ok || w == by || a.txns[w].CommitTS == 0 {
				continue
			}
			if ts := a.txns[w].CommitTS; ts <= last {
				a.report(Timestamps, []int{by, w}, "T%d appended %d to key %d behind T%d, which committed later", w, value, key, by)
			}
			last, by = a.txns[w].CommitTS, w
		}
		for _, s := range a.readers[key] {
			start := a.txns[s.txn].StartTS
			if s.locked || start == 0 {
				continue
			}
			if n := len(s.seen); n > 0 {
				if w, ok := a.writer[element{key, s.seen[n-1]}]; ok && a.txns[w].CommitTS > start {
					a.report(Timestamps, []int{s.txn, w}, "T%d read key %d as %v, but %d was committed after its start", s.txn, key, s.seen, s.seen[n-1])
				}
			}
			if n := len(s.seen); n < len(order) {
				w, ok := a.writer[element{key, order[n]}]
				if ok && w != s.txn && a.txns[w].CommitTS != 0 && a.txns[w].CommitTS <= start {
					a.report(Timestamps, []int{s.txn, w}, "T%d read key %d as %v, without %d, which was committed before its start", s.txn, key, s.seen, order[n])
				}
			}
		}
	}
}
