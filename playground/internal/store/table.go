package store

import (
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv/internal/keys"
)

type batchResponse = tikvpb.BatchCommandsResponse_Response

// table lists the commands that a store knows.
func (s *Store) table() commands {
	cs := make(commands)
	s.addRaw(cs)
	s.addReads(cs)
	s.addWrites(cs)
	s.addPessimistic(cs)
	s.addResolving(cs)
	s.addFlashback(cs)
	s.addCoprocessor(cs)
	s.addMPP(cs)
	s.addOwn(cs)
	return cs
}

func one(key []byte) inside     { return inside{keys: [][]byte{key}} }
func several(k [][]byte) inside { return inside{keys: k} }
func nothing[Q any](*Q) inside  { return inside{} }
func seek(start []byte) inside  { return inside{seeks: [][]byte{start}} }
func pairs(kvs []*kvrpcpb.KvPair) inside {
	in := inside{keys: make([][]byte, len(kvs))}
	for i, kv := range kvs {
		in.keys[i] = kv.GetKey()
	}
	return in
}

func starts(ranges []*kvrpcpb.KeyRange) inside {
	var in inside
	for _, r := range ranges {
		in.seeks = append(in.seeks, r.GetStartKey())
	}
	return in
}

// addRaw lists the raw commands.
func (s *Store) addRaw(cs commands) {
	e := s.Raw
	add(cs, command{method: "RawGet", kind: read, raw: true},
		func(q *kvrpcpb.RawGetRequest) inside { return one(q.Key) }, e.Get,
		func(p *kvrpcpb.RawGetResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawGet{RawGet: p}}
		})
	add(cs, command{method: "RawBatchGet", kind: read, raw: true},
		func(q *kvrpcpb.RawBatchGetRequest) inside { return several(q.Keys) }, e.BatchGet,
		func(p *kvrpcpb.RawBatchGetResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawBatchGet{RawBatchGet: p}}
		})
	add(cs, command{method: "RawGetKeyTTL", kind: read, raw: true},
		func(q *kvrpcpb.RawGetKeyTTLRequest) inside { return one(q.Key) }, e.GetKeyTTL, nil)
	add(cs, command{method: "RawScan", kind: read, raw: true},
		func(q *kvrpcpb.RawScanRequest) inside { return seek(q.StartKey) }, e.Scan,
		func(p *kvrpcpb.RawScanResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawScan{RawScan: p}}
		})
	add(cs, command{method: "RawBatchScan", kind: read, raw: true},
		func(q *kvrpcpb.RawBatchScanRequest) inside { return starts(q.Ranges) }, e.BatchScan,
		func(p *kvrpcpb.RawBatchScanResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawBatchScan{RawBatchScan: p}}
		})
	add(cs, command{method: "RawChecksum", kind: read, raw: true},
		func(q *kvrpcpb.RawChecksumRequest) inside { return starts(q.Ranges) }, e.Checksum, nil)
	s.addRawWrites(cs)
}

func (s *Store) addRawWrites(cs commands) {
	e := s.Raw
	add(cs, command{method: "RawPut", kind: blind, raw: true},
		func(q *kvrpcpb.RawPutRequest) inside { return one(q.Key) }, e.Put,
		func(p *kvrpcpb.RawPutResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawPut{RawPut: p}}
		})
	add(cs, command{method: "RawBatchPut", kind: blind, raw: true},
		func(q *kvrpcpb.RawBatchPutRequest) inside { return pairs(q.Pairs) }, e.BatchPut,
		func(p *kvrpcpb.RawBatchPutResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawBatchPut{RawBatchPut: p}}
		})
	add(cs, command{method: "RawDelete", kind: blind, raw: true},
		func(q *kvrpcpb.RawDeleteRequest) inside { return one(q.Key) }, e.Delete,
		func(p *kvrpcpb.RawDeleteResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawDelete{RawDelete: p}}
		})
	add(cs, command{method: "RawBatchDelete", kind: blind, raw: true},
		func(q *kvrpcpb.RawBatchDeleteRequest) inside { return several(q.Keys) }, e.BatchDelete,
		func(p *kvrpcpb.RawBatchDeleteResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawBatchDelete{RawBatchDelete: p}}
		})
	add(cs, command{method: "RawDeleteRange", kind: blind, raw: true},
		func(q *kvrpcpb.RawDeleteRangeRequest) inside {
			return inside{ranges: []keys.Range{{Start: q.StartKey, End: q.EndKey}}}
		}, e.DeleteRange,
		func(p *kvrpcpb.RawDeleteRangeResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_RawDeleteRange{RawDeleteRange: p}}
		})
	add(cs, command{method: "RawCompareAndSwap", kind: write, raw: true},
		func(q *kvrpcpb.RawCASRequest) inside { return one(q.Key) }, e.CompareAndSwap, nil)
}

// addOwn lists the commands that are no region's, and the one that splits a region.
func (s *Store) addOwn(cs commands) {
	add(cs, command{kind: local}, nothing,
		func(ctx context.Context, _ keys.Range, q *tikvpb.BatchCommandsEmptyRequest) *tikvpb.BatchCommandsEmptyResponse {
			s.delay(ctx, time.Duration(q.GetDelayTime())*time.Millisecond)
			return &tikvpb.BatchCommandsEmptyResponse{TestId: q.GetTestId()}
		},
		func(p *tikvpb.BatchCommandsEmptyResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_Empty{Empty: p}}
		})
	add(cs, command{method: "GetHealthFeedback", kind: local}, nothing,
		func(_ context.Context, _ keys.Range, _ *kvrpcpb.GetHealthFeedbackRequest) *kvrpcpb.GetHealthFeedbackResponse {
			return &kvrpcpb.GetHealthFeedbackResponse{HealthFeedback: s.healthFeedback()}
		},
		func(p *kvrpcpb.GetHealthFeedbackResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_GetHealthFeedback{GetHealthFeedback: p}}
		})
	add(cs, command{method: "GetStoreSafeTS", kind: local}, nothing, s.storeSafeTS, nil)
	// It enters its region by itself: a split waits for the commands that run there.
	add(cs, command{method: "SplitRegion", kind: local}, nothing, s.splitRegion, nil)
}

// delay waits as an Empty command asks; TiKV takes less than 10 ms for none (future_
// handle_empty).
func (s *Store) delay(ctx context.Context, d time.Duration) {
	if d < 10*time.Millisecond {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
