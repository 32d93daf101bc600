package pd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tsopb"
	"google.golang.org/grpc"
)

// logicalBits is the width of a timestamp's logical part, below the milliseconds.
const logicalBits = 18

// tsoStream is a stream of timestamps from one member or service. inFlight and used are
// under the oracle's mutex; one at a time sends, one task receives.
type tsoStream struct {
	target
	members *members // by which it was chosen
	ctx     context.Context
	cancel  context.CancelCauseFunc
	tsoConn
	inFlight []*batch // oldest first: answers belong to requests by their order
	used     bool     // had an answer
}

// tsoConn is a stream of either service.
type tsoConn interface {
	send(count uint32) error
	recv() (tsoAnswer, error)
}

// tsoAnswer is what the answers of both services say.
type tsoAnswer struct {
	header    *pdpb.ResponseHeader
	count     uint32
	timestamp *pdpb.Timestamp
}

// connect opens a stream. It does not wait for an answer.
func (o *oracle) connect(ctx context.Context, m *members, to target) (*tsoStream, *Error) {
	c := o.client
	conn, err := c.cfg.Pool.Conn(to.addr)
	if err != nil {
		return nil, judge(opTso, to.addr, 0, nil, err)
	}
	s := &tsoStream{target: to, members: m}
	s.ctx, s.cancel = context.WithCancelCause(to.context(ctx))
	timer := time.AfterFunc(c.cfg.AttemptTimeout, func() { s.cancel(errSilent) })
	defer timer.Stop()
	if to.group != nil {
		s.tsoConn, err = c.serviceStream(s.ctx, conn, to)
	} else {
		s.tsoConn, err = c.memberStream(s.ctx, conn)
	}
	if err != nil {
		e := s.failure(err)
		s.cancel(nil)
		return nil, e
	}
	return s, nil
}

// failure is why the stream has ended.
func (s *tsoStream) failure(err error) *Error {
	e := judge(opTso, s.addr, 0, nil, err)
	if cause := context.Cause(s.ctx); cause == errSilent || cause == errMoved {
		e = judge(opTso, s.addr, 0, nil, cause)
		e.Err = cause
	}
	return e
}

// receive takes answers until the stream ends.
func (o *oracle) receive(s *tsoStream) *Error {
	for {
		a, err := s.recv()
		if err != nil {
			return s.failure(err)
		}
		if e := judge(opTso, s.addr, s.members.clusterID, a.header, nil); e != nil {
			return e
		}
		if e := o.answered(s, a); e != nil {
			return e
		}
	}
}

// first checks the answer, which has the last timestamp of the range, and returns the
// first one (PD pkg/tso). All of them must be above newest.
func (a *tsoAnswer) first(count uint32, newest uint64) (uint64, error) {
	physical, logical := a.timestamp.GetPhysical(), a.timestamp.GetLogical()
	switch {
	case a.count != count:
		return 0, fmt.Errorf("%d timestamps, not %d", a.count, count)
	case physical <= 0 || physical >= 1<<(63-logicalBits):
		return 0, fmt.Errorf("physical part %d", physical)
	case logical < int64(count)-1 || logical >= 1<<logicalBits:
		return 0, fmt.Errorf("logical part %d, the last of %d", logical, count)
	}
	first := uint64(physical)<<logicalBits + uint64(logical-int64(count)+1)
	if first <= newest {
		return 0, fmt.Errorf("timestamp %d is not above %d, which was given out before", first, newest)
	}
	return first, nil
}

// memberConn is a stream from a member of PD.
type memberConn struct {
	stream pdpb.PD_TsoClient
	req    pdpb.TsoRequest
	resp   pdpb.TsoResponse
}

func (c *Client) memberStream(ctx context.Context, conn *grpc.ClientConn) (tsoConn, error) {
	stream, err := pdpb.NewPDClient(conn).Tso(ctx)
	return &memberConn{stream: stream, req: pdpb.TsoRequest{Header: c.header()}}, err
}

func (s *memberConn) send(count uint32) error {
	s.req.Count = count
	return s.stream.Send(&s.req)
}

func (s *memberConn) recv() (tsoAnswer, error) {
	s.resp = pdpb.TsoResponse{}
	err := s.stream.RecvMsg(&s.resp)
	return tsoAnswer{s.resp.Header, s.resp.Count, s.resp.Timestamp}, err
}

// serviceConn is a stream from a service for timestamps.
type serviceConn struct {
	stream tsopb.TSO_TsoClient
	req    tsopb.TsoRequest
	resp   tsopb.TsoResponse
}

func (c *Client) serviceStream(ctx context.Context, conn *grpc.ClientConn, to target) (tsoConn, error) {
	stream, err := tsopb.NewTSOClient(conn).Tso(ctx)
	return &serviceConn{stream: stream, req: tsopb.TsoRequest{Header: c.tsoHeader(to.group.id, to.addr)}}, err
}

func (s *serviceConn) send(count uint32) error {
	s.req.Count = count
	return s.stream.Send(&s.req)
}

func (s *serviceConn) recv() (tsoAnswer, error) {
	s.resp = tsopb.TsoResponse{}
	err := s.stream.RecvMsg(&s.resp)
	return tsoAnswer{tsoHeader(s.resp.Header), s.resp.Count, s.resp.Timestamp}, err
}

// errMoved is the cause of leaving an attempt at a member that is not the one to ask any
// more.
var errMoved = errors.New("leader has moved")
