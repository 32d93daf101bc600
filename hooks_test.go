package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// recorder is a hook that writes down what it sees.
type recorder struct {
	mu     sync.Mutex
	lines  []string
	calls  []tikv.CallInfo
	pd     []string // what was asked of PD
	retry  []tikv.RetryInfo
	closed []tikv.CloseInfo
}

type recorded struct{}

func (r *recorder) StartRPC(ctx context.Context, info tikv.CallInfo) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	if info.StoreID == 0 {
		return context.WithValue(ctx, recorded{}, info.Method)
	}
	r.calls = append(r.calls, info)
	return context.WithValue(ctx, recorded{}, len(r.calls)-1)
}

func (r *recorder) EndRPC(ctx context.Context, info tikv.CallInfo, res tikv.CallResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if info.StoreID == 0 {
		r.pd = append(r.pd, fmt.Sprintf("%s %v", ctx.Value(recorded{}), res.Reason))
		return
	}
	n, _ := ctx.Value(recorded{}).(int)
	if began := r.calls[n]; began.Method != info.Method || began.Attempt != info.Attempt {
		r.lines = append(r.lines, "the context is another attempt's")
	}
	r.lines = append(r.lines, fmt.Sprintf("%s %d %v", info.Method, info.Attempt, res.Reason))
	if (res.Err == nil) != (res.Reason == tikv.ReasonNone) {
		r.lines = append(r.lines, "error and reason differ")
	}
}

func (r *recorder) OnRetry(_ context.Context, info tikv.RetryInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retry = append(r.retry, info)
}

func (r *recorder) OnClose(info tikv.CloseInfo) { r.closed = append(r.closed, info) }

// take returns what was seen since the last time.
func (r *recorder) take() (lines []string, calls []tikv.CallInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines, calls = r.lines, r.calls
	r.lines, r.calls = nil, nil
	return lines, calls
}

// Every attempt of every view is seen, once, with what it is about.
func TestHooksSeeEveryView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rpcCluster(t, playground.APIV2, playground.KeyTxn)
		rec := &recorder{}
		c := cluster.Open(tikv.WithHooks(rec), tikv.WithPriority(tikv.PriorityLow))
		ctx, k := t.Context(), []byte("a")
		snap := commitKeys(t, c, "a")
		rec.take()
		rpc := c.RPC(tikv.WithReadAt(snap))
		id := flash(t, cluster)
		for name, v := range map[string]struct {
			do     func() error
			want   string
			keys   int
			write  bool
			readTS bool
		}{
			"raw put":      {func() error { return c.Raw().Put(ctx, k, k) }, "RawPut 1 none", 1, true, false},
			"raw get":      {func() error { _, err := c.Raw().Get(ctx, []byte("z")); return ignoreNotFound(err) }, "RawGet 1 none", 1, false, false},
			"raw batch":    {func() error { _, err := c.Raw().BatchGet(ctx, [][]byte{k, []byte("b")}); return err }, "RawBatchGet 1 none", 2, false, false},
			"raw scan":     {func() error { _, err := tikv.Collect(c.Raw().Scan(ctx, tikv.Range{End: []byte("b")})); return err }, "RawScan 1 none", 0, false, false},
			"snapshot get": {func() error { _, err := snap.Get(ctx, k); return err }, "KvGet 1 none", 1, false, true},
			"call": {func() error {
				_, err := tikv.Call(ctx, rpc, tikv.ToKey(tikv.KeyTxn, k), tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: k})
				return err
			}, "KvGet 1 none", 1, false, true},
			"call to a store": {func() error {
				_, err := tikv.Call(ctx, rpc, tikv.ToStore(id), tikvpb.TikvClient.GetHealthFeedback, &kvrpcpb.GetHealthFeedbackRequest{})
				return err
			}, "", 0, false, false},
			"stream": {func() error {
				_, err := tikv.Collect(tikv.CallStream(ctx, rpc, tikv.ToKey(tikv.KeyTxn, k), tikvpb.TikvClient.CoprocessorStream,
					&coprocessor.Request{Tp: 103, Ranges: []*coprocessor.KeyRange{{Start: k, End: []byte("b")}}}))
				return err
			}, "CoprocessorStream 1 none", 0, false, true},
		} {
			err := v.do()
			lines, calls := rec.take()
			if v.want == "" { // WithReadAt refuses it
				if !errors.Is(err, tikv.ErrInvalid) || len(calls) > 0 {
					t.Errorf("%s: %v %v", name, err, lines)
				}
				continue
			}
			if err != nil || len(lines) != 1 || lines[0] != v.want {
				t.Errorf("%s: %q, %v", name, lines, err)
				continue
			}
			i := calls[0]
			if i.StoreID != 1 || i.RegionID == 0 || i.Addr == "" || i.RequestBytes == 0 || i.Keys != v.keys || i.Write != v.write || (i.ReadTS != 0) != v.readTS ||
				i.Call.Priority != tikv.PriorityLow {
				t.Errorf("%s: %+v", name, i)
			}
		}
		// So are those of a batch that is sent all at once, and of what it meets.
		cluster.Inject(playground.Fault{Method: "KvBatchGet", RegionError: playground.StaleCommand, Times: 1})
		if _, err := snap.BatchGet(ctx, [][]byte{k, []byte("e"), []byte("z")}); err != nil {
			t.Error(err)
		}
		lines, _ := rec.take()
		slices.Sort(lines)
		if !slices.Equal(lines, []string{"KvBatchGet 1 none", "KvBatchGet 1 none", "KvBatchGet 1 stale command", "KvBatchGet 2 none"}) {
			t.Errorf("%q", lines)
		}
		rec.retry = nil
		// A transaction's attempts carry its timestamp.
		err := c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put(k, k) }, inTwoPhases)
		lines, calls := rec.take()
		if err != nil || !slices.Equal(lines, []string{"KvPrewrite 1 none", "KvCommit 1 none"}) || calls[0].StartTS == 0 || calls[0].StartTS != calls[1].StartTS || !calls[0].Write {
			t.Errorf("%q %+v %v", lines, calls, err)
		}
		tx := begin(t, c, tikv.WithPipelined(tikv.Pipeline{}))
		err = errors.Join(tx.Put(k, k), tx.Commit(ctx))
		if _, calls := rec.take(); err != nil || calls[0].Method != "KvFlush" || calls[0].StartTS != tx.StartTS() || calls[0].ReadTS != 0 || !calls[0].Write {
			t.Errorf("%+v %v", calls, err)
		}
		<-time.After(10 * time.Second) // what is owed, and told to stores
		rec.take()
		// Attempts count, and waits are told.
		cluster.Inject(playground.Fault{Method: "RawGet", RegionError: playground.ServerIsBusy, Times: 2})
		if _, err := c.Raw().Get(ctx, k); err != nil {
			t.Error(err)
		}
		lines, _ = rec.take()
		if !slices.Equal(lines, []string{"RawGet 1 server busy", "RawGet 2 server busy", "RawGet 3 none"}) {
			t.Errorf("%q", lines)
		}
		if len(rec.retry) != 2 || rec.retry[0].Reason != tikv.ReasonServerBusy || rec.retry[1].Attempt != 3 || rec.retry[0].Delay <= 0 || rec.retry[0].Method != "RawGet" || rec.retry[0].Err == nil {
			t.Errorf("%+v", rec.retry)
		}
		if err := c.Close(); err != nil || len(rec.closed) != 1 {
			t.Errorf("%v %v", rec.closed, err)
		}
		if err := c.Close(); err != nil || len(rec.closed) != 1 {
			t.Errorf("closed again: %v %v", rec.closed, err)
		}
	})
}

func ignoreNotFound(err error) error {
	if errors.Is(err, tikv.ErrNotFound) {
		return nil
	}
	return err
}

func TestInterceptors(t *testing.T) {
	cluster := rpcCluster(t, playground.APIV2, playground.KeyTxn)
	rec := &recorder{}
	var order []string
	note := func(name string) tikv.Interceptor {
		return func(_ context.Context, info tikv.CallInfo, call *tikv.CallContext) error {
			order = append(order, name+" sees "+call.RequestSource)
			if call.RequestSource != info.Call.RequestSource {
				return errors.New("info and call differ")
			}
			call.RequestSource = name
			return nil
		}
	}
	c := cluster.Open(tikv.WithHooks(rec), tikv.WithInterceptors(note("one")), tikv.WithRequestSource("view"))
	raw := c.Raw(tikv.WithInterceptors(note("two"), note("three")), tikv.WithResourceGroup("default"), tikv.WithTag([]byte("tag")), tikv.WithTaskID(7))
	if err := raw.Put(t.Context(), []byte("k"), nil); err != nil {
		t.Fatal(err)
	}
	_, calls := rec.take()
	if got := strings.Join(order, ", "); got != "one sees view, two sees one, three sees two" || len(calls) != 1 || calls[0].Call.RequestSource != "three" {
		t.Errorf("%s, %+v", got, calls)
	}
	if call := calls[0].Call; call.ResourceGroup != "default" || string(call.Tag) != "tag" {
		t.Errorf("%+v", call)
	}
	order = nil
	if _, err := c.Raw().Get(t.Context(), []byte("k")); err != nil || len(order) != 1 {
		t.Errorf("another view has the interceptors of the first: %q, %v", order, err)
	}
}

// An interceptor ends the call that it refuses, with its own error, and nothing was sent.
func TestInterceptorsRefuse(t *testing.T) {
	cluster := rpcCluster(t, playground.APIV2, playground.KeyRaw)
	rec := &recorder{}
	c := cluster.Open(tikv.WithHooks(rec))
	mine := errors.New("not today")
	k := []byte("k")
	for name, i := range map[string]struct {
		interceptor tikv.Interceptor
		is          error
	}{
		"error":    {func(context.Context, tikv.CallInfo, *tikv.CallContext) error { return mine }, mine},
		"panic":    {func(context.Context, tikv.CallInfo, *tikv.CallContext) error { panic("!") }, nil},
		"priority": {func(_ context.Context, _ tikv.CallInfo, call *tikv.CallContext) error { call.Priority = 9; return nil }, nil},
		"deadline": {func(_ context.Context, _ tikv.CallInfo, call *tikv.CallContext) error {
			call.Deadline = time.Now().Add(-time.Second)
			return nil
		}, context.DeadlineExceeded},
	} {
		view := tikv.WithInterceptors(i.interceptor)
		snap := c.Latest(view)
		for op, err := range map[string]error{
			"put":  c.Raw(view).Put(t.Context(), k, nil),
			"read": func() error { _, err := snap.Get(t.Context(), k); return err }(),
			"scan": func() error { _, err := tikv.Collect(snap.Scan(t.Context(), tikv.Range{})); return err }(),
			"txn":  c.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error { return tx.Put(k, k) }, view),
			"call": func() error {
				_, err := tikv.Call(t.Context(), c.RPC(view), tikv.ToStore(1), tikvpb.TikvClient.GetHealthFeedback, &kvrpcpb.GetHealthFeedbackRequest{})
				return err
			}(),
		} {
			if err == nil || i.is != nil && !errors.Is(err, i.is) || !tikv.NotSent(err) || tikv.IsRetryable(err) {
				t.Errorf("%s, %s: %v (not sent: %v)", name, op, err, tikv.NotSent(err))
			}
		}
	}
	if lines, calls := rec.take(); len(lines)+len(calls) > 0 {
		t.Errorf("hooks saw %q %v", lines, calls)
	}
	for _, bad := range []tikv.Option{tikv.WithHooks(nil), tikv.WithHooks(3), tikv.WithInterceptors(nil)} {
		if _, err := tikv.Open(t.Context(), cluster.PD(), append(cluster.ClientOptions(), bad)...); !errors.Is(err, tikv.ErrInvalid) {
			t.Errorf("%v", err)
		}
	}
}

// An interceptor's deadline ends the call, though its context has a later one, or none.
func TestInterceptorsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rpcCluster(t, playground.APIV2, playground.KeyRaw)
		c := cluster.Open()
		end := time.Now().Add(3 * time.Second)
		raw := c.Raw(tikv.WithInterceptors(func(_ context.Context, _ tikv.CallInfo, call *tikv.CallContext) error {
			call.Deadline = end
			return nil
		}))
		held := cluster.Inject(playground.Fault{Method: "RawGet", Hold: true})
		_, err := raw.Get(t.Context(), []byte("k"))
		held.Remove()
		if !errors.Is(err, tikv.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if late := time.Since(end); late < 0 || late > 2500*time.Millisecond {
			t.Errorf("ended %v after the deadline", late)
		}
		// One that is later than ctx's counts for nothing.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var seen time.Time
		view := c.Raw(tikv.WithInterceptors(func(_ context.Context, _ tikv.CallInfo, call *tikv.CallContext) error {
			call.Deadline = time.Now().Add(time.Hour)
			return nil
		}, func(ctx context.Context, _ tikv.CallInfo, call *tikv.CallContext) error {
			seen = call.Deadline
			return nil
		}))
		held = cluster.Inject(playground.Fault{Method: "RawGet", Hold: true})
		began := time.Now()
		_, err = view.Get(ctx, []byte("k"))
		held.Remove()
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second || seen.IsZero() {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// broken is a hook that panics, and whose contexts are none.
type broken struct{}

func (broken) StartRPC(context.Context, tikv.CallInfo) context.Context { panic("start") }
func (broken) EndRPC(context.Context, tikv.CallInfo, tikv.CallResult)  { panic("end") }
func (broken) OnRetry(context.Context, tikv.RetryInfo)                 { panic("retry") }
func (broken) OnClose(tikv.CloseInfo)                                  { panic("close") }
func (broken) OnConnect(tikv.ConnInfo)                                 { panic("connect") }
func (broken) OnDisconnect(tikv.ConnInfo, error)                       { panic("disconnect") }
func (broken) OnTopologyChange(tikv.TopologyInfo)                      { panic("topology") }

type contextless struct{}

func (contextless) StartRPC(context.Context, tikv.CallInfo) context.Context { return nil }
func (contextless) EndRPC(context.Context, tikv.CallInfo, tikv.CallResult)  {}

// A hook that panics, and one that blocks, harm nobody else.
func TestHooksDoNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rpcCluster(t, playground.APIV2, playground.KeyRaw)
		rec, told, log := &recorder{}, &events{}, &lines{}
		c := cluster.Open(tikv.WithHooks(broken{}, contextless{}, rec, told), tikv.WithLogger(log.logger()))
		cluster.Inject(playground.Fault{Method: "RawPut", RegionError: playground.ServerIsBusy, Times: 1})
		if err := c.Raw().Put(t.Context(), []byte("k"), nil); err != nil {
			t.Error(err)
		}
		if lines, _ := rec.take(); len(lines) != 2 || len(rec.retry) != 1 {
			t.Errorf("%q", lines)
		}
		blocked := make(chan struct{})
		one := c.Raw(tikv.WithInterceptors(func(context.Context, tikv.CallInfo, *tikv.CallContext) error { <-blocked; return nil }))
		done := start(t.Context(), func(ctx context.Context) error { return one.Put(ctx, []byte("k"), nil) })
		synctest.Wait()
		for range 10 {
			if err := c.Raw().Put(t.Context(), []byte("k"), nil); err != nil {
				t.Error(err)
			}
		}
		close(blocked)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil || len(rec.closed) != 1 {
			t.Errorf("%v %v", rec.closed, err)
		}
		if text := told.String(); !strings.Contains(text, "region loaded") || !strings.HasSuffix(text, "close") {
			t.Errorf("beside a hook that panics another sees %q", text)
		}
		for _, where := range []string{"start", "end", "retry", "close", "connect", "disconnect", "topology"} {
			if !strings.Contains(log.String(), "a hook panicked\" panic="+where) {
				t.Errorf("%s: a panic is not logged:\n%s", where, log)
			}
		}
	})
}
