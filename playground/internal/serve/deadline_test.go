package serve

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// cancelled is the context of a call that the server has cancelled, with the time that its
// caller gave it.
type cancelled struct {
	context.Context
	deadline time.Time
}

func (c cancelled) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s stream) Context() context.Context { return s.ctx }

// A handler may hear of the end of its call, and tell of it, before the call is reset.
func TestLate(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		deadline  time.Time
		err, want error
	}{
		{time.Now(), status.FromContextError(ctx.Err()).Err(), context.DeadlineExceeded},
		{time.Now(), ctx.Err(), context.DeadlineExceeded},
		{time.Now(), status.Error(codes.Unavailable, "x"), nil},
		{time.Now(), nil, nil},
		{time.Now().Add(time.Hour), ctx.Err(), nil},
		{time.Time{}, ctx.Err(), nil},
	} {
		if test.want == nil {
			test.want = test.err
		} else {
			test.want = status.FromContextError(test.want).Err()
		}
		ctx := cancelled{ctx, test.deadline}
		_, err := lateUnary(ctx, nil, nil, func(context.Context, any) (any, error) { return nil, test.err })
		if !errors.Is(err, test.want) {
			t.Errorf("%v: %v, want %v", test.err, err, test.want)
		}
		if err := lateStream(nil, stream{ctx: ctx}, nil, func(any, grpc.ServerStream) error { return test.err }); !errors.Is(err, test.want) {
			t.Errorf("a stream, %v: %v, want %v", test.err, err, test.want)
		}
	}
}
