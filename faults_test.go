package tikv_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

var faultsOnly = flag.String("faults.only", "", "words, separated by commas, that the names of TestFaults's cases must have")

// TestFaults lets every RPC that raw and transactional calls send, in every protocol,
// meet every fault once. The call succeeds, or returns the right error within its budget,
// and afterwards the data agrees with what was said: what is not known may be either, all
// of a transaction or nothing; what certainly failed never shows. Each pair runs with the
// defaults and no deadline, beside a reader that resolves the locks it meets, and with a
// deadline of 10 s and short attempts, where everything that may be sent again has to
// succeed; a fault that asks for nothing to be sent again runs with the defaults alone.
//
// With the race detector, which makes a case cost several times as much, each request of
// each protocol meets each fault once, in one of the cases: always the same one.
func TestFaults(t *testing.T) {
	works := faultWorks()
	all := make([][]faultCase, len(works))
	for i, w := range works {
		all[i] = w.cases()
	}
	of := ""
	if raced {
		of = fmt.Sprintf(" of %d", total(all))
		sampleFaults(works, all)
	}
	var count faultCount
	t.Run("works", func(t *testing.T) {
		for i, w := range works {
			cases := all[i]
			if len(cases) == 0 {
				continue
			}
			count.add(w, cases)
			t.Run(w.title(), func(t *testing.T) {
				t.Parallel()
				w.run(t, cases)
			})
		}
	})
	t.Logf("%d%s cases%v; what no request of a protocol can meet is not among them", total(all), of, &count)
}

func total(all [][]faultCase) int {
	n := 0
	for _, cases := range all {
		n += len(cases)
	}
	return n
}

// sampleFaults leaves one case for each protocol, RPC and fault.
func sampleFaults(works []faultWork, all [][]faultCase) {
	hash := func(w faultWork, c faultCase) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(w.title() + "/" + c.name()))
		return h.Sum64()
	}
	least := make(map[string]uint64)
	for i, w := range works {
		for _, c := range all[i] {
			of := w.protocol + "/" + w.rpc + "/" + c.kind.name
			if h := hash(w, c); least[of] == 0 || h < least[of] {
				least[of] = h
			}
		}
	}
	for i, w := range works {
		all[i] = slices.DeleteFunc(all[i], func(c faultCase) bool { return hash(w, c) != least[w.protocol+"/"+w.rpc+"/"+c.kind.name] })
	}
}

// faultWorks are all calls, by protocol.
func faultWorks() []faultWork {
	return slices.Concat(rawWorks(), readWorks(), optimisticWorks(), resolvingWorks(), pessimisticWorks(), fairWorks(), sharedWorks(), pipelinedWorks(), pdWorks())
}

// faultWork is a call that sends an RPC.
type faultWork struct {
	protocol  string
	rpc, name string
	skip      int  // requests of the RPC that the fault leaves alone
	raw       bool // on API V2; else a transactional one, on V1
	pd        bool // the RPC is PD's
	cold      bool // the client has sent nothing before
	once      bool // not sent again after a lost answer
	behind    bool // the caller does not wait for the RPC: its fault is not the call's
	together  bool // all keys are in one region
	mode      tikv.CommitMode
	begin     func(e *faultTest)
	do        func(e *faultTest) error
	check     func(e *faultTest, err error) // what the data must be
	ends      error                         // how the call ends where nothing befalls it; nil: it succeeds
	more      [][]byte                      // keys that it locks besides
	orNot     bool                          // or it succeeds, where another is told instead
	told      map[playground.KeyFault]error // how it ends if the request is answered so; nil: as always
}

func (w faultWork) title() string { return w.rpc + "/" + w.protocol + ", " + w.name }

// faultCase is a fault that is to befall a work.
type faultCase struct {
	kind   faultKind
	strict bool
}

func (c faultCase) name() string {
	return c.kind.name + map[bool]string{false: "/defaults", true: "/deadline"}[c.strict]
}

// cases are the work's, those that leave the cluster other than it was last.
func (w faultWork) cases() []faultCase {
	var all, spoiling []faultCase
	for _, k := range faultKinds {
		if !k.befalls(w) {
			continue
		}
		for _, strict := range []bool{false, true}[:k.ways()] {
			c := faultCase{k, strict}
			if !hasAll(w.title()+"/"+c.name(), *faultsOnly) {
				continue
			}
			if k.spoils {
				spoiling = append(spoiling, c)
			} else {
				all = append(all, c)
			}
		}
	}
	return append(all, spoiling...)
}

func hasAll(name, words string) bool {
	for word := range strings.SplitSeq(words, ",") {
		if !strings.Contains(name, word) {
			return false
		}
	}
	return true
}

// run runs cases, one after the other on the same cluster while it is as it was.
func (w faultWork) run(t *testing.T, cases []faultCase) {
	for n := 1; len(cases) > 0; n++ {
		t.Run(fmt.Sprint("cluster ", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bench := newFaultBench(t, w)
				for again := true; again && len(cases) > 0; cases = cases[1:] {
					again = bench.run(cases[0])
				}
			})
		})
	}
}

// faultCount counts cases by protocol.
type faultCount struct {
	protocols []string
	works     map[string]int
	rpcs      map[string][]string
	faults    map[string]map[string]bool
	cases     map[string]int
}

func (c *faultCount) add(w faultWork, cases []faultCase) {
	if c.works == nil {
		c.works, c.rpcs, c.faults, c.cases = map[string]int{}, map[string][]string{}, map[string]map[string]bool{}, map[string]int{}
	}
	p := w.protocol
	if c.works[p]++; c.works[p] == 1 {
		c.protocols, c.faults[p] = append(c.protocols, p), make(map[string]bool)
	}
	if !slices.Contains(c.rpcs[p], w.rpc) {
		c.rpcs[p] = append(c.rpcs[p], w.rpc)
	}
	for _, one := range cases {
		c.faults[p][one.kind.name] = true
	}
	c.cases[p] += len(cases)
}

// String has a line for each protocol.
func (c *faultCount) String() string {
	var b strings.Builder
	for _, p := range c.protocols {
		fmt.Fprintf(&b, "\n%5d cases: %-26s %2d calls, %2d faults, of %s", c.cases[p], p, c.works[p], len(c.faults[p]), strings.Join(c.rpcs[p], " "))
	}
	return b.String()
}

// faultTest is one case.
type faultTest struct {
	*faultBench
	kind    faultKind
	strict  bool
	name    string
	failed  atomic.Bool
	client  *tikv.Client // whose calls meet the fault
	mortal  *mortal
	dying   chan struct{} // closed when it has died
	ctx     context.Context
	pending outstanding // of what is to be done later

	err     error // of the call
	tx      *tikv.Txn
	subject tikv.Timestamp // the transaction that the fault is for; 0: any
	stage   *tikv.FairLock
	held    [][]byte // what a lock returned of all keys
	seen    [][]byte // the same of shared keys
	also    func()   // what else the case has begun has to end
	swapped bool
	prev    []byte
}

// faultKeys hold "old", two in each of two regions.
var faultKeys = [][]byte{[]byte("a"), []byte("b"), []byte("y"), []byte("z")}

func (e *faultTest) run() {
	w := e.work
	e.fill()
	if !w.cold {
		e.warm()
	}
	if w.begin != nil {
		w.begin(e)
	}
	fault := e.kind.fault
	fault.Method, fault.StartTS, fault.Skip, fault.Times = w.rpc, uint64(e.subject), w.skip, 1
	if e.kind.before != nil {
		fault.Before = func() { e.kind.before(e) }
	}
	if e.kind.kills {
		fault.After = e.kill
	}
	injected := e.cluster.Inject(fault)
	defer injected.Remove()
	stop := e.rival()

	budget, began := 180*time.Second, time.Now()
	if e.strict {
		budget = 10 * time.Second
		ctx, cancel := context.WithTimeout(e.t.Context(), budget)
		defer cancel()
		e.ctx = ctx
	}
	err := w.do(e)
	e.err = err
	if d := time.Since(began); d > budget {
		e.errorf("took %v", d)
	}
	e.ctx = e.t.Context()
	e.typed(err)
	w.check(e, err)
	stop()
	e.settle()
	if injected.Hits() != 1 {
		e.errorf("the fault hit %d times", injected.Hits())
	}
	injected.Remove()
	if e.also != nil {
		e.also()
	}
	if !w.raw {
		e.resolved()
	}
	w.check(e, err)
}

func (e *faultTest) errorf(format string, args ...any) {
	e.t.Helper()
	e.failed.Store(true)
	e.t.Errorf("%s: %s", e.name, fmt.Sprintf(format, args...))
}

func (e *faultTest) must(err error) {
	e.t.Helper()
	if err != nil {
		e.errorf("%v", err)
	}
}

// typed checks the error by itself.
func (e *faultTest) typed(err error) {
	if want, ok := e.wants(); ok {
		if e.work.orNot && err == nil {
			return
		}
		if !errors.Is(err, want) {
			e.errorf("ends with %v, not %v", err, want)
		}
	} else if err == nil {
		if e.kind.fatal != nil && !e.work.behind || e.kind.kills && !e.work.behind {
			e.errorf("no error")
		}
	} else {
		e.classed(err)
	}
	if err == nil {
		return
	}
	unknown := errors.Is(err, tikv.ErrUndetermined)
	var (
		rest  *tikv.RangeError
		batch *tikv.BatchError
	)
	partly := errors.As(err, &rest) || errors.As(err, &batch) && slices.Contains(batch.Outcomes, tikv.OutcomeDone)
	if not := tikv.NotSent(err); not == unknown && (not || !partly) {
		e.errorf("NotSent %v, unknown %v: %v", not, unknown, err)
	}
}

// wants is what the call has to end with, where that is certain.
func (e *faultTest) wants() (error, bool) {
	w := e.work
	if e.kind.fault.KeyError != 0 {
		if told := w.answered(e.kind.fault.KeyError); told != nil {
			return told, true
		}
		return w.ends, true
	}
	if e.kind.kills || e.kind.mayRun && !e.strict || e.kind.fatal != nil && !w.behind {
		return nil, false
	}
	return w.ends, w.ends != nil
}

// classed checks an error where there is more than one way to end.
func (e *faultTest) classed(err error) {
	unknown := errors.Is(err, tikv.ErrUndetermined)
	switch {
	case e.work.ends != nil && errors.Is(err, e.work.ends):
	case e.kind.fatal != nil && errors.Is(err, e.kind.fatal):
	case e.kind.kills && (errors.Is(err, tikv.ErrClosed) || unknown || errors.Is(err, tikv.ErrUnavailable) || errors.Is(err, context.Canceled)):
	case (e.strict || !e.kind.mayRun) && !(e.work.once && e.kind.mayRun && unknown):
		e.errorf("fails: %v", err)
	case !unknown && !errors.Is(err, tikv.ErrUnavailable) && !tikv.IsRetryable(err):
		e.errorf("is of no class: %v", err)
	}
}

// fill makes all values "old", and leaves nothing under way.
func (e *faultTest) fill() {
	if e.work.raw {
		var pairs []tikv.Pair
		for _, k := range faultKeys {
			pairs = append(pairs, tikv.Pair{Key: k, Value: b("old")})
		}
		e.must(e.other.Raw().BatchPut(e.ctx, pairs))
		return
	}
	commitAs(e, e.other, "old", faultKeys...)
}

// commitAs commits values; nothing of that is under way afterwards.
func commitAs(e *faultTest, c *tikv.Client, value string, keys ...[]byte) tikv.Timestamp {
	e.t.Helper()
	tx := begin(e.t, c)
	e.must(putAll(tx, value, keys...))
	e.must(tx.Commit(e.t.Context()))
	synctest.Wait() // the secondaries
	ts, _ := tx.CommitTS()
	return ts
}

func putAll(tx *tikv.Txn, value string, keys ...[]byte) error {
	for _, k := range keys {
		if err := tx.Put(k, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

// warm makes the client know regions, stores and the safe point.
func (e *faultTest) warm() {
	if e.work.raw {
		_, err := e.client.Raw().BatchGet(e.ctx, faultKeys)
		e.must(err)
		return
	}
	_, err := e.read(e.client)
	e.must(err)
}

func (e *faultTest) read(c *tikv.Client) ([][]byte, error) {
	snap, err := c.Snapshot(e.t.Context())
	if err != nil {
		return nil, err
	}
	return snap.BatchGet(e.t.Context(), faultKeys)
}

// settle waits until what comes late has come, and what is owed is done.
func (e *faultTest) settle() {
	for range 120 {
		<-time.After(time.Second)
		if e.pending.zero() && len(e.cluster.Waiting()) == 0 && idle(e.other) && e.quiet() {
			return
		}
	}
	e.errorf("something is still under way after two minutes")
}

// quiet reports whether the case's client has nothing to do, or has died.
func (e *faultTest) quiet() bool {
	if !e.kind.kills {
		return idle(e.client)
	}
	select {
	case <-e.dying:
		return true
	default:
		return false
	}
}

// idle reports whether a client has nothing to do.
func idle(c *tikv.Client) bool {
	queued, pending, _ := c.Idle()
	return queued+pending == 0 && len(c.Owed()) == 0
}

// resolved lets the other client meet every lock, so that none is left.
func (e *faultTest) resolved() {
	for range 2 {
		if _, err := e.read(e.other); err != nil {
			e.errorf("reading: %v", err)
		}
		if len(e.cluster.Locks(nil, nil)) == 0 {
			return
		}
		<-time.After(time.Second)
	}
	tx := begin(e.t, e.other, tikv.WithPessimistic()) // a reader passes those that decide nothing
	e.must(tx.Lock(e.t.Context(), slices.Concat(faultKeys, e.work.more), tikv.WithLockWait(time.Minute)))
	e.must(tx.Rollback(e.t.Context()))
	if locks := e.cluster.Locks(nil, nil); len(locks) > 0 {
		e.errorf("%d locks are left: %+v", len(locks), locks)
	}
}

// rival reads beside a commit, and sees all of it or nothing.
func (e *faultTest) rival() (stop func()) {
	if e.strict || e.work.raw || e.work.pd {
		return func() {}
	}
	ctx, cancel := context.WithCancel(e.t.Context())
	done := start(ctx, func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(1500 * time.Millisecond):
			}
			snap, err := e.other.Snapshot(ctx)
			if err != nil {
				continue
			}
			got, err := snap.BatchGet(ctx, faultKeys)
			if err != nil {
				continue
			}
			for _, v := range got {
				if string(v) != string(got[0]) {
					e.errorf("a reader saw %q", got)
				}
			}
		}
	})
	return func() { cancel(); <-done }
}

func (e *faultTest) mode() playground.KeyMode {
	if e.work.raw {
		return playground.KeyRaw
	}
	return playground.KeyTxn
}

// committed checks all keys against what Commit said.
func (e *faultTest) committed(err error) {
	e.t.Helper()
	if e.tx == nil {
		return
	}
	over := len(e.cluster.Locks(nil, nil)) == 0
	var at []uint64 // when each key was committed; 0: not
	for i, k := range faultKeys {
		versions, verr := e.cluster.Versions(k)
		e.must(verr)
		v := slices.IndexFunc(versions, func(v playground.Version) bool {
			return v.StartTS == uint64(e.tx.StartTS()) && v.Kind == playground.WritePut
		})
		if v < 0 {
			at = append(at, 0)
			continue
		}
		at = append(at, versions[v].CommitTS)
		if e.held != nil {
			e.written(k, e.held[i], versions[v+1:])
		}
	}
	ts, ok := e.tx.CommitTS()
	if ok != (err == nil) {
		e.errorf("commit timestamp %v, %v after %v", ts, ok, err)
	}
	switch {
	case over:
	case e.work.mode == tikv.CommitTwoPhase: // the primary tells
		at = at[:1]
	default: // whether all are locked
		return
	}
	for _, c := range at {
		if c != at[0] || err == nil && c != uint64(ts) || err != nil && !errors.Is(err, tikv.ErrUndetermined) && c != 0 {
			e.errorf("committed at %v, %v after %v", at, ts, err)
			return
		}
	}
}

// written checks that a key which was locked had not changed when the transaction
// committed: older are the versions below its own, the newest first.
func (e *faultTest) written(key, held []byte, older []playground.Version) {
	e.t.Helper()
	for _, v := range older {
		if v.Kind == playground.WritePut {
			if string(v.Value) != string(held) {
				e.errorf("%s was %q when it was locked, and %q when it was written over", key, held, v.Value)
			}
			return
		}
	}
	e.errorf("%s was not there before", key)
}

// same checks values that were read.
func (e *faultTest) same(got [][]byte, want string, err error) error {
	if err != nil {
		return err
	}
	for _, v := range got {
		if string(v) != want {
			e.errorf("read %q", got)
			break
		}
	}
	return nil
}

func pairValues(pairs []tikv.Pair) [][]byte {
	var out [][]byte
	for _, p := range pairs {
		out = append(out, p.Value)
	}
	return out
}

// unchanged is the check of a read: it fails by itself.
func unchanged(e *faultTest, _ error) {
	if e.work.raw {
		e.rawIs(errors.New("read"), "", faultKeys...)
	}
}

var a, z = faultKeys[0], faultKeys[3]
