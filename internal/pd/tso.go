package pd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
)

// logicalBits is the width of a timestamp's logical part, below the milliseconds.
const logicalBits = 18

// tsoStream is a stream of timestamps from one member. One task uses it.
type tsoStream struct {
	client   *Client
	addr     string
	cluster  uint64
	grpc     pdpb.PD_TsoClient
	cancel   context.CancelCauseFunc
	watchdog *time.Timer // cancels, when an answer is late
	req      pdpb.TsoRequest
	resp     pdpb.TsoResponse
}

// follow returns s if it is a stream from the leader, else a new one, and closes s then.
func (s *tsoStream) follow(ctx context.Context, c *Client) (*tsoStream, *Error) {
	m := c.members.Load()
	if s != nil && s.addr == m.leader {
		return s, nil
	}
	s.close()
	conn, err := c.cfg.Pool.Conn(m.leader)
	if err != nil {
		return nil, judge(opTso, m.leader, 0, nil, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s = &tsoStream{client: c, addr: m.leader, cluster: m.clusterID, cancel: cancel}
	s.req.Header = c.header()
	s.watchdog = time.AfterFunc(c.cfg.AttemptTimeout, func() { cancel(errSilent) })
	if s.grpc, err = pdpb.NewPDClient(conn).Tso(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		s.close()
		return nil, judge(opTso, m.leader, 0, nil, err)
	}
	return s, nil
}

// close ends the stream; that of nil does nothing.
func (s *tsoStream) close() {
	if s != nil {
		s.watchdog.Stop()
		s.cancel(nil)
	}
}

// fetch asks for count timestamps, all above newest, and returns the first of them. The
// stream is of no more use after an error: answers belong to requests by their order.
func (s *tsoStream) fetch(count uint32, newest uint64) (first uint64, e *Error) {
	s.watchdog.Reset(s.client.cfg.AttemptTimeout)
	defer s.watchdog.Stop()
	s.req.Count = count
	err := s.grpc.Send(&s.req)
	if err == nil || errors.Is(err, io.EOF) { // the reason is for the receiver
		s.resp = pdpb.TsoResponse{}
		err = s.grpc.RecvMsg(&s.resp)
	}
	if err != nil {
		if context.Cause(s.grpc.Context()) == errSilent {
			err = errSilent
		}
		return 0, judge(opTso, s.addr, 0, nil, err)
	}
	if e := judge(opTso, s.addr, s.cluster, &s.resp, nil); e != nil {
		return 0, e
	}
	if first, err = s.first(count, newest); err != nil {
		return 0, &Error{Op: opTso, Addr: s.addr, Kind: Unavailable, Message: err.Error()}
	}
	return first, nil
}

// first checks the answer, which has the last timestamp of the range, and returns the
// first one (PD pkg/tso).
func (s *tsoStream) first(count uint32, newest uint64) (uint64, error) {
	ts := s.resp.GetTimestamp()
	physical, logical := ts.GetPhysical(), ts.GetLogical()
	switch {
	case s.resp.GetCount() != count:
		return 0, fmt.Errorf("%d timestamps, not %d", s.resp.GetCount(), count)
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
