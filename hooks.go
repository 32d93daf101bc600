package tikv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/wire"
)

// Hook observes a client. A hook implements one or more of the interfaces below;
// Open rejects a value that implements none. Hooks must be quick and safe for concurrent
// use: one that blocks holds up the call that it is told of, and no other, and those of
// the client's own work hold up Close. They may use the client, whose calls come back to
// them, but not its Close. One that panics is logged, and its call goes on without it.
type Hook any

// RPCHook sees every attempt of a call, on every view, on the goroutine that makes it. The
// context StartRPC returns is used for the attempt and given to EndRPC; of several hooks
// the next gets what the one before returned.
//
// It sees the requests to PD as well: a CallInfo with no StoreID. Calls share those, so
// a hook that blocks holds up all that need the answer, and while it is told of one it must
// not use the client for what needs PD. Those on PD's streams (Tso, QueryRegion) may end
// on another goroutine than they began on, and the context is given to EndRPC alone.
type RPCHook interface {
	StartRPC(ctx context.Context, info CallInfo) context.Context
	EndRPC(ctx context.Context, info CallInfo, res CallResult)
}

// TxnHook sees every transaction, each attempt of RunTxn for itself, from when it has its
// start timestamp to its end. RunTxn's function and its Commit get the context that StartTxn
// returns, of several hooks that of the last; EndTxn gets it in any case. EndTxn is told
// once, on the goroutine that ended the transaction, before its call returns: see TxnResult
// for what ends one. A transaction that was begun and dropped, without Commit or Rollback,
// is told of when that is noticed: by a later Begin, or by Close.
//
// Begin and Commit do not wait for what hooks are told by others, and a hook must not end
// the transaction.
type TxnHook interface {
	StartTxn(ctx context.Context, info TxnInfo) context.Context
	EndTxn(ctx context.Context, info TxnInfo, res TxnResult)
}

// RetryHook sees each wait before another attempt, before it begins.
type RetryHook interface {
	OnRetry(ctx context.Context, info RetryInfo)
}

// ConnHook sees connections come and go. One has come when its peer has spoken on it, and
// what has come goes, before OnClose at the latest; err is nil where the client closed it.
// What could not be connected to shows in the errors of calls.
//
// A ConnHook and a TopologyHook are told of one thing after the other, in order, by a
// goroutine of the client's own: one that blocks holds up what they are told, and Close,
// but no call.
type ConnHook interface {
	OnConnect(info ConnInfo)
	OnDisconnect(info ConnInfo, err error)
}

// TopologyHook sees what the client learns about regions, stores and PD's leader. Where a
// hook is 16,384 changes behind, those that come then are left out, and the logger is told
// how many.
type TopologyHook interface{ OnTopologyChange(info TopologyInfo) }

// CloseHook sees the end of a client, and what Close abandoned, when all else has ended.
type CloseHook interface{ OnClose(info CloseInfo) }

// CallInfo is one attempt of a call, for hooks and interceptors. Key-like fields are
// absent on purpose.
type CallInfo struct {
	Method            Method
	Addr              string
	StoreID, RegionID uint64 // RegionID is 0 for a call to a store, both for one to PD
	Asked             Asked  // as what the store is asked
	Via               uint64 // the store that is to pass the call on; 0: none
	Attempt           int    // of the call's, from 1; 0 for one to PD
	RequestBytes      int
	Keys              int         // that the request names; 0 for a range, and to PD
	Write             bool        // it changes data
	ReadTS, StartTS   Timestamp   // 0: none
	Call              CallContext // after interceptors
}

// CallContext is what interceptors may change.
type CallContext struct {
	Priority      Priority
	ResourceGroup string
	RequestSource string
	Tag           []byte    // replace it, do not change it
	Deadline      time.Time // never later than ctx's; zero: none
}

// Interceptor runs before each attempt of a call, before the hooks. It may change call, or
// refuse by an error, which then ends the call: the call's error wraps it, and NotSent
// holds if nothing was sent before. A deadline that has passed ends the call with
// ErrUnavailable. One that panics refuses.
type Interceptor func(ctx context.Context, info CallInfo, call *CallContext) error

// Method is the name of a call in TiKV's or PD's services: "KvGet", "RawBatchPut", "Tso".
type Method string

// CallResult is how an attempt ended.
type CallResult struct {
	Reason        Reason // ReasonNone: answered
	Err           error
	ResponseBytes int // 0 for a stream
	Elapsed       time.Duration

	details []byte
}

// Server is what TiKV says that the answer took, as far as it does.
func (r CallResult) Server() ServerStats { return detailed(r.details) }

// RetryInfo is a wait before another attempt.
type RetryInfo struct {
	Method  Method // empty: nothing was sent yet
	Reason  Reason // why the last attempt failed, or PD
	Attempt int    // the one that is waited for
	Delay   time.Duration
	Err     error
}

// ConnInfo is a connection to a store, or to a member or a service of PD (StoreID 0).
type ConnInfo struct {
	Addr    string
	StoreID uint64
}

// TopologyInfo is what changed.
type TopologyInfo struct {
	Event             TopologyEvent
	RegionID, StoreID uint64 // 0: the event is about none
	Addr              string // the store's, or PD's leader's
}

// TopologyEvent is a kind of change.
type TopologyEvent uint8

// The events. A region's leader is in StoreID of the first two and of TopologyLoad.
const (
	TopologyLeader     TopologyEvent = iota // another store leads the region
	TopologyEpoch                           // the region has split or merged, or has other peers
	TopologyEvict                           // the region is not known any more: wrong, unused or one too many
	TopologyStoreUp                         // the store answers again
	TopologyStoreDown                       // the store does not answer; what can is sent elsewhere
	TopologyStoreGone                       // PD does not have the store any more
	TopologyPDLeader                        // another member leads PD
	TopologyLoad                            // the region is known from now on
	TopologyStoreNew                        // the store is known from now on
	TopologyStoreMoved                      // the store has another address, at which it counts as up and quick
	TopologyStoreSlow                       // the store is slow: reads that have a choice avoid it
	TopologyStoreQuick                      // the store is slow no longer
)

// String is the event in words.
func (e TopologyEvent) String() string {
	if int(e) < len(topologyEvents) {
		return topologyEvents[e]
	}
	return "TopologyEvent(" + strconv.Itoa(int(e)) + ")"
}

var topologyEvents = [...]string{
	"leader moved", "region changed", "region evicted", "store up", "store down", "store gone", "PD's leader moved",
	"region loaded", "new store", "store moved", "store slow", "store quick",
}

// CloseInfo is what Close left undone.
type CloseInfo struct {
	Commits, Rollbacks, Unlocks int
	Elapsed                     time.Duration
}

// extra is the engine's form of what a view asks for beyond the ordinary; nil: nothing.
func (c *Client) extra(v viewConfig) *router.Extra {
	var watcher *router.Watcher
	if v.watch != nil {
		watcher = v.watch.watcher(c.cfg.logger)
	}
	if v.group == "" && v.tag == nil && v.taskID == 0 && watcher == nil {
		return nil
	}
	return &router.Extra{ResourceGroup: v.group, Tag: v.tag, TaskID: v.taskID, Watch: watcher}
}

// watching is a *watch. It is an interface so that a program that has neither hooks nor
// interceptors does not link what they take. Its methods name no type that leads to the
// client's parts: the linker would keep all methods of those.
type watching interface {
	Count(f router.Figure, why router.Reason, n int64)
	ofTxn() (with watching, own any) // own is a *Recorder; nil: nobody looks at transactions
	starts() any                     // a startTxnFunc; nil: nobody is told
	watcher(logger *slog.Logger) *router.Watcher
	observe(ctx context.Context, logger *slog.Logger, storeAt func(addr string) uint64) seams
	tellClosed(ctx context.Context, logger *slog.Logger, names []string, elapsed time.Duration)
}

// watch shows the attempts of a view's calls to interceptors and hooks.
type watch struct {
	logger       *slog.Logger
	interceptors []Interceptor
	rpc          []RPCHook
	retry        []RetryHook
	conn         []ConnHook
	topology     []TopologyHook
	close        []CloseHook
	txn          []TxnHook
	recorders    []*Recorder
}

// watchOf returns a copy of w, to be changed.
func watchOf(w watching) *watch {
	old, ok := w.(*watch)
	if !ok {
		return &watch{}
	}
	return &watch{
		interceptors: old.interceptors, rpc: slices.Clip(old.rpc), retry: slices.Clip(old.retry),
		conn: slices.Clip(old.conn), topology: slices.Clip(old.topology), close: slices.Clip(old.close),
		txn: slices.Clip(old.txn), recorders: slices.Clip(old.recorders),
	}
}

// add takes a hook; false: it is none.
func (w *watch) add(hook Hook) (ok bool) {
	if h, is := hook.(RPCHook); is {
		w.rpc, ok = append(w.rpc, h), true
	}
	if h, is := hook.(TxnHook); is {
		w.txn, ok = append(w.txn, h), true
	}
	if h, is := hook.(RetryHook); is {
		w.retry, ok = append(w.retry, h), true
	}
	if h, is := hook.(ConnHook); is {
		w.conn, ok = append(w.conn, h), true
	}
	if h, is := hook.(TopologyHook); is {
		w.topology, ok = append(w.topology, h), true
	}
	if h, is := hook.(CloseHook); is {
		w.close, ok = append(w.close, h), true
	}
	return ok
}

// watcher is w in use, nil where nobody sees an attempt.
func (w *watch) watcher(logger *slog.Logger) *router.Watcher {
	if len(w.rpc)+len(w.retry)+len(w.interceptors)+len(w.recorders) == 0 {
		return nil
	}
	used := *w
	used.logger = logger
	return router.NewWatcher(&used)
}

// glimpse is what is known of an attempt.
type glimpse struct {
	info    CallInfo
	field   protowire.Number // of the details in the answer
	details []byte
}

// peek keeps the details of an answer.
func (g *glimpse) peek(answer []byte) { g.details = bytes.Clone(wire.Field(answer, g.field)) }

// Begin implements router.Watch.
func (w *watch) Begin(ctx context.Context, a *router.Watched) (context.Context, error) {
	g := &glimpse{info: callInfo(a)}
	for _, intercept := range w.interceptors {
		if err := refusal(ctx, intercept, &g.info); err != nil {
			return ctx, err
		}
	}
	if err := g.info.Call.give(ctx, &a.Fields); err != nil {
		return ctx, err
	}
	a.State = g
	if g.field = wire.DetailField(a.Method); g.field != 0 && len(w.rpc)+len(w.recorders) > 0 {
		a.Peek = g.peek
	}
	return w.startRPC(ctx, g.info), nil
}

// startRPC tells the hooks of an attempt, and returns its context.
func (w *watch) startRPC(ctx context.Context, info CallInfo) context.Context {
	for _, h := range w.rpc {
		w.guard(ctx, func() {
			if under := h.StartRPC(ctx, info); under != nil {
				ctx = under
			}
		})
	}
	return ctx
}

func (w *watch) endRPC(ctx context.Context, info CallInfo, res CallResult) {
	for i := len(w.rpc) - 1; i >= 0; i-- {
		w.guard(ctx, func() { w.rpc[i].EndRPC(ctx, info, res) })
	}
}

// End implements router.Watch.
func (w *watch) End(ctx context.Context, a *router.Watched, o router.Outcome) {
	g, ok := a.State.(*glimpse)
	if !ok {
		return
	}
	res := CallResult{Reason: Reason(o.Reason), Err: public(o.Err), ResponseBytes: o.ResponseBytes, Elapsed: o.Elapsed, details: g.details}
	if o.Sent {
		for _, r := range w.recorders {
			r.saw(&g.info, &res)
		}
	}
	w.endRPC(ctx, g.info, res)
}

// Pause implements router.Watch.
func (w *watch) Pause(ctx context.Context, p router.Pause) {
	info := RetryInfo{Method: Method(p.Method), Reason: Reason(p.Reason), Attempt: p.Number, Delay: p.Delay, Err: public(p.Err)}
	for _, h := range w.retry {
		w.guard(ctx, func() { h.OnRetry(ctx, info) })
	}
}

// guard runs a hook; a panic of its is logged.
func (w *watch) guard(ctx context.Context, hook func()) { guard(ctx, w.logger, hook) }

func guard(ctx context.Context, logger *slog.Logger, hook func()) {
	defer func() {
		if p := recover(); p != nil {
			logger.LogAttrs(ctx, slog.LevelError, "a hook panicked", slog.Any("panic", p))
		}
	}()
	hook()
}

// refusal is an interceptor's error; a panic is one.
func refusal(ctx context.Context, intercept Interceptor, info *CallInfo) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the interceptor panicked: %v", p)
		}
	}()
	call := info.Call
	err = intercept(ctx, *info, &call)
	info.Call = call
	return err
}

var errNoPriority = errors.New("the interceptor has set a priority that does not exist")

// give writes the fields back.
func (c *CallContext) give(ctx context.Context, f *router.Fields) error {
	if c.Priority > PriorityHigh {
		return errNoPriority
	}
	if end, ok := ctx.Deadline(); ok && (c.Deadline.IsZero() || c.Deadline.After(end)) {
		c.Deadline = end
	}
	if !c.Deadline.IsZero() && !time.Now().Before(c.Deadline) {
		return context.DeadlineExceeded
	}
	*f = router.Fields{
		Priority: c.Priority.wire(), ResourceGroup: c.ResourceGroup, RequestSource: c.RequestSource, Tag: c.Tag, Deadline: c.Deadline,
	}
	return nil
}

// callInfo is what is told of an attempt.
func callInfo(a *router.Watched) CallInfo {
	info := CallInfo{
		Method: Method(a.Method), Addr: a.Addr, StoreID: a.StoreID, RegionID: a.RegionID, Asked: Asked(a.Asked), Via: a.Via, Attempt: a.Number,
		RequestBytes: a.Request.Size(), Keys: keysOf(a.Request), Write: !rpcMethods[a.Method].has(reads),
		Call: CallContext{
			Priority: priorityOf(a.Priority), ResourceGroup: a.ResourceGroup, RequestSource: a.RequestSource, Tag: a.Tag, Deadline: a.Deadline,
		},
	}
	if q, ok := a.Request.(interface{ GetStartTs() uint64 }); ok && info.Write { // KvFlush; of reads it is another
		info.StartTS = Timestamp(q.GetStartTs())
		return info
	}
	switch q := a.Request.(type) {
	case interface{ GetStartVersion() uint64 }:
		info.StartTS = Timestamp(q.GetStartVersion())
	case interface{ GetLockTs() uint64 }:
		info.StartTS = Timestamp(q.GetLockTs())
	case interface{ GetVersion() uint64 }:
		info.ReadTS = Timestamp(q.GetVersion())
	case interface{ GetStartTs() uint64 }:
		info.ReadTS = Timestamp(q.GetStartTs())
	}
	return info
}

// keysOf counts the keys that a request names.
func keysOf(req transport.Message) int {
	switch q := req.(type) {
	case interface{ GetKeys() [][]byte }:
		return len(q.GetKeys())
	case interface{ GetMutations() []*kvrpcpb.Mutation }:
		return len(q.GetMutations())
	case interface{ GetPairs() []*kvrpcpb.KvPair }:
		return len(q.GetPairs())
	case interface{ GetSplitKeys() [][]byte }:
		return len(q.GetSplitKeys())
	case interface{ GetKey() []byte }, interface{ GetPrimaryKey() []byte }, interface{ GetPrimaryLock() []byte }:
		return 1
	}
	return 0
}

func priorityOf(p kvrpcpb.CommandPri) Priority {
	switch p {
	case kvrpcpb.CommandPri_Low:
		return PriorityLow
	case kvrpcpb.CommandPri_High:
		return PriorityHigh
	}
	return PriorityNormal
}

// tellClosed tells the hooks what was abandoned.
func (w *watch) tellClosed(ctx context.Context, logger *slog.Logger, names []string, elapsed time.Duration) {
	info := CloseInfo{Elapsed: elapsed}
	for _, name := range names {
		switch name {
		case "commit", "commit secondaries": // those that decide, and those that follow
			info.Commits++
		case "roll back":
			info.Rollbacks++
		default:
			info.Unlocks++
		}
	}
	for _, h := range w.close {
		guard(ctx, logger, func() { h.OnClose(info) })
	}
}
