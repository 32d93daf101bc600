package txn

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
)

const (
	// beatEvery is the time between two heartbeats, beatTTL how long a lock lives
	// after one.
	beatEvery = 10 * time.Second
	beatTTL   = 20 * time.Second
	// maxUptime is the age at which a transaction that does not end is given up.
	maxUptime = time.Hour
	// maxMissed is how many heartbeats in a row may fail.
	maxMissed = 10
)

// heartbeat keeps the primary lock of a commit that takes long alive. Most commits end
// before the first is due, and cost no goroutine.
type heartbeat struct {
	mu      sync.Mutex
	timer   *time.Timer
	cancel  context.CancelFunc
	stopped bool
}

// start makes the first heartbeat due when half of the lock's life is over.
func (h *heartbeat) start(c *commit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil || h.stopped {
		return
	}
	h.timer = time.AfterFunc(c.ttl/2, func() {
		c.e.tasks.Go("heartbeat", func(ctx context.Context) {
			if ctx, ok := h.running(ctx); ok {
				c.keepAlive(ctx)
			}
		})
	})
}

// running returns the context of the heartbeats, unless they were stopped.
func (h *heartbeat) running(ctx context.Context) (context.Context, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return nil, false
	}
	ctx, h.cancel = context.WithCancel(ctx)
	return ctx, true
}

// stop ends the heartbeats.
func (h *heartbeat) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	if h.timer != nil {
		h.timer.Stop()
	}
	if h.cancel != nil {
		h.cancel()
	}
}

// keepAlive sends heartbeats until ctx ends or they are of no use any more.
func (c *commit) keepAlive(ctx context.Context) {
	for missed := 0; missed <= maxMissed && c.t.uptime() < maxUptime; {
		gone, err := c.sendHeartbeat(ctx)
		switch {
		case ctx.Err() != nil, gone:
			return
		case err != nil:
			missed++
			c.e.log.LogAttrs(ctx, slog.LevelWarn, "heartbeat failed", slog.Uint64("start_ts", c.start), slog.Any("error", err))
		default:
			missed = 0
		}
		if backoff.Sleep(ctx, beatEvery) != nil {
			return
		}
	}
}

// sendHeartbeat reports gone if the lock is not there any more.
func (c *commit) sendHeartbeat(ctx context.Context) (gone bool, err error) {
	o := c.t.opts.Read.CallOptions
	o.RetryFor = beatEvery
	call := c.e.call(ctx, c.op, o)
	req := &kvrpcpb.TxnHeartBeatRequest{
		Context:       &kvrpcpb.Context{},
		PrimaryLock:   c.primaryKey(),
		StartVersion:  c.start,
		AdviseLockTtl: uint64((c.t.uptime() + beatTTL).Milliseconds()),
	}
	resp, err := sendKey[*kvrpcpb.TxnHeartBeatResponse](ctx, c.e, call, c.primaryKey(), req)
	if err != nil {
		return false, err
	}
	return resp.GetError() != nil, nil
}
