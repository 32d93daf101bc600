package nullstore

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// codec passes frames of the store on as the bytes that they are, and lets PD's messages
// encode themselves.
type codec struct{}

var _ encoding.CodecV2 = codec{}

// frame is a message as bytes: in is received, and freed by who handles it, out is to send.
type frame struct {
	in  mem.BufferSlice
	out mem.Buffer
}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *frame:
		return mem.BufferSlice{v.out}, nil
	case interface{ Marshal() ([]byte, error) }:
		b, err := v.Marshal()
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	return nil, fmt.Errorf("null store: no encoding of %T", v)
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case *frame:
		data.Ref()
		v.in = data
		return nil
	case interface{ Unmarshal([]byte) error }:
		return v.Unmarshal(data.Materialize())
	}
	return fmt.Errorf("null store: no decoding of %T", v)
}

// bytes is the received message in one piece, with memory of p if it must be put together.
// done frees it, when nothing of it is used any more.
func (f *frame) bytes(p *pool) (b []byte, done func()) {
	whole := f.in.MaterializeToBuffer(p)
	f.in.Free()
	return whole.ReadOnlyData(), whole.Free
}
