package txn

import (
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/router"
)

// Requests that are not the package's own read as a Snapshot does by these, in the order
// of Ready, Fill, Meet where the answer tells of locks, and then again Fill, and Check.

// Ready comes before the first request. Its error is that of a timestamp that PD has not
// issued.
func (s *Snapshot) Ready(ctx context.Context) error { return s.ready(ctx) }

// Fill makes a request's context what the view's own reads have: isolation, and the locks
// that need not be met again.
func (s *Snapshot) Fill(c *kvrpcpb.Context) { s.fill(c) }

// Meet deals with locks that a request met: when it returns, the request may be sent again.
func (s *Snapshot) Meet(ctx context.Context, call *router.Call, locks []*kvrpcpb.LockInfo) error {
	if call.Retry == nil {
		call.Retry = backoff.For(ctx, s.opts.retryFor())
	}
	var all []lock.Lock
	for _, l := range locks {
		all = append(all, lock.FromProto(l)...)
	}
	return s.meet(ctx, call, all, false)
}

// Check refuses what was read behind the safe point.
func (s *Snapshot) Check(ctx context.Context) error { return s.check(ctx, time.Now()) }

// Options are the view's.
func (s *Snapshot) Options() ReadOptions { return *s.opts }
