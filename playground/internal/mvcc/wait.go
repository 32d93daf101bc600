package mvcc

import (
	"context"
	"errors"
	"time"

	"github.com/pingcap/kvproto/pkg/deadlock"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/playground/internal/lockwait"
)

// Region is where a pessimistic lock request found its keys, for the time when it is
// resumed.
type Region interface {
	// Check returns what the request would be refused with now. The caller is in the
	// region that has the key now.
	Check() *errorpb.Error
	// Enter checks the same and holds the region as it is until leave.
	Enter() (leave func(), refused *errorpb.Error)
}

// Waiting is a pessimistic lock request that waits for another transaction's lock.
type Waiting struct {
	waiter *lockwait.Waiter
	e      *Engine
	req    *kvrpcpb.PessimisticLockRequest
	ask    ask
	region Region
	effort *effort
	began  time.Time // the wait
}

// wait queues the request for the lock that it met, unless it does not want to wait. The
// caller holds the key's latch.
func (p *pessimisticLock) wait(f *effort, a ask, region Region, met error) *Waiting {
	info := lockOf(met)
	timeout, ok := lockwait.Timeout(p.req.WaitTimeout)
	if info == nil || !ok || p.cfg.Waits == nil {
		return nil
	}
	w := &Waiting{e: p.Engine, req: p.req, ask: a, region: region, effort: f, began: p.now()}
	w.waiter = &lockwait.Waiter{
		Key: a.raw, Share: a.share, StartTS: p.startTS, Timeout: timeout, First: p.req.IsFirstLock,
		Tag: p.req.Context.GetResourceGroupTag(), Region: p.req.Context.GetRegionId(), Keys: len(p.req.Mutations),
	}
	if p.force() {
		w.waiter.Resume = w.resume
	}
	p.cfg.Waits.Add(w.waiter, a.enc, info)
	return w
}

// lockOf is the lock that a request failed at, nil if it failed at something else.
func lockOf(err error) *kvrpcpb.LockInfo {
	var f failure
	if errors.As(err, &f) {
		return f.Locked
	}
	return nil
}

// Wait returns the request's answer once it has one. The caller is in no region: what
// ends the wait comes through them.
func (w *Waiting) Wait(ctx context.Context) *kvrpcpb.PessimisticLockResponse {
	o, err := w.e.cfg.Waits.Wait(ctx, w.waiter)
	if err != nil { // it may be under way again
		return w.failed(err)
	}
	resp := w.answer(o)
	if resp.RegionError == nil {
		w.effort.waited = w.e.since(w.began)
		resp.ExecDetailsV2 = w.effort.details()
	}
	return resp
}

func (w *Waiting) answer(o lockwait.Outcome) *kvrpcpb.PessimisticLockResponse {
	var err error
	switch {
	case o.Answer != nil:
		return o.Answer.(*kvrpcpb.PessimisticLockResponse)
	case o.TimedOut != nil:
		err = errLocked(o.TimedOut)
	case o.Deadlock != nil:
		err = failure{&kvrpcpb.KeyError{Deadlock: o.Deadlock}}
	case o.Released != nil:
		err = errConflict(&kvrpcpb.WriteConflict{
			StartTs: w.req.StartVersion, ConflictTs: o.Released.StartTS, ConflictCommitTs: o.Released.CommitTS,
			Key: w.ask.raw, Primary: w.req.PrimaryLock, Reason: kvrpcpb.WriteConflict_PessimisticRetry,
		})
	}
	return w.failed(err)
}

// failed is the answer of a request that failed while it waited: in the mode that takes
// locks in spite of conflicts every key has a result (TiKV src/storage/lock_manager/
// lock_wait_context.rs, finish_request; src/storage/types.rs, into_pb).
func (w *Waiting) failed(err error) *kvrpcpb.PessimisticLockResponse {
	resp := &kvrpcpb.PessimisticLockResponse{Errors: []*kvrpcpb.KeyError{keyError(err)}}
	if w.waiter.Resume != nil {
		resp.Results = failedResults()
	}
	return resp
}

func failedResults() []*kvrpcpb.PessimisticLockKeyResult {
	return []*kvrpcpb.PessimisticLockKeyResult{{Type: kvrpcpb.PessimisticLockKeyResultType_LockResultFailed}}
}

// resume runs the request again. handed tells that the command which released the lock
// passes the key's latch on, so that nobody comes between (TiKV src/storage/txn/
// scheduler.rs, schedule_awakened_pessimistic_locks).
func (w *Waiting) resume(ctx context.Context, handed bool) {
	if handed {
		if refused := w.check(); refused != nil {
			w.refuse(refused)
			return
		}
		w.again(ctx)
		return
	}
	leave, refused := w.enter()
	if refused != nil {
		w.refuse(refused)
		return
	}
	defer leave()
	release, err := w.e.latches.Acquire(ctx, w.ask.enc)
	if err != nil {
		w.e.cfg.Waits.Answer(w.waiter, w.failed(err))
		return
	}
	defer release()
	w.again(ctx)
}

func (w *Waiting) check() *errorpb.Error {
	if w.region == nil {
		return nil
	}
	return w.region.Check()
}

func (w *Waiting) enter() (func(), *errorpb.Error) {
	if w.region == nil {
		return func() {}, nil
	}
	return w.region.Enter()
}

func (w *Waiting) refuse(e *errorpb.Error) {
	w.e.cfg.Waits.Answer(w.waiter, &kvrpcpb.PessimisticLockResponse{RegionError: e, Results: failedResults()})
}

// again takes the lock, or waits for the next holder, unless that is a shared lock, of
// which the client is told (TiKV src/storage/txn/commands/
// acquire_pessimistic_lock_resumed.rs; src/storage/txn/scheduler.rs,
// on_wait_for_lock_after_resuming). A lock that was asked for in share mode is taken as
// any other by then: the two modes are not meant to meet. The caller holds the key's
// latch.
func (w *Waiting) again(ctx context.Context) {
	p := &pessimisticLock{req: w.req}
	var t taken
	err := w.effort.run(ctx, w.req.StartVersion, []key{w.ask.key}, func(c *change) (err error) {
		p.change = c
		t, err = p.take(ask{w.ask.key, w.ask.insert, false})
		return err
	})
	if info := lockOf(err); info != nil && info.LockType != kvrpcpb.Op_SharedLock {
		w.e.cfg.Waits.Again(w.waiter, info)
		return
	}
	if err != nil {
		w.e.cfg.Waits.Answer(w.waiter, w.failed(err))
		return
	}
	resp := &kvrpcpb.PessimisticLockResponse{}
	p.report(resp, []taken{t})
	w.e.cfg.Waits.Answer(w.waiter, resp)
}

// lockMove is what a command did to a key that may be waited for: it released the lock,
// or took it.
type lockMove struct {
	key      key
	released lockwait.Release
	acquired *kvrpcpb.LockInfo // nil: released
}

func (e *Engine) waited() bool { return e.cfg.Waits != nil && !e.cfg.Waits.Empty() }

// lockMoves compares the locks that a command leaves with those that it found, in the
// order of its keys (TiKV src/storage/mvcc/txn.rs, unlock_key and put_lock). A lock that
// is replaced by one of the same transaction is neither released nor new.
func (c *change) lockMoves(ks []key) ([]lockMove, error) {
	var moved []lockMove
	for _, k := range ks {
		after, touched := c.pending[string(k.enc)]
		if !touched {
			continue
		}
		delete(c.pending, string(k.enc)) // a key that is named twice counts once
		before, err := c.lock(k.enc)
		if err != nil {
			return nil, err
		}
		switch {
		case before == nil && after.lock != nil:
			moved = append(moved, lockMove{key: k, acquired: after.info(k.raw)})
		case before != nil && after.lock == nil:
			r := lockwait.Release{StartTS: after.by}
			if w := c.commits[string(k.enc)]; w.write != nil && w.startTS == after.by {
				r.CommitTS = w.commitTS
			}
			moved = append(moved, lockMove{key: k, released: r})
		}
	}
	return moved, nil
}

// notify tells those who wait of what was done. Requests that are granted a released
// lock take it here, under the latches that the command holds.
func (e *Engine) notify(ctx context.Context, moved []lockMove) {
	for _, m := range moved {
		if m.acquired != nil {
			e.cfg.Waits.Acquired(m.key.enc, m.acquired)
		}
	}
	for _, m := range moved {
		if m.acquired != nil {
			continue
		}
		for _, w := range e.cfg.Waits.Released(m.key.enc, m.released) {
			w.Resume(ctx, true)
		}
	}
}

// LockWaits lists what waits at a store, as GetLockWaitInfo answers it.
func (e *Engine) LockWaits(store uint64) []*deadlock.WaitForEntry {
	if e.cfg.Waits == nil {
		return nil
	}
	return e.cfg.Waits.Entries(store)
}
