package check

import "container/heap"

// maxTries bounds the search for a shorter cycle.
const maxTries = 300

// cost is how much there is to explain about an edge: what is named after the number of
// its anti-dependencies shall have few.
func (e edge) cost() int {
	switch e.kind {
	case passing, within:
		return 0
	case rw:
		return 100
	}
	return 1
}

// cycle returns a short cycle that begins at a transaction, or nil if there is none.
func (g *graph) cycle() []edge {
	part := g.components()
	var best []edge
	least, tries := 0, 0
	for _, edges := range g.out {
		for _, e := range edges {
			if part[e.from] != part[e.to] || e.kind == within || e.kind == passing || e.kind == called {
				continue
			}
			back, cost := g.path(e.to, e.from, part)
			if cost += e.cost(); best == nil || cost < least {
				best, least = append([]edge{e}, back...), cost
			}
			if tries++; tries == maxTries {
				return best
			}
		}
	}
	return best
}

// path returns the cheapest path between two nodes of one component (Dijkstra).
func (g *graph) path(from, to int, part []int) (path []edge, cost int) {
	costs := map[int]int{from: 0}
	by := make(map[int]edge)
	queue := &stops{{from, 0}}
	for queue.Len() > 0 {
		s := heap.Pop(queue).(stop)
		if s.node == to {
			break
		}
		if s.cost > costs[s.node] {
			continue
		}
		for _, e := range g.out[s.node] {
			if part[e.to] != part[from] {
				continue
			}
			c := s.cost + e.cost()
			if old, ok := costs[e.to]; !ok || c < old {
				costs[e.to], by[e.to] = c, e
				heap.Push(queue, stop{e.to, c})
			}
		}
	}
	for at := to; at != from; at = by[at].from {
		path = append([]edge{by[at]}, path...)
	}
	return path, costs[to]
}

// stops is a heap of nodes to go on from.
type stops []stop

type stop struct{ node, cost int }

func (s stops) Len() int           { return len(s) }
func (s stops) Less(i, j int) bool { return s[i].cost < s[j].cost }
func (s stops) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *stops) Push(x any)        { *s = append(*s, x.(stop)) }
func (s *stops) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// components returns the strongly connected component of each node (Tarjan, without
// recursion). Nodes of a cycle share one.
func (g *graph) components() []int {
	n := len(g.out)
	var (
		part    = make([]int, n) // 0: not known yet
		index   = make([]int, n) // 0: not visited yet
		low     = make([]int, n)
		next    = make([]int, n) // the edge to go on with
		stack   []int            // visited, of no component yet
		path    []int            // from the root to here
		visited int
		parts   int
	)
	for root := range n {
		if index[root] != 0 {
			continue
		}
		path = append(path[:0], root)
		for len(path) > 0 {
			v := path[len(path)-1]
			if index[v] == 0 {
				visited++
				index[v], low[v] = visited, visited
				stack = append(stack, v)
			}
			if next[v] < len(g.out[v]) {
				w := g.out[v][next[v]].to
				next[v]++
				if index[w] == 0 {
					path = append(path, w)
				} else if part[w] == 0 {
					low[v] = min(low[v], index[w])
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				low[path[len(path)-1]] = min(low[path[len(path)-1]], low[v])
			}
			if low[v] == index[v] {
				parts++
				for part[v] == 0 {
					w := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					part[w] = parts
				}
			}
		}
	}
	return part
}
