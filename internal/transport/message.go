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

// Response is a TiKV response.
type Response = Message
