package rawkv

import (
	"bytes"
	"cmp"
	"context"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// mutation is one key's write.
type mutation struct {
	key []byte
	value
}

// write applies the mutations in one batch. An atomic one (for_cas) takes the latches
// of its keys, which orders it with compare-and-swap; others do not wait.
func (e *Engine) write(ctx context.Context, cf storage.CF, atomic bool, muts ...mutation) *check.Error {
	if atomic {
		all := make([][]byte, len(muts))
		for i, m := range muts {
			all[i] = m.key
		}
		release, err := e.latches.Acquire(ctx, all...)
		if err != nil {
			return check.Other(err.Error())
		}
		defer release()
	}
	return e.apply(cf, muts...)
}

func (e *Engine) apply(cf storage.CF, muts ...mutation) *check.Error {
	batch := new(storage.Batch)
	if e.format == formatV2 {
		now, err := e.flying.take(e.cfg.Timestamp)
		if err != nil {
			return check.Other(err.Error())
		}
		defer e.flying.land(now)
		e.addVersions(batch, cf, now, muts)
	} else {
		for _, m := range muts {
			if m.deleted {
				batch.Delete(cf, m.key)
			} else {
				batch.Put(cf, m.key, e.format.encode(m.value))
			}
		}
	}
	if err := e.store.Apply(batch); err != nil {
		return check.Other(err.Error())
	}
	return nil
}

// addVersions adds V2 versions, all of the timestamp now; a deletion is a version too. Each
// is newer than what its key has, even if the clock went back since, and replaces it:
// only TiKV's change feed reads old versions, and its garbage collection drops them.
func (e *Engine) addVersions(batch *storage.Batch, cf storage.CF, now uint64, muts []mutation) {
	snap := e.store.Snapshot()
	defer snap.Close()
	for _, m := range muts {
		ts := now
		for old := range snap.Scan(cf, versions(m.key), false) {
			if _, t, ok := splitVersion(old); ok && t != ^uint64(0) {
				ts = max(ts, t+1)
			}
			batch.Delete(cf, old)
		}
		batch.Put(cf, versionKey(m.key, ts), e.format.encode(m.value))
	}
}

// checkTTL refuses a TTL where the store has none.
func (e *Engine) checkTTL(ttls ...uint64) *check.Error {
	if e.format == formatV1 {
		for _, ttl := range ttls {
			if ttl != 0 {
				return errTTLNotEnabled()
			}
		}
	}
	return nil
}

// allowed checks the API version and the mode of a write's keys. An atomic one is a
// command of its own.
func (e *Engine) allowed(ctx *kvrpcpb.Context, cmd check.Command, atomic bool, all ...[]byte) *check.Error {
	if atomic {
		cmd = "raw_atomic_store"
	}
	return check.Keys(e.cfg.APIVersion, ctx, cmd, all...)
}

// sized checks the size of keys; not that of an atomic write's, as in TiKV (src/storage/
// mod.rs, raw_batch_put_atomic).
func sized(atomic bool, all ...[]byte) *check.Error {
	if atomic {
		return nil
	}
	for _, key := range all {
		if err := check.KeySize(len(key)); err != nil {
			return err
		}
	}
	return nil
}

// Put answers RawPut.
func (e *Engine) Put(ctx context.Context, _ keys.Range, req *kvrpcpb.RawPutRequest) *kvrpcpb.RawPutResponse {
	cf, unknown := e.family(req.Cf)
	err := cmp.Or(e.allowed(req.Context, "raw_put", req.ForCas, req.Key), sized(req.ForCas, req.Key))
	if req.ForCas {
		err = cmp.Or(err, unknown, e.checkTTL(req.Ttl))
	} else {
		err = cmp.Or(err, e.checkTTL(req.Ttl), unknown)
	}
	if err == nil {
		err = e.write(ctx, cf, req.ForCas, mutation{req.Key, value{data: req.Value, expires: e.expiry(req.Ttl)}})
	}
	return &kvrpcpb.RawPutResponse{Error: message(err)}
}

// BatchPut answers RawBatchPut: all pairs or none. No TTLs are zeros, one is for all
// pairs (TiKV src/server/service/kv.rs, future_raw_batch_put). A wrong number of them is
// an error, but not in V1: there pairs without one are left out (src/storage/mod.rs,
// check_ttl_valid and raw_batch_put_requests_to_modifies).
func (e *Engine) BatchPut(ctx context.Context, _ keys.Range, req *kvrpcpb.RawBatchPutRequest) *kvrpcpb.RawBatchPutResponse {
	all := make([][]byte, len(req.Pairs))
	for i, pair := range req.Pairs {
		all[i] = pair.GetKey()
	}
	cf, unknown := e.family(req.Cf)
	err := cmp.Or(e.allowed(req.Context, "raw_batch_put", req.ForCas, all...), unknown, sized(req.ForCas, all...), e.checkTTL(req.Ttls...))
	n := len(req.Pairs)
	if len(req.Ttls) > 1 && len(req.Ttls) != n {
		if n = min(n, len(req.Ttls)); err == nil && e.format != formatV1 {
			err = errTTLCount()
		}
	}
	if err != nil {
		return &kvrpcpb.RawBatchPutResponse{Error: err.Message}
	}
	muts := make([]mutation, n)
	for i, pair := range req.Pairs[:n] {
		var ttl uint64
		switch len(req.Ttls) {
		case 0:
		case 1:
			ttl = req.Ttls[0]
		default:
			ttl = req.Ttls[i]
		}
		muts[i] = mutation{pair.GetKey(), value{data: pair.GetValue(), expires: e.expiry(ttl)}}
	}
	return &kvrpcpb.RawBatchPutResponse{Error: message(e.write(ctx, cf, req.ForCas, muts...))}
}

// Delete answers RawDelete.
func (e *Engine) Delete(ctx context.Context, _ keys.Range, req *kvrpcpb.RawDeleteRequest) *kvrpcpb.RawDeleteResponse {
	cf, unknown := e.family(req.Cf)
	err := cmp.Or(e.allowed(req.Context, "raw_delete", req.ForCas, req.Key), sized(req.ForCas, req.Key), unknown)
	if err == nil {
		err = e.write(ctx, cf, req.ForCas, mutation{req.Key, value{deleted: true}})
	}
	return &kvrpcpb.RawDeleteResponse{Error: message(err)}
}

// BatchDelete answers RawBatchDelete: all keys or none.
func (e *Engine) BatchDelete(ctx context.Context, _ keys.Range, req *kvrpcpb.RawBatchDeleteRequest) *kvrpcpb.RawBatchDeleteResponse {
	cf, unknown := e.family(req.Cf)
	err := cmp.Or(e.allowed(req.Context, "raw_batch_delete", req.ForCas, req.Keys...), unknown, sized(req.ForCas, req.Keys...))
	if err == nil {
		muts := make([]mutation, len(req.Keys))
		for i, key := range req.Keys {
			muts[i] = mutation{key, value{deleted: true}}
		}
		err = e.write(ctx, cf, req.ForCas, muts...)
	}
	return &kvrpcpb.RawBatchDeleteResponse{Error: message(err)}
}

// DeleteRange answers RawDeleteRange. It removes the entries themselves, in V2 too. A
// range that is empty or inverted is refused as the log is applied, which answers with a
// region error of no kind (TiKV components/raftstore/src/store/fsm/apply.rs,
// handle_delete_range; src/server/raftkv/mod.rs, check_raft_cmd_response).
func (e *Engine) DeleteRange(_ context.Context, bounds keys.Range, req *kvrpcpb.RawDeleteRangeRequest) *kvrpcpb.RawDeleteRangeResponse {
	in := keys.Range{Start: e.format.bound(req.StartKey), End: e.format.bound(req.EndKey)}
	cf, err := e.deletable(req)
	if err == nil && in.Empty() {
		return &kvrpcpb.RawDeleteRangeResponse{RegionError: &errorpb.Error{Message: check.InvalidRange(in.Start, in.End)}}
	}
	if err == nil {
		err = e.deleteRange(cf, in.Intersect(bounds))
	}
	return &kvrpcpb.RawDeleteRangeResponse{Error: message(err)}
}

func (e *Engine) deletable(req *kvrpcpb.RawDeleteRangeRequest) (storage.CF, *check.Error) {
	cf, unknown := e.family(req.Cf)
	return cf, cmp.Or(sized(false, req.StartKey, req.EndKey),
		check.Range(e.cfg.APIVersion, req.Context, "raw_delete_range", req.StartKey, req.EndKey), unknown)
}

func (e *Engine) deleteRange(cf storage.CF, in keys.Range) *check.Error {
	if in.Empty() {
		return nil
	}
	batch := new(storage.Batch)
	batch.DeleteRange(cf, in)
	if err := e.store.Apply(batch); err != nil {
		return check.Other(err.Error())
	}
	return nil
}

// CompareAndSwap answers RawCompareAndSwap: if the key's value is the one expected, it
// writes the new one, or, with delete, removes the key. The answer has the value from
// before in either case (TiKV src/storage/txn/commands/compare_and_swap.rs).
func (e *Engine) CompareAndSwap(ctx context.Context, _ keys.Range, req *kvrpcpb.RawCASRequest) *kvrpcpb.RawCASResponse {
	previous, existed, swapped, err := e.compareAndSwap(ctx, req)
	if err != nil {
		return &kvrpcpb.RawCASResponse{Error: err.Message}
	}
	return &kvrpcpb.RawCASResponse{Succeed: swapped, PreviousNotExist: !existed, PreviousValue: previous}
}

func (e *Engine) compareAndSwap(ctx context.Context, req *kvrpcpb.RawCASRequest) (previous []byte, existed, swapped bool, err *check.Error) {
	if err = check.Keys(e.cfg.APIVersion, req.Context, "raw_compare_and_swap", req.Key); err != nil {
		return
	}
	if _, err = e.family(req.Cf); err != nil {
		return
	}
	if err = e.checkTTL(req.Ttl); err != nil {
		return
	}
	release, ended := e.latches.Acquire(ctx, req.Key)
	if ended != nil {
		return nil, false, false, check.Other(ended.Error())
	}
	defer release()
	r, err := e.open(ctx, req.Cf)
	if err != nil {
		return
	}
	previous, existed, err = r.get(req.Key)
	r.Close()
	if err != nil || existed == req.PreviousNotExist || existed && !bytes.Equal(previous, req.PreviousValue) {
		return
	}
	next := mutation{req.Key, value{data: req.Value, expires: e.expiry(req.Ttl)}}
	if req.Delete {
		if !existed {
			return nil, false, true, nil
		}
		next.value = value{deleted: true}
	}
	err = e.apply(r.cf, next)
	return previous, existed, err == nil, err
}
