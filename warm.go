package tikv

import (
	"context"
	"errors"
	"strconv"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

// warmRanges is how many ranges are loaded at once.
const warmRanges = 4

// Warm loads the regions of ranges of user keys of the mode, and connects to the stores
// that lead them, so that the first call does not have to. It ends early where the region
// cache has no room for more (WithRegionCacheBytes). A store that cannot be reached is no
// error; PD that cannot be is, at once.
func (c *Client) Warm(ctx context.Context, mode KeyMode, ranges ...Range) error {
	const op = "Warm"
	if err := c.check(op); err != nil {
		return err
	}
	var cd codec.Codec
	switch mode {
	case KeyTxn:
		cd = c.engine.txn
	case KeyRaw:
		cd = c.engine.raw
	default:
		return &ArgumentError{Op: op, Arg: "mode", Reason: "is neither KeyTxn nor KeyRaw"}
	}
	for i, r := range ranges {
		if err := r.check(op); err != nil {
			return &ArgumentError{Op: op, Arg: "range " + strconv.Itoa(i), Reason: "ends before it starts"}
		}
	}
	regions := c.engine.regions.Load()
	err := task.Each(ctx, warmRanges, len(ranges), func(ctx context.Context, i int) error {
		return regions.Preload(ctx, cd.RegionRange(cd.Range(keys.Range(ranges[i]))))
	})
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return &canceledError{op: op, causes: []error{context.Cause(ctx), ctx.Err()}}
	}
	return mapError(c.errorContext(op, cd), err)
}
