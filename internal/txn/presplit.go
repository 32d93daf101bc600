package txn

import (
	"context"
	"log/slog"
	"time"

	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/router"
)

// A region that is about to get so many keys of one transaction is split before, at keys
// so many bytes apart (client-go txnkv/transaction/2pc.go, preSplitDetectThreshold and
// preSplitSizeThreshold): else all of it is written by one store, which splits it under the
// load.
const (
	presplitKeys  = 100_000
	presplitBytes = 32 << 20
	presplitWait  = 30 * time.Second
)

// presplit splits regions that would get too much, and spreads what comes of them. It
// returns the runs as they are then. That it fails is no harm.
func (c *commit) presplit(ctx context.Context, call *router.Call, runs []router.Run) ([]router.Run, error) {
	var at [][]byte
	for _, r := range runs {
		if r.To-r.From < presplitKeys {
			continue
		}
		sum := 0
		for i := r.From; i < r.To; i++ {
			if sum += c.muts.size(i); sum >= presplitBytes && i+1 < r.To {
				at, sum = append(at, c.e.codec.RegionKey(c.muts.keys[i+1])), 0
			}
		}
	}
	if len(at) == 0 {
		return runs, nil
	}
	waiting, cancel := context.WithTimeoutCause(ctx, presplitWait, pd.ErrNoAnswer)
	_, split, scattered, err := c.e.pd.SplitAndScatterRegions(waiting, at, "", 1)
	cancel()
	c.e.log.LogAttrs(ctx, slog.LevelDebug, "split for a large transaction", slog.Uint64("start_ts", c.start), slog.Int("keys", len(at)),
		slog.Int("split_percent", split), slog.Int("scattered_percent", scattered), slog.Any("error", err))
	for _, r := range runs {
		c.e.router.Reload(r.Region)
	}
	return c.e.router.Runs(ctx, call, c.muts.keys, runs[:0])
}
