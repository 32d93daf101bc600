package mvcc

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// errGeneration is a flush that is not newer than what the key's lock was flushed with.
var errGeneration = errors.New("mvcc: generation out of order")

// Flush answers KvFlush: an optimistic prewrite of a part of a pipelined transaction,
// which may write a key again and again, each time with a larger generation. Whatever
// the request says, readers may push the locks, and nobody knows how many there are
// (TiKV src/storage/txn/commands/flush.rs).
func (e *Engine) Flush(ctx context.Context, _ keys.Range, req *kvrpcpb.FlushRequest) *kvrpcpb.FlushResponse {
	as := &kvrpcpb.PrewriteRequest{
		Context: req.Context, Mutations: req.Mutations, PrimaryLock: req.PrimaryKey, StartVersion: req.StartTs,
		LockTtl: req.LockTtl, MinCommitTs: req.StartTs + 1, TxnSize: ^uint64(0), AssertionLevel: req.AssertionLevel,
	}
	muts, err := e.mutations(as, "flush")
	if err == nil && req.Generation == 0 {
		err = abort(rustTxn("Other(%q)", "generation should be greater than 0 for Flush requests"))
	}
	if err != nil {
		return &kvrpcpb.FlushResponse{Errors: []*kvrpcpb.KeyError{keyError(err)}}
	}
	ks := make([]key, len(muts))
	for i, m := range muts {
		ks[i] = m.key
	}
	resp := &kvrpcpb.FlushResponse{}
	err = e.update(ctx, req.StartTs, ks, func(c *change) error {
		p := &prewrite{change: c, req: as, generation: req.Generation}
		var err error
		resp.Errors, err = p.run(muts)
		return err
	})
	if err != nil {
		return &kvrpcpb.FlushResponse{Errors: []*kvrpcpb.KeyError{keyError(err)}}
	}
	return resp
}

// BufferBatchGet answers KvBufferBatchGet: what a pipelined transaction has flushed to
// keys, in their order, a deleted one with an empty value, and nothing for the others
// (TiKV src/storage/mod.rs, buffer_batch_get).
func (e *Engine) BufferBatchGet(ctx context.Context, _ keys.Range, req *kvrpcpb.BufferBatchGetRequest) *kvrpcpb.BufferBatchGetResponse {
	ks := keysOf(req.Keys)
	slices.SortFunc(ks, func(a, b key) int { return bytes.Compare(a.enc, b.enc) })
	ks = slices.CompactFunc(ks, func(a, b key) bool { return bytes.Equal(a.enc, b.enc) })
	for _, k := range ks {
		if err := check.Keys(e.cfg.APIVersion, req.Context, "buffer_batch_get", k.enc); err != nil {
			return &kvrpcpb.BufferBatchGetResponse{Error: err.KeyError()}
		}
	}
	v, err := e.open(ctx, req.Context, req.Version, blockedKeys(ks...))
	if err != nil {
		return &kvrpcpb.BufferBatchGetResponse{Error: keyError(err)}
	}
	defer v.snap.Close()
	resp := &kvrpcpb.BufferBatchGetResponse{}
	for _, k := range ks {
		l, err := v.lock(k.enc)
		switch {
		case err != nil:
			resp.Pairs = append(resp.Pairs, &kvrpcpb.KvPair{Error: keyError(err)})
		case l == nil || l.ts != req.Version:
		case l.kind == lockDelete:
			resp.Pairs = append(resp.Pairs, &kvrpcpb.KvPair{Key: k.raw})
		case l.kind == lockPut:
			if l.short == nil {
				l.short, err = v.longValue(k.enc, l.ts)
			}
			if err != nil {
				resp.Pairs = append(resp.Pairs, &kvrpcpb.KvPair{Error: keyError(err)})
			} else {
				resp.Pairs = append(resp.Pairs, &kvrpcpb.KvPair{Key: k.raw, Value: l.short})
			}
		}
	}
	resp.ExecDetailsV2 = v.details(e, len(ks))
	return resp
}

// BroadcastTxnStatus takes what a pipelined transaction tells every store of itself.
// That it is committed is remembered; the rest serves safe timestamps alone (TiKV src/
// storage/mod.rs, update_txn_status_cache).
func (e *Engine) BroadcastTxnStatus(_ context.Context, req *kvrpcpb.BroadcastTxnStatusRequest) *kvrpcpb.BroadcastTxnStatusResponse {
	for _, s := range req.TxnStatus {
		if commitTS := s.GetCommitTs(); commitTS != 0 {
			e.manager.committed.add(s.GetStartTs(), commitTS)
		}
		e.manager.pipelined.hear(s)
	}
	return &kvrpcpb.BroadcastTxnStatusResponse{}
}
