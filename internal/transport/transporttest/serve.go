// Package transporttest lets a function stand for the stores, in tests of what sends.
package transporttest

import (
	"context"

	"github.com/tikv-go/tikv/internal/transport"
)

// Func answers a request to an address.
type Func func(ctx context.Context, addr string, req transport.Message) (transport.Response, error)

// Stores is what a router sends through, as a *transport.Pool is.
type Stores struct {
	pool *transport.Pool // knows the responses; without a connection
	do   Func
}

// New returns stores that answer with do.
func New(do Func) *Stores { return &Stores{transport.New(transport.Config{}), do} }

// NewResponse is Pool.NewResponse.
func (s *Stores) NewResponse(req transport.Message) transport.Response {
	return s.pool.NewResponse(req)
}

// Call asks the function, as Pool.Call asks a store: an attempt without an answer ends
// with the target's time.
func (s *Stores) Call(ctx context.Context, to transport.Target, req transport.Message, resp transport.Decoder) error {
	attempt := ctx
	if to.Timeout > 0 {
		var cancel context.CancelFunc
		attempt, cancel = context.WithTimeoutCause(ctx, to.Timeout, transport.ErrNoAnswer)
		defer cancel()
	}
	answer, err := s.do(attempt, to.Addr, req)
	if e, ok := err.(*transport.Error); ok && e.Kind == transport.Timeout && ctx.Err() == nil && attempt.Err() != nil {
		return &transport.Error{Addr: e.Addr, Kind: transport.Expired, Sent: e.Sent, Err: transport.ErrNoAnswer}
	}
	if err != nil {
		return err
	}
	data, err := answer.Marshal()
	if err != nil {
		return err
	}
	return resp.Unmarshal(data)
}
