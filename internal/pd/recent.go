package pd

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
)

// How often a recent timestamp is kept fresh: half of the age that callers accept, within
// these bounds, and no longer than recentIdle after the last of them.
const (
	recentMin  = 250 * time.Millisecond
	recentMax  = 2 * time.Second
	recentIdle = 10 * time.Second
)

// recent keeps the newest timestamp young in the background while somebody asks for recent
// ones, so that they do not wait for PD.
type recent struct {
	client *Client

	mu       sync.Mutex
	running  bool
	asked    time.Time     // last by a caller
	interval time.Duration // the shortest of late
	narrow   time.Time     // when that was asked for last
	sooner   chan struct{} // closed when the interval has become shorter
}

// RecentTimestamp returns a timestamp that PD gave out at most maxAge ago, the last one
// received if it is. While it is called the last one is kept fresh in the background.
func (c *Client) RecentTimestamp(ctx context.Context, maxAge time.Duration) (uint64, error) {
	if maxAge > 0 {
		c.recent.want(maxAge / 2)
		if ts, age, _ := c.oracle.last(); ts != 0 && age <= maxAge {
			return ts, nil
		}
	}
	return c.Timestamp(ctx)
}

// StaleTimestamp returns a timestamp of age ago: PD's clock is the last timestamp received
// and the time that has passed since. It waits for PD only where there is none of late.
func (c *Client) StaleTimestamp(ctx context.Context, age time.Duration) (uint64, error) {
	c.recent.want(recentMax)
	ts, asked, since := c.oracle.last()
	if ts == 0 || asked > recentIdle {
		var err error
		if ts, err = c.Timestamp(ctx); err != nil {
			return 0, err
		}
		since = 0
	}
	physical := int64(ts>>logicalBits) + int64((since-age)/time.Millisecond)
	if age < 0 || physical <= 0 {
		return 0, &Error{Op: opTso, Kind: Rejected, Message: fmt.Sprintf("no timestamp of %v ago", age)}
	}
	return uint64(physical) << logicalBits, nil
}

// last is the newest timestamp, how long ago it was asked for, and how long ago it came.
func (o *oracle) last() (ts uint64, asked, came time.Duration) {
	came, asked = time.Duration(o.cameAt.Load()), time.Duration(o.askedAt.Load())
	ts = o.newest.Load()
	now := time.Since(o.epoch)
	return ts, now - asked, now - came
}

// want notes that somebody wants timestamps that are refreshed every d.
func (r *recent) want(d time.Duration) {
	d = min(max(d, recentMin), recentMax)
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = now
	switch {
	case !r.running:
		r.interval, r.narrow, r.sooner = d, now, make(chan struct{})
		r.running = r.client.tasks.Go("pd recent timestamp", r.keep)
	case d <= r.interval:
		if d < r.interval {
			close(r.sooner)
			r.sooner = make(chan struct{})
		}
		r.interval, r.narrow = d, now
	case now.Sub(r.narrow) > recentIdle:
		r.interval, r.narrow = d, now
	}
}

// keep is the task that refreshes.
func (r *recent) keep(ctx context.Context) {
	timer := time.NewTimer(recentMax)
	defer timer.Stop()
	for {
		interval, sooner, ok := r.next()
		if !ok {
			return
		}
		_, age, _ := r.client.oracle.last()
		if age >= interval { // ordinary calls have not refreshed it
			_, _ = r.client.Timestamp(ctx) // an error is for who asks next
			age = 0
		}
		timer.Reset(interval - age)
		select {
		case <-timer.C:
		case <-sooner:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// next is the interval, or that nobody asks any more.
func (r *recent) next() (time.Duration, <-chan struct{}, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = time.Since(r.asked) < recentIdle
	return r.interval, r.sooner, r.running
}

// MinTimestamp is the smallest of the newest timestamps of PD's keyspace groups.
func (c *Client) MinTimestamp(ctx context.Context) (uint64, error) {
	resp, err := ask(ctx, c, "GetMinTS", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetMinTSResponse, error) {
		return pd.GetMinTS(ctx, &pdpb.GetMinTSRequest{Header: c.header()})
	})
	return uint64(resp.GetTimestamp().GetPhysical())<<logicalBits + uint64(resp.GetTimestamp().GetLogical()), err
}

// ExternalTimestamp is the moment that was published last by SetExternalTimestamp, by any
// client; 0 for none.
func (c *Client) ExternalTimestamp(ctx context.Context) (uint64, error) {
	resp, err := ask(ctx, c, "GetExternalTimestamp", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetExternalTimestampResponse, error) {
		return pd.GetExternalTimestamp(ctx, &pdpb.GetExternalTimestampRequest{Header: c.header()})
	})
	return resp.GetTimestamp(), err
}

// SetExternalTimestamp publishes a moment for readers. PD refuses one in the future, and
// one that is not above the last.
func (c *Client) SetExternalTimestamp(ctx context.Context, ts uint64) error {
	_, err := ask(ctx, c, "SetExternalTimestamp", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.SetExternalTimestampResponse, error) {
		return pd.SetExternalTimestamp(ctx, &pdpb.SetExternalTimestampRequest{Header: c.header(), Timestamp: ts})
	})
	if e, ok := err.(*Error); ok && e.Kind == Rejected && e.Tried > 1 {
		// An attempt whose answer was lost may have done it: then PD refuses it now.
		if now, failed := c.ExternalTimestamp(ctx); failed == nil && now == ts {
			return nil
		}
	}
	return err
}
