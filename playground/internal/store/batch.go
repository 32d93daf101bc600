package store

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/fault"
	"github.com/tikv-go/tikv/playground/internal/serve"
)

// maxAnswers is how many answers a message carries (TiKV src/server/service/kv.rs,
// GRPC_MSG_MAX_BATCH_SIZE).
const maxAnswers = 128

// outbox is what a BatchCommands stream has to answer.
type outbox struct {
	mu      sync.Mutex
	ids     []uint64
	answers []*tikvpb.BatchCommandsResponse_Response
	mangled [][]byte // parts of a message, encoded
	pending int      // commands that may still be answered
	ended   bool     // no more requests come
	err     error    // ends the stream at once
	ready   chan struct{}
}

func newOutbox() *outbox { return &outbox{ready: make(chan struct{}, 1)} }

func (o *outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

func (o *outbox) begin() {
	o.mu.Lock()
	o.pending++
	o.mu.Unlock()
}

// put ends a command: with its answer, or without one.
func (o *outbox) put(id uint64, answer *tikvpb.BatchCommandsResponse_Response) {
	o.mu.Lock()
	o.pending--
	if answer != nil {
		o.ids = append(o.ids, id)
		o.answers = append(o.answers, answer)
	}
	o.mu.Unlock()
	o.wake()
}

// putMangled ends a command with an answer that is bytes, a part of a message that goes
// out as one of its own.
func (o *outbox) putMangled(part []byte) {
	o.mu.Lock()
	o.pending--
	o.mangled = append(o.mangled, part)
	o.mu.Unlock()
	o.wake()
}

// takeMangled returns the next message that is bytes, or nil.
func (o *outbox) takeMangled() *serve.Raw {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.mangled) == 0 || o.err != nil {
		return nil
	}
	m := serve.Raw(o.mangled[0])
	o.mangled = o.mangled[1:]
	return &m
}

// end tells that no more requests come; an error ends the stream.
func (o *outbox) end(err error) {
	o.mu.Lock()
	o.ended = true
	if err != nil && o.err == nil {
		o.err = err
	}
	o.mu.Unlock()
	o.wake()
}

// take returns the next message, nil when there is nothing to send now; last when
// nothing will come.
func (o *outbox) take() (m *tikvpb.BatchCommandsResponse, last bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return nil, true, o.err
	}
	n := min(len(o.ids), maxAnswers)
	if n == 0 {
		return nil, o.ended && o.pending == 0 && len(o.mangled) == 0, nil
	}
	m = &tikvpb.BatchCommandsResponse{RequestIds: o.ids[:n:n], Responses: o.answers[:n:n]}
	if o.ids, o.answers = o.ids[n:], o.answers[n:]; len(o.ids) == 0 {
		o.ids, o.answers = nil, nil
	}
	return m, false, nil
}

// batchCommands serves a stream: requests are taken up as they come and run
// concurrently, answers go out as they are ready.
func (s *Store) batchCommands(stream grpc.ServerStream) error {
	tasks := s.server.Tasks()
	if tasks == nil {
		return status.Error(codes.Unavailable, errClosing.Error())
	}
	o, who := newOutbox(), s
	receive := func(context.Context) { o.end(s.receive(stream, o, nil)) }
	if addr := s.forwardedTo(stream.Context()); addr != "" {
		l, err := s.connect(stream.Context(), addr)
		if err != nil {
			return err
		}
		who = l.to
		receive = func(context.Context) { o.end(l.receive(stream, o)) }
		if !tasks.Go("line", func(context.Context) { l.watch(stream.Context(), o) }) {
			return status.Error(codes.Unavailable, errClosing.Error())
		}
	}
	if !tasks.Go("receive", receive) {
		return status.Error(codes.Unavailable, errClosing.Error())
	}
	life := tasks.Context()
	var reported time.Time
	for {
		if m := o.takeMangled(); m != nil {
			if err := stream.SendMsg(m); err != nil {
				return err
			}
			continue
		}
		m, last, err := o.take()
		switch {
		case err != nil:
			return err
		case m != nil:
			now := s.Now()
			m.TikvSendTimeNs = uint64(now.UnixNano())
			m.HealthFeedback = requestedFeedback(m)
			if m.HealthFeedback == nil && now.Sub(reported) >= feedbackEvery {
				m.HealthFeedback = who.healthFeedback()
			}
			if m.HealthFeedback != nil {
				reported = now
			}
			if err := stream.SendMsg(m); err != nil {
				return err
			}
			continue
		case last:
			return nil
		}
		select {
		case <-o.ready:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-life.Done():
			return status.Error(codes.Unavailable, errClosing.Error())
		}
	}
}

// receive takes the stream's requests up until it ends, and sends them over a line, if
// there is one.
func (s *Store) receive(stream grpc.ServerStream, o *outbox, over *line) error {
	for {
		m := new(tikvpb.BatchCommandsRequest)
		if err := stream.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for i, r := range m.GetRequests() {
			if i >= len(m.RequestIds) {
				return status.Error(codes.InvalidArgument, "a request has no id")
			}
			id, req := m.RequestIds[i], unwrap(r)
			c := s.commands.of(req)
			if c == nil || c.batched == nil {
				o.begin()
				o.put(id, new(tikvpb.BatchCommandsResponse_Response))
				continue
			}
			if err := s.foreign(req); err != nil {
				return err
			}
			if over != nil {
				c = over.command(c)
			}
			o.begin()
			run := func(ctx context.Context) { s.batched(ctx, stream, c, id, req, o) }
			if tasks := s.server.Tasks(); tasks == nil || !tasks.Go("command", run) {
				o.put(id, nil)
			}
		}
	}
}

// batched runs a command of a batch and puts its answer out. It runs on when the stream
// ends, as TiKV's commands do. An error that is a status ends the stream.
func (s *Store) batched(ctx context.Context, stream grpc.ServerStream, c *command, id uint64, req any, o *outbox) {
	began := s.begin(c, inBatch)
	answer, err := s.answer(ctx, c, req)
	if errors.Is(err, fault.ErrDisconnect) {
		s.server.Disconnect(stream.Context())
	}
	if err != nil {
		if _, ok := status.FromError(err); ok {
			o.end(err)
		}
		o.put(id, nil)
		return
	}
	s.end(answer, inBatch, began)
	m, ok := answer.(fault.Mangled)
	if !ok {
		o.put(id, c.batched(answer))
		return
	}
	part, err := mangledPart(id, c.batched(m.Answer), m.Change)
	if err != nil {
		o.put(id, nil)
		return
	}
	o.putMangled(part)
}

// mangledPart encodes a message with one answer, whose own bytes are changed: the tags
// and lengths around it are right.
func mangledPart(id uint64, r *tikvpb.BatchCommandsResponse_Response, change func([]byte) []byte) ([]byte, error) {
	answer, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	part, err := (&tikvpb.BatchCommandsResponse{RequestIds: []uint64{id}}).Marshal()
	if err != nil {
		return nil, err
	}
	const responses = 1<<3 | 2 // the field's tag: number 1, bytes
	return fault.AppendField(append(part, responses), fault.Rewrap(answer, change)), nil
}

// feedback numbers the reports of a store's health, from the time it was made on.
type feedback struct{ seq atomic.Uint64 }

// feedbackEvery is TiKV's health_feedback_interval.
const feedbackEvery = time.Second

// healthFeedback reports how the store is: 1 is the best score, a fraction is cut off
// (TiKV src/server/service/kv.rs, HealthFeedbackAttacher).
func (s *Store) healthFeedback() *kvrpcpb.HealthFeedback {
	return &kvrpcpb.HealthFeedback{
		StoreId: s.ID, FeedbackSeqNo: s.feedback.seq.Add(1), SlowScore: int32(max(1, s.State().SlowScore)),
	}
}

// requestedFeedback is what a message's answers to GetHealthFeedback say, all the same, or
// nil if it has none (kv.rs, attach_if_needed).
func requestedFeedback(m *tikvpb.BatchCommandsResponse) *kvrpcpb.HealthFeedback {
	var f *kvrpcpb.HealthFeedback
	for _, r := range m.Responses {
		answer := r.GetGetHealthFeedback()
		switch {
		case answer.GetHealthFeedback() == nil:
		case f == nil:
			f = answer.HealthFeedback
		default:
			answer.HealthFeedback = f
		}
	}
	return f
}
