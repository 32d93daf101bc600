package mvcc

import (
	"context"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// DeleteRange answers KvDeleteRange: every record of the keys in the range is removed,
// whatever its timestamp. With notify_only nothing is (TiKV src/storage/mod.rs,
// delete_range). A range that is empty or inverted is refused as the log is applied, which
// answers with a region error of no kind (components/raftstore/src/store/fsm/apply.rs,
// handle_delete_range).
func (e *Engine) DeleteRange(_ context.Context, bounds keys.Range, req *kvrpcpb.DeleteRangeRequest) *kvrpcpb.DeleteRangeResponse {
	in := keys.Range{Start: keys.Encode(req.StartKey), End: keys.Encode(req.EndKey)}
	if err := check.Range(e.cfg.APIVersion, req.Context, "delete_range", in.Start, in.End); err != nil {
		return &kvrpcpb.DeleteRangeResponse{Error: err.Message}
	}
	if in.Empty() {
		return &kvrpcpb.DeleteRangeResponse{RegionError: &errorpb.Error{Message: check.InvalidRange(in.Start, in.End)}}
	}
	if req.NotifyOnly {
		return &kvrpcpb.DeleteRangeResponse{}
	}
	return &kvrpcpb.DeleteRangeResponse{Error: errorText(e.destroy(in.Intersect(bounds)))}
}

// UnsafeDestroyRange answers the request of that name, which is for a whole store and
// heeds no region. TiKV ends its process if a bound is missing; this refuses (TiKV src/
// server/service/kv.rs, unsafe_destroy_range).
func (e *Engine) UnsafeDestroyRange(_ context.Context, req *kvrpcpb.UnsafeDestroyRangeRequest) *kvrpcpb.UnsafeDestroyRangeResponse {
	if len(req.StartKey) == 0 || len(req.EndKey) == 0 {
		return &kvrpcpb.UnsafeDestroyRangeResponse{Error: "a range to destroy has two bounds"}
	}
	in := keys.Range{Start: keys.Encode(req.StartKey), End: keys.Encode(req.EndKey)}
	return &kvrpcpb.UnsafeDestroyRangeResponse{Error: errorText(e.destroy(in))}
}

func (e *Engine) destroy(in keys.Range) error {
	if in.Empty() {
		return nil
	}
	var batch storage.Batch
	for _, cf := range []storage.CF{storage.Default, storage.Lock, storage.Write} {
		batch.DeleteRange(cf, in)
	}
	return e.store.Apply(&batch)
}
