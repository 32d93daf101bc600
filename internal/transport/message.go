package transport

import "github.com/pingcap/kvproto/pkg/kvrpcpb"

// Message is a kvproto message.
type Message interface {
	Size() int
	Marshal() ([]byte, error)
	MarshalToSizedBuffer([]byte) (int, error)
	Unmarshal([]byte) error
	Reset()
	String() string
	ProtoMessage()
}

// Request is a TiKV request that carries a context, which is nearly all of them.
type Request interface {
	Message
	GetContext() *kvrpcpb.Context
}

// Decoder is what an answer is decoded into, once, by the caller that waits for it. The
// bytes are the transport's and valid only during the call. Every Message is one.
type Decoder interface{ Unmarshal([]byte) error }

// Response is a TiKV response.
type Response = Message
