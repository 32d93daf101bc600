package transport

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/wire"
)

// StreamRetry is how long an address whose server has no streams of batched commands
// gets all of them as calls of their own, until a stream is tried again.
const StreamRetry = time.Minute

var (
	// errUnbatched is a stream that the server does not know: none of its calls was run.
	errUnbatched = errors.New("the server has no streams of batched commands")
	errAbandoned = errors.New("nobody waits any more")
)

// refused judges why a stream ended. One that the server did not know is not tried again
// for a while. (UNIMPLEMENTED after an answer is not that.)
func (s *stream) refused(err error) error {
	if s.heard || status.Code(err) != codes.Unimplemented {
		return err
	}
	e := s.endpoint
	if e.alone.Swap(time.Now().Add(StreamRetry).UnixNano()) == 0 {
		e.pool.cfg.Logger.Warn("no streams of batched commands, single calls instead", "addr", e.addr, "err", err)
	}
	return errUnbatched
}

// isAlone reports whether calls to the endpoint have to be made alone.
func (e *endpoint) isAlone() bool {
	until := e.alone.Load()
	return until != 0 && time.Now().UnixNano() < until
}

// startAlone is start where there are no streams: a task makes the call, since its
// caller does not wait for it yet.
func (e *endpoint) startAlone(cmd *command, req Message, timeout time.Duration) (Pending, error) {
	data, err := req.Marshal()
	if err != nil {
		return Pending{}, &Error{Addr: e.addr, Kind: Refused, Err: err}
	}
	c := e.pool.takeCall()
	ctx, cancel := context.WithCancelCause(e.ctx)
	c.cmd, c.abandon = cmd, cancel
	if !e.pool.tasks.Go("transport single call", func(context.Context) {
		defer cancel(nil)
		err := e.attempt(ctx, timeout, func(ctx context.Context) (err error) {
			in, err := e.exchange(ctx, cmd, data)
			if err == nil {
				c.answer, c.frame = wire.Answer{Command: cmd.number, Body: in.data.ReadOnlyData()}, in.data
			}
			return err
		})
		if err != nil {
			c.err = err.(*Error)
			if e.ctx.Err() != nil {
				c.err = e.failure(ConnLost, c.err.Sent, context.Cause(e.ctx))
			}
		}
		c.ready <- struct{}{}
	}) {
		cancel(nil)
		e.pool.giveCall(c)
		return Pending{}, &Error{Addr: e.addr, Kind: Closed, Err: ErrClosed}
	}
	return Pending{e, c}, nil
}

// leave ends a call that startAlone made; others have come to their end. Its failure is
// then a Timeout with the cause.
func (c *call) leave(cause error) {
	if c.abandon != nil {
		c.abandon(cause)
	}
}
