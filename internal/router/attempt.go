package router

import (
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/transport"
)

// try is one attempt, and what came of it.
type try struct {
	rule   *rule // of a failure; nil if there is an answer
	mayRun bool
	short  bool // it had the time of a read's first attempts
	err    error
	region *errorpb.Error // the answer, if it is a region error
	store  *region.Store  // that was to answer, or to pass it on
	addr   string
	began  time.Time
	ended  time.Time // zero if nothing was sent

	storeID, regionID uint64 // of the peer that is asked; regionID 0: a store
	via               uint64 // the store that is to pass it on; 0: none
	asked             Asked
}

func (s *sending) peer() *metapb.Peer { return s.region.Peer(s.at) }

// asks is the form of the choice that is shown.
func (s *sending) asks() Asked {
	return [...]Asked{plain: AskedLeader, replica: AskedReplica, stale: AskedStale}[s.ask]
}

// try asks the peer that was chosen; what comes of it is in t.
func (r *Router) try(ctx context.Context, call *Call, s *sending, began time.Time, req transport.Request, resp Answer, t *try) {
	*t = try{began: began}
	if to, ok := r.address(ctx, call, s, req, t); ok {
		r.exchange(ctx, call, to, req, resp, t)
	}
}

// address finds where the peer is, and fills the request's context for it.
func (r *Router) address(ctx context.Context, call *Call, s *sending, req transport.Request, t *try) (to transport.Target, ok bool) {
	t.storeID, t.regionID, t.asked = s.peer().GetStoreId(), s.region.ID, s.asks()
	store, err := r.store(ctx, call, t.storeID)
	if err != nil {
		t.rule, t.err = storeFailure(err), err
		return to, false
	}
	t.store, t.addr = store, store.Addr
	to.Addr = store.Addr
	if s.via >= 0 {
		t.via = s.region.Peer(s.via).GetStoreId()
		proxy, err := r.store(ctx, call, t.via)
		if err != nil {
			t.rule, t.err = storeFailure(err), err
			return to, false
		}
		t.store, to.Addr, to.Forward = proxy, proxy.Addr, store.Addr
	}
	call.addr, call.region = store.Addr, s.region.ID
	timeout := r.timeout(call)
	if s.wish.read && !s.wish.patient && call.Route.ReadTimeout < timeout {
		timeout, t.short = call.Route.ReadTimeout, true
	}
	to.Timeout, timeout = until(ctx, t.began, timeout)
	r.fill(req.GetContext(), call, s, timeout)
	return to, true
}

// until cuts the time of an attempt to what ctx leaves, which the transport keeps without
// being told.
func until(ctx context.Context, began time.Time, timeout time.Duration) (told, left time.Duration) {
	if deadline, ok := ctx.Deadline(); ok {
		if left := deadline.Sub(began); left <= timeout {
			return 0, left
		}
	}
	return timeout, timeout
}

// exchange sends the request and waits for the answer.
func (r *Router) exchange(ctx context.Context, call *Call, to transport.Target, req transport.Message, resp Answer, t *try) {
	if w := call.watching(); w != nil {
		r.watched(ctx, w, call, to, req, resp, t)
		return
	}
	r.deliver(ctx, call, to, req, resp, resp, t)
}

// deliver is exchange; what decodes the answer need not be the answer.
func (r *Router) deliver(ctx context.Context, call *Call, to transport.Target, req transport.Message, resp Answer, into transport.Decoder, t *try) {
	if t.err = t.store.Admit(); t.err != nil {
		t.rule = refusal(t.err)
		return
	}
	if call.Exchange != nil {
		t.err = call.Exchange(ctx, to, req, into)
	} else {
		t.err = r.cfg.Transport.Call(ctx, to, req, into)
	}
	r.read(ctx, call, to, resp, t)
}

// read tells what became of an attempt that was admitted: the rule of a failure, none for
// an answer.
func (r *Router) read(ctx context.Context, call *Call, to transport.Target, resp Answer, t *try) {
	t.ended = time.Now()
	call.answered = t.ended
	call.sent(t.ended.Sub(t.began))
	t.store.Done(outcomeOf(ctx, t, to.Forward != ""), t.ended, t.ended.Sub(t.began), t.err)
	if t.err != nil {
		t.rule, t.mayRun = failureOf(t.err)
		if t.mayRun {
			call.sends++
		}
		return
	}
	call.sends++
	if answer, ok := resp.(regional); ok {
		if t.region = answer.GetRegionError(); t.region != nil {
			t.rule = ruleOf(t.region)
			t.mayRun = t.rule.fate == open
			t.err = &RegionError{Reason: t.rule.reason, Message: t.region.GetMessage()}
		}
	}
}

// AttemptTime is the time that one attempt of a call may take.
func (r *Router) AttemptTime(call *Call) time.Duration { return r.timeout(call) }

// timeout is the time of one attempt.
func (r *Router) timeout(call *Call) time.Duration {
	switch {
	case r.cfg.RPCTimeout > 0: // the user's word
		return r.cfg.RPCTimeout
	case call.Timeout > 0:
		return call.Timeout
	case call.decides():
		return writeTimeout
	}
	return readTimeout
}

// fill addresses a request. TiKV drops it when its time has passed before it was
// proposed.
func (r *Router) fill(c *kvrpcpb.Context, call *Call, s *sending, timeout time.Duration) {
	c.RegionId = s.region.ID
	c.RegionEpoch = &s.region.Epoch
	c.Peer = s.peer()
	r.fillCommon(c, call, timeout)
	c.ReplicaRead, c.StaleRead, c.BusyThresholdMs = s.ask == replica, s.ask == stale, 0
	if s.wish.threshold {
		c.BusyThresholdMs = uint32(call.Route.BusyThreshold.Milliseconds())
	}
	if v := s.region.BucketVersion(); c.BucketsVersion != 0 && v > c.BucketsVersion {
		c.BucketsVersion = v // told meanwhile
	}
}

// fillCommon sets what a request says to whichever store.
func (r *Router) fillCommon(c *kvrpcpb.Context, call *Call, timeout time.Duration) {
	c.ClusterId = r.cfg.ClusterID
	c.Priority = call.Priority
	c.RequestSource = call.RequestSource
	c.IsRetryRequest = call.sends > 0
	c.MaxExecutionDurationMs = uint64(max(1, timeout.Milliseconds()))
	call.Codec.Fill(c)
	if call.Extra != nil {
		call.Extra.fill(c)
	}
}
