// Package wire writes and reads the frames of TiKV's BatchCommands stream by hand
// (kvproto tikvpb.proto: BatchCommandsRequest and BatchCommandsResponse): requests are
// encoded once, into the bytes that are sent, and answers are cut out of the bytes that
// were received, for the caller who waits to decode.
package wire

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of BatchCommandsRequest and BatchCommandsResponse that both have.
const (
	fieldCommands = 1
	fieldIDs      = 2
)

// Message is what can be encoded: every message of kvproto.
type Message interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
}

// Request is one request that is to be encoded: its message, under the field number that
// its command has in BatchCommandsRequest.Request.
type Request struct {
	Command protowire.Number
	Message Message
	size    int // of Message
	inner   int // of the BatchCommandsRequest.Request
}

// Measure returns the request and the bytes that it takes in a frame.
func Measure(command protowire.Number, m Message) (r Request, total int) {
	r = Request{Command: command, Message: m, size: m.Size()}
	r.inner = protowire.SizeTag(command) + protowire.SizeBytes(r.size)
	return r, protowire.SizeTag(fieldCommands) + protowire.SizeBytes(r.inner)
}

// Append appends the request, as one element of BatchCommandsRequest.requests. The
// message must not have changed since it was measured.
func (r *Request) Append(dst []byte) ([]byte, error) {
	dst = protowire.AppendTag(dst, fieldCommands, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(r.inner))
	dst = protowire.AppendTag(dst, r.Command, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(r.size))
	n := len(dst)
	if cap(dst)-n < r.size {
		dst = append(dst, make([]byte, r.size)...)
	} else {
		dst = dst[:n+r.size]
	}
	_, err := r.Message.MarshalToSizedBuffer(dst[n:])
	return dst, err
}

// AppendIDs appends BatchCommandsRequest.request_ids. A frame is the concatenation of
// its requests and, before, between or behind them, their ids: protobuf appends what is
// repeated to what was there.
func AppendIDs(dst []byte, ids []uint64) []byte {
	dst = protowire.AppendTag(dst, fieldIDs, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(packed(ids)))
	for _, id := range ids {
		dst = protowire.AppendVarint(dst, id)
	}
	return dst
}

// SizeIDs is how many bytes AppendIDs appends.
func SizeIDs(ids []uint64) int {
	return protowire.SizeTag(fieldIDs) + protowire.SizeBytes(packed(ids))
}

func packed(ids []uint64) int {
	size := 0
	for _, id := range ids {
		size += protowire.SizeVarint(id)
	}
	return size
}
