package playground

import (
	"bytes"
	"log/slog"
	"slices"
	"sync"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// growth splits regions that have become too large.
type growth struct {
	limit  uint64 // TiKV's region-max-size; 0: none
	engine storage.Engine
	topo   *topology.Topology
	logger *slog.Logger

	mu      sync.Mutex
	written map[uint64]uint64 // bytes since the region was last measured
}

func newGrowth(limit int, e storage.Engine, t *topology.Topology, l *slog.Logger) *growth {
	return &growth{limit: uint64(limit), engine: e, topo: t, logger: l, written: make(map[uint64]uint64)}
}

// wrote hears that a request of so many bytes was written to a region, in which no
// command of its caller runs any more. A region is measured again after a sixteenth of a
// part was written to it (TiKV raftstore/src/store/config.rs, region_split_check_diff).
func (g *growth) wrote(region uint64, size int) {
	if g.limit == 0 {
		return
	}
	g.mu.Lock()
	g.written[region] += uint64(size)
	due := g.written[region] > g.part()/16
	if due {
		delete(g.written, region)
	}
	g.mu.Unlock()
	r := g.topo.ByID(region)
	if !due || r == nil {
		return
	}
	at := g.splitKeys(r.Range())
	if len(at) == 0 {
		return
	}
	if _, err := g.topo.Split(region, at); err != nil { // another change came first
		g.logger.Debug("region not split by size", slog.Uint64("region", region), slog.Any("error", err))
	}
}

// part is TiKV's region-split-size: the limit is one and a half of it.
func (g *growth) part() uint64 { return g.limit * 2 / 3 }

// maxParts is TiKV's batch-split-limit.
const maxParts = 10

type entry struct {
	key  []byte
	size uint64
}

// splitKeys are where a region is to be split (raftstore/src/coprocessor/split_check/
// size.rs, Checker): after each part, but not so that the last part could have stayed
// with the one before.
func (g *growth) splitKeys(r keys.Range) [][]byte {
	var at [][]byte
	var now uint64
	for _, e := range g.entries(r) {
		now += e.size
		if now > g.part() && len(at) < maxParts {
			at = append(at, e.key)
			if now-e.size == g.part() {
				now = e.size
			} else {
				now = 0
			}
		}
	}
	if len(at) > 0 && now+g.part() < g.limit {
		at = at[:len(at)-1]
	}
	return splittable(at, r)
}

// entries are a range's stored pairs of the families that count (engine_traits:
// LARGE_CFS), in order.
func (g *growth) entries(r keys.Range) []entry {
	snap := g.engine.Snapshot()
	defer snap.Close()
	var all []entry
	for _, cf := range []storage.CF{storage.Default, storage.Write} {
		for k, v := range snap.Scan(cf, r, false) {
			all = append(all, entry{bytes.Clone(k), uint64(len(k) + len(v))})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	return all
}

// splittable takes the timestamps off keys that have one, and leaves out those that are
// no bounds within the range (raftstore/src/coprocessor/split_observer.rs, adjust_key).
func splittable(at [][]byte, r keys.Range) [][]byte {
	var good [][]byte
	last := r.Start
	for _, k := range at {
		if _, rest, err := keys.Decode(k); err == nil {
			k = k[:len(k)-len(rest)]
		}
		if bytes.Compare(k, last) > 0 && r.Contains(k) {
			good = append(good, k)
			last = k
		}
	}
	return good
}
