// Package rawkv answers TiKV's raw requests on a storage engine: one method for each
// request, without network and regions. Its rules and stored formats are TiKV's, for
// the API versions V1, V1TTL and V2 (TiKV src/storage/mod.rs, raw_*).
//
// Methods take the bounds of the region that the request is for, as PD holds them: raw
// keys as they are in V1 and V1TTL, memcomparable-encoded in V2. Scans and range
// deletions end at them; that a key lies in them is the caller's check. The engine
// keeps the requests' slices, and answers share slices with it: nobody changes them.
package rawkv

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/storage/check"
)

// Config is what an Engine runs with.
type Config struct {
	APIVersion kvrpcpb.APIVersion // V1, V1TTL or V2
	Now        func() time.Time   // the clock that TTLs run by
	// Timestamp gives the timestamps of V2's versions; each is larger than those
	// before. If it is nil they are made of Now.
	Timestamp func() (uint64, error)
}

// Engine answers raw requests. Its methods may be called by many goroutines.
type Engine struct {
	store   storage.Engine
	cfg     Config
	format  format
	latches *storage.Latches
	lastTS  atomic.Uint64
	flying  flying
}

// New returns an Engine on store.
func New(store storage.Engine, cfg Config) *Engine {
	e := &Engine{store: store, cfg: cfg, format: formatOf(cfg.APIVersion), latches: storage.NewLatches()}
	if e.cfg.Timestamp == nil {
		e.cfg.Timestamp = e.nextTimestamp
	}
	return e
}

// nextTimestamp is the clock's, or one more than the last if the clock has not moved.
func (e *Engine) nextTimestamp() (uint64, error) {
	now := uint64(e.cfg.Now().UnixMilli()) << 18
	for {
		last := e.lastTS.Load()
		next := max(now, last+1)
		if e.lastTS.CompareAndSwap(last, next) {
			return next, nil
		}
	}
}

// seconds is the clock in the unit of TTLs (TiKV components/engine_traits/src/
// raw_ttl.rs, ttl_current_ts).
func (e *Engine) seconds() uint64 { return uint64(e.cfg.Now().Unix()) }

// expiry is ttl_to_expire_ts of the same file: 0 is never.
func (e *Engine) expiry(ttl uint64) uint64 {
	if ttl == 0 {
		return 0
	}
	now := e.seconds()
	if ttl > ^uint64(0)-now {
		return ^uint64(0)
	}
	return now + ttl
}

// family is the column family that a request names (TiKV src/storage/mod.rs, rawkv_cf).
func (e *Engine) family(name string) (storage.CF, *check.Error) {
	switch {
	case name == "":
		return storage.Default, nil
	case e.cfg.APIVersion == kvrpcpb.APIVersion_V2:
		return 0, namedError("cf is deprecated in API V2, cf name: ", "CfDeprecated", name)
	}
	for _, cf := range []storage.CF{storage.Default, storage.Lock, storage.Write} {
		if name == cf.String() {
			return cf, nil
		}
	}
	return 0, namedError("invalid cf name: ", "InvalidCf", name)
}

// reader is one request's view: a snapshot, the family, and the second it runs in.
type reader struct {
	storage.Snapshot
	format format
	cf     storage.CF
	now    uint64
}

// open checks the family and takes the snapshot. The caller closes the reader.
func (e *Engine) open(ctx context.Context, cfName string) (reader, *check.Error) {
	cf, err := e.family(cfName)
	if err != nil {
		return reader{}, err
	}
	r := reader{Snapshot: storage.Look(ctx, e.store), format: e.format, cf: cf}
	if e.format != formatV1 {
		r.now = e.seconds()
	}
	return r, nil
}

// stored returns the newest stored value of a key.
func (r reader) stored(key []byte) (value, bool, *check.Error) {
	var data []byte
	if r.format == formatV2 {
		_, data = r.newestVersion(key)
		if data == nil {
			return value{}, false, nil
		}
	} else {
		var ok bool
		if data, ok = r.Get(r.cf, key); !ok {
			return value{}, false, nil
		}
	}
	v, err := r.format.decode(data)
	if err != nil {
		return value{}, false, check.Other(err.Error())
	}
	return v, true, nil
}

// get returns what a client sees of a key: nothing once it is deleted or expired.
func (r reader) get(key []byte) (data []byte, ok bool, err *check.Error) {
	v, ok, err := r.stored(key)
	if err != nil || !ok || !v.visible(r.now) {
		return nil, false, err
	}
	return v.data, true, nil
}

// newestVersion returns the V2 engine key and the stored value of a key's version with
// the largest timestamp; nil where there is none.
func (r reader) newestVersion(key []byte) (engineKey, stored []byte) {
	for k, v := range r.Scan(r.cf, versions(key), false) {
		return k, v
	}
	return nil, nil
}

// Get answers RawGet.
func (e *Engine) Get(ctx context.Context, _ keys.Range, req *kvrpcpb.RawGetRequest) *kvrpcpb.RawGetResponse {
	if err := check.Keys(e.cfg.APIVersion, req.Context, "raw_get", req.Key); err != nil {
		return &kvrpcpb.RawGetResponse{Error: err.Message}
	}
	r, err := e.open(ctx, req.Cf)
	if err != nil {
		return &kvrpcpb.RawGetResponse{Error: err.Message}
	}
	defer r.Close()
	v, ok, err := r.get(req.Key)
	if err != nil {
		return &kvrpcpb.RawGetResponse{Error: err.Message}
	}
	return &kvrpcpb.RawGetResponse{Value: v, NotFound: !ok}
}

// BatchGet answers RawBatchGet: the pairs that exist, in the order of the keys. An
// error is one pair without a key.
func (e *Engine) BatchGet(ctx context.Context, _ keys.Range, req *kvrpcpb.RawBatchGetRequest) *kvrpcpb.RawBatchGetResponse {
	if err := check.Keys(e.cfg.APIVersion, req.Context, "raw_batch_get", req.Keys...); err != nil {
		return &kvrpcpb.RawBatchGetResponse{Pairs: errorPair(err)}
	}
	r, err := e.open(ctx, req.Cf)
	if err != nil {
		return &kvrpcpb.RawBatchGetResponse{Pairs: errorPair(err)}
	}
	defer r.Close()
	resp := &kvrpcpb.RawBatchGetResponse{Pairs: make([]*kvrpcpb.KvPair, 0, len(req.Keys))}
	for _, key := range req.Keys {
		v, ok, err := r.get(key)
		switch {
		case err != nil:
			resp.Pairs = append(resp.Pairs, &kvrpcpb.KvPair{Error: err.KeyError()})
		case ok:
			resp.Pairs = append(resp.Pairs, &kvrpcpb.KvPair{Key: key, Value: v})
		}
	}
	return resp
}

// GetKeyTTL answers RawGetKeyTTL: the seconds left, 0 if there is no TTL. A V1 store
// has none and refuses (where TiKV src/storage/raw/store.rs, raw_get_key_ttl, panics).
// A key deleted in V2 is absent, as it is in TiKV once the tombstone is collected.
func (e *Engine) GetKeyTTL(ctx context.Context, _ keys.Range, req *kvrpcpb.RawGetKeyTTLRequest) *kvrpcpb.RawGetKeyTTLResponse {
	err := check.Keys(e.cfg.APIVersion, req.Context, "raw_get_key_ttl", req.Key)
	if err == nil && e.format == formatV1 {
		err = errTTLNotEnabled()
	}
	if err != nil {
		return &kvrpcpb.RawGetKeyTTLResponse{Error: err.Message}
	}
	r, err := e.open(ctx, req.Cf)
	if err != nil {
		return &kvrpcpb.RawGetKeyTTLResponse{Error: err.Message}
	}
	defer r.Close()
	v, ok, err := r.stored(req.Key)
	switch {
	case err != nil:
		return &kvrpcpb.RawGetKeyTTLResponse{Error: err.Message}
	case !ok || !v.visible(r.now):
		return &kvrpcpb.RawGetKeyTTLResponse{NotFound: true}
	case v.expires == 0:
		return &kvrpcpb.RawGetKeyTTLResponse{}
	}
	return &kvrpcpb.RawGetKeyTTLResponse{Ttl: v.expires - r.now}
}
