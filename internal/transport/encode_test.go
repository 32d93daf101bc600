package transport

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// TestFramesAreConcatenations: requests that were encoded one by one and joined decode,
// with kvproto's own code, as one message with all of them in order.
func TestFramesAreConcatenations(t *testing.T) {
	commands := newCommands()
	var pool buffers
	for _, sizes := range [][]int{{0}, {10}, {copyLimit}, {3 * newBuffer}, {1, 2, 3}, {copyLimit, 0, copyLimit}, {keptBuffer, 1, keptBuffer + 1}, make([]int, frameCalls)} {
		a := assembly{pool: &pool}
		var ids []uint64
		for i, size := range sizes {
			var req Message = &kvrpcpb.RawGetRequest{Key: make([]byte, size)}
			if i%2 == 1 {
				req = &kvrpcpb.RawPutRequest{Value: make([]byte, size)}
			}
			c := &call{cmd: commands[reflect.TypeOf(req)]}
			if err := c.encode(req, &pool); err != nil {
				t.Fatal(err)
			}
			a.add(c)
			ids = append(ids, uint64(1000+i))
		}
		f := a.frame(ids)
		var got tikvpb.BatchCommandsRequest
		if err := got.Unmarshal(f.data.Materialize()); err != nil {
			t.Fatal(err)
		}
		f.data.Free()
		if len(got.Requests) != len(sizes) || len(got.RequestIds) != len(sizes) {
			t.Fatalf("%d requests and %d ids of %d", len(got.Requests), len(got.RequestIds), len(sizes))
		}
		for i, size := range sizes {
			n := len(got.Requests[i].GetRawGet().GetKey()) + len(got.Requests[i].GetRawPut().GetValue())
			if n != size || got.RequestIds[i] != uint64(1000+i) || (got.Requests[i].GetRawPut() != nil) != (i%2 == 1) {
				t.Errorf("request %d of %v is %v with id %d", i, sizes, got.Requests[i], got.RequestIds[i])
			}
		}
	}
}

// What a pool gives out has the length that was asked for, whatever it was given before.
func TestBuffers(t *testing.T) {
	var pool buffers
	for _, n := range []int{0, 1, newBuffer - 1, newBuffer, newBuffer + 1, 5 * newBuffer, keptBuffer, keptBuffer + 1} {
		odd := make([]byte, n) // of a capacity that is no tier's
		pool.Put(&odd)
		for _, size := range []int{0, n / 2, n, n + 1, 2 * n} {
			b := pool.Get(size)
			if len(*b) != size {
				t.Errorf("%d bytes of %d", len(*b), size)
			}
			pool.Put(b)
		}
	}
}

func TestGRPCCodec(t *testing.T) {
	c := grpcCodec{&buffers{}}
	big := bytes.Repeat([]byte("v"), 5<<20)
	for _, in := range []any{
		&kvrpcpb.RawPutRequest{Key: []byte("k"), Value: big},
		&kvrpcpb.RawPutRequest{},
		&grpc_health_v1.HealthCheckRequest{Service: "tikv"},
	} {
		data, err := c.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		// As it arrives: in pieces.
		var pieces mem.BufferSlice
		for all := data.Materialize(); len(all) > 0; {
			n := min(len(all), 1<<20)
			pieces, all = append(pieces, mem.SliceBuffer(all[:n])), all[n:]
		}
		switch in := in.(type) {
		case *kvrpcpb.RawPutRequest:
			var out kvrpcpb.RawPutRequest
			if err := c.Unmarshal(pieces, &out); err != nil || !bytes.Equal(out.Value, in.Value) || !bytes.Equal(out.Key, in.Key) {
				t.Errorf("%T came back different (%v)", in, err)
			}
		case proto.Message:
			var out grpc_health_v1.HealthCheckRequest
			if err := c.Unmarshal(pieces, &out); err != nil || !proto.Equal(in, &out) {
				t.Errorf("%v came back as %v (%v)", in, &out, err)
			}
		}
	}
	if _, err := c.Marshal("text"); err == nil {
		t.Error("encoded a string")
	}
	if err := c.Unmarshal(nil, fmt.Stringer(nil)); err == nil {
		t.Error("decoded into nothing")
	}
	bad := mem.BufferSlice{mem.SliceBuffer{0xff, 0xff, 0xff}}
	for _, out := range []any{&kvrpcpb.RawPutRequest{}, &grpc_health_v1.HealthCheckRequest{}} {
		if err := c.Unmarshal(bad, out); err == nil {
			t.Errorf("decoded garbage into a %T", out)
		}
	}
}
