package raw

import (
	"sync"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/wire"
)

// Pool keeps what operations need, for all views of a client.
type Pool struct {
	free  sync.Pool // *op
	reads sync.Pool // *read
	pairs wire.PairPool
}

// op is one such operation: its call, its request and its answer. What is in it belongs
// to it until it is given back, but for the value of the answer and what errors took.
type op struct {
	call    router.Call
	context kvrpcpb.Context

	get     kvrpcpb.RawGetRequest
	got     kvrpcpb.RawGetResponse
	put     kvrpcpb.RawPutRequest
	didPut  kvrpcpb.RawPutResponse
	del     kvrpcpb.RawDeleteRequest
	deleted kvrpcpb.RawDeleteResponse
}

// take begins an operation.
func (kv *KV) take(name string) *op {
	o, _ := kv.Pool.free.Get().(*op)
	if o == nil {
		o = &op{}
	}
	o.call = kv.Call
	o.call.Op = name
	return o
}

// give ends one. The router has encoded the request before it waited, and keeps nothing.
func (kv *KV) give(o *op) {
	*o = op{}
	kv.Pool.free.Put(o)
}

// read is one request for many pairs, with its answer, for an operation that has one
// after the other.
type read struct {
	call    router.Call
	context kvrpcpb.Context
	batch   kvrpcpb.RawBatchGetRequest
	scan    kvrpcpb.RawScanRequest
	order   keys.Order // of batch
	got     wire.Pairs
}

// takeRead begins such an operation.
func (kv *KV) takeRead(name string) *read {
	r, _ := kv.Pool.reads.Get().(*read)
	if r == nil {
		r = &read{got: wire.Pairs{Pool: &kv.Pool.pairs}}
	}
	r.call = kv.Call
	r.call.Op, r.call.Resend = name, true
	return r
}

// giveRead ends it. What the pairs of the answer hold is others' by now.
func (kv *KV) giveRead(r *read) {
	r.got.Reset()
	r.order.Reset()
	*r = read{got: r.got, order: r.order}
	kv.Pool.reads.Put(r)
}
