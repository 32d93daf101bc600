package pdserver

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/serve"
)

// mangling is the key of a stream's context under which its manglingStream is.
type mangling struct{}

// manglingStream is a stream whose messages a fault may change. The handler of a stream
// sends one at a time.
type manglingStream struct {
	grpc.ServerStream
	ctx    context.Context
	change func([]byte) []byte // of what is sent next; nil: none
}

func (s *manglingStream) Context() context.Context { return s.ctx }

func (s *manglingStream) SendMsg(m any) error {
	if s.change == nil {
		return s.ServerStream.SendMsg(m)
	}
	raw, err := encode(m, s.change)
	if err != nil {
		return err
	}
	return s.ServerStream.SendMsg(raw)
}

// interceptStream lets the handlers of streams meet faults that change their answers.
func interceptStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s := &manglingStream{ServerStream: stream}
	s.ctx = context.WithValue(stream.Context(), mangling{}, s)
	return handler(srv, s)
}

// encode is an answer's encoding, changed.
func encode(answer any, change func([]byte) []byte) (*serve.Raw, error) {
	if raw, ok := answer.(*serve.Raw); ok {
		changed := serve.Raw(change(*raw))
		return &changed, nil
	}
	m, ok := answer.(interface{ Marshal() ([]byte, error) })
	if !ok {
		return nil, status.Errorf(codes.Internal, "a %T cannot be changed", answer)
	}
	data, err := m.Marshal()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	raw := serve.Raw(change(data))
	return &raw, nil
}
