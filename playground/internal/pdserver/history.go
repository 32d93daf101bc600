package pdserver

import (
	"sync"

	"github.com/tikv-go/tikv/playground/internal/topology"
)

// history is what became of regions, in order: a member that follows learns of it from the
// leader (PD: pkg/syncer/history_buffer.go). One serves all members, as if each had what
// the leader before it had.
type history struct {
	mu      sync.Mutex
	next    uint64             // the index of the next one
	last    []*topology.Region // the last ones
	changed chan struct{}      // closed at the next one
	streams map[string]chan struct{}
}

// historySize is how many are kept; PD's grows where it has memory for more.
const historySize = 10000

// record adds regions.
func (h *history) record(regions ...*topology.Region) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next += uint64(len(regions))
	h.last = append(h.last, regions...)
	if len(h.last) >= 2*historySize {
		h.last = append([]*topology.Region(nil), h.last[len(h.last)-historySize:]...)
	}
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// happened hears of what becomes of a region.
func (pd *PD) happened(what topology.Happening) {
	pd.heartbeats.forget(what.Was.ID())
	pd.history.record(what.Now...)
}

// BucketsChanged tells that a region's stores have told PD of other buckets.
func (pd *PD) BucketsChanged(region uint64) {
	if r := pd.Topology.ByID(region); r != nil {
		pd.history.record(r)
	}
}

// from returns those from an index on, which are to come when changed is closed; false if
// they are gone.
func (h *history) from(index uint64) (found []*topology.Region, changed <-chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := h.next - uint64(len(h.last))
	if kept := h.next - min(h.next, historySize); kept > first {
		first = kept
	}
	if index < first || index > h.next {
		return nil, nil, false
	}
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.last[len(h.last)-int(h.next-index):], h.changed, true
}

// begin begins a member's stream, in place of another of its, at the next index. The
// channel is closed when there is another.
func (h *history) begin(member string) (replaced chan struct{}, next uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams == nil {
		h.streams = make(map[string]chan struct{})
	}
	if other := h.streams[member]; other != nil {
		close(other)
	}
	replaced = make(chan struct{})
	h.streams[member] = replaced
	return replaced, h.next
}

// end ends it.
func (h *history) end(member string, stream chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams[member] == stream {
		delete(h.streams, member)
	}
}
