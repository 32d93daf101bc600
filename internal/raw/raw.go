// Package raw has the operations on raw keys: single keys, batches by region, scans,
// ranges, compare and swap. It speaks wire keys; errors are the router's, BatchError and
// RangeError.
package raw

import (
	"context"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/router"
)

// KV is the raw operations under one set of options. It is not changed after it was
// made, and safe for concurrent use.
type KV struct {
	Router *router.Router
	Pool   *Pool
	Call   router.Call // what every operation begins with: codec and options
	CF     string
	Atomic bool // writes go through latches (for_cas) and are never sent twice
}

// read and write begin a call.
func (kv *KV) read(op string) *router.Call {
	call := kv.Call
	call.Op, call.Resend = op, true
	return &call
}

func (kv *KV) write(op string) *router.Call {
	call := kv.Call
	call.Op, call.Resend, call.Decides = op, !kv.Atomic, true
	return &call
}

// Get returns the value of a key, never nil if it was found.
func (kv *KV) Get(ctx context.Context, op string, key []byte) (value []byte, found bool, err error) {
	o := kv.take(op)
	defer kv.give(o)
	o.call.Resend = true
	o.get = kvrpcpb.RawGetRequest{Context: &o.context, Key: key, Cf: kv.CF}
	err = kv.Router.DoInto(ctx, &o.call, key, &o.get, &o.got)
	switch {
	case err != nil:
		return nil, false, err
	case o.got.Error != "":
		return nil, false, o.call.Refuse(o.got.Error)
	case o.got.NotFound:
		return nil, false, nil
	}
	return present(o.got.Value), true, nil
}

// present is the value of a key that is there: empty, not nil, if it has none.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// TTL returns the seconds that a key has left; 0 if it does not expire.
func (kv *KV) TTL(ctx context.Context, op string, key []byte) (seconds uint64, found bool, err error) {
	call := kv.read(op)
	req := &kvrpcpb.RawGetKeyTTLRequest{Context: &kvrpcpb.Context{}, Key: key, Cf: kv.CF}
	resp, err := router.Do[*kvrpcpb.RawGetKeyTTLResponse](ctx, kv.Router, call, key, req)
	switch {
	case err != nil:
		return 0, false, err
	case resp.GetError() != "":
		return 0, false, call.Refuse(resp.GetError())
	case resp.GetNotFound():
		return 0, false, nil
	}
	return resp.GetTtl(), true, nil
}

// Put stores a value for ttl seconds, or for good if that is 0.
func (kv *KV) Put(ctx context.Context, op string, key, value []byte, ttl uint64) error {
	o := kv.take(op)
	defer kv.give(o)
	o.call.Resend, o.call.Decides = !kv.Atomic, true
	o.put = kvrpcpb.RawPutRequest{Context: &o.context, Key: key, Value: value, Cf: kv.CF, Ttl: ttl, ForCas: kv.Atomic}
	err := kv.Router.DoInto(ctx, &o.call, key, &o.put, &o.didPut)
	if err == nil && o.didPut.Error != "" {
		err = o.call.Refuse(o.didPut.Error)
	}
	return err
}

// PutKeepTTL stores a value for the time that the key has left. Where writes are atomic
// it does so only if the value is still the one that was read with that time, and
// begins again if not.
func (kv *KV) PutKeepTTL(ctx context.Context, op string, key, value []byte) error {
	again := kv.read(op)
	for {
		ttl, found, err := kv.TTL(ctx, op, key)
		if err != nil {
			return err
		}
		if !kv.Atomic {
			return kv.Put(ctx, op, key, value, ttl)
		}
		var old []byte
		if found {
			if old, found, err = kv.Get(ctx, op, key); err != nil {
				return err
			}
		}
		if !found {
			old, ttl = nil, 0
		}
		if _, swapped, err := kv.CompareAndSwap(ctx, op, key, old, value, ttl); swapped || err != nil {
			return err
		}
		if err := kv.Router.Wait(ctx, again, backoff.Conflict); err != nil {
			return err
		}
	}
}

// Delete removes a key.
func (kv *KV) Delete(ctx context.Context, op string, key []byte) error {
	o := kv.take(op)
	defer kv.give(o)
	o.call.Resend, o.call.Decides = !kv.Atomic, true
	o.del = kvrpcpb.RawDeleteRequest{Context: &o.context, Key: key, Cf: kv.CF, ForCas: kv.Atomic}
	err := kv.Router.DoInto(ctx, &o.call, key, &o.del, &o.deleted)
	if err == nil && o.deleted.Error != "" {
		err = o.call.Refuse(o.deleted.Error)
	}
	return err
}

// CompareAndSwap stores a value if the key's is old, or if the key is absent where old
// is nil. prev is what was there, nil for an absent key.
func (kv *KV) CompareAndSwap(ctx context.Context, op string, key, old, value []byte, ttl uint64) (prev []byte, swapped bool, err error) {
	return kv.cas(ctx, op, &kvrpcpb.RawCASRequest{Key: key, PreviousNotExist: old == nil, PreviousValue: old, Value: value, Ttl: ttl})
}

// DeleteIfEquals removes a key if its value is old.
func (kv *KV) DeleteIfEquals(ctx context.Context, op string, key, old []byte) (prev []byte, deleted bool, err error) {
	return kv.cas(ctx, op, &kvrpcpb.RawCASRequest{Key: key, PreviousValue: old, Delete: true})
}

func (kv *KV) cas(ctx context.Context, op string, req *kvrpcpb.RawCASRequest) (prev []byte, done bool, err error) {
	call := kv.write(op)
	call.Resend = false
	req.Context, req.Cf = &kvrpcpb.Context{}, kv.CF
	resp, err := router.Do[*kvrpcpb.RawCASResponse](ctx, kv.Router, call, req.Key, req)
	switch {
	case err != nil:
		return nil, false, err
	case resp.GetError() != "":
		return nil, false, call.Refuse(resp.GetError())
	case !resp.GetPreviousNotExist():
		prev = present(resp.GetPreviousValue())
	}
	return prev, resp.GetSucceed(), nil
}
