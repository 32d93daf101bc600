package tikv

import (
	"bytes"
	"context"
	"errors"
	"strconv"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/txn"
)

// RPC sends any request of TiKV's service with the client's routing, retries, codec
// and interceptors. The kvproto types here follow kvproto's versions, not this
// package's. Requests may be reused after a call; answers are the caller's, their keys
// decoded. Reads are resent after a lost answer, writes are not: ErrUndetermined.
//
// Requests hold user keys, and ranges of user keys without an end mean all keys of the
// keyspace. The client fills what a request's context says of cluster, region, keyspace
// and retries, and what the view's options say; the rest of it is the caller's. Answers
// that tell of an error of a key, or in words, are answers. A request that changes a
// range without an end is refused.
type RPC struct {
	c    *Client
	cfg  rpcConfig
	base router.Call
	snap *txn.Snapshot // of WithReadAt, with the view's options
	err  error         // what is wrong with the view
}

// RPC returns a view for Call, CallRange and CallStream, without I/O.
func (c *Client) RPC(opts ...RPCOption) *RPC {
	const op = "Client.RPC"
	cfg := rpcConfig{view: c.cfg.view}
	_ = apply(op, opts, &cfg, func(o RPCOption) { o.applyRPC(&cfg) })
	if cfg.readAt != nil && cfg.readAt.c != c {
		cfg.add("WithReadAt", "has a snapshot of another client")
	}
	stale := cfg.readAt != nil && cfg.readAt.cfg.stale
	o := c.readOptions(cfg.view, cfg.route, stale)
	v := &RPC{c: c, cfg: cfg, err: cfg.err(), base: router.Call{
		Priority: o.Priority, RequestSource: o.RequestSource, RetryFor: o.RetryFor, Route: o.Route, Extra: o.Extra,
	}}
	if cfg.readAt != nil {
		v.snap = cfg.readAt.s.With(&o)
	}
	return v
}

// ready refuses a call on a view that is wrong, or whose client is closed.
func (v *RPC) ready(op string) error {
	switch {
	case v == nil:
		return &ArgumentError{Op: op, Arg: "view", Reason: "is nil"}
	case v.err != nil:
		return v.err
	}
	return v.c.check(op)
}

// Target is where one request goes.
type Target interface{ target() }

type (
	keyTarget struct {
		mode KeyMode
		key  []byte
	}
	regionTarget struct {
		mode KeyMode
		id   uint64
	}
	storeTarget struct{ id uint64 }
)

func (keyTarget) target()    {}
func (regionTarget) target() {}
func (storeTarget) target()  {}

// ToKey is the region of key; the policy options choose the replica. The request's keys
// are of mode.
func ToKey(mode KeyMode, key []byte) Target { return keyTarget{mode, key} }

// ToRegion is a region by its id: its leader, or the replica that the policy options choose.
// The request's keys are of mode. A region that has split or is gone is ErrUnavailable.
func ToRegion(mode KeyMode, id uint64) Target { return regionTarget{mode, id} }

// ToStore is one store, TiFlash included; region errors in the answer are left to the
// caller, as are region and peer in the request's context. Keys are raw in requests of
// raw methods and in splits that say so, transactional in all others.
func ToStore(id uint64) Target { return storeTarget{id} }

// Call sends req by method, which names request and answer at once:
//
//	tikv.Call(ctx, rpc, tikv.ToKey(tikv.KeyTxn, k), tikvpb.TikvClient.MvccGetByKey, req)
//
// Region errors are retried and never returned in the answer, except of ToStore. Methods
// that are calls to a store, and those of TiFlash, need ToStore.
func Call[Req, Resp any](ctx context.Context, v *RPC, to Target,
	method func(tikvpb.TikvClient, context.Context, *Req, ...grpc.CallOption) (*Resp, error), req *Req) (*Resp, error) {
	const op = "Call"
	if method == nil || req == nil {
		return nil, errNilCall(op, method == nil)
	}
	name, traits, err := methodOf(op, false, func(c tikvpb.TikvClient) { _, _ = method(c, ctx, req) })
	if err != nil {
		return nil, err
	}
	resp := new(Resp)
	a, err := v.begin(op, name, traits, to, req, resp)
	if err != nil {
		return nil, err
	}
	if err := a.ask(ctx); err != nil {
		return nil, a.fail(err)
	}
	return resp, nil
}

func errNilCall(op string, method bool) error {
	if method {
		return &ArgumentError{Op: op, Arg: "method", Reason: "is nil"}
	}
	return &ArgumentError{Op: op, Arg: "req", Reason: "is nil"}
}

// asking is one request on its way.
type asking struct {
	v      *RPC
	call   router.Call
	traits trait
	to     Target
	codec  codec.Codec
	req    transport.Message // encoded, the client's own
	resp   router.Answer
	snap   *txn.Snapshot // of WithReadAt
}

// begin checks a request and encodes it.
func (v *RPC) begin(op, name string, traits trait, to Target, req, resp any) (*asking, error) {
	if err := v.ready(op); err != nil {
		return nil, err
	}
	cd, err := v.codecOf(op, name, traits, to, req)
	if err != nil {
		return nil, err
	}
	answer, ok := resp.(router.Answer)
	if !ok {
		return nil, &ArgumentError{Op: op, Arg: "method", Reason: "answers with no message"}
	}
	return v.asking(op, name, traits, to, cd, req, answer)
}

// asking encodes a request that has been checked.
func (v *RPC) asking(op, name string, traits trait, to Target, cd codec.Codec, req any, answer router.Answer) (*asking, error) {
	if r, ranged := req.(interface{ GetEndKey() []byte }); ranged && !traits.has(reads) && len(r.GetEndKey()) == 0 {
		return nil, &ArgumentError{Op: op, Arg: "req", Reason: "changes a range that has no end"}
	}
	a := &asking{v: v, call: v.base, traits: traits, to: to, codec: cd, resp: answer}
	encoded, err := v.c.walker.Encode(cd, req)
	if err != nil {
		return nil, &ArgumentError{Op: op, Arg: "req", Reason: "is no request of TiKV's service"}
	}
	var isMessage bool
	if a.req, isMessage = encoded.(transport.Message); !isMessage {
		return nil, &ArgumentError{Op: op, Arg: "req", Reason: "is no message"}
	}
	if err := a.readAt(op); err != nil {
		return nil, err
	}
	a.call.Op, a.call.Method, a.call.Codec, a.call.Resend, a.call.Decides = op, name, cd, traits.has(reads), !traits.has(reads)
	a.keepContext()
	return a, nil
}

// codecOf returns how the keys of a request are written, and refuses one that does not
// fit its method, its target or the cluster.
func (v *RPC) codecOf(op, name string, traits trait, to Target, req any) (codec.Codec, error) {
	var mode KeyMode
	switch to := to.(type) {
	case keyTarget:
		mode = to.mode
		if err := v.checkKey(op, to); err != nil {
			return codec.Codec{}, err
		}
	case regionTarget:
		if mode = to.mode; to.id == 0 {
			return codec.Codec{}, &ArgumentError{Op: op, Arg: "target", Reason: "names no region"}
		}
	case storeTarget:
		if mode = modeAtStore(traits, req); to.id == 0 {
			return codec.Codec{}, &ArgumentError{Op: op, Arg: "target", Reason: "names no store"}
		}
		if mode == 0 || v.c.cfg.api == APIV1TTL && traits.has(atStore|reads) {
			return v.c.engine.raw, nil // no keys
		}
	default:
		return codec.Codec{}, &ArgumentError{Op: op, Arg: "target", Reason: "is nil"}
	}
	if err := v.checkMode(op, name, traits, mode); err != nil {
		return codec.Codec{}, err
	}
	if _, ok := to.(storeTarget); !ok && traits.has(atStore) {
		return codec.Codec{}, &ArgumentError{Op: op, Arg: "target", Reason: "must be a store: " + name + " is about none of its regions"}
	}
	return mode.codec(v.c.engine), nil
}

// modeAtStore is the mode of the keys of a request that goes to a store, 0 if it has none.
func modeAtStore(traits trait, req any) KeyMode {
	if split, ok := req.(*kvrpcpb.SplitRegionRequest); ok && split.GetIsRawKv() || !traits.has(txnKeys) && traits.has(rawKeys) {
		return KeyRaw
	}
	if traits.has(txnKeys) {
		return KeyTxn
	}
	return 0
}

func (v *RPC) checkKey(op string, to keyTarget) error {
	if to.mode == KeyTxn {
		return checkKey(op, to.key)
	}
	return nil
}

// checkMode refuses keys of a mode that the method or the cluster does not take.
func (v *RPC) checkMode(op, name string, traits trait, mode KeyMode) error {
	switch {
	case mode != KeyTxn && mode != KeyRaw:
		return &ArgumentError{Op: op, Arg: "mode", Reason: "is not known: " + strconv.Itoa(int(mode))}
	case !traits.takes(mode) && traits&(txnKeys|rawKeys) != 0:
		return &ArgumentError{Op: op, Arg: "mode", Reason: "is not that of " + name + "'s keys"}
	case mode == KeyTxn:
		return v.c.checkTxn(op)
	}
	return nil
}

// keepContext lets what the request's own context says stand where the view says nothing.
func (a *asking) keepContext() {
	own := a.context()
	if own == nil {
		return
	}
	if a.call.Priority == kvrpcpb.CommandPri_Normal {
		a.call.Priority = own.Priority
	}
	if a.call.RequestSource == "" {
		a.call.RequestSource = own.RequestSource
	}
	route := a.v.cfg.route
	if route.isolation != IsolationSnapshot {
		own.IsolationLevel = route.isolation.wire()
	}
	own.NotFillCache = own.NotFillCache || route.noFillCache
}

// context is the request's, nil if it has none.
func (a *asking) context() *kvrpcpb.Context {
	if q, ok := a.req.(transport.Request); ok {
		return q.GetContext()
	}
	return nil
}

// ask sends the request until it is answered, and decodes the answer.
func (a *asking) ask(ctx context.Context) error {
	return a.settle(ctx, func() error { return a.route(ctx, a.resp) })
}

// route brings the request to its target.
func (a *asking) route(ctx context.Context, resp router.Answer) error {
	r := a.v.c.engine.router
	if to, ok := a.to.(storeTarget); ok {
		if err := a.checkEngine(ctx, to.id); err != nil {
			return err
		}
		return router.SendStore(ctx, r, &a.call, to.id, a.req, resp)
	}
	req, ok := a.req.(transport.Request)
	if !ok {
		return &ArgumentError{Op: a.call.Op, Arg: "target", Reason: "must be a store: the request has no region"}
	}
	if to, ok := a.to.(regionTarget); ok {
		return a.toRegion(ctx, to.id, req, resp)
	}
	return r.DoInto(ctx, &a.call, a.codec.Key(a.to.(keyTarget).key), req, resp)
}

// checkEngine keeps TiFlash's calls from TiKV, whose handlers would panic (TiKV
// src/server/service/kv.rs).
func (a *asking) checkEngine(ctx context.Context, id uint64) error {
	if !a.traits.has(atTiFlash) {
		return nil
	}
	store, err := router.Store(ctx, a.v.c.engine.router, &a.call, id)
	if err != nil {
		return err
	}
	if !store.TiFlash() {
		return &unsupportedError{a.call.Op, a.call.Method + " is TiFlash's, and store " + strconv.FormatUint(id, 10) + " is TiKV's"}
	}
	return nil
}

var errRegionGone = errors.New("the region has split, or is gone")

// toRegion sends the request to a region: as it is cached, then as PD knows it, as long as
// it is what it was when PD was asked first.
func (a *asking) toRegion(ctx context.Context, id uint64, req transport.Request, resp router.Answer) error {
	e := a.v.c.engine
	if start, known := e.starts.get(id); known {
		if reg := e.regions.Load().Lookup(start); reg != nil && reg.ID == id {
			if err := e.router.SendInto(ctx, &a.call, reg, req, resp); err != router.ErrRegionChanged {
				return err
			}
		}
	}
	var first *pd.Region
	for {
		now, err := e.pd.RegionByID(ctx, id)
		if err != nil {
			return err
		}
		if now == nil || first != nil && !sameRange(now, first) {
			return router.Unanswered(ctx, &a.call, errRegionGone, id)
		}
		first = now
		reg, err := router.LocateAt(ctx, e.router, &a.call, now.Meta.GetStartKey())
		if err != nil {
			return err
		}
		if reg.ID != id || reg.Epoch.GetVersion() < now.Meta.GetRegionEpoch().GetVersion() {
			router.Refresh(e.router, reg)
			if err := e.router.Wait(ctx, &a.call, backoff.RegionMiss); err != nil {
				return err
			}
			continue
		}
		e.starts.put(id, reg.Range.Start)
		if err := e.router.SendInto(ctx, &a.call, reg, req, resp); err != router.ErrRegionChanged {
			return err
		}
	}
}

func sameRange(a, b *pd.Region) bool {
	return bytes.Equal(a.Meta.GetStartKey(), b.Meta.GetStartKey()) && bytes.Equal(a.Meta.GetEndKey(), b.Meta.GetEndKey())
}

// fail makes the public error.
func (a *asking) fail(err error) error {
	return mapError(a.v.c.errorContext(a.call.Op, a.codec), err)
}

// decode turns the answer's keys into the caller's.
func (a *asking) decode(resp any) error {
	err := a.v.c.walker.Decode(a.codec, resp)
	var outside *codec.OutsideError
	if errors.As(err, &outside) {
		return &ServerError{Op: a.call.Op, RegionID: router.RegionOf(&a.call), Message: "the answer has the key " +
			a.v.c.engine.keys.Key(outside.Key) + ", which is none of the keyspace"}
	}
	return err
}
