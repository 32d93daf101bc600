package transport

import (
	"context"
	"sync"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// feedbacks is what stores say of their health in frames, at most once a second on each
// stream (TiKV src/server/service/kv.rs, HealthFeedbackAttacher), on its way to the
// config's OnFeedback. The receive loop only leaves the newest of each store here.
type feedbacks struct {
	mu      sync.Mutex
	started bool
	newest  map[uint64]*kvrpcpb.HealthFeedback // by store, not yet told
	wake    chan struct{}                      // newest is not empty
}

// hear takes a frame's feedback, encoded. What cannot be decoded is left out: the
// answers beside it are good.
func (p *Pool) hear(data []byte) {
	f := &kvrpcpb.HealthFeedback{}
	if p.cfg.OnFeedback == nil || f.Unmarshal(data) != nil {
		return
	}
	h := &p.feedbacks
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.newest[f.StoreId]; old != nil && old.FeedbackSeqNo > f.FeedbackSeqNo {
		return // two streams of a store
	}
	h.newest[f.StoreId] = f
	if !h.started {
		h.started = p.tasks.Go("transport feedback", p.tell)
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// tell gives feedback to OnFeedback, one at a time, until the pool ends.
func (p *Pool) tell(ctx context.Context) {
	h := &p.feedbacks
	for {
		select {
		case <-h.wake:
		case <-ctx.Done():
			return
		}
		h.mu.Lock()
		newest := h.newest
		h.newest = make(map[uint64]*kvrpcpb.HealthFeedback)
		h.mu.Unlock()
		for _, f := range newest {
			p.cfg.OnFeedback(f)
		}
	}
}
