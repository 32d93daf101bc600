package check

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
)

func sortedKeys[V any](m map[int]V) []int { return slices.Sorted(maps.Keys(m)) }

// A transaction reads at its start and writes at its commit, both on the line of
// timestamps. What is known of their order are edges between those. One transaction depends on another (ww, wr)
// if its start comes after the other's commit; an anti-dependency (rw) is a start before a
// commit. So a cycle of edges is a cycle of transactions in which no two
// anti-dependencies follow each other, and those are what snapshot isolation forbids
// (Cerone and Gotsman, "Analysing Snapshot Isolation"); write skew makes none.
//
// A read of the newest data has no timestamp: it passes the lock of a primary key, whose
// transaction may have its commit timestamp already (TiKV components/txn_types/src/lock.rs,
// check_ts_conflict). So a transaction has a third moment, between its commit and the
// return of that, from which on such reads see it.
type edgeKind uint8

const (
	within   edgeKind = iota // a start before its own commit
	ww                       // to has appended behind from
	wr                       // to has read what from appended
	rw                       // from has read a list without what to appended
	returned                 // a call's return, on the line of time
	passing                  // along that line
	called                   // what was called afterwards
)

type edge struct {
	from, to int
	kind     edgeKind
	key      int
	value    int // of to, or what it read last of from
}

// graph has the moments as nodes, and the line of time: a node for every return.
type graph struct {
	out [][]edge
}

// The moments of a transaction.
const moments = 3

func start(txn int) int    { return moments * txn }
func decision(txn int) int { return moments*txn + 1 }
func showing(txn int) int  { return moments*txn + 2 }

func (g *graph) add(e edge) {
	if e.from != e.to {
		g.out[e.from] = append(g.out[e.from], e)
	}
}

// build makes the graph.
func (a *analysis) build() *graph {
	g := &graph{out: make([][]edge, moments*len(a.txns))}
	for i := range a.txns {
		if a.committed(i) {
			g.add(edge{from: start(i), to: decision(i), kind: within})
			g.add(edge{from: decision(i), to: showing(i), kind: within})
		}
	}
	for _, key := range sortedKeys(a.orders) {
		a.appendsFollow(g, key)
		a.readsFollow(g, key)
	}
	a.timeFollows(g)
	return g
}

// writes returns the committed transaction that appended an element.
func (a *analysis) writes(key, value int) (txn int, ok bool) {
	txn, ok = a.writer[element{key, value}]
	return txn, ok && a.committed(txn)
}

// appendsFollow adds the edges between appends to one key.
func (a *analysis) appendsFollow(g *graph, key int) {
	order := a.orders[key]
	for i := 1; i < len(order); i++ {
		before, ok1 := a.writes(key, order[i-1])
		after, ok2 := a.writes(key, order[i])
		if !ok1 || !ok2 || before == after {
			continue
		}
		to := start(after) // the first committer of two at a time wins
		if a.txns[after].Pessimistic {
			to = decision(after)
		}
		g.add(edge{decision(before), to, ww, key, order[i]})
	}
}

// readsFollow adds the edges between appends and reads of one key.
func (a *analysis) readsFollow(g *graph, key int) {
	order := a.orders[key]
	var unplaced []int // committed, and in nobody's list
	for e, w := range a.writer {
		if e.key == key && a.at[e] == 0 && a.committed(w) {
			unplaced = append(unplaced, e.value)
		}
	}
	slices.Sort(unplaced)
	for _, s := range a.readers[key] {
		at, shown := start(s.txn), decision
		switch {
		case a.txns[s.txn].Latest:
			shown = showing
		case s.locked:
			if !a.committed(s.txn) {
				continue // it read at a moment of its own
			}
			at = decision(s.txn)
		}
		if n := len(s.seen); n > 0 {
			if w, ok := a.writes(key, s.seen[n-1]); ok && w != s.txn {
				g.add(edge{shown(w), at, wr, key, s.seen[n-1]})
			}
		}
		missing := unplaced
		if n := len(s.seen); n < len(order) {
			missing = append([]int{order[n]}, unplaced...)
		}
		for _, value := range missing {
			if w, ok := a.writes(key, value); ok && w != s.txn {
				g.add(edge{at, shown(w), rw, key, value})
			}
		}
	}
}

// moment is a node, and between which times it lies.
type moment struct {
	node         int
	after, until int64
}

// timeFollows adds the order in real time, by way of a line of all returns: a call comes
// after the last that returned before it.
func (a *analysis) timeFollows(g *graph) {
	var all []moment
	for i := range a.txns {
		t := &a.txns[i]
		all = append(all, moment{start(i), t.Begin, t.Began})
		if !a.committed(i) {
			continue
		}
		m := moment{decision(i), t.Commit, t.Done}
		if t.Causal {
			m.after = t.Begin
		}
		if t.Outcome == Unknown {
			m.until = math.MaxInt64
		}
		all = append(all, m, moment{showing(i), m.after, m.until})
	}
	slices.SortFunc(all, func(x, y moment) int { return cmp.Compare(x.until, y.until) })
	line := len(g.out)
	g.out = append(g.out, make([][]edge, len(all))...)
	for i, m := range all {
		g.add(edge{from: m.node, to: line + i, kind: returned})
		if i > 0 {
			g.add(edge{from: line + i - 1, to: line + i, kind: passing})
		}
	}
	for _, m := range all {
		before, _ := slices.BinarySearchFunc(all, m.after, func(x moment, after int64) int { return cmp.Compare(x.until, after) })
		if before > 0 {
			g.add(edge{from: line + before - 1, to: m.node, kind: called})
		}
	}
}

// cycles looks for a cycle, of the plainest kind there is.
func (a *analysis) cycles() {
	g := a.build()
	for _, kinds := range [][]edgeKind{
		{within, ww}, {within, ww, wr}, {within, ww, wr, rw}, {within, ww, wr, rw, returned, passing, called},
	} {
		if c := g.without(kinds).cycle(); c != nil {
			a.reportCycle(c)
			return
		}
	}
}

// without returns the graph with edges of those kinds alone.
func (g *graph) without(kinds []edgeKind) *graph {
	out := &graph{out: make([][]edge, len(g.out))}
	for i, edges := range g.out {
		for _, e := range edges {
			if slices.Contains(kinds, e.kind) {
				out.out[i] = append(out.out[i], e)
			}
		}
	}
	return out
}

// reportCycle names a cycle by its edges, and tells it from transaction to transaction.
func (a *analysis) reportCycle(c []edge) {
	n := make(map[edgeKind]int)
	var (
		words []string
		txns  []int
		since int // the moment whose return began a stretch of time
	)
	for _, e := range c {
		n[e.kind]++
		if e.from < moments*len(a.txns) {
			txns = append(txns, e.from/moments)
		}
		switch e.kind {
		case within, passing:
			continue
		case returned:
			since = e.from
		case called:
			words = append(words, fmt.Sprintf("%s returned before %s was called", a.call(since), a.call(e.to)))
		default:
			words = append(words, e.words())
		}
	}
	name := GNonadjacent
	switch {
	case n[rw] == 1:
		name = GSingle
	case n[rw] == 0 && n[wr] > 0:
		name = G1c
	case n[rw] == 0:
		name = G0
	}
	if n[returned] > 0 {
		name += realTime
	}
	txns = distinct(txns...)
	a.found = append(a.found, Anomaly{Name: name, Words: append(words, a.tell(txns)...), Txns: txns})
}

func (e edge) words() string {
	from, to := e.from/moments, e.to/moments
	switch e.kind {
	case ww:
		return fmt.Sprintf("T%d appended %d to key %d right behind T%d", to, e.value, e.key, from)
	case wr:
		return fmt.Sprintf("T%d read key %d up to %d, which T%d appended", to, e.key, e.value, from)
	}
	return fmt.Sprintf("T%d read key %d without %d, which T%d appended", from, e.key, e.value, to)
}

// call is the call in which a moment lies.
func (a *analysis) call(node int) string {
	if node == start(node/moments) {
		return fmt.Sprintf("T%d's start", node/moments)
	}
	return fmt.Sprintf("T%d's commit", node/moments)
}
