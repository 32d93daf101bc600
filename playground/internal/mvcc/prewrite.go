package mvcc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// prewrite is one request of that name (TiKV src/storage/txn/commands/prewrite.rs), or
// one flush of a pipelined transaction.
type prewrite struct {
	*change
	req       *kvrpcpb.PrewriteRequest
	skipCheck bool // no write record in the whole span of the keys: nothing to check
	retry     bool // the request may be a repeated one
	// generation is a flush's, 0 of a prewrite.
	generation uint64
	calculated
}

// mutation is one key of a prewrite.
type mutation struct {
	key
	op        kvrpcpb.Op
	value     []byte
	assertion kvrpcpb.Assertion
	action    kvrpcpb.PrewriteRequest_PessimisticAction
	// expected is the for-update timestamp that the key's pessimistic lock must have.
	expected *uint64
}

// insert tells that the key must not exist.
func (m *mutation) insert() bool {
	return m.op == kvrpcpb.Op_Insert || m.op == kvrpcpb.Op_CheckNotExists
}

func (m *mutation) kind() lockKind {
	switch m.op {
	case kvrpcpb.Op_Del:
		return lockDelete
	case kvrpcpb.Op_Lock, kvrpcpb.Op_SharedLock:
		return lockLock
	}
	return lockPut
}

// Prewrite answers KvPrewrite. That the store's MaxTS is fresh enough for async commit
// and one-phase commit is the caller's check.
func (e *Engine) Prewrite(ctx context.Context, _ keys.Range, req *kvrpcpb.PrewriteRequest) *kvrpcpb.PrewriteResponse {
	f := e.effort()
	muts, err := e.mutations(req, "prewrite")
	if err != nil {
		return &kvrpcpb.PrewriteResponse{Errors: []*kvrpcpb.KeyError{keyError(err)}, ExecDetailsV2: f.details()}
	}
	f.values(muts)
	ks := make([]key, len(muts))
	for i, m := range muts {
		ks[i] = m.key
	}
	resp := &kvrpcpb.PrewriteResponse{}
	err = f.update(ctx, req.StartVersion, ks, func(c *change) error {
		p := &prewrite{change: c, req: req, retry: req.GetContext().GetIsRetryRequest(),
			calculated: calculated{async: req.UseAsyncCommit, onePC: req.TryOnePc}}
		// A late copy, whether it says so or not.
		p.retry = p.retry || p.pessimistic() && e.manager.committed.has(req.StartVersion)
		p.skipCheck = p.req.SkipConstraintCheck
		if !p.pessimistic() && len(muts) > manyMutations {
			muts = p.sortAndSkip(muts)
		}
		locked, err := p.run(muts)
		if err != nil {
			return err
		}
		p.answer(resp, locked)
		return nil
	})
	if err != nil {
		resp = &kvrpcpb.PrewriteResponse{Errors: []*kvrpcpb.KeyError{keyError(err)}}
	}
	resp.ExecDetailsV2 = f.details()
	return resp
}

// mutations checks a prewrite (or another command made into one) and pairs each key with its pessimistic action; in a
// pessimistic request those that have none are dropped, as TiKV does (src/storage/txn/
// commands/mod.rs, From<PrewriteRequest>).
func (e *Engine) mutations(req *kvrpcpb.PrewriteRequest, command check.Command) ([]mutation, error) {
	pessimistic, n := req.ForUpdateTs != 0, len(req.Mutations)
	if pessimistic {
		n = min(n, len(req.PessimisticActions))
	}
	muts := make([]mutation, n)
	for i, m := range req.Mutations[:n] {
		switch m.GetOp() {
		case kvrpcpb.Op_Put, kvrpcpb.Op_Del, kvrpcpb.Op_Lock, kvrpcpb.Op_SharedLock, kvrpcpb.Op_Insert, kvrpcpb.Op_CheckNotExists:
		default:
			return nil, check.Other("mismatch Op in prewrite mutations: " + m.GetOp().String())
		}
		muts[i] = mutation{key: keyOf(m.Key), op: m.Op, value: m.Value, assertion: m.Assertion}
		if pessimistic {
			muts[i].action = req.PessimisticActions[i]
		}
		if err := check.Keys(e.cfg.APIVersion, req.Context, command, muts[i].enc); err != nil {
			return nil, err
		}
	}
	if n == 0 {
		if err := check.Keys(e.cfg.APIVersion, req.Context, command); err != nil {
			return nil, err
		}
	}
	for _, m := range muts {
		if err := check.KeySize(len(m.enc)); err != nil {
			return nil, err
		}
	}
	for _, c := range req.ForUpdateTsConstraints {
		if !pessimistic {
			break
		}
		if int(c.Index) >= n {
			return nil, abort(rustTxn("Other(%q)", fmt.Sprintf("prewrite request invalid: for_update_ts constraint set "+
				"for index %d while %d mutations were given", c.Index, n)))
		}
		muts[c.Index].expected = &c.ExpectedForUpdateTs
	}
	return muts, nil
}

// manyMutations is from how many on an optimistic prewrite looks whether there is any
// record in the span of its keys (prewrite.rs, FORWARD_MIN_MUTATIONS_NUM).
const manyMutations = 12

func (p *prewrite) pessimistic() bool { return p.req.ForUpdateTs != 0 }

// sortAndSkip looks whether there is any write record in the span of the keys (prewrite.
// rs, can_skip_constraint_check).
func (p *prewrite) sortAndSkip(muts []mutation) []mutation {
	muts = slices.Clone(muts)
	slices.SortFunc(muts, func(a, b mutation) int { return bytes.Compare(a.enc, b.enc) })
	span := keys.Range{Start: muts[0].enc, End: at(muts[len(muts)-1].enc, 0)}
	p.moves++
	for range p.snap.Scan(storage.Write, span, false) {
		return muts
	}
	p.skipCheck = true
	return muts
}

// run prewrites all keys and returns those that are locked by others: then, but for a
// flush (commands/flush.rs, process_write), or if the transaction turns out to be
// committed, nothing is to be written.
func (p *prewrite) run(muts []mutation) (locked []*kvrpcpb.KeyError, err error) {
	var assertion error // reported only if there is no other error but locks
	for i := range muts {
		m := &muts[i]
		ts, err := p.mutate(m)
		var (
			f    failure
			lost *errPessimisticLockNotFound
		)
		switch {
		case err == nil:
			p.calculate(p.change, ts)
			continue
		case errors.Is(err, errGeneration):
			continue // a late copy of an earlier flush
		case errors.As(err, &f) && f.AssertionFailed != nil:
			if assertion == nil {
				assertion = err
			}
			continue
		case errors.Is(err, errCommitTSTooLarge), errors.As(err, &lost), f.KeyError != nil && (f.Locked != nil ||
			f.Conflict != nil && f.Conflict.ConflictCommitTs > p.startTS):
			// It may be a late copy of a prewrite whose transaction has been committed
			// since (src/storage/txn/actions/common.rs, check_committed_record_on_err).
			end, endErr := p.ending(m.enc, p.startTS)
			if endErr != nil {
				return nil, endErr
			}
			if commitTS, ok := end.committed(); ok {
				p.clear()
				p.final, p.direct = commitTS, nil
				return nil, nil
			}
			if errors.Is(err, errCommitTSTooLarge) {
				p.fallBack(p.change)
				continue
			}
			if f.KeyError != nil && f.Locked != nil {
				locked = append(locked, f.KeyError)
				continue
			}
		}
		return nil, err
	}
	if len(locked) > 0 && assertion == nil && p.generation == 0 {
		p.clear()
	}
	return locked, assertion
}

// answer fills the answer, and commits what is to be committed in one phase
// (prewrite.rs, write_result).
func (p *prewrite) answer(resp *kvrpcpb.PrewriteResponse, locked []*kvrpcpb.KeyError) {
	resp.Errors = locked
	if p.async {
		resp.MinCommitTs = p.final
	}
	if p.onePC && len(locked) == 0 {
		resp.OnePcCommitTs = p.final
		p.commitDirect(p.change)
	}
}
