package mvcc

import (
	"context"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// MvccGetByKey answers the request of that name: every record of a key.
func (e *Engine) MvccGetByKey(ctx context.Context, _ keys.Range, req *kvrpcpb.MvccGetByKeyRequest) *kvrpcpb.MvccGetByKeyResponse {
	r := reader{snap: storage.Look(ctx, e.store)}
	defer r.snap.Close()
	info, err := r.info(keyOf(req.Key))
	return &kvrpcpb.MvccGetByKeyResponse{Info: info, Error: errorText(err)}
}

// MvccGetByStartTs answers the request of that name: every record of the first key of
// the region that has a write record of the transaction.
func (e *Engine) MvccGetByStartTs(ctx context.Context, bounds keys.Range, req *kvrpcpb.MvccGetByStartTsRequest) *kvrpcpb.MvccGetByStartTsResponse {
	r := reader{snap: storage.Look(ctx, e.store)}
	defer r.snap.Close()
	for stored, b := range r.snap.Scan(storage.Write, bounds, false) {
		w, err := parseWrite(b)
		if err != nil || w.startTS != req.StartTs {
			continue
		}
		raw, _, err := keys.Decode(stored)
		if err != nil {
			continue
		}
		info, err := r.info(keyOf(raw))
		return &kvrpcpb.MvccGetByStartTsResponse{Key: raw, Info: info, Error: errorText(err)}
	}
	return &kvrpcpb.MvccGetByStartTsResponse{Info: &kvrpcpb.MvccInfo{}}
}

// Versions returns every record of a key, the newest first, for the cluster's
// inspection.
func (e *Engine) Versions(raw []byte) (*kvrpcpb.MvccInfo, error) {
	r := reader{snap: e.store.Snapshot()}
	defer r.snap.Close()
	return r.info(keyOf(raw))
}

// info is every record of a key (TiKV src/storage/txn/actions/mvcc.rs and src/storage/
// types.rs, MvccInfo).
func (r *reader) info(k key) (*kvrpcpb.MvccInfo, error) {
	info := &kvrpcpb.MvccInfo{}
	l, err := r.lock(k.enc)
	if err != nil {
		return nil, err
	}
	if l != nil && l.shared() {
		l = l.holders[0] // TiKV shows one of them, whichever
	}
	if l != nil {
		info.Lock = &kvrpcpb.MvccLock{Type: l.op(), StartTs: l.ts, Primary: l.primary, ShortValue: l.short,
			LastChangeTs: l.lastChange.ts, VersionsToLastChange: l.lastChange.versions}
	}
	for w, err := range r.writes(k.enc, maxTS) {
		if err != nil {
			return nil, err
		}
		info.Writes = append(info.Writes, &kvrpcpb.MvccWrite{
			Type: w.op(), StartTs: w.startTS, CommitTs: w.commitTS, ShortValue: w.short,
			HasOverlappedRollback: w.overlapped, HasGcFence: w.fenced, GcFence: w.fence,
		})
	}
	for stored, v := range r.snap.Scan(storage.Default, versionsFrom(k.enc, maxTS), false) {
		_, startTS, err := splitVersion(stored)
		if err != nil {
			return nil, err
		}
		info.Values = append(info.Values, &kvrpcpb.MvccValue{StartTs: startTS, Value: v})
	}
	return info, nil
}
