package tikv

import (
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
