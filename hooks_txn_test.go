package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// ends is a hook that writes down transactions.
type ends struct {
	name    string
	mu      sync.Mutex
	lines   []string
	results []tikv.TxnResult
	infos   []tikv.TxnInfo
	at      []string // where it was told of the ends
	ctxs    []context.Context
}

type endsKey struct{}

func (e *ends) StartTxn(ctx context.Context, info tikv.TxnInfo) context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.infos = append(e.infos, info)
	e.lines = append(e.lines, fmt.Sprintf("%sbegin %d", e.name, info.Attempt))
	was, _ := ctx.Value(endsKey{}).(string)
	return context.WithValue(ctx, endsKey{}, was+e.name+fmt.Sprint(info.Attempt))
}

func (e *ends) EndTxn(ctx context.Context, info tikv.TxnInfo, res tikv.TxnResult) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.results, e.ctxs, e.at = append(e.results, res), append(e.ctxs, ctx), append(e.at, string(debug.Stack()))
	line := fmt.Sprintf("%send %d %v", e.name, info.Attempt, res.Outcome)
	if res.Protocol != tikv.ProtocolNone {
		line += " " + res.Protocol.String()
	}
	e.lines = append(e.lines, line)
	if info.StartTS != res.StartTS || info.Attempt != res.Attempt || (res.Err == nil) != (res.Outcome == tikv.TxnCommitted || res.Outcome == tikv.TxnRolledBack && res.Err == nil) {
		e.lines = append(e.lines, fmt.Sprintf("info and result differ: %+v %+v", info, res))
	}
}

// take returns what was told since the last time.
func (e *ends) take() (lines string, results []tikv.TxnResult, at string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	lines, results, at = strings.Join(e.lines, ", "), e.results, strings.Join(e.at, "\n")
	e.lines, e.results, e.at, e.infos = nil, nil, nil, nil
	return lines, results, at
}

// hookCase is a way for transactions to end. What it does returns what its caller is told.
type hookCase struct {
	do   func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error
	want string // of the hook
	last error  // of the last result; nil: none
	same bool   // it is what the caller is told
	from string // function on the goroutine that is told of the last end
}

func run(opts ...tikv.RunOption) func(fn func(ctx context.Context, tx *tikv.Txn) error) func(*testing.T, *tikvtest.Cluster, *tikv.Client) error {
	return func(fn func(ctx context.Context, tx *tikv.Txn) error) func(*testing.T, *tikvtest.Cluster, *tikv.Client) error {
		return func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) error {
			return c.RunTxn(t.Context(), fn, opts...)
		}
	}
}

var errMine = errors.New("mine")

func hookCases() map[string]hookCase {
	keep := func(_ context.Context, tx *tikv.Txn) error {
		return errors.Join(tx.Put(b("a"), b("1")), tx.Put(b("z"), b("2")))
	}
	one := func(_ context.Context, tx *tikv.Txn) error { return tx.Put(b("a"), b("1")) }
	// by makes a transaction of Begin end in a way.
	by := func(opts []tikv.BeginOption, end func(ctx context.Context, tx *tikv.Txn) error) func(*testing.T, *tikvtest.Cluster, *tikv.Client) error {
		return func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) error {
			tx, err := c.Begin(t.Context(), opts...)
			must(t, err)
			return end(t.Context(), tx)
		}
	}
	pessimistic := []tikv.BeginOption{tikv.WithPessimistic()}
	return map[string]hookCase{
		"nothing":    {run()(func(context.Context, *tikv.Txn) error { return nil }), "begin 1, end 1 committed", nil, true, "tikv.(*Txn).Commit("},
		"one phase":  {run()(one), "begin 1, end 1 committed one-phase", nil, true, "tikv.(*Txn).Commit("},
		"async":      {run()(keep), "begin 1, end 1 committed async", nil, true, "tikv.(*Txn).Commit("},
		"two phases": {run(inTwoPhases)(keep), "begin 1, end 1 committed two-phase", nil, true, "tikv.(*Txn).Commit("},
		"pipelined":  {run(tikv.WithPipelined(tikv.Pipeline{}))(keep), "begin 1, end 1 committed pipelined", nil, true, "tikv.(*Txn).Commit("},
		"a lost flush": {func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error {
			return c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
				commit(t, cluster.Open(), "a", "first")
				return keep(ctx, tx)
			}, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithMaxAttempts(1))
		}, "begin 1, end 1 failed", tikv.ErrWriteConflict, true, "tikv.(*Txn).Commit("},
		"commits": {by(nil, func(ctx context.Context, tx *tikv.Txn) error {
			return errors.Join(one(ctx, tx), tx.Commit(ctx), tx.Rollback(ctx))
		}), "begin 1, end 1 committed one-phase", nil, true, "tikv.(*Txn).Commit("},
		"rolls back": {by(nil, func(ctx context.Context, tx *tikv.Txn) error {
			return errors.Join(one(ctx, tx), tx.Rollback(ctx), tx.Rollback(ctx))
		}), "begin 1, end 1 rolled back", nil, true, "tikv.(*Txn).Rollback("},
		"unlocks": {by(pessimistic, func(ctx context.Context, tx *tikv.Txn) error {
			return errors.Join(tx.Lock(ctx, ks("a")), tx.Rollback(ctx))
		}), "begin 1, end 1 rolled back", nil, true, "tikv.(*Txn).Rollback("},
		"by itself": {run()(func(ctx context.Context, tx *tikv.Txn) error { return errors.Join(one(ctx, tx), tx.Commit(ctx)) }), "begin 1, end 1 committed one-phase", nil, true, "tikv.(*Txn).Commit("},
		"an error":  {run()(func(ctx context.Context, tx *tikv.Txn) error { return errors.Join(one(ctx, tx), errMine) }), "begin 1, end 1 rolled back", errMine, true, "tikv.(*runner).attempt("},
		"after it": {run()(func(ctx context.Context, tx *tikv.Txn) error {
			return errors.Join(one(ctx, tx), tx.Commit(ctx), errMine)
		}), "begin 1, end 1 committed one-phase", nil, false, "tikv.(*Txn).Commit("},
		"misuse": {by(pessimistic, func(ctx context.Context, tx *tikv.Txn) error {
			f, err := tx.FairLock()
			if bad := tx.Commit(ctx); !errors.Is(bad, tikv.ErrInvalid) {
				return bad
			}
			return errors.Join(err, f.Cancel(ctx), tx.Commit(ctx))
		}), "begin 1, end 1 committed", nil, true, "tikv.(*Txn).Commit("},
		"a panic": {func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) (err error) {
			defer func() {
				if r := recover(); r != errMine {
					t.Error(r)
				}
			}()
			return c.RunTxn(t.Context(), func(context.Context, *tikv.Txn) error { panic(errMine) })
		}, "begin 1, end 1 rolled back", tikv.ErrNotReturned, false, "tikv.(*runner).attempt"},
		"a goroutine's end": {func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) error {
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_ = c.RunTxn(t.Context(), func(context.Context, *tikv.Txn) error { runtime.Goexit(); return nil })
			}()
			<-gone
			return nil
		}, "begin 1, end 1 rolled back", tikv.ErrNotReturned, false, "tikv.(*runner).attempt"},
		"a panic of the check": {func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) (err error) {
			defer func() {
				if r := recover(); r != errMine {
					t.Error(r)
				}
			}()
			return c.RunTxn(t.Context(), keep, tikv.WithCommitCheck(func(tikv.Timestamp) error { panic(errMine) }))
		}, "begin 1, end 1 failed two-phase", tikv.ErrNotReturned, false, "tikv.(*Txn).Commit("},
		"an objection": {run(tikv.WithCommitCheck(func(tikv.Timestamp) error { return errMine }))(keep), "begin 1, end 1 failed two-phase", errMine, true, "tikv.(*Txn).Commit("},
		"conflicts": {func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error {
			other, n := cluster.Open(), 0
			return c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
				if n++; n < 3 {
					commit(t, other, "a", fmt.Sprint(n))
				}
				return one(ctx, tx)
			})
		}, "begin 1, end 1 failed one-phase, begin 2, end 2 failed one-phase, begin 3, end 3 committed one-phase", nil, true, "tikv.(*Txn).Commit("},
		"too many conflicts": {func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error {
			other := cluster.Open()
			return c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
				commit(t, other, "a", "")
				return one(ctx, tx)
			}, tikv.WithMaxAttempts(2))
		}, "begin 1, end 1 failed one-phase, begin 2, end 2 failed one-phase", tikv.ErrWriteConflict, true, "tikv.(*Txn).Commit("},
		"a fallback": {func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error {
			cluster.Inject(playground.Fault{Method: "KvPrewrite", Times: 1, Before: func() { cluster.JumpTSO(time.Minute) }})
			return run()(keep)(t, cluster, c)
		}, "begin 1, end 1 committed two-phase", nil, true, "tikv.(*Txn).Commit("},
		"undetermined": {func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error {
			cluster.Inject(playground.Fault{Method: "KvCommit", DropAnswer: true})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return c.RunTxn(ctx, keep, inTwoPhases)
		}, "begin 1, end 1 undetermined two-phase", tikv.ErrUndetermined, true, "tikv.(*Txn).Commit("},
		"no timestamp": {func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error {
			cluster.StallTSO(true)
			defer cluster.StallTSO(false)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return c.RunTxn(ctx, keep)
		}, "", nil, false, ""},
		"it is lost": {func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error {
			tx, err := c.Begin(t.Context(), tikv.WithPessimistic())
			must(t, err, tx.Lock(t.Context(), ks("a")))
			cluster.Inject(playground.Fault{Method: "KvTxnHeartBeat", KeyError: playground.TxnNotFound})
			<-time.After(time.Minute)
			synctest.Wait()
			err = tx.Commit(t.Context())
			must(t, tx.Rollback(t.Context()))
			return err
		}, "begin 1, end 1 failed", tikv.ErrTxnAborted, true, "beatDue"},
		"it is lost in a call": {func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error {
			tx, err := c.Begin(t.Context(), tikv.WithPessimistic())
			must(t, err, tx.Lock(t.Context(), ks("a")))
			cluster.Inject(playground.Fault{Method: "KvTxnHeartBeat", KeyError: playground.TxnNotFound})
			cluster.Inject(playground.Fault{Method: "KvPessimisticLock", Delay: time.Minute})
			return tx.Lock(t.Context(), ks("b"))
		}, "begin 1, end 1 failed", tikv.ErrTxnAborted, true, "tikv.(*Txn).Lock("},
		"closed": {func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error {
			tx, err := c.Begin(t.Context())
			must(t, err, one(t.Context(), tx), c.Close())
			return errors.Join(tx.Commit(t.Context()), tx.Rollback(t.Context()))
		}, "begin 1, end 1 failed", tikv.ErrClosed, false, "tikv.(*Client).Close("},
		"closed in a commit": {func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) error {
			cluster.Inject(playground.Fault{Method: "KvPrewrite", Hold: true})
			done := start(t.Context(), func(ctx context.Context) error { return c.RunTxn(ctx, keep, inTwoPhases) })
			synctest.Wait()
			_ = c.Close()
			return <-done
		}, "begin 1, end 1 failed two-phase", tikv.ErrClosed, true, "tikv.(*Txn).Commit("},
	}
}

// Hooks and OnEnd are told of every end, once, in order, with what the caller is told, on
// the goroutine that ended the transaction.
func TestTxnHook(t *testing.T) {
	for name, c := range hookCases() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
				hook, idle := &ends{}, &ends{name: "another client's "}
				client := cluster.Open(tikv.WithHooks(hook))
				cluster.Open(tikv.WithHooks(idle))
				err := c.do(t, cluster, client)
				synctest.Wait()
				lines, results, at := hook.take()
				if lines != c.want {
					t.Fatalf("%q, want %q (%v)", lines, c.want, err)
				}
				if !strings.Contains(at, c.from) {
					t.Errorf("not from %s: %s", c.from, at)
				}
				if n := len(results); n > 0 {
					last := results[n-1]
					if !errors.Is(last.Err, c.last) || c.last == nil && last.Err != nil {
						t.Errorf("%v, want %v", last.Err, c.last)
					}
					if c.same && (err == nil) != (last.Err == nil) || c.same && err != nil && !strings.Contains(err.Error(), strings.TrimPrefix(last.Err.Error(), "tikv: Txn.Commit: ")) {
						t.Errorf("told %v, returned %v", last.Err, err)
					}
					if last.Fallback != (name == "a fallback") {
						t.Errorf("%+v", last)
					}
					if (last.CommitTS != 0) != (last.Outcome == tikv.TxnCommitted && last.Protocol != tikv.ProtocolNone) {
						t.Errorf("%+v", last)
					}
				}
				if lines, _, _ := idle.take(); lines != "" {
					t.Errorf("another client was told of %q", lines)
				}
				_ = client.Close()
				if lines, _, _ := hook.take(); lines != "" {
					t.Errorf("told once more: %q", lines)
				}
			})
		})
	}
}

// Several hooks, and OnEnd's functions, are told one inside the other.
func TestTxnHooksNest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		outer, inner := &ends{name: "o"}, &ends{name: "i"}
		c := cluster.Open(tikv.WithHooks(outer, panics{}), tikv.WithHooks(inner))
		var order []string
		var tx *tikv.Txn
		must(t, c.RunTxn(t.Context(), func(ctx context.Context, got *tikv.Txn) error {
			tx = got
			if v := ctx.Value(endsKey{}); v != "o1i1" {
				t.Errorf("fn's context has %v", v)
			}
			tx.OnEnd(nil)
			tx.OnEnd(func(r tikv.TxnResult) {
				order = append(order, fmt.Sprint("first ", len(inner.results), r.Keys, r.Bytes, r.Regions))
			})
			tx.OnEnd(func(tikv.TxnResult) { panic("which is logged") })
			tx.OnEnd(func(r tikv.TxnResult) {
				order = append(order, fmt.Sprint("last ", len(inner.results), r.Outcome))
				if ts, ok := tx.CommitTS(); !ok || ts != r.CommitTS || r.StartTS != tx.StartTS() || r.Elapsed != 0 {
					t.Errorf("%v %+v", ts, r)
				}
			})
			return errors.Join(tx.Put(b("a"), b("12")), tx.Put(b("b"), nil), tx.Delete(b("c")))
		}))
		tx.OnEnd(func(r tikv.TxnResult) { order = append(order, fmt.Sprint("late ", len(outer.results), r.Outcome)) })
		if got := strings.Join(order, ", "); got != "last 0 committed, first 0 3 5 1, late 1 committed" {
			t.Errorf("%q", got)
		}
		if len(outer.ctxs) != 1 || outer.ctxs[0].Value(endsKey{}) != "o1i1" || inner.ctxs[0].Value(endsKey{}) != "o1i1" {
			t.Error("the contexts of the ends")
		}
	})
}

// panics is a hook that panics.
type panics struct{}

func (panics) StartTxn(context.Context, tikv.TxnInfo) context.Context { panic("start") }
func (panics) EndTxn(context.Context, tikv.TxnInfo, tikv.TxnResult)   { panic("end") }

// A transaction without a hook tells of its end as well, whoever ends it.
func TestOnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		c := cluster.Open()
		told := map[string][]tikv.TxnResult{}
		watch := func(name string, opts ...tikv.BeginOption) *tikv.Txn {
			tx, err := c.Begin(t.Context(), opts...)
			must(t, err)
			tx.OnEnd(func(r tikv.TxnResult) { told[name] = append(told[name], r) })
			return tx
		}
		committed, rolledBack, open := watch("committed"), watch("rolled back"), watch("open")
		locked := watch("locked", tikv.WithPessimistic())
		must(t, committed.Put(b("a"), nil), locked.Lock(t.Context(), ks("b")))
		<-time.After(time.Second)
		must(t, committed.Commit(t.Context()), rolledBack.Rollback(t.Context()))
		if r := told["committed"]; len(r) != 1 || r[0].Elapsed != time.Second || r[0].Keys != 1 || r[0].Stats.RPCs != 1 || r[0].Stats.ByMethod != nil {
			t.Errorf("%+v", r)
		}
		must(t, c.Close())
		for name, want := range map[string]tikv.TxnOutcome{
			"committed": tikv.TxnCommitted, "rolled back": tikv.TxnRolledBack, "open": tikv.TxnFailed, "locked": tikv.TxnFailed,
		} {
			if r := told[name]; len(r) != 1 || r[0].Outcome != want || want == tikv.TxnFailed && !errors.Is(r[0].Err, tikv.ErrClosed) {
				t.Errorf("%s: %+v", name, r)
			}
		}
		must(t, open.Rollback(t.Context()))
		open.OnEnd(func(r tikv.TxnResult) { told["late"] = append(told["late"], r) })
		if r := told["late"]; len(r) != 1 || r[0].Outcome != tikv.TxnFailed || len(told["open"]) != 1 {
			t.Errorf("%+v", told)
		}
		for name, err := range map[string]error{"Commit": locked.Commit(t.Context()), "Put": locked.Put(b("b"), nil), "Get": second(locked.Get(t.Context(), b("b")))} {
			if !errors.Is(err, tikv.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A transaction that nobody has any more is told of: a pessimistic one when its heart would
// beat, another when more are begun.
func TestTxnHookOfDroppedHandles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		hook := &ends{}
		c := cluster.Open(tikv.WithHooks(hook))
		func() {
			tx, err := c.Begin(t.Context(), tikv.WithPessimistic())
			must(t, err, tx.Lock(t.Context(), ks("a")))
		}()
		dropped := 0
		for range 10 {
			runtime.GC()
			<-time.After(time.Minute)
			lines, results, _ := hook.take()
			if dropped += strings.Count(lines, "end 1 rolled back"); len(results) == 1 && !errors.Is(results[0].Err, tikv.ErrTxnDropped) {
				t.Error(results[0].Err)
			}
		}
		if dropped != 1 {
			t.Errorf("%d were dropped, one was", dropped)
		}
		if left := cluster.Locks(nil, nil); len(left) > 0 {
			t.Error(left)
		}
		const many = 300
		kept, _ := c.Begin(t.Context())
		for i := range many {
			_, err := c.Begin(t.Context())
			if must(t, err); i%32 == 0 {
				runtime.GC()
			}
		}
		lines, results, _ := hook.take()
		if n := strings.Count(lines, "end 1 rolled back"); n < many/3 || n > many || !errors.Is(results[0].Err, tikv.ErrTxnDropped) {
			t.Errorf("%d of %d were told of", n, many)
		}
		must(t, kept.Commit(t.Context()), c.Close())
		again, _, _ := hook.take()
		if n := strings.Count(lines+again, "rolled back") + strings.Count(again, "failed"); n != many || strings.Count(again, "committed") != 1 {
			t.Errorf("%d of %d were told of in the end", n, many)
		}
	})
}
