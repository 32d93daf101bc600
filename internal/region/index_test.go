package region

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

// model is the cache's rules over a plain list.
type model []*Region

func (m model) find(key []byte) *Region {
	for _, r := range m {
		if r.Contains(key) {
			return r
		}
	}
	return nil
}

func (m model) findEnd(key []byte) *Region {
	for _, r := range m {
		if r.ContainsEnd(key) {
			return r
		}
	}
	return nil
}

func overlap(a, b keys.Range) bool { return !a.Intersect(b).Empty() }

func (m *model) insert(n *Region) bool {
	for _, r := range *m {
		if !overlap(r.Range, n.Range) {
			continue
		}
		if r.Epoch.Version > n.Epoch.Version ||
			r.Epoch.Version == n.Epoch.Version && r.ID == n.ID && r.Epoch.ConfVer > n.Epoch.ConfVer {
			return false
		}
	}
	*m = append(slices.DeleteFunc(*m, func(r *Region) bool { return overlap(r.Range, n.Range) }), n)
	return true
}

func (m *model) drop(r *Region) {
	*m = slices.DeleteFunc(*m, func(o *Region) bool { return o == r })
}

// The cache does what the model does, whatever is put in, taken out and asked, while
// it grows over many chunks and shrinks again.
func TestCacheFollowsModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { followModel(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func followModel(t *testing.T, rnd *rand.Rand) {
	tasks := task.New(t.Context())
	defer tasks.Close(nil)
	c, m := New(nil, tasks), model{}
	span := []int{40, 4000}[rnd.IntN(2)]
	key := func() []byte {
		if n := rnd.IntN(span + 1); n > 0 {
			return fmt.Appendf(nil, "%06d", n)
		}
		return nil
	}
	for step := range 4000 {
		switch op := rnd.IntN(20); {
		case op < 12:
			r := randomRegion(rnd, key, span)
			if got, want := len(c.insert(r)) == 1, m.insert(r); got != want {
				t.Fatalf("step %d: insert %+v: %v", step, r.Range, got)
			}
		case op < 14:
			if r := c.Lookup(key()); r != nil {
				c.drop([]*Region{r})
				m.drop(r)
				c.drop([]*Region{r}) // again does nothing
			}
		case op < 17:
			updateLeader(t, rnd, c, &m, key())
		default:
			replaceEpoch(t, rnd, c, &m, key(), span)
		}
		compare(t, step, c, m, key())
	}
}

func randomRegion(rnd *rand.Rand, key func() []byte, span int) *Region {
	start := key()
	end := fmt.Appendf(nil, "%06d", rnd.IntN(span)+1)
	if rnd.IntN(4) > 0 { // narrow ones, so that the cache grows
		n := 0
		_, _ = fmt.Sscanf(string(start), "%d", &n)
		end = fmt.Appendf(nil, "%06d", n+1+rnd.IntN(3))
	}
	if bytes.Compare(start, end) >= 0 || rnd.IntN(50) == 0 {
		end = nil
	}
	meta := &metapb.Region{
		Id: rnd.Uint64N(50) + 1, StartKey: start, EndKey: end,
		RegionEpoch: &metapb.RegionEpoch{Version: rnd.Uint64N(4), ConfVer: rnd.Uint64N(3)},
	}
	for i := range uint64(3) {
		meta.Peers = append(meta.Peers, &metapb.Peer{Id: meta.Id*10 + i, StoreId: i + 1})
	}
	return Found{Meta: meta}.Region()
}

func updateLeader(t *testing.T, rnd *rand.Rand, c *Cache, m *model, key []byte) {
	r := c.Lookup(key)
	if r == nil {
		return
	}
	peer := r.ID*10 + rnd.Uint64N(4) // the last is unknown
	got := c.UpdateLeader(r, peer)
	if r.PeerIndex(peer) < 0 {
		if got != nil {
			t.Fatal("an unknown peer leads")
		}
		c.drop([]*Region{r}) // it is invalid only
		m.drop(r)
		return
	}
	if got != r || got.Leader().Id != peer {
		t.Fatalf("leader %v", got)
	}
}

func peersOf(r *Region) (out []*metapb.Peer) {
	for i := range r.NumPeers() {
		out = append(out, r.Peer(i))
	}
	return out
}

func replaceEpoch(t *testing.T, rnd *rand.Rand, c *Cache, m *model, key []byte, span int) {
	r := c.Lookup(key)
	if r == nil {
		return
	}
	own := &metapb.Region{
		Id: r.ID, StartKey: r.Range.Start, EndKey: r.Range.End, Peers: peersOf(r),
		RegionEpoch: &metapb.RegionEpoch{Version: r.Epoch.Version + rnd.Uint64N(2), ConfVer: r.Epoch.ConfVer + rnd.Uint64N(3)},
	}
	own.RegionEpoch.ConfVer -= min(own.RegionEpoch.ConfVer, 1)
	behind := own.RegionEpoch.ConfVer < r.Epoch.ConfVer
	if got := c.ReplaceEpoch(r, []*metapb.Region{own}, 2); got != behind {
		t.Fatalf("behind: %v", got)
	}
	if behind {
		return
	}
	if own.RegionEpoch.Version != r.Epoch.Version || own.RegionEpoch.ConfVer != r.Epoch.ConfVer {
		m.drop(r)
	}
	entry := Found{Meta: own, Leader: own.Peers[1]}.Region()
	if m.insert(entry) { // the cache made one of its own
		m.drop(entry)
		*m = append(*m, c.Lookup(r.Range.Start))
	}
}

func compare(t *testing.T, step int, c *Cache, m model, key []byte) {
	if got, want := c.Lookup(key), m.find(key); got != want {
		t.Fatalf("step %d: Lookup(%q) = %v, not %v", step, key, got, want)
	}
	if got, want := c.LookupEnd(key), m.findEnd(key); got != want {
		t.Fatalf("step %d: LookupEnd(%q) = %v, not %v", step, key, got, want)
	}
	all := slices.Clone(m)
	slices.SortFunc(all, func(a, b *Region) int { return bytes.Compare(a.Range.Start, b.Range.Start) })
	if !slices.Equal(c.index.Load().all(), all) {
		t.Fatalf("step %d: the cache holds %d regions, the model %d", step, c.Len(), len(m))
	}
	checkIndex(t, c.index.Load())
	for i := 1; i < len(all); i++ {
		if end := all[i-1].Range.End; len(end) == 0 || bytes.Compare(end, all[i].Range.Start) > 0 {
			t.Fatalf("step %d: regions overlap", step)
		}
	}
}

// A lookup that hits the cache allocates nothing.
func TestLookupAllocatesNothing(t *testing.T) {
	tasks := task.New(t.Context())
	defer tasks.Close(nil)
	c := New(nil, tasks)
	for i := range 1000 {
		c.insert(Found{Meta: &metapb.Region{
			Id: uint64(i + 1), StartKey: fmt.Appendf(nil, "%04d", i), EndKey: fmt.Appendf(nil, "%04d", i+1),
			Peers: []*metapb.Peer{{Id: 1, StoreId: 1}},
		}}.Region())
	}
	key := []byte("0500x")
	least := 1e9
	for range 5 {
		least = min(least, testing.AllocsPerRun(100, func() { c.Lookup(key) }))
	}
	if r := c.Lookup(key); r == nil || r.ID != 501 || least > 0 {
		t.Fatal(r, least)
	}
}

// checkIndex checks what holds for every index.
func checkIndex(t *testing.T, x *index) {
	t.Helper()
	var walk func(n *node) (depth, regions int)
	walk = func(n *node) (depth, regions int) {
		if n.len() == 0 || n.len() > nodeSize || max(len(n.kids), len(n.regions)) != n.len() || len(n.kids) > 0 && len(n.regions) > 0 {
			t.Fatalf("a node of %d: %d regions, %d nodes", n.len(), len(n.regions), len(n.kids))
		}
		if string(n.low) != string(n.lower(0)) {
			t.Fatalf("a node from %q begins at %q", n.low, n.lower(0))
		}
		for i := range n.len() {
			low := n.lower(i)
			if len(low) < n.skip || string(low[:n.skip]) != string(n.low[:n.skip]) || n.heads[i] != head(low[n.skip:]) {
				t.Fatalf("%q in a node from %q that has %d bytes in common", low, n.low, n.skip)
			}
		}
		for i, kid := range n.kids {
			d, below := walk(kid)
			if i > 0 && d != depth {
				t.Fatal("the tree leans")
			}
			depth, regions = d, regions+below
		}
		return depth + 1, regions + len(n.regions)
	}
	count := 0
	if x.root != nil {
		_, count = walk(x.root)
	}
	if count != x.n {
		t.Fatalf("%d regions, not %d", x.n, count)
	}
}
