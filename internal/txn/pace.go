package txn

import (
	"context"
	"time"

	"github.com/tikv-go/tikv/internal/router"
)

// width is how many requests of a flush are under way at a time. It begins small, doubles
// until a store says that it is busy, and from then on grows slowly and is halved each
// time that one does.
type width struct {
	now, most int
	busy      bool // a store has been
}

// firstWidth is what a flush begins with, widen the part of the most that it grows by.
const (
	firstWidth = 16
	widen      = 16
)

func newWidth(most int) width { return width{now: min(firstWidth, most), most: most} }

// learn takes in what came of as many requests.
func (w *width) learn(busy bool) {
	switch {
	case busy:
		w.busy, w.now = true, max(1, w.now/2)
	case w.busy:
		w.now = min(w.most, w.now+max(1, w.most/widen))
	default:
		w.now = min(w.most, 2*w.now)
	}
}

// pace is how long flushes take: a mean in which those of the past count less and less
// (client-go txnkv/transaction/txn.go, flushBatchDurationEWMA: an age of 10).
type pace struct{ mean time.Duration }

func (p *pace) took(d time.Duration) {
	if p.mean == 0 {
		p.mean = d
	} else {
		p.mean += (d - p.mean) * 2 / 11
	}
}

// wait comes before a flush: share is the part of the time that is spent here.
func (p *pace) wait(ctx, closing context.Context, share float64) error {
	d := time.Duration(share / (1 - share) * float64(p.mean))
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-closing.Done():
		return router.ErrClosed
	case <-ctx.Done():
		return new(router.Call).Ended(ctx)
	}
}
