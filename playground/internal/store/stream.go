package store

import (
	"context"
	"errors"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/fault"
)

// streamed is a call that is answered by a stream of messages. Its command says how it is
// named, made and refused.
type streamed struct {
	*command
	serve func(ctx context.Context, req any) messages
}

// messages are a stream's, the last with the status that ends it, if that is an error.
type messages iter.Seq2[any, error]

// serveStream answers a call by a stream of messages, under the faults: one that
// mangles the answer mangles each message, one that drops it all of them.
func (s *Store) serveStream(st *streamed, stream grpc.ServerStream) error {
	if st.flash && !s.flash() {
		return status.Errorf(codes.Unimplemented, "unknown method %s for service tikvpb.Tikv", st.method)
	}
	req := st.request()
	if err := stream.RecvMsg(req); err != nil {
		return err
	}
	if err := s.foreign(req); err != nil {
		return err
	}
	tasks := s.server.Tasks()
	if tasks == nil {
		return status.Error(codes.Unavailable, errClosing.Error())
	}
	life := tasks.Context()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	answer, err := s.messages(ctx, st, req)
	switch {
	case errors.Is(err, fault.ErrDisconnect):
		s.server.Disconnect(stream.Context())
	case errors.Is(err, fault.ErrDropped):
		<-ctx.Done()
		err = status.FromContextError(ctx.Err()).Err()
	}
	if err == nil {
		err = send(stream, answer)
	}
	if life.Err() != nil {
		return status.Error(codes.Unavailable, errClosing.Error())
	}
	if _, ok := status.FromError(err); !ok {
		return status.Error(codes.Unavailable, err.Error())
	}
	return err
}

// messages starts a stream under the faults. What it returns is messages, or the one
// message that a fault answers with; either may be mangled.
func (s *Store) messages(ctx context.Context, st *streamed, req any) (any, error) {
	s.Counter.Call(st.method)
	handle := func() any { return st.serve(ctx, req) }
	if !s.Faults.Active() {
		return handle(), nil
	}
	refuse := func(region, key uint8) any { return s.invented(st.command, region, key, req) }
	return s.Faults.Do(ctx, s.call(st.command, req), refuse, handle)
}

func send(stream grpc.ServerStream, answer any) error {
	change := func(m any) any { return m }
	if m, ok := answer.(fault.Mangled); ok {
		answer, change = m.Answer, func(one any) any { return fault.Mangled{Answer: one, Change: m.Change} }
	}
	all, ok := answer.(messages)
	if !ok {
		all = func(yield func(any, error) bool) { yield(answer, nil) }
	}
	for m, err := range all {
		if err != nil {
			return err
		}
		out, err := encoded(change(m))
		if err != nil {
			return err
		}
		if err := stream.SendMsg(out); err != nil {
			return err
		}
	}
	return nil
}
