package transport

import (
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/mem"
)

// encoder encodes one request as a BatchCommandsRequest of its own. Protobuf merges
// concatenated messages field by field and appends what is repeated, so that a frame
// of many requests is the concatenation of theirs.
type encoder struct {
	batch tikvpb.BatchCommandsRequest
	one   request
}

func newEncoder() *encoder {
	e := &encoder{}
	e.batch.Requests = []*request{&e.one}
	e.batch.RequestIds = []uint64{0}
	return e
}

// encode returns the encoded request in a buffer of the byte-buffer pool.
func (e *encoder) encode(cmd *command, id uint64, req Message) (*[]byte, error) {
	cmd.wrap(&e.one, req)
	e.batch.RequestIds[0] = id
	size := e.batch.Size()
	buf := mem.DefaultBufferPool().Get(size)
	*buf = (*buf)[:size]
	_, err := e.batch.MarshalToSizedBuffer(*buf)
	e.one.Cmd = nil
	if err != nil {
		mem.DefaultBufferPool().Put(buf)
		return nil, err
	}
	return buf, nil
}

// smallFrame is the size up to which a frame is copied into a buffer of this size, the
// least for which grpc returns a buffer to its pool.
const smallFrame = 4 << 10

// join makes one frame of encoded requests and takes their buffers.
func join(parts []*[]byte) *frame {
	pool := mem.DefaultBufferPool()
	size := 0
	for _, p := range parts {
		size += len(*p)
	}
	if len(parts) == 1 && size > smallFrame {
		return &frame{mem.BufferSlice{mem.NewBuffer(parts[0], pool)}}
	}
	buf := pool.Get(max(size, smallFrame))
	*buf = (*buf)[:0]
	for _, p := range parts {
		*buf = append(*buf, *p...)
		pool.Put(p)
	}
	return &frame{mem.BufferSlice{mem.NewBuffer(buf, pool)}}
}
