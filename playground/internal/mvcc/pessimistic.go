package mvcc

import (
	"context"
	"errors"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// pessimisticLock is one KvPessimisticLock request (TiKV src/storage/txn/actions/
// acquire_pessimistic_lock.rs).
type pessimisticLock struct {
	*change
	req *kvrpcpb.PessimisticLockRequest
	// shrunk is the shared lock that a request for the key alone has met first: whatever
	// becomes of the request, from now on nobody joins it.
	shrunk *lock
}

// ask is one key of it.
type ask struct {
	key
	insert bool // it must not exist
	share  bool // others may have the lock as well
}

// force is the mode in which a lock is taken in spite of a newer version.
func (p *pessimisticLock) force() bool {
	return p.req.WakeUpMode == kvrpcpb.PessimisticLockWakeUpMode_WakeUpModeForceLock
}

// taken is what a request learns of one key: its value, or, if that was not asked for,
// only whether it has one.
type taken struct {
	exists     bool
	value      []byte
	conflictTS uint64 // of the newer version, in spite of which the lock was taken
}

// PessimisticLock answers KvPessimisticLock: all keys or none. It waits as long as the
// request says.
func (e *Engine) PessimisticLock(ctx context.Context, _ keys.Range, req *kvrpcpb.PessimisticLockRequest) *kvrpcpb.PessimisticLockResponse {
	resp, w := e.LockOrWait(ctx, nil, req)
	if w != nil {
		return w.Wait(ctx)
	}
	return resp
}

// LockOrWait answers KvPessimisticLock, or, if it must wait for another transaction's
// lock, returns the wait. It is resumed in its region, which nil leaves unchecked (TiKV
// src/storage/txn/commands/acquire_pessimistic_lock.rs).
func (e *Engine) LockOrWait(ctx context.Context, region Region, req *kvrpcpb.PessimisticLockRequest) (resp *kvrpcpb.PessimisticLockResponse, w *Waiting) {
	f := e.effort()
	ks, err := e.pessimisticKeys(req)
	var (
		all     []taken
		refused error // in spite of which something is written
	)
	p := &pessimisticLock{req: req}
	if err == nil {
		err = f.update(ctx, req.StartVersion, ks, func(c *change) error {
			p.change = c
			for i, m := range req.Mutations {
				a := ask{ks[i], m.Assertion == kvrpcpb.Assertion_NotExist, m.Op == kvrpcpb.Op_SharedPessimisticLock}
				t, err := p.take(a)
				switch {
				case err != nil && p.shrunk != nil: // which is all that the request changes
					c.clear()
					c.putLock(a.key, p.shrunk)
					refused = err
					return nil
				case err != nil:
					w = p.wait(f, a, region, err)
					return err
				}
				all = append(all, t)
			}
			return nil
		})
	}
	if w != nil {
		return nil, w
	}
	resp = &kvrpcpb.PessimisticLockResponse{ExecDetailsV2: f.details()}
	if err == nil {
		err = refused
	}
	if err != nil {
		resp.Errors = []*kvrpcpb.KeyError{keyError(err)}
		if p.force() && refused == nil && resp.Errors[0].Locked != nil {
			resp.Results = failedResults()
		}
		return resp, nil
	}
	p.report(resp, all)
	return resp, nil
}

func (e *Engine) pessimisticKeys(req *kvrpcpb.PessimisticLockRequest) ([]key, error) {
	ks := make([]key, len(req.Mutations))
	for i, m := range req.Mutations {
		if m.GetOp() != kvrpcpb.Op_PessimisticLock && m.GetOp() != kvrpcpb.Op_SharedPessimisticLock {
			return nil, check.Other("mismatch Op in pessimistic lock mutations: " + m.GetOp().String())
		}
		ks[i] = keyOf(m.Key)
		if err := check.Keys(e.cfg.APIVersion, req.Context, "acquire_pessimistic_lock", ks[i].enc); err != nil {
			return nil, err
		}
	}
	for _, k := range ks {
		if err := check.KeySize(len(k.enc)); err != nil {
			return nil, err
		}
	}
	if req.WakeUpMode == kvrpcpb.PessimisticLockWakeUpMode_WakeUpModeForceLock && len(ks) > 1 {
		return nil, abort(rustTxn("Other(%q)",
			"multiple keys in a single request with allowed_lock_with_conflict set is not allowed"))
	}
	return ks, nil
}

// take locks one key.
func (p *pessimisticLock) take(a ask) (taken, error) {
	req := p.req
	if req.LockOnlyIfExists && !req.ReturnValues {
		return taken{}, abort(rustMVCC("LockIfExistsFailed { start_ts: %v, key: %v }", ts(p.startTS), list(a.raw)))
	}
	if a.insert || req.ReturnValues || req.CheckExistence {
		p.observe(req.ForUpdateTs) // it is a read
	}
	held, err := p.lock(a.enc)
	switch {
	case err != nil:
		return taken{}, err
	case held == nil:
		return p.takeFree(a, nil)
	case held.shared() && a.share:
		return p.join(a, held)
	case held.shared():
		if !held.shrinkOnly {
			p.shrunk = &lock{kind: lockShared, shrinkOnly: true, holders: held.holders}
		}
		return taken{}, errLocked(held.info(a.raw))
	case held.ts != p.startTS || a.share:
		return taken{}, errLocked(held.info(a.raw))
	case !held.pessimistic():
		return taken{}, errLockType(p.startTS, a.key, false)
	}
	return p.takeHeld(a.key, a.insert, held)
}

// join takes a part of a shared lock. One that the transaction has already is only
// renewed, prewritten or not, and nothing is read for it (handle_existing_shared_lock).
func (p *pessimisticLock) join(a ask, held *lock) (taken, error) {
	own := held.of(p.startTS)
	switch {
	case own == nil && held.shrinkOnly:
		return taken{}, errLocked(held.info(a.raw))
	case own == nil:
		return p.takeFree(a, held)
	case p.req.ForUpdateTs > own.forUpdateTS:
		p.putLock(a.key, held.with(p.made(p.req.ForUpdateTs, own.withConflict)))
	}
	return taken{}, nil
}

// takeFree locks a key that is not locked, or is in share mode by others as the request
// wants it too.
func (p *pessimisticLock) takeFree(a ask, sharers *lock) (taken, error) {
	var t taken
	w, err := p.newest(a.enc, maxTS)
	if err != nil {
		return t, err
	}
	if w.write != nil {
		if w.commitTS > p.req.ForUpdateTs {
			if !p.force() {
				return t, p.retry(a.key, w)
			}
			t.conflictTS = w.commitTS
		}
		if err := p.checkRolledBack(a.key, w); err != nil {
			return t, err
		}
		if err := p.checkAbsent(a.key, a.insert, w); err != nil {
			if t.conflictTS != 0 && isAlreadyExist(err) {
				err = p.retry(a.key, w)
			}
			return t, err
		}
	}
	if err := p.read(a.key, maxTS, &t); err != nil {
		return t, err
	}
	l := p.made(max(p.req.ForUpdateTs, t.conflictTS), t.conflictTS != 0)
	switch {
	case a.share: // whether the key exists or not
		p.putLock(a.key, sharers.with(l))
	case !p.req.LockOnlyIfExists || t.exists:
		p.putLock(a.key, l)
	case t.conflictTS != 0:
		return t, p.retry(a.key, w)
	}
	return t, nil
}

// takeHeld locks a key that the transaction has locked already: only a larger
// for-update timestamp changes the lock.
func (p *pessimisticLock) takeHeld(k key, insert bool, held *lock) (taken, error) {
	var t taken
	asOf := p.req.ForUpdateTs
	if p.force() && asOf < held.forUpdateTS {
		asOf, t.conflictTS = held.forUpdateTS, held.forUpdateTS
	}
	w, err := p.version(k.enc, asOf, p.startTS)
	if err != nil {
		return t, err
	}
	if w.write != nil {
		if err := p.checkAbsent(k, insert, w); err != nil {
			if w.commitTS > p.req.ForUpdateTs && isAlreadyExist(err) {
				err = p.retry(k, w)
			}
			return t, err
		}
	}
	if err := p.read(k, asOf, &t); err != nil {
		return t, err
	}
	if asOf > held.forUpdateTS {
		p.putLock(k, p.made(asOf, held.withConflict))
	}
	return t, nil
}

// read loads what was asked for of the newest version at or below ts; the value also
// when there is a conflict, which spares the client the next request.
func (p *pessimisticLock) read(k key, ts uint64, t *taken) error {
	load := p.req.ReturnValues || t.conflictTS != 0
	if !load && !p.req.CheckExistence {
		return nil
	}
	w, err := p.version(k.enc, ts, p.startTS)
	if err != nil || w.write == nil {
		return err
	}
	t.exists = true
	if load {
		t.value, err = p.value(k.enc, w.write)
	}
	return err
}

// made is the lock as the request describes it.
func (p *pessimisticLock) made(forUpdateTS uint64, withConflict bool) *lock {
	return &lock{
		kind:         lockPessimistic,
		primary:      p.req.PrimaryLock,
		ts:           p.startTS,
		ttl:          p.req.LockTtl,
		forUpdateTS:  forUpdateTS,
		minCommitTS:  p.req.MinCommitTs,
		withConflict: withConflict,
	}
}

// retry is the error for a version newer than the for-update timestamp.
func (p *pessimisticLock) retry(k key, w record) error {
	return errConflict(&kvrpcpb.WriteConflict{
		StartTs: p.startTS, ConflictTs: w.startTS, ConflictCommitTs: w.commitTS,
		Key: k.raw, Primary: p.req.PrimaryLock, Reason: kvrpcpb.WriteConflict_PessimisticRetry,
	})
}

// checkRolledBack refuses a transaction that was rolled back on this key. newest is the
// key's newest record.
func (p *pessimisticLock) checkRolledBack(k key, newest record) error {
	w := newest
	if w.commitTS > p.startTS {
		var err error
		if w, err = p.newest(k.enc, p.startTS); err != nil || w.write == nil {
			return err
		}
	}
	if w.commitTS == p.startTS && (w.kind == writeRollback || w.overlapped) {
		return errRolledBack(p.startTS, k)
	}
	return nil
}

func isAlreadyExist(err error) bool {
	var f failure
	return errors.As(err, &f) && f.KeyError.AlreadyExist != nil
}

// report fills the answer (TiKV src/storage/types.rs, PessimisticLockResults).
func (p *pessimisticLock) report(resp *kvrpcpb.PessimisticLockResponse, all []taken) {
	for _, t := range all {
		switch {
		case p.force():
			r := &kvrpcpb.PessimisticLockKeyResult{Value: t.value, Existence: t.exists, LockedWithConflictTs: t.conflictTS}
			if t.conflictTS != 0 {
				r.Type = kvrpcpb.PessimisticLockKeyResultType_LockResultLockedWithConflict
			}
			resp.Results = append(resp.Results, r)
		case p.req.ReturnValues:
			resp.Values = append(resp.Values, t.value)
			resp.NotFounds = append(resp.NotFounds, !t.exists)
		case p.req.CheckExistence:
			resp.NotFounds = append(resp.NotFounds, !t.exists)
		}
	}
}

// PessimisticRollback answers KVPessimisticRollback: it removes the transaction's
// pessimistic locks up to a for-update timestamp and leaves no record; without keys,
// all of them in the region (TiKV src/storage/txn/commands/pessimistic_rollback.rs).
func (e *Engine) PessimisticRollback(ctx context.Context, bounds keys.Range, req *kvrpcpb.PessimisticRollbackRequest) *kvrpcpb.PessimisticRollbackResponse {
	effort := e.effort()
	err := effort.rollbackKeys(ctx, keysOf(req.Keys), req)
	for len(req.Keys) == 0 && err == nil {
		found := e.locksOf(bounds, map[uint64]uint64{req.StartVersion: 0})
		if len(found) == 0 {
			break
		}
		ks := make([]key, len(found))
		for i, f := range found {
			ks[i] = f.key
		}
		err = effort.rollbackKeys(ctx, ks, req)
		bounds.Start = keys.Next(ks[len(ks)-1].enc)
	}
	resp := &kvrpcpb.PessimisticRollbackResponse{ExecDetailsV2: effort.details()}
	if err != nil {
		resp.Errors = []*kvrpcpb.KeyError{keyError(err)}
	}
	return resp
}

func (f *effort) rollbackKeys(ctx context.Context, ks []key, req *kvrpcpb.PessimisticRollbackRequest) error {
	return f.update(ctx, req.StartVersion, ks, func(c *change) error {
		for _, k := range ks {
			held, err := c.lock(k.enc)
			if err != nil {
				return err
			}
			if l := held.of(req.StartVersion); l != nil && l.pessimistic() && l.forUpdateTS <= req.ForUpdateTs {
				c.release(k, held)
			}
		}
		return nil
	})
}
