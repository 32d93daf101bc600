package rawkv

import (
	"bytes"
	"context"
	"hash/crc64"
	"iter"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// Scan answers RawScan: the pairs in [start_key, end_key), or, in reverse, those in
// [end_key, start_key) from above. In reverse an empty start_key is below every key,
// so that nothing is found (TiKV src/storage/raw/store.rs, reverse_raw_scan).
func (e *Engine) Scan(ctx context.Context, bounds keys.Range, req *kvrpcpb.RawScanRequest) *kvrpcpb.RawScanResponse {
	if err := check.Range(e.cfg.APIVersion, req.Context, "raw_scan", req.StartKey, req.EndKey); err != nil {
		return &kvrpcpb.RawScanResponse{Kvs: errorPair(err)}
	}
	r, err := e.open(ctx, req.Cf)
	if err != nil {
		return &kvrpcpb.RawScanResponse{Kvs: errorPair(err)}
	}
	defer r.Close()
	scan := scan{bounds, req.Reverse, req.KeyOnly, req.Limit}
	kvs, err := scan.collect(r, nil, req.StartKey, req.EndKey)
	if err != nil {
		return &kvrpcpb.RawScanResponse{Kvs: errorPair(err)}
	}
	return &kvrpcpb.RawScanResponse{Kvs: kvs}
}

// BatchScan answers RawBatchScan. A range without an end ends where the next begins.
func (e *Engine) BatchScan(ctx context.Context, bounds keys.Range, req *kvrpcpb.RawBatchScanRequest) *kvrpcpb.RawBatchScanResponse {
	for _, kr := range req.Ranges {
		if err := check.Range(e.cfg.APIVersion, req.Context, "raw_batch_scan", kr.StartKey, kr.EndKey); err != nil {
			return &kvrpcpb.RawBatchScanResponse{Kvs: errorPair(err)}
		}
	}
	r, err := e.open(ctx, req.Cf)
	if err != nil {
		return &kvrpcpb.RawBatchScanResponse{Kvs: errorPair(err)}
	}
	defer r.Close()
	ends, ok := batchScanEnds(req.Ranges, req.Reverse)
	if !ok {
		return &kvrpcpb.RawBatchScanResponse{Kvs: errorPair(check.Other("Invalid KeyRanges"))}
	}
	var kvs []*kvrpcpb.KvPair
	scan := scan{bounds, req.Reverse, req.KeyOnly, req.EachLimit}
	for i, kr := range req.Ranges {
		if kvs, err = scan.collect(r, kvs, kr.StartKey, ends[i]); err != nil {
			return &kvrpcpb.RawBatchScanResponse{Kvs: errorPair(err)}
		}
	}
	return &kvrpcpb.RawBatchScanResponse{Kvs: kvs}
}

// batchScanEnds returns where each range ends, and whether all go in the direction of
// the scan (TiKV src/storage/mod.rs, check_key_ranges).
func batchScanEnds(ranges []*kvrpcpb.KeyRange, reverse bool) (ends [][]byte, ok bool) {
	for i, kr := range ranges {
		end := kr.EndKey
		if len(end) == 0 && i+1 < len(ranges) {
			end = ranges[i+1].StartKey
		}
		order := bytes.Compare(kr.StartKey, end)
		if len(end) > 0 && (order == 0 || (order > 0) != reverse) {
			return nil, false
		}
		ends = append(ends, end)
	}
	return ends, true
}

// scan is what the ranges of one request have in common.
type scan struct {
	bounds           keys.Range
	reverse, keyOnly bool
	limit            uint32 // of each range
}

// collect appends the pairs from start to end, the bounds as the request has them.
func (s scan) collect(r reader, kvs []*kvrpcpb.KvPair, start, end []byte) ([]*kvrpcpb.KvPair, *check.Error) {
	in := keys.Range{Start: r.format.bound(start), End: r.format.bound(end)}
	if s.reverse {
		if len(start) == 0 {
			return kvs, nil
		}
		in.Start, in.End = in.End, in.Start
	}
	if in = in.Intersect(s.bounds); in.Empty() || s.limit == 0 {
		return kvs, nil
	}
	left := s.limit
	for key, v := range r.pairs(in, s.reverse) {
		kv := &kvrpcpb.KvPair{Key: key}
		if key == nil {
			return kvs, check.Other(errStoredValue.Error())
		}
		if !s.keyOnly {
			kv.Value = v
		}
		kvs = append(kvs, kv)
		if left--; left == 0 {
			break
		}
	}
	return kvs, nil
}

// pairs iterates over the visible keys in a range of engine keys, as clients know them,
// and their values. A nil key is an entry that cannot be decoded, and the last.
func (r reader) pairs(in keys.Range, reverse bool) iter.Seq2[[]byte, []byte] {
	entries := r.Scan(r.cf, in, reverse)
	if r.format == formatV2 {
		entries = newest(entries, reverse)
	}
	return func(yield func(key, data []byte) bool) {
		for key, stored := range entries {
			v, err := r.format.decode(stored)
			if r.format == formatV2 && err == nil {
				key, _, err = keys.Decode(key)
			}
			if err != nil {
				yield(nil, nil)
				return
			}
			if key == nil {
				key = []byte{} // the empty key
			}
			if v.visible(r.now) && !yield(key, v.data) {
				return
			}
		}
	}
}

// newest reduces V2 entries to each key's newest version, and their keys to the encoded
// ones. Versions come newest first, or, in reverse, last.
func newest(entries iter.Seq2[[]byte, []byte], reverse bool) iter.Seq2[[]byte, []byte] {
	return func(yield func(enc, stored []byte) bool) {
		var last, held []byte // the key met last; in reverse its value so far
		for engineKey, stored := range entries {
			enc, _, ok := splitVersion(engineKey)
			if !ok {
				enc = engineKey
			}
			same := last != nil && bytes.Equal(enc, last)
			switch {
			case reverse && !same && last != nil:
				if !yield(last, held) {
					return
				}
			case !reverse && !same:
				if !yield(enc, stored) {
					return
				}
			}
			last, held = enc, stored
		}
		if reverse && last != nil {
			yield(last, held)
		}
	}
}

// Checksum answers RawChecksum: over the pairs of all ranges, the exclusive or of the
// CRC-64 of each key and value, their number, and their bytes; in V2 the key with its
// keyspace prefix and without its timestamp (TiKV src/storage/raw/store.rs,
// raw_checksum_ranges).
func (e *Engine) Checksum(ctx context.Context, bounds keys.Range, req *kvrpcpb.RawChecksumRequest) *kvrpcpb.RawChecksumResponse {
	if req.Algorithm != kvrpcpb.ChecksumAlgorithm_Crc64_Xor {
		return &kvrpcpb.RawChecksumResponse{Error: "unknown checksum algorithm " + req.Algorithm.String()}
	}
	for _, kr := range req.Ranges {
		if err := check.Range(e.cfg.APIVersion, req.Context, "raw_checksum", kr.StartKey, kr.EndKey); err != nil {
			return &kvrpcpb.RawChecksumResponse{Error: err.Message}
		}
	}
	r, err := e.open(ctx, "")
	if err != nil {
		return &kvrpcpb.RawChecksumResponse{Error: err.Message}
	}
	defer r.Close()
	resp, table := &kvrpcpb.RawChecksumResponse{}, crc64.MakeTable(crc64.ECMA)
	for _, kr := range req.Ranges {
		in := keys.Range{Start: r.format.bound(kr.StartKey), End: r.format.bound(kr.EndKey)}
		for key, data := range r.pairs(in.Intersect(bounds), false) {
			if key == nil {
				return &kvrpcpb.RawChecksumResponse{Error: errStoredValue.Error()}
			}
			resp.Checksum ^= crc64.Update(crc64.Checksum(key, table), table, data)
			resp.TotalKvs++
			resp.TotalBytes += uint64(len(key) + len(data))
		}
	}
	return resp
}
