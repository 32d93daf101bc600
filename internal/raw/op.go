package raw

import (
	"sync"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/router"
)

// Pool keeps what the operations on single keys need, for all views of a client.
type Pool struct{ free sync.Pool }

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
