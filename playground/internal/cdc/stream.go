package cdc

import (
	"context"
	"errors"
	"io"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground/internal/fault"
)

// service is ChangeData (TiKV components/cdc/src/service.rs).
type service struct{ *Feed }

// EventFeed serves clients that tell of themselves by their version.
func (s service) EventFeed(stream cdcpb.ChangeData_EventFeedServer) error {
	return s.serve("EventFeed", false, stream)
}

// EventFeedV2 serves clients that ask for what they need in the metadata.
func (s service) EventFeedV2(stream cdcpb.ChangeData_EventFeedV2Server) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	multiplexed := false
	for _, list := range md.Get("features") {
		var unknown string
		var ok bool
		if multiplexed, unknown, ok = parseFeatures(list); !ok {
			return status.Error(codes.Unimplemented, unknown)
		}
	}
	return s.serve("EventFeedV2", multiplexed, stream)
}

// stream is either call's.
type stream interface {
	Context() context.Context
	Send(*cdcpb.ChangeDataEvent) error
	Recv() (*cdcpb.ChangeDataRequest, error)
}

func closing() error { return status.Error(codes.Unavailable, "TiKV is Closing") }

// serve serves a stream: what it asks for is taken up as it comes, what it gets goes out
// as it is there.
func (f *Feed) serve(method string, multiplexed bool, st stream) error {
	tasks := f.cfg.Tasks()
	if tasks == nil {
		return closing()
	}
	e, ok := f.open(tasks)
	if !ok {
		return closing()
	}
	defer f.leave(e)
	c := newConn(&e.quota)
	defer c.close()
	e.do(func() { e.opened(c) })
	defer e.do(func() { e.left(c) })
	in := &inbox{Feed: f, e: e, conn: c, method: method, multiplexed: multiplexed, stream: st, tasks: tasks}
	received, sent := make(chan error, 1), make(chan error, 1)
	if !tasks.Go("change feed requests", func(context.Context) { received <- in.receive() }) ||
		!tasks.Go("change feed events", func(ctx context.Context) { sent <- c.send(ctx, st.Send) }) {
		return closing()
	}
	for {
		select {
		case err := <-received:
			if err != nil {
				return err
			}
			// The client sends no more: its subscriptions end, and what waits goes out.
			received = nil
			e.do(func() { e.left(c); c.end() })
		case err := <-sent:
			if err != nil && tasks.Context().Err() != nil {
				return closing()
			}
			return err
		case <-c.idle:
			return status.Error(codes.Unknown, "connection cancelled")
		case <-st.Context().Done():
			return status.FromContextError(st.Context().Err()).Err()
		case <-tasks.Context().Done():
			return closing()
		}
	}
}

// inbox takes up what a stream asks for.
type inbox struct {
	*Feed
	e           *endpoint
	conn        *conn
	method      string
	multiplexed bool
	stream      stream
	tasks       *task.Group
	// last is, of each subscription, when its last request under a fault is through.
	last map[subKey]chan struct{}
}

func (in *inbox) receive() error {
	for first := true; ; first = false {
		q, err := in.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if first {
			features := featuresOf(q.GetHeader().GetTicdcVersion(), in.multiplexed)
			in.e.do(func() { in.conn.features = features })
		}
		if _, ok := q.Request.(*cdcpb.ChangeDataRequest_NotifyTxnStatus_); ok {
			// TiKV's server ends (handle_request has no such case).
			return status.Error(codes.Unavailable, "a change feed takes no notice of transactions' states")
		}
		in.cfg.Counter.Call(in.method)
		in.take(q)
	}
}

// take takes a request up: under faults in a task of its own, so that one that is held
// does not hold up others, but those of its own subscription.
func (in *inbox) take(q *cdcpb.ChangeDataRequest) {
	key := subKey{q.RequestId, q.RegionId}
	before := in.last[key]
	select {
	case <-before:
		before = nil
	default:
	}
	if !in.cfg.Faults.Active() && before == nil {
		in.handle(q, false)
		return
	}
	if in.last == nil {
		in.last = make(map[subKey]chan struct{})
	}
	through := make(chan struct{})
	in.last[key] = through
	in.tasks.Go("change feed request", func(ctx context.Context) {
		defer close(through)
		if before != nil {
			select {
			case <-before:
			case <-ctx.Done():
				return
			}
		}
		in.faulted(ctx, q)
	})
}

// accepted is the answer to a request, as faults see it.
type accepted struct{ refused *errorpb.Error }

// GetRegionError returns the region error that a fault answers with.
func (a accepted) GetRegionError() *errorpb.Error { return a.refused }

// faulted handles a request under the faults. What answers a registration is all that the
// subscription is sent: a lost answer is a subscription that stays silent.
func (in *inbox) faulted(ctx context.Context, q *cdcpb.ChangeDataRequest) {
	refuse := func(kind, _ uint8) any {
		if kind == 0 {
			return nil
		}
		return accepted{fault.RegionError(kind, q.RegionId, in.cfg.Store)}
	}
	if !registers(q) {
		refuse = nil
	}
	times := 0
	answer, err := in.cfg.Faults.Do(ctx, in.call(q), refuse, func() any {
		times++
		return accepted{}
	})
	switch {
	case errors.Is(err, fault.ErrDisconnect):
		in.cfg.Disconnect(in.stream.Context())
		return
	case err != nil && !errors.Is(err, fault.ErrDropped):
		return
	}
	for range times {
		in.handle(q, err != nil)
	}
	if a, ok := answer.(accepted); ok && a.refused != nil {
		in.e.do(func() {
			newSubscription(in.conn, q, false).fail(injectedError(a.refused, q.RegionId))
		})
	}
}

func registers(q *cdcpb.ChangeDataRequest) bool {
	_, deregister := q.Request.(*cdcpb.ChangeDataRequest_Deregister_)
	return !deregister
}

func (in *inbox) handle(q *cdcpb.ChangeDataRequest, muted bool) {
	in.e.do(func() {
		if registers(q) {
			in.e.register(in.conn, q, muted)
		} else {
			in.e.deregister(in.conn, q)
		}
	})
}

// The key modes of faults, as playground.KeyMode numbers them.
const (
	modeTxn uint8 = iota + 1
	modeRaw
)

// call describes a request to the faults.
func (in *inbox) call(q *cdcpb.ChangeDataRequest) *fault.Call {
	call := &fault.Call{
		Method: in.method, Node: fault.Node{Kind: fault.Store, ID: in.cfg.Store}, Region: q.RegionId, Mode: modeTxn,
	}
	if q.KvApi == cdcpb.ChangeDataRequest_RawKV {
		call.Mode = modeRaw
	}
	call.Keys = func() [][]byte {
		if len(q.StartKey) == 0 {
			return nil
		}
		raw, _, err := keys.Decode(q.StartKey)
		if err != nil {
			return nil
		}
		return [][]byte{in.cfg.UserKey(raw)}
	}
	return call
}
