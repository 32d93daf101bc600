package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/rawkv"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"github.com/tikv/client-go/v2/txnkv/txnlock"
	"github.com/tikv/client-go/v2/txnkv/txnsnapshot"
)

// env is what a case works with: a cluster and the official clients of it.
type env struct {
	*testing.T
	c      *cluster
	area   area
	txn    *txnkv.Client
	raw    *rawkv.Client
	prefix string
}

// start starts the area's cluster and clients until the test ends.
func (a area) start(t *testing.T) *env {
	t.Helper()
	c := start(t, a.args...)
	e := &env{T: t, c: c, area: a}
	if c.API != "v1ttl" {
		e.txn = c.officialTxn(t, a.txn...)
	}
	if len(a.raw) > 0 || c.API == "v1" {
		e.raw = c.officialRaw(t, a.raw...)
	}
	if a.setup != nil {
		a.setup(e)
	}
	return e
}

func (e *env) with(t *testing.T, prefix string) *env {
	with := *e
	with.T, with.prefix = t, prefix
	return &with
}

// ctx is a context for one step.
func (e *env) ctx() context.Context { return within(e.T) }

func (e *env) must(err error) {
	e.Helper()
	must(e.T, err)
}

// key is one of the case's keys; end is behind all of them.
func (e *env) key(k string) []byte { return []byte(e.prefix + k) }

func (e *env) end() []byte { return []byte(strings.TrimSuffix(e.prefix, "/") + "0") }

func (e *env) keys(names ...string) (all [][]byte) {
	for _, k := range names {
		all = append(all, e.key(k))
	}
	return all
}

// bare takes the case's prefix off.
func (e *env) bare(key []byte) string { return strings.TrimPrefix(string(key), e.prefix) }

// post says a verb to the control address and returns its answer's fields.
func (e *env) post(verb string, args map[string]any) map[string]any {
	e.Helper()
	if args == nil {
		args = map[string]any{}
	}
	body, err := json.Marshal(args)
	e.must(err)
	resp, err := http.Post("http://"+e.c.Control+"/v1/"+verb, "application/json", bytes.NewReader(body))
	e.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		e.Fatalf("%s %v: %s: %s %v", verb, args, resp.Status, text, err)
	}
	var fields map[string]any
	e.must(json.Unmarshal(text, &fields))
	return fields
}

// splitTxn and splitRaw cut the regions of the case's keys.
func (e *env) splitTxn(keys ...string) {
	e.Helper()
	for _, k := range keys {
		e.post("split", map[string]any{"mode": "txn", "key": e.key(k)})
	}
}

func (e *env) splitRaw(keys ...string) {
	e.Helper()
	for _, k := range keys {
		e.post("split", map[string]any{"mode": "raw", "key": e.key(k)})
	}
}

// advance moves the cluster's clock.
func (e *env) advance(d time.Duration) {
	e.Helper()
	e.post("advance", map[string]any{"by": d.String()})
}

// fault injects one until the case ends and returns how to end it and its hits.
func (e *env) fault(args map[string]any) *injected {
	e.Helper()
	i := &injected{e, e.post("inject", args)["injection"]}
	e.Cleanup(i.remove)
	return i
}

type injected struct {
	e  *env
	id any
}

func (i *injected) remove() {
	if i.id != nil {
		i.e.post("remove", map[string]any{"injection": i.id})
		i.id = nil
	}
}

// state is how many requests it was applied to, and how many it holds.
func (i *injected) state() (hits, waiting int) {
	i.e.Helper()
	var all struct {
		Injections []struct {
			Injection     any
			Hits, Waiting int
		}
	}
	i.e.c.look(i.e.T, "injections", &all)
	for _, one := range all.Injections {
		if one.Injection == i.id {
			return one.Hits, one.Waiting
		}
	}
	i.e.Fatalf("injection %v is not at work", i.id)
	return 0, 0
}

func (i *injected) hits() int {
	i.e.Helper()
	n, _ := i.state()
	return n
}

// await waits until the fault holds n requests.
func (i *injected) await(n int) {
	i.e.Helper()
	i.e.eventually(fmt.Sprintf("%d held requests", n), func() bool {
		_, waiting := i.state()
		return waiting == n
	})
}

// eventually waits for what happens behind a caller's back.
func (e *env) eventually(what string, ok func() bool) {
	e.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			e.Fatalf("%s: it does not come to that", what)
		}
	}
}

// begin begins a transaction, which is rolled back if the case leaves it open.
func (e *env) begin(opts ...tikv.TxnOption) *transaction.KVTxn {
	e.Helper()
	tx, err := e.txn.Begin(opts...)
	e.must(err)
	e.Cleanup(func() {
		if tx.Valid() {
			if tx.IsInAggressiveLockingMode() {
				tx.CancelAggressiveLocking(context.Background())
			}
			tx.Rollback()
		}
	})
	return tx
}

// put commits pairs, "k=v", and returns the transaction.
func (e *env) put(pairs ...string) *transaction.KVTxn {
	e.Helper()
	tx := e.begin()
	e.set(tx, pairs...)
	e.must(tx.Commit(e.ctx()))
	return tx
}

func (e *env) set(tx *transaction.KVTxn, pairs ...string) {
	e.Helper()
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		e.must(tx.Set(e.key(k), []byte(v)))
	}
}

func (e *env) del(tx *transaction.KVTxn, keys ...string) {
	e.Helper()
	for _, k := range keys {
		e.must(tx.Delete(e.key(k)))
	}
}

// now is a new timestamp.
func (e *env) now() uint64 {
	e.Helper()
	ts, err := e.txn.GetTimestamp(e.ctx())
	e.must(err)
	return ts
}

// snapshot is of now.
func (e *env) snapshot() *txnsnapshot.KVSnapshot {
	e.Helper()
	return e.txn.GetSnapshot(e.now())
}

type getter interface {
	Get(context.Context, []byte) ([]byte, error)
}

// want reads pairs with a getter, or as of now: "k=v", or "k" for an absent key.
func (e *env) want(from getter, pairs ...string) {
	e.Helper()
	if from == nil {
		from = e.snapshot()
	}
	for _, p := range pairs {
		k, want, present := strings.Cut(p, "=")
		switch v, err := from.Get(e.ctx(), e.key(k)); {
		case present && (err != nil || string(v) != want):
			e.Fatalf("%s is %q %v, want %q", k, v, err, want)
		case !present && !tikverr.IsErrNotFound(err):
			e.Fatalf("%s is %q %v, want none", k, v, err)
		}
	}
}

type iterable interface {
	Iter([]byte, []byte) (tikv.Iterator, error)
	IterReverse([]byte, []byte) (tikv.Iterator, error)
}

// list reads what an iterator yields: "a=1 b=2".
func (e *env) list(it tikv.Iterator, err error) string {
	e.Helper()
	e.must(err)
	defer it.Close()
	var all []string
	for ; it.Valid(); e.must(it.Next()) {
		all = append(all, e.bare(it.Key())+"="+string(it.Value()))
	}
	return strings.Join(all, " ")
}

// scan reads all of the case's keys.
func (e *env) scan(from iterable) string {
	e.Helper()
	return e.list(from.Iter(e.key(""), e.end()))
}

// same fails the case unless two things print alike.
func (e *env) same(what string, got, want any) {
	e.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		e.Fatalf("%s: %.500s, want %.500s", what, g, w)
	}
}

// again tells whether an error asks for the transaction to be run again: a conflict, or a
// lock that another took for one of the dead, because it outlived its time.
func again(err error) bool {
	var retry *tikverr.ErrRetryable
	return tikverr.IsErrWriteConflict(err) || errors.As(err, &retry) || err != nil && strings.Contains(err.Error(), "try again later")
}

// cleaned waits until a transaction whose commit failed has rolled back what it wrote, which
// the official client does behind its caller's back.
func cleaned(tx *transaction.KVTxn) { transaction.TxnProbe{KVTxn: tx}.GetCommitter().WaitCleanup() }

// locks are the case's.
func (e *env) locks() []*txnlock.Lock {
	e.Helper()
	all, err := tikv.StoreProbe{KVStore: e.txn.KVStore}.ScanLocks(e.ctx(), e.key(""), e.end(), e.now())
	e.must(err)
	return all
}

// unlocked waits until none of the case's keys is locked.
func (e *env) unlocked() {
	e.Helper()
	e.eventually("no locks", func() bool { return len(e.locks()) == 0 })
}

// tracing records the requests that reach the cluster from then on.
type tracing struct {
	e  *env
	id any
}

func (e *env) trace() *tracing {
	e.Helper()
	return &tracing{e, e.post("trace", nil)["trace"]}
}

// nodes ends it and returns which nodes had requests of a method, and how many each.
func (t *tracing) nodes(method string) map[string]int {
	t.e.Helper()
	n := make(map[string]int)
	calls, _ := t.e.post("trace-end", map[string]any{"trace": t.id})["calls"].([]any)
	for _, c := range calls {
		if c := c.(map[string]any); c["method"] == method {
			n[fmt.Sprint(c["node"])]++
		}
	}
	return n
}
