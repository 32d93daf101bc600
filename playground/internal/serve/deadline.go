package serve

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Late is how a call ends whose handler returned err. gRPC's server ends a call at its
// deadline by cancelling its context, and what a handler makes of that may be sent before
// the stream is reset (grpc-go: internal/transport/http2_server.go, closeStream). Who set
// the deadline hears of it as such.
func Late(ctx context.Context, err error) error {
	if status.Code(err) != codes.Canceled && !errors.Is(err, context.Canceled) {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return status.FromContextError(context.DeadlineExceeded).Err()
	}
	return err
}

func lateUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	resp, err := handle(ctx, req)
	return resp, Late(ctx, err)
}

func lateStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return Late(stream.Context(), handle(srv, stream))
}
