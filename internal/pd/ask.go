package pd

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/transport"
)

// answer is a response of PD.
type answer interface{ GetHeader() *pdpb.ResponseHeader }

// ask makes a call to the leader, again and again until it has an answer, an error that
// stays, or no more time.
func ask[R answer](ctx context.Context, c *Client, op string, f func(context.Context, pdpb.PDClient) (R, error)) (R, error) {
	return askConn(ctx, c, op, func(ctx context.Context, conn *grpc.ClientConn) (R, error) {
		return f(ctx, pdpb.NewPDClient(conn))
	})
}

// askConn is ask for any of PD's services.
func askConn[R answer](ctx context.Context, c *Client, op string, f func(context.Context, *grpc.ClientConn) (R, error)) (R, error) {
	ctx, cancel := c.bound(ctx, c.cfg.Timeout)
	defer cancel()
	var none R
	retry := backoff.New(0)
	for moved := false; ; {
		m := c.members.Load()
		resp, err := attemptConn(ctx, c, m.leader, f)
		e := judge(op, m.leader, m.clusterID, resp, err)
		switch {
		case e == nil:
			return resp, nil
		case ctx.Err() != nil:
			return none, c.late(ctx, e)
		case !e.retryable():
			return none, e
		}
		// At once if the leader is another, but not twice in a row.
		if moved = !moved && c.follow(ctx, m.leader); moved {
			continue
		}
		if err := retry.Wait(ctx, backoff.PD); err != nil {
			return none, c.late(ctx, e)
		}
	}
}

// attempt makes one call to one member.
func attempt[R any](ctx context.Context, c *Client, addr string, f func(context.Context, pdpb.PDClient) (R, error)) (R, error) {
	return attemptConn(ctx, c, addr, func(ctx context.Context, conn *grpc.ClientConn) (R, error) {
		return f(ctx, pdpb.NewPDClient(conn))
	})
}

func attemptConn[R any](ctx context.Context, c *Client, addr string, f func(context.Context, *grpc.ClientConn) (R, error)) (R, error) {
	var none R
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	conn, err := c.cfg.Pool.Conn(addr)
	if err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.AttemptTimeout, errSilent)
	defer cancel()
	resp, err := f(ctx, conn)
	if err != nil && context.Cause(ctx) == errSilent {
		return none, errSilent
	}
	return resp, err
}

// errSilent is a member that did not answer within AttemptTimeout.
var errSilent = errors.New("member is silent")

// judge returns what is wrong with an outcome, or nil. clusterID is checked where it is
// not 0.
func judge(op, addr string, clusterID uint64, resp answer, err error) *Error {
	e := &Error{Op: op, Addr: addr, Kind: Unavailable}
	if err != nil {
		e.Message = err.Error()
		if errors.Is(err, transport.ErrClosed) {
			e.Kind, e.Err = Closed, ErrClosed
			return e
		}
		if s, ok := status.FromError(err); ok {
			e.Message = s.Code().String() + ": " + s.Message()
			e.Kind, e.Err = statusKind(s)
		}
		return e
	}
	if resp == nil || reflect.ValueOf(resp).IsNil() {
		e.Message = "empty answer"
		return e
	}
	h := resp.GetHeader()
	if he := h.GetError(); he.GetType() != pdpb.ErrorType_OK {
		e.Code, e.Message = he.GetType(), he.GetType().String()+": "+he.GetMessage()
		switch e.Code {
		case pdpb.ErrorType_NOT_BOOTSTRAPPED: // yet
		case pdpb.ErrorType_REGION_NOT_FOUND: // so say members that do not lead; a leader says nothing
		default:
			e.Kind = Rejected
		}
		return e
	}
	if id := h.GetClusterId(); clusterID != 0 && id != clusterID {
		e.Kind, e.Err = WrongCluster, ErrWrongCluster
		e.Message = fmt.Sprintf("%d, not %d", id, clusterID)
		return e
	}
	return nil
}

// statusKind classifies PD's gRPC errors (PD server/grpc_service.go): not started, not
// leader and closing are UNAVAILABLE, and plain errors arrive as UNKNOWN, which may be
// over by the next attempt.
func statusKind(s *status.Status) (Kind, error) {
	switch s.Code() {
	case codes.FailedPrecondition:
		if strings.Contains(s.Message(), "mismatch cluster id") {
			return WrongCluster, ErrWrongCluster
		}
		return Rejected, nil
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.OutOfRange, codes.Unimplemented, codes.DataLoss, codes.Unauthenticated:
		return Rejected, nil
	}
	return Unavailable, nil
}
