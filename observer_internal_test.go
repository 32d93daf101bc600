package tikv

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tikv-go/tikv/internal/region"
)

type slowHook struct {
	blocked chan struct{}
	told    atomic.Int64
}

func (h *slowHook) OnTopologyChange(TopologyInfo) {
	<-h.blocked
	h.told.Add(1)
}

// A hook that is far behind is not told everything, and the logger knows.
func TestObserverLeavesOut(t *testing.T) {
	var log bytes.Buffer
	h := &slowHook{blocked: make(chan struct{})}
	w := &watch{}
	w.add(h)
	see := w.observe(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), nil)
	if see.conn != nil || see.pd != nil || see.change == nil || see.leader == nil {
		t.Errorf("%+v", see)
	}
	const n = 3 * observerRoom
	for range n {
		see.change(region.Change{Kind: region.StoreUp})
	}
	close(h.blocked)
	see.observer.end()
	told := int(h.told.Load())
	if told < observerRoom || told > n-observerRoom || !strings.Contains(log.String(), "changes were left out") {
		t.Errorf("%d of %d told, log: %s", told, n, &log)
	}
}

// Without hooks of a kind nothing is looked at.
func TestObserverIsThereForHooks(t *testing.T) {
	w := &watch{}
	if see := w.observe(t.Context(), nil, nil); see.observer != nil || see.conn != nil || see.change != nil || see.leader != nil || see.pd != nil {
		t.Errorf("%+v", see)
	}
	for event := range topologyEvents {
		if strings.Contains(TopologyEvent(event).String(), "Event") {
			t.Error(TopologyEvent(event))
		}
	}
	if got := TopologyEvent(99).String(); got != "TopologyEvent(99)" {
		t.Error(got)
	}
}
