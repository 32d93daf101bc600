package router

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/transport"
)

// errHedged ends an attempt whose rival had an answer first.
var errHedged = errors.New("router: another replica has answered")

// hedge is a second attempt, begun when the first is late. It has copies of all that it
// uses, since the first may end, and its caller go on, at any moment.
type hedge struct {
	r    *Router
	call Call // a copy
	s    sending
	kind reflect.Type            // of the request
	data []byte                  // the request, encoded
	win  context.CancelCauseFunc // ends the first

	mu    sync.Mutex
	over  bool          // the first attempt has ended
	done  chan struct{} // made when the second attempt begins, closed when it has ended
	t     try
	reply kept
}

// kept is an answer that was not decoded for good yet.
type kept struct {
	transport.Response
	data []byte
}

func (k *kept) Unmarshal(data []byte) error {
	k.data = append([]byte(nil), data...)
	return k.Response.Unmarshal(data)
}

func (k *kept) GetRegionError() *errorpb.Error {
	if answer, ok := k.Response.(regional); ok {
		return answer.GetRegionError()
	}
	return nil
}

// hedged is a try that another peer is asked beside, if it takes long. The first answer
// counts. If neither brings one, what befell the first is the result, and the second's
// attempt is noted.
func (r *Router) hedged(ctx context.Context, call *Call, s *sending, began time.Time, req transport.Request, resp Answer) try {
	t := try{began: began}
	to, ok := r.address(ctx, call, s, req, &t)
	if !ok {
		return t
	}
	h := &hedge{r: r, call: *call, s: *s, kind: reflect.TypeOf(req).Elem()}
	first := ctx
	if h.choose(ctx) && h.keep(req) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil) // and so ends whoever is late
		h.win = cancel
		first = ctx
		timer := time.AfterFunc(call.Route.HedgeAfter, func() { h.begin(ctx) })
		defer timer.Stop()
	}
	r.exchange(first, call, to, req, resp, &t)
	return h.end(ctx, call, s, resp, t)
}

// choose finds whom to ask: somebody else, as if the first had been late.
func (h *hedge) choose(ctx context.Context) bool {
	var buf [maxPeers]peer
	peers := h.r.peers(ctx, &h.call, &h.s, &buf)
	first := h.s.at
	v := h.s.pass(&h.s.wish, peers, late, backoff.Kind{}, rand.Uint32())
	return v.next == send && h.s.at != first
}

// begin asks the second peer. It is called on a goroutine of a timer's, which it leaves
// to a task of the client's.
func (h *hedge) begin(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return
	}
	req, ok := h.request()
	if !ok {
		return
	}
	h.reply.Response = h.r.cfg.Transport.NewResponse(req)
	done := make(chan struct{})
	started := h.r.cfg.Tasks.Go("hedge", func(context.Context) {
		defer close(done)
		h.s.asked()
		h.r.try(ctx, &h.call, &h.s, time.Now(), req, &h.reply, &h.t)
		if h.t.rule == nil {
			h.win(errHedged)
		}
	})
	if started {
		h.done = done
	}
}

// end returns what came of the two attempts; t is the first's.
func (h *hedge) end(ctx context.Context, call *Call, s *sending, resp Answer, t try) try {
	h.mu.Lock()
	h.over = true
	done := h.done
	h.mu.Unlock()
	if done == nil || t.rule == nil {
		return t
	}
	select {
	case <-done:
	case <-ctx.Done():
		return t
	}
	call.sends = max(call.sends, h.call.sends)
	if h.t.rule != nil {
		h.r.note(ctx, call, &h.s, &h.t)
		s.marks[slot(h.s.at)] = h.t.rule.mark(event{})
		return t
	}
	resp.Reset()
	if err := resp.Unmarshal(h.reply.data); err != nil {
		return t
	}
	*s, t = h.s, h.t
	return t
}

// keep encodes the request: the first attempt, and its caller after that, go on with it.
func (h *hedge) keep(req transport.Request) (ok bool) {
	data, err := req.Marshal()
	h.data = data
	return err == nil
}

// request returns a request of the second attempt's own.
func (h *hedge) request() (transport.Request, bool) {
	req, ok := reflect.New(h.kind).Interface().(transport.Request)
	return req, ok && req.Unmarshal(h.data) == nil
}
