package tikv

import (
	"context"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/mpp"
)

// readAt makes the request one of the view's snapshot, if it has one.
func (a *asking) readAt(op string) error {
	s := a.v.cfg.readAt
	if s == nil {
		return nil
	}
	if err := s.check(op); err != nil {
		return err
	}
	at := readTS(a.req)
	if at == nil {
		return &ArgumentError{Op: op, Arg: "req", Reason: "reads at no timestamp, and the view has WithReadAt"}
	}
	if *at != 0 && *at != s.s.TS() {
		return &ArgumentError{Op: op, Arg: "req", Reason: "has a timestamp, and WithReadAt another"}
	}
	*at, a.snap = s.s.TS(), a.v.snap
	return nil
}

// readTS is where a request has the timestamp that it reads at, nil if it has none.
func readTS(req any) *uint64 {
	switch q := req.(type) {
	case *kvrpcpb.GetRequest:
		return &q.Version
	case *kvrpcpb.BatchGetRequest:
		return &q.Version
	case *kvrpcpb.ScanRequest:
		return &q.Version
	case *coprocessor.Request:
		return &q.StartTs
	case *coprocessor.BatchRequest:
		return &q.StartTs
	case *coprocessor.TiCIEstimateCountRequest:
		return &q.StartTs
	case *mpp.DispatchTaskRequest:
		if q.Meta != nil { // the client's own copy
			return &q.Meta.StartTs
		}
	}
	return nil
}

// locksOf is the locks that an answer tells of.
func locksOf(resp any) (locks []*kvrpcpb.LockInfo) {
	add := func(l *kvrpcpb.LockInfo) {
		if l != nil {
			locks = append(locks, l)
		}
	}
	pairs := func(pairs []*kvrpcpb.KvPair) {
		for _, p := range pairs {
			add(p.GetError().GetLocked())
		}
	}
	switch p := resp.(type) {
	case *kvrpcpb.GetResponse:
		add(p.GetError().GetLocked())
	case *kvrpcpb.BatchGetResponse:
		add(p.GetError().GetLocked())
		pairs(p.GetPairs())
	case *kvrpcpb.ScanResponse:
		add(p.GetError().GetLocked())
		pairs(p.GetPairs())
	case *coprocessor.Response:
		add(p.GetLocked())
	}
	return locks
}

// settle sends the request by send, and again as long as a snapshot's request meets locks,
// and decodes the answer.
func (a *asking) settle(ctx context.Context, send func() error) error {
	if a.snap != nil {
		if err := a.snap.Ready(ctx); err != nil {
			return err
		}
	}
	for {
		if c := a.context(); a.snap != nil && c != nil {
			a.snap.Fill(c)
		}
		if err := send(); err != nil {
			return err
		}
		if a.snap == nil {
			break
		}
		if locks := locksOf(message(a.resp)); len(locks) > 0 {
			if err := a.snap.Meet(ctx, &a.call, locks); err != nil {
				return err
			}
			a.resp.Reset()
			continue
		}
		if err := a.snap.Check(ctx); err != nil {
			return err
		}
		break
	}
	if m := message(a.resp); m != nil {
		return a.decode(m)
	}
	return nil
}

// message is the kvproto message of an answer: itself, or the one that it holds.
func message(resp any) any {
	if s, ok := resp.(interface{ message() any }); ok {
		return s.message()
	}
	return resp
}
