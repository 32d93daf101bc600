package transport

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// frame is a message that is encoded already. Sending it hands over its bytes.
type frame struct{ data mem.BufferSlice }

// received is a message that its receiver decodes, and frees.
type received struct{ data mem.Buffer }

// encoder is a message that encodes itself, as every Message does.
type encoder interface{ Marshal() ([]byte, error) }

// grpcCodec encodes kvproto's messages with their own methods, frames not at all, and
// the few messages of google's protobuf (grpc.health) with that. What is received in
// pieces is put together in a buffer of its pool.
type grpcCodec struct{ pool mem.BufferPool }

// Name is the content type's, that of every protobuf codec.
func (grpcCodec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (grpcCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *frame:
		return m.data, nil
	case encoder:
		data, err := m.Marshal()
		return mem.BufferSlice{mem.SliceBuffer(data)}, err
	case proto.Message:
		data, err := proto.Marshal(m)
		return mem.BufferSlice{mem.SliceBuffer(data)}, err
	}
	return nil, fmt.Errorf("transport: cannot encode a %T", v)
}

// Unmarshal implements encoding.CodecV2.
func (c grpcCodec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *received:
		m.data = data.MaterializeToBuffer(c.pool)
		return nil
	case Decoder:
		return m.Unmarshal(data.Materialize())
	case proto.Message:
		return proto.Unmarshal(data.Materialize(), m)
	}
	return fmt.Errorf("transport: cannot decode a %T", v)
}
