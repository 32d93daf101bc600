// Package serve runs a node's gRPC server: kvproto's own encoding, the limits and
// keepalive rules that TiKV and PD set, start, stop, pause.
package serve

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the fallback that codec finds by name
	"google.golang.org/grpc/mem"
)

// message is what kvproto generates.
type message interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
	Unmarshal([]byte) error
}

// Raw is a message that is its own encoding, for services spoken without generated
// code.
type Raw []byte

// codec encodes kvproto's messages with the code generated for them, Raw as it is and
// others (health checks) as protobuf does.
type codec struct{ fallback encoding.CodecV2 }

// Codec returns the servers' codec; clients made for tests use it too.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2("proto")} }

// Name is that of protobuf: the encodings are the same.
func (codec) Name() string { return "proto" }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case message:
		size := m.Size()
		if mem.IsBelowBufferPoolingThreshold(size) {
			buf := make([]byte, size)
			n, err := m.MarshalToSizedBuffer(buf)
			if err != nil {
				return nil, err
			}
			return mem.BufferSlice{mem.SliceBuffer(buf[size-n:])}, nil
		}
		pool := mem.DefaultBufferPool()
		buf := pool.Get(size)
		n, err := m.MarshalToSizedBuffer((*buf)[:size])
		if err != nil || n != size {
			pool.Put(buf)
			return nil, fmt.Errorf("serve: %T took %d of %d bytes: %w", v, n, size, err)
		}
		return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
	case *Raw:
		return mem.BufferSlice{mem.SliceBuffer(*m)}, nil
	}
	return c.fallback.Marshal(v)
}

// Unmarshal gives the message memory of its own: kvproto's sharedbytes keep parts of
// what they were decoded from.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case message:
		return m.Unmarshal(data.Materialize())
	case *Raw:
		*m = data.Materialize()
		return nil
	}
	return c.fallback.Unmarshal(data, v)
}
