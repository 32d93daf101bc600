package pd

import (
	"context"
	"errors"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/internal/backoff"
)

// answer is a response of PD.
type answer interface{ GetHeader() *pdpb.ResponseHeader }

// ask makes a call to the leader, again and again until it has an answer, an error that
// stays, or no more time. It goes through the relay where there is one.
func ask[R answer](ctx context.Context, c *Client, op string, f func(context.Context, pdpb.PDClient) (R, error)) (R, error) {
	return askLeader(ctx, c, op, (*members).route, func(ctx context.Context, conn *grpc.ClientConn) (R, error) {
		return f(ctx, pdpb.NewPDClient(conn))
	})
}

// askConn is ask for those of PD's services whose calls no member passes on.
func askConn[R answer](ctx context.Context, c *Client, op string, f func(context.Context, *grpc.ClientConn) (R, error)) (R, error) {
	return askLeader(ctx, c, op, (*members).direct, f)
}

func askLeader[R answer](ctx context.Context, c *Client, op string, way func(*members) target, f func(context.Context, *grpc.ClientConn) (R, error)) (R, error) {
	return askUntil(ctx, c, op, way, f, judgeAnswer)
}

// askUntil asks until good says that the outcome of an attempt is what was asked for, or
// an error that stays.
func askUntil[R any](ctx context.Context, c *Client, op string, way func(*members) target, f func(context.Context, *grpc.ClientConn) (R, error),
	good func(op, addr string, clusterID uint64, resp R, err error) *Error) (R, error) {
	ctx, cancel := c.bound(ctx, c.cfg.Timeout)
	defer cancel()
	var none R
	var attempts []Attempt
	retry := backoff.New(0)
	for tried, moved := 1, false; ; tried++ {
		m := c.members.Load()
		c.freshen(m)
		to := way(m)
		resp, err := attemptAt(ctx, c, m, way, f)
		e := good(op, to.addr, m.clusterID, resp, err)
		if e == nil {
			if c.trouble.Load() != nil {
				c.trouble.Store(nil)
			}
			return resp, nil
		}
		attempts = noted(attempts, e)
		e.Tried, e.Attempts = tried, attempts
		c.trouble.Store(e)
		switch {
		case ctx.Err() != nil:
			return none, c.late(ctx, e)
		case !e.retryable():
			return none, e
		}
		// At once if the way is another, but not twice in a row.
		if moved = !moved && c.rerouted(ctx, m, way); moved {
			continue
		}
		if err := retry.Wait(ctx, backoff.PD); err != nil {
			return none, c.late(ctx, e)
		}
	}
}

// judgeAnswer is judge for an answer that may be nil.
func judgeAnswer[R answer](op, addr string, clusterID uint64, resp R, err error) *Error {
	if err != nil {
		return judge(op, addr, clusterID, nil, err)
	}
	return judge(op, addr, clusterID, resp.GetHeader(), nil) // generated: of a nil one, nil
}

// rerouted asks the members who leads them and reports whether the way there is another
// than by m.
func (c *Client) rerouted(ctx context.Context, m *members, way func(*members) target) bool {
	if now := c.members.Load(); way(now) == way(m) {
		c.follow(ctx, now)
	}
	return way(c.members.Load()) != way(m)
}

// attemptAt makes one call. While it is silent the members are asked whether another
// leads; it ends when the way there is another than by m.
func attemptAt[R any](ctx context.Context, c *Client, m *members, way func(*members) target, f func(context.Context, *grpc.ClientConn) (R, error)) (R, error) {
	to := way(m)
	if to.relayed {
		c.relayUsed.Store(true)
		c.relaying.Add(1)
		defer c.relaying.Add(-1)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	one := &suspect{members: m, way: way, cancel: cancel}
	timer := time.AfterFunc(suspicion, func() { c.suspects.add(one) })
	defer func() {
		if !timer.Stop() {
			c.suspects.remove(one)
		}
	}()
	resp, err := attemptConn(ctx, c, to, c.cfg.AttemptTimeout, f)
	if err != nil && context.Cause(ctx) == errMoved {
		err = errMoved
	}
	return resp, err
}

// attemptFor makes one call of PD's own service, of at most limit.
func attemptFor[R any](ctx context.Context, c *Client, to target, limit time.Duration, f func(context.Context, pdpb.PDClient) (R, error)) (R, error) {
	return attemptConn(ctx, c, to, limit, func(ctx context.Context, conn *grpc.ClientConn) (R, error) {
		return f(ctx, pdpb.NewPDClient(conn))
	})
}

func attemptConn[R any](ctx context.Context, c *Client, to target, limit time.Duration, f func(context.Context, *grpc.ClientConn) (R, error)) (R, error) {
	var none R
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	conn, err := c.cfg.Pool.Conn(to.addr)
	if err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeoutCause(to.context(ctx), min(limit, c.cfg.AttemptTimeout), errSilent)
	defer cancel()
	resp, err := f(ctx, conn)
	if err != nil && context.Cause(ctx) == errSilent {
		return none, errSilent
	}
	return resp, err
}

// errSilent is a member that did not answer within AttemptTimeout.
var errSilent = errors.New("member is silent")
