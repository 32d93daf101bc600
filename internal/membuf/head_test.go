package membuf

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tikv-go/tikv/internal/keys"
)

// row is the key of a row of a table, as TiDB has them.
func row(table, handle int) []byte {
	k := binary.BigEndian.AppendUint64([]byte("t"), 1<<63|uint64(table))
	return binary.BigEndian.AppendUint64(append(k, "_r"...), 1<<63|uint64(handle))
}

// gaps counts the nodes below n that have a gap, and the entries with the head of the one
// before.
func gaps(n *node) (nodes, same int) {
	if n.front != whole {
		nodes++
	}
	for i := range n.n {
		if i > 0 && n.entries[i-1].head == n.entries[i].head {
			same++
		}
	}
	for i := int16(0); !n.leaf() && i <= n.n; i++ {
		g, s := gaps(n.kids[i])
		nodes, same = nodes+g, same+s
	}
	return nodes, same
}

// Of rows of many tables the heads tell all but a few apart, although no eight bytes of
// them do; and what is looked for and not there, because it differs in any of its bytes,
// gap or not, is found to be where it would be.
func TestGap(t *testing.T) {
	const tables, rows = 50, 200
	var b Buffer
	var all [][]byte
	for i := range tables * rows {
		all = append(all, row(i/rows, i%rows))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, i := range rnd.Perm(len(all)) {
		must(t, b.Put(all[i], nil, 0))
	}
	checkTree(t, &b)
	if nodes, same := gaps(b.root); nodes == 0 || same > len(all)/20 {
		t.Fatalf("%d nodes with a gap, %d keys of %d have the head of another", nodes, same, len(all))
	}
	check := func(probe []byte) {
		t.Helper()
		at, there := slices.BinarySearchFunc(all, probe, bytes.Compare)
		if _, ok := b.Get(probe); ok != there {
			t.Fatalf("Get(%x) = %v", probe, ok)
		}
		e, ok := b.view().Scan(keys.Range{Start: probe}, false).Next()
		if ok != (at < len(all)) || ok && !bytes.Equal(e.Key, all[at]) {
			t.Fatalf("from %x on: %x, %v; want entry %d", probe, e.Key, ok, at)
		}
		e, ok = b.view().Scan(keys.Range{End: probe}, true).Next()
		if ok != (at > 0) || ok && !bytes.Equal(e.Key, all[at-1]) {
			t.Fatalf("below %x: %x, %v; want entry %d", probe, e.Key, ok, at-1)
		}
	}
	for range 300 {
		k := all[rnd.IntN(len(all))]
		check(k)
		for i := range k {
			check(k[:i+1])
			for _, by := range []byte{1, 127, 128, 255} {
				probe := bytes.Clone(k)
				probe[i] += by
				check(probe)
			}
		}
		check(append(bytes.Clone(k), 0))
	}
	odd := map[int][]byte{} // and they can be written
	for i := 9; i < 17; i++ {
		k := bytes.Clone(all[rnd.IntN(len(all))])
		k[i]++
		odd[i] = k
	}
	for i := 9; i < 17; i++ {
		must(t, b.Put(odd[i], nil, 0))
		all = append(all, odd[i])
		slices.SortFunc(all, bytes.Compare)
		checkTree(t, &b)
		check(odd[i])
	}
	for _, k := range all {
		check(k)
	}
}
