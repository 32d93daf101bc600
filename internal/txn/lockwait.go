package txn

import (
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/router"
)

// patience is how long a request waits in TiKV's queue. TiKV itself gives up after a
// second, by default, and says who holds the lock (wait-for-lock-timeout, src/server/
// lock_manager/config.rs); then it is for the client to see whether that one is alive,
// and to ask again.
type patience struct {
	turns  int           // answers that told of a lock
	atOnce int           // those of them that came without a wait
	holder time.Duration // that who holds the lock will live, if nobody prolongs it
	lock   *lock.Lock    // the lock, once TiKV has told of it
}

const (
	// firstWait is how long a request waits before it is known whether who holds the lock
	// is alive: a dead one costs no more.
	firstWait = 200 * time.Millisecond
	// longestWait is well within the time of one attempt.
	longestWait = 10 * time.Second
	// touched is the age up to which a lock is taken for that of one who is alive (client-go
	// txnkv/transaction/pessimistic.go, skipResolveThresholdMs).
	touched = 300 // milliseconds
	noWait  = -1  // for TiKV, as any negative number
)

// woken notes that the lock was released, and another may be there next time.
func (w *patience) woken() { *w = patience{} }

// millis is the wait that a request asks for; attempt is the time of one.
func (w *patience) millis(ctx context.Context, l *lockCall, attempt time.Duration) int64 {
	if l.o.NoWait {
		return noWait
	}
	d := min(longestWait, attempt/2)
	if w.turns == 0 {
		d = min(d, firstWait)
	} else if w.holder > 0 {
		d = min(d, w.holder)
	}
	if l.o.Wait > 0 {
		d = min(d, l.o.Wait-time.Since(l.began))
	}
	if deadline, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(deadline))
	}
	if d <= 0 {
		return noWait
	}
	return max(1, d.Milliseconds())
}

// over reports whether the call has waited long enough.
func (l *lockCall) over() bool {
	return l.o.NoWait || l.o.Wait > 0 && time.Since(l.began) >= l.o.Wait
}

// await deals with the locks that are in the way of a request: when it returns nil, the
// request is to be sent again.
func (r *lockRequest) await(ctx context.Context, met []*kvrpcpb.LockInfo) error {
	l := r.l
	r.begin(ctx)
	dead, alive, waited := judge(met)
	holder := time.Duration(0)
	if len(dead) > 0 {
		v, err := l.t.e.locks.ForWrite(ctx, &r.call, l.t.StartTS(), dead)
		if err != nil {
			return err
		}
		if v.Live != nil {
			alive, holder = v.Live, v.Wait
		}
	}
	r.wait.lock = alive
	if alive == nil { // the way is free
		r.wait.holder = 0
		return nil
	}
	if l.over() {
		return &Locked{Lock: *alive}
	}
	r.call.Note(router.Attempt{Reason: router.Lock, Err: &Locked{Lock: *alive}})
	r.wait.turns++
	r.wait.holder = holder
	if waited {
		r.wait.atOnce = 0
		return nil
	}
	// TiKV did not queue the request. The first time that is how it answers who is the
	// first to want a shared lock for himself (acquire_pessimistic_lock.rs,
	// NotInShrinkMode); after that it has its reasons, and is not to be asked incessantly.
	if r.wait.atOnce++; r.wait.atOnce == 1 {
		return nil
	}
	d := min(backoff.LockRead.Base<<min(r.wait.atOnce, 10), time.Second)
	if l.o.Wait > 0 {
		d = min(d, l.o.Wait-time.Since(l.began))
	}
	return l.t.e.router.Wait(ctx, &r.call, backoff.Kind{Name: backoff.LockRead.Name, Base: d, Cap: d})
}

// send sends the request, which waits in TiKV's queue for a lock that is known by now.
func (r *lockRequest) send(ctx context.Context) error {
	if r.wait.lock != nil {
		defer r.l.t.e.locks.Waits(&r.call, r.l.t.StartTS(), *r.wait.lock)()
	}
	return r.waited(r.l.t.e.router.SendInto(ctx, &r.call, r.part.Region, &r.req, &r.resp))
}

// waited counts the time that an answered request was in TiKV's queue; err is what became
// of it.
func (r *lockRequest) waited(err error) error {
	if ns := r.resp.GetExecDetailsV2().GetWriteDetail().GetPessimisticLockWaitNanos(); err == nil && ns > 0 {
		r.call.Count(router.LockWait, router.Lock, int64(ns))
	}
	return err
}

// judge tells the locks whose owners have to be asked for from one that was written so
// recently that its owner lives. waited is whether the request was queued: only then does
// TiKV say how old a lock is.
func judge(met []*kvrpcpb.LockInfo) (ask []lock.Lock, alive *lock.Lock, waited bool) {
	for _, info := range met {
		waited = waited || info.GetDurationToLastUpdateMs() > 0
		members := info.GetSharedLockInfos()
		if len(members) == 0 {
			members = []*kvrpcpb.LockInfo{info}
		}
		for i, l := range lock.FromProto(info) {
			age := members[i].GetDurationToLastUpdateMs()
			waited = waited || age > 0
			if age > 0 && age < touched {
				alive = &l
				continue
			}
			ask = append(ask, l)
		}
	}
	return ask, alive, waited
}
