package transport

import (
	"fmt"

	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// frame is a message that is encoded already. Sending it hands over its bytes.
type frame struct{ data mem.BufferSlice }

// grpcCodec encodes kvproto's messages with their own methods, frames not at all, and
// the few messages of google's protobuf (grpc.health) with that.
type grpcCodec struct{}

// Name is the content type's, that of every protobuf codec.
func (grpcCodec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (grpcCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *frame:
		return m.data, nil
	case Message:
		data, err := m.Marshal()
		return mem.BufferSlice{mem.SliceBuffer(data)}, err
	case proto.Message:
		data, err := proto.Marshal(m)
		return mem.BufferSlice{mem.SliceBuffer(data)}, err
	}
	return nil, fmt.Errorf("transport: cannot encode a %T", v)
}

// Unmarshal implements encoding.CodecV2.
func (grpcCodec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *tikvpb.BatchCommandsResponse:
		buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
		err := m.Unmarshal(buf.ReadOnlyData())
		if !sharesBytes(m) {
			buf.Free()
		}
		return err
	case Message:
		return m.Unmarshal(data.Materialize())
	case proto.Message:
		return proto.Unmarshal(data.Materialize(), m)
	}
	return fmt.Errorf("transport: cannot decode a %T", v)
}

// sharesBytes reports whether m refers to the bytes it was decoded from: kvproto copies
// bytes fields, but for those of coprocessor replies (pkg/sharedbytes).
func sharesBytes(m *tikvpb.BatchCommandsResponse) bool {
	for _, r := range m.Responses {
		if _, ok := r.GetCmd().(*tikvpb.BatchCommandsResponse_Response_Coprocessor); ok {
			return true
		}
	}
	return false
}
