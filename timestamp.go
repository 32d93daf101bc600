package tikv

import (
	"context"
	"fmt"
	"time"
)

// Timestamp is a point in the cluster's history: PD's wall clock in milliseconds
// and an 18-bit counter.
type Timestamp uint64

const logicalBits = 18

// TimestampAt is the first timestamp of t's millisecond.
func TimestampAt(t time.Time) Timestamp { return Timestamp(t.UnixMilli()) << logicalBits }

// Time is ts's physical part.
func (ts Timestamp) Time() time.Time { return time.UnixMilli(int64(ts >> logicalBits)) }

// Logical is ts's counter.
func (ts Timestamp) Logical() int { return int(ts & (1<<logicalBits - 1)) }

// String shows ts as a number, with its time and counter.
func (ts Timestamp) String() string {
	return fmt.Sprintf("%d (%s+%d)", uint64(ts), ts.Time().UTC().Format("2006-01-02T15:04:05.000Z"), ts.Logical())
}

// Timestamp fetches a fresh timestamp from PD. Concurrent calls share a round trip.
func (c *Client) Timestamp(ctx context.Context) (Timestamp, error) {
	const op = "Timestamp"
	if err := c.check(op); err != nil {
		return 0, err
	}
	ts, err := c.engine.pd.Timestamp(ctx)
	if err != nil {
		return 0, mapError(c.errorContext(op, c.engine.txn), err)
	}
	return Timestamp(ts), nil
}

// RecentTimestamp returns a timestamp issued at most maxAge ago, from memory where
// it can: no round trip, and perhaps blind to the newest commits. While it is called, the
// one in memory is kept young in the background, as often as the smallest maxAge of late
// needs, and at most four times a second.
func (c *Client) RecentTimestamp(ctx context.Context, maxAge time.Duration) (Timestamp, error) {
	const op = "RecentTimestamp"
	if err := c.check(op); err != nil {
		return 0, err
	}
	if maxAge < 0 {
		return 0, &ArgumentError{Op: op, Arg: "maxAge", Reason: "must not be negative"}
	}
	ts, err := c.engine.pd.RecentTimestamp(ctx, maxAge)
	if err != nil {
		return 0, mapError(c.errorContext(op, c.engine.txn), err)
	}
	return Timestamp(ts), nil
}
