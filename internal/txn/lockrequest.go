package txn

import (
	"context"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/membuf"
	"github.com/tikv-go/tikv/internal/router"
)

// lockRequest is what locking the keys of one part takes, kept for the next one.
type lockRequest struct {
	l       *lockCall
	part    stretch
	asOf    uint64 // the timestamp of the request
	met     uint64 // the commit that an earlier one of fair locking met, unlocked
	wait    patience
	call    router.Call
	retry   backoff.Retry
	context kvrpcpb.Context
	req     kvrpcpb.PessimisticLockRequest
	resp    kvrpcpb.PessimisticLockResponse
	muts    []*kvrpcpb.Mutation
	one     kvrpcpb.Mutation
	oneMut  [1]*kvrpcpb.Mutation
}

// takeLock returns a request for a part of l.
func (e *Engine) takeLock(ctx context.Context, l *lockCall, p stretch) *lockRequest {
	r, _ := e.lockings.Get().(*lockRequest)
	if r == nil {
		r = &lockRequest{}
	}
	r.l, r.asOf = l, l.asOf
	r.aim(p)
	r.begin(ctx)
	return r
}

// giveLock takes back what the router keeps nothing of.
func (e *Engine) giveLock(r *lockRequest) {
	*r = lockRequest{}
	e.lockings.Put(r)
}

// begin starts a call, with a budget of its own: who waits for a lock is not at the end
// of its patience with the cluster.
func (r *lockRequest) begin(ctx context.Context) {
	o := r.l.t.opts.Read.CallOptions
	r.retry = *backoff.For(ctx, o.retryFor())
	r.call = r.l.t.e.callWith(r.l.op, o, &r.retry)
	r.call.Timeout = writeTimeout
	r.name()
}

// aim makes the request one for a part.
func (r *lockRequest) aim(p stretch) {
	if p.from != r.part.from || p.to != r.part.to { // other locks
		r.wait = patience{}
	}
	r.part = p
	r.mutations()
	r.name()
}

// name makes errors name the key, if there is one.
func (r *lockRequest) name() {
	if r.part.to == r.part.from+1 {
		r.call.Key = r.l.keys[r.part.from]
	}
}

// mutations makes those of the request. A key that was written with the claim that it is
// absent has it checked now.
func (r *lockRequest) mutations() {
	op := kvrpcpb.Op_PessimisticLock
	if r.l.o.Shared {
		op = kvrpcpb.Op_SharedPessimisticLock
	}
	keys := r.l.keys[r.part.from:r.part.to]
	all := []kvrpcpb.Mutation(nil)
	r.muts = r.oneMut[:]
	if len(keys) > 1 {
		all, r.muts = make([]kvrpcpb.Mutation, len(keys)), make([]*kvrpcpb.Mutation, len(keys))
	}
	for i, key := range keys {
		m := &r.one
		if all != nil {
			m = &all[i]
		}
		m.Op, m.Key = op, key
		if e, _ := r.l.t.buf.Get(key); e.Flags&membuf.Absent != 0 {
			m.Assertion = kvrpcpb.Assertion_NotExist
		}
		r.muts[i] = m
	}
}

// fill makes the request, for now.
func (r *lockRequest) fill(ctx context.Context) {
	l, p := r.l, r.l.t.pess
	r.context = kvrpcpb.Context{}
	r.resp.Reset()
	r.req = kvrpcpb.PessimisticLockRequest{
		Context:      &r.context,
		Mutations:    r.muts,
		PrimaryLock:  p.primary,
		StartVersion: l.t.StartTS(),
		LockTtl:      uint64((l.t.uptime() + lockTTLAhead).Milliseconds()),
		ForUpdateTs:  r.asOf,
		MinCommitTs:  r.asOf + 1,
		// Nobody can wait for a transaction that holds nothing, so that TiKV looks for no
		// circle then. To claim it wrongly would hide one.
		IsFirstLock: l.chosen && len(l.keys) == 1 && !p.unsure && p.stage.empty(),
		WaitTimeout: r.wait.millis(ctx, l, l.t.e.router.AttemptTime(&r.call)),
	}
	if !l.o.Shared {
		r.req.ReturnValues = l.o.Values || l.o.IfExists
		r.req.CheckExistence = !r.req.ReturnValues
		r.req.LockOnlyIfExists = l.o.IfExists
	}
	if l.force {
		r.req.WakeUpMode = kvrpcpb.PessimisticLockWakeUpMode_WakeUpModeForceLock
	}
	l.used(r.asOf)
}

// finish does what remains when the request was sent: err is what came of that.
func (r *lockRequest) finish(ctx context.Context, err error) error {
	for {
		done, end := r.settle(ctx, err)
		if done || end != nil {
			return end
		}
		r.fill(ctx)
		err = r.send(ctx)
	}
}

// settle does what an attempt calls for. It reports done if the part is locked.
func (r *lockRequest) settle(ctx context.Context, err error) (done bool, _ error) {
	l := r.l
	if r.context.IsRetryRequest || err != nil && err != router.ErrRegionChanged {
		l.doubt()
	}
	if err == router.ErrRegionChanged {
		return false, r.move(ctx)
	}
	if err != nil {
		return false, err
	}
	met, conflict, err := r.sort()
	switch {
	case err != nil:
		return false, err
	case conflict != nil:
		return false, r.renew(ctx, conflict)
	case len(met) > 0:
		return false, r.await(ctx, met)
	}
	return true, r.take()
}

// move makes the request one for the regions that its keys are in by now. It stays at the
// timestamp that it has come to: a copy of it, whose answer was lost, may have locked the
// keys at that, and then TiKV answers a request at an older one with what they held at the
// older one (TiKV src/storage/txn/actions/acquire_pessimistic_lock.rs,
// handle_existing_exclusive_lock). Its budget goes on as well.
func (r *lockRequest) move(ctx context.Context) error {
	parts, err := r.l.split(ctx, &r.call, r.part.from, r.part.to)
	if err != nil {
		r.l.doubt()
		return err
	}
	last := len(parts) - 1
	for _, p := range parts[:last] {
		r.aim(p)
		r.fill(ctx)
		if err := r.finish(ctx, r.send(ctx)); err != nil {
			return err
		}
	}
	r.aim(parts[last])
	return nil
}

// sort tells the locks that an answer reports, or the commit that is newer than the
// request, from what ends the call.
func (r *lockRequest) sort() (met []*kvrpcpb.LockInfo, conflict *kvrpcpb.WriteConflict, err error) {
	for _, ke := range r.resp.Errors {
		switch c := ke.GetConflict(); {
		case ke.GetLocked() != nil:
			met = append(met, ke.GetLocked())
		case ke.GetDeadlock() != nil:
			return nil, nil, r.l.deadlock(ke.GetDeadlock())
		case c != nil && c.GetReason() != kvrpcpb.WriteConflict_SelfRolledBack:
			conflict = c
		default:
			return nil, nil, keyError(&r.call, r.l.t.StartTS(), ke)
		}
	}
	return met, conflict, nil
}

// renew makes the request one as of now: another transaction has committed since, or has
// released the lock that the request waited for, which TiKV answers in the same way.
func (r *lockRequest) renew(ctx context.Context, c *kvrpcpb.WriteConflict) error {
	l := r.l
	if l.o.ForUpdate != 0 {
		return keyError(&r.call, l.t.StartTS(), &kvrpcpb.KeyError{Conflict: c})
	}
	if l.force { // told, but not locked
		r.met = max(r.met, c.GetConflictCommitTs())
	}
	r.wait.woken()
	r.begin(ctx)
	return l.fresh(ctx, &r.asOf)
}

// take takes over an answer that says that the part is locked.
func (r *lockRequest) take() error {
	l, n := r.l, r.part.to-r.part.from
	switch {
	case l.o.Shared:
	case l.force:
		if len(r.resp.Results) != 1 || r.resp.Results[0].GetType() == kvrpcpb.PessimisticLockKeyResultType_LockResultFailed {
			return r.call.Refuse("the answer to a lock has no result")
		}
		res := r.resp.Results[0]
		conflict := res.GetLockedWithConflictTs()
		l.got[0] = grip{
			Held:   Held{Value: res.GetValue(), Exists: res.GetExistence(), ConflictTS: max(conflict, r.met)},
			values: l.o.Values || conflict != 0, asOf: max(r.asOf, conflict),
		}
		l.used(conflict)
	case len(r.resp.NotFounds) != n, r.req.ReturnValues && len(r.resp.Values) != n:
		return r.call.Refuse("the answer to a lock does not say what the keys hold")
	default:
		for i, absent := range r.resp.NotFounds {
			g := &l.got[r.part.from+i]
			g.asOf = r.asOf
			if g.Exists = !absent; g.Exists && r.req.ReturnValues {
				g.Value = r.resp.Values[i]
			}
		}
	}
	if l.chosen && r.part.from == 0 && (!l.o.IfExists || l.got[0].Exists) {
		// The transaction begins to live, and has to be kept alive.
		l.t.beat.start(l.t, l.t.pess.primary, l.t.firstBeat(r.req.LockTtl, lockTTLAhead-beatEvery))
	}
	return nil
}
