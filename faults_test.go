package tikv_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// TestFaults lets every RPC that raw and transactional calls send meet every fault once.
// The call succeeds, or returns the right error within its budget, and afterwards the
// data agrees with what was said: what is not known may be either, all of a transaction
// or nothing; what certainly failed never shows. Each pair runs with the defaults and no
// deadline, beside a reader that resolves the locks it meets, and with a deadline of 10 s
// and short attempts, where everything that may be sent again has to succeed.
func TestFaults(t *testing.T) {
	cases := 0
	for _, w := range faultWorks {
		t.Run(w.rpc+"/"+w.name, func(t *testing.T) {
			for _, f := range faultKinds {
				if (f.place == onPD && !w.pd) || (f.place == onStores && w.pd) {
					continue
				}
				for _, strict := range []bool{false, true} {
					cases++
					t.Run(f.name+map[bool]string{false: "/defaults", true: "/deadline"}[strict], func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { runFault(t, w, f, strict) })
					})
				}
			}
		})
	}
	t.Logf("%d cases: %d works, %d faults", cases, len(faultWorks), len(faultKinds))
}

// faultKind is a fault that happens to one request.
type faultKind struct {
	name   string
	place  faultPlace
	fault  playground.Fault
	before func(e *faultTest) // when the request arrives
	mayRun bool               // the client cannot know whether the request ran
	fatal  error              // it is no use to try again
}

type faultPlace uint8

const (
	anywhere faultPlace = iota
	onStores
	onPD
)

var faultKinds = func() []faultKind {
	kinds := []faultKind{
		{name: "lost request", fault: playground.Fault{DropRequest: true}, mayRun: true},
		{name: "lost answer", fault: playground.Fault{DropAnswer: true}, mayRun: true},
		{name: "disconnect", fault: playground.Fault{Disconnect: true}, mayRun: true},
		{name: "duplicate", fault: playground.Fault{Duplicate: true}},
		{name: "delay", fault: playground.Fault{Delay: 25 * time.Second}, mayRun: true},
		{name: "leader move", place: onStores, before: (*faultTest).moveLeaders},
		{name: "split", place: onStores, before: (*faultTest).split},
		{name: "store restart", place: onStores, before: (*faultTest).restartStores, mayRun: true},
		{name: "PD paused", place: onPD, before: func(e *faultTest) { e.leaveMember((*playground.Cluster).Pause) }},
		{name: "PD stopped", place: onPD, before: func(e *faultTest) { e.leaveMember((*playground.Cluster).Stop) }},
		{name: "PD leader moved", place: onPD, before: func(e *faultTest) { e.must(e.cluster.TransferPD(1)) }},
	}
	for r := playground.NotLeader; r <= playground.UndeterminedResult; r++ {
		k := faultKind{name: r.String(), place: onStores, fault: playground.Fault{RegionError: r}}
		switch r {
		case playground.RaftEntryTooLarge:
			k.fatal = tikv.ErrTooLarge
		case playground.FlashbackInProgress, playground.FlashbackNotPrepared:
			k.fatal = tikv.ErrRejected
		case playground.StaleCommand, playground.UndeterminedResult:
			k.mayRun = true
		}
		kinds = append(kinds, k)
	}
	return kinds
}()

// faultWork is a call that sends an RPC.
type faultWork struct {
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
}

// faultTest is the surroundings of one case.
type faultTest struct {
	t       *testing.T
	work    faultWork
	kind    faultKind
	strict  bool
	cluster *tikvtest.Cluster
	client  *tikv.Client // whose calls meet the fault
	other   *tikv.Client
	ctx     context.Context
	tx      *tikv.Txn
	swapped bool
	prev    []byte
}

// faultKeys hold "old", two in each of two regions.
var faultKeys = [][]byte{[]byte("a"), []byte("b"), []byte("y"), []byte("z")}

func runFault(t *testing.T, w faultWork, kind faultKind, strict bool) {
	e := &faultTest{t: t, work: w, kind: kind, strict: strict, ctx: t.Context()}
	mode, api := playground.KeyTxn, playground.APIV1
	if w.raw {
		mode, api = playground.KeyRaw, playground.APIV2
	}
	members := 1
	if w.pd {
		members = 3
	}
	start := []playground.Option{playground.WithMembers(members), playground.WithAPIVersion(api)}
	if !w.together {
		start = append(start, playground.WithSplitKeys(mode, []byte("m")))
	}
	e.cluster = tikvtest.NewCluster(t, start...)
	e.other = e.cluster.Open()
	e.fill()
	var opts []tikv.Option
	if strict {
		opts = append(opts, tikv.WithRPCTimeout(2*time.Second))
	}
	e.client = e.cluster.Open(opts...)
	if !w.cold {
		e.warm()
	}
	if w.begin != nil {
		w.begin(e)
	}
	fault := kind.fault
	fault.Method, fault.Skip, fault.Times = w.rpc, w.skip, 1
	if kind.before != nil {
		fault.Before = func() { kind.before(e) }
	}
	injected := e.cluster.Inject(fault)
	stop := e.rival()

	budget, began := 180*time.Second, time.Now()
	if strict {
		budget = 10 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), budget)
		defer cancel()
		e.ctx = ctx
	}
	err := w.do(e)
	if d := time.Since(began); d > budget {
		t.Errorf("took %v", d)
	}
	e.ctx = t.Context()
	e.typed(err)
	w.check(e, err)
	stop()
	<-time.After(time.Minute) // what comes late has come, what is owed is done
	if injected.Hits() != 1 {
		t.Fatalf("the fault hit %d times", injected.Hits())
	}
	injected.Remove()
	if !w.raw {
		e.resolved()
	}
	w.check(e, err)
}

// typed checks the error by itself.
func (e *faultTest) typed(err error) {
	if err == nil {
		if e.kind.fatal != nil && !e.work.behind {
			e.t.Errorf("no error")
		}
		return
	}
	unknown := errors.Is(err, tikv.ErrUndetermined)
	switch {
	case e.kind.fatal != nil && errors.Is(err, e.kind.fatal):
	case (e.strict || !e.kind.mayRun) && !(e.work.once && e.kind.mayRun && unknown):
		e.t.Errorf("fails: %v", err)
	case !unknown && !errors.Is(err, tikv.ErrUnavailable) && !tikv.IsRetryable(err):
		e.t.Errorf("is of no class: %v", err)
	}
	var (
		rest  *tikv.RangeError
		batch *tikv.BatchError
	)
	partly := errors.As(err, &rest) || errors.As(err, &batch) && slices.Contains(batch.Outcomes, tikv.OutcomeDone)
	if not := tikv.NotSent(err); not == unknown && (not || !partly) {
		e.t.Errorf("NotSent %v, unknown %v: %v", not, unknown, err)
	}
}

func (e *faultTest) must(err error) {
	if err != nil {
		e.t.Error(err)
	}
}

func (e *faultTest) fill() {
	if e.work.raw {
		for _, k := range faultKeys {
			e.must(e.other.Raw().Put(e.ctx, k, b("old")))
		}
		return
	}
	e.must(e.other.RunTxn(e.ctx, func(_ context.Context, tx *tikv.Txn) error { return putAll(tx, "old", faultKeys...) }))
	e.resolved()
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

// resolved lets the other client read everything, so that no lock is left.
func (e *faultTest) resolved() {
	for range 2 {
		if _, err := e.read(e.other); err != nil {
			e.t.Errorf("reading: %v", err)
		}
		<-time.After(time.Second)
	}
	if locks := e.cluster.Locks(nil, nil); len(locks) > 0 {
		e.t.Errorf("%d locks are left", len(locks))
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
					e.t.Errorf("a reader saw %q", got)
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

func (e *faultTest) moveLeaders() {
	for _, r := range e.cluster.Regions(e.mode()) {
		e.must(e.cluster.TransferLeader(r.ID, r.Stores[(slices.Index(r.Stores, r.Leader)+1)%len(r.Stores)]))
	}
}

func (e *faultTest) split() {
	for _, at := range []string{"a5", "y5"} {
		_, err := e.cluster.Split(e.mode(), []byte(at))
		e.must(err)
	}
}

// restartStores stops the stores that lead for a second, one after the other.
func (e *faultTest) restartStores() {
	for i, r := range e.cluster.Regions(e.mode()) {
		store := playground.Store(r.Leader)
		after(time.Duration(i)*1200*time.Millisecond, func() { e.must(e.cluster.Stop(store)) })
		after(time.Duration(i)*1200*time.Millisecond+time.Second, func() { e.must(e.cluster.Start(store)) })
	}
}

func after(d time.Duration, f func()) {
	if d == 0 {
		f()
		return
	}
	time.AfterFunc(d, f)
}

// leaveMember takes PD's leader away for half a minute.
func (e *faultTest) leaveMember(how func(*playground.Cluster, playground.Node) error) {
	e.must(how(e.cluster.Cluster, playground.Member(0)))
	after(30*time.Second, func() { e.must(e.cluster.Start(playground.Member(0))) })
}

// rawIs checks raw keys against what was said of the write that was to make them value:
// "-" is absent.
func (e *faultTest) rawIs(err error, value string, keys ...[]byte) {
	e.t.Helper()
	var batch *tikv.BatchError
	for i, k := range keys {
		got, gerr := e.other.Raw().Get(e.t.Context(), k)
		if errors.Is(gerr, tikv.ErrNotFound) {
			got = []byte("-")
		} else if gerr != nil {
			e.t.Errorf("reading: %v", gerr)
		}
		outcome := tikv.OutcomeDone
		switch {
		case errors.As(err, &batch):
			outcome = batch.Outcomes[i]
		case errors.Is(err, tikv.ErrUndetermined):
			outcome = tikv.OutcomeUnknown
		case err != nil:
			outcome = tikv.OutcomeFailed
		}
		want := map[tikv.Outcome][]string{
			tikv.OutcomeDone: {value}, tikv.OutcomeFailed: {"old"}, tikv.OutcomeUnknown: {"old", value},
		}[outcome]
		if !slices.Contains(want, string(got)) {
			e.t.Errorf("%s is %q after %v (%v)", k, got, outcome, err)
		}
	}
}

// rangeIs checks what became of a range that was to be deleted.
func (e *faultTest) rangeIs(err error) {
	var part *tikv.RangeError
	if err != nil && !errors.As(err, &part) {
		e.t.Errorf("%T: %v", err, err)
		return
	}
	for _, k := range faultKeys {
		_, gerr := e.other.Raw().Get(e.t.Context(), k)
		gone, rest := errors.Is(gerr, tikv.ErrNotFound), part != nil && part.Rest[0].Contains(k)
		if !rest && !gone || rest && gone && !errors.Is(err, tikv.ErrUndetermined) || gone && tikv.NotSent(err) {
			e.t.Errorf("%s: gone %v after %v", k, gone, err)
		}
	}
}

// committed checks all keys against what Commit said.
func (e *faultTest) committed(err error) {
	e.t.Helper()
	if e.tx == nil {
		return
	}
	over := len(e.cluster.Locks(nil, nil)) == 0
	var at []uint64 // when each key was committed; 0: not
	for _, k := range faultKeys {
		versions, verr := e.cluster.Versions(k)
		e.must(verr)
		i := slices.IndexFunc(versions, func(v playground.Version) bool {
			return v.StartTS == uint64(e.tx.StartTS()) && v.Kind == playground.WritePut
		})
		if i < 0 {
			at = append(at, 0)
		} else {
			at = append(at, versions[i].CommitTS)
		}
	}
	ts, ok := e.tx.CommitTS()
	if ok != (err == nil) {
		e.t.Errorf("commit timestamp %v, %v after %v", ts, ok, err)
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
			e.t.Errorf("committed at %v, %v after %v", at, ts, err)
			return
		}
	}
}

// same checks values that were read.
func (e *faultTest) same(got [][]byte, want string, err error) error {
	if err != nil {
		return err
	}
	for _, v := range got {
		if string(v) != want {
			e.t.Errorf("read %q", got)
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

func rawWork(rpc, name string, once bool, do func(*faultTest) error, check func(*faultTest, error)) faultWork {
	return faultWork{rpc: rpc, name: name, raw: true, once: once, do: do, check: check}
}

func isNew(keys ...[]byte) func(*faultTest, error) {
	return func(e *faultTest, err error) { e.rawIs(err, "new", keys...) }
}

func isGone(keys ...[]byte) func(*faultTest, error) {
	return func(e *faultTest, err error) { e.rawIs(err, "-", keys...) }
}

var faultWorks = func() []faultWork {
	all := tikv.Range{Start: a, End: []byte("zz")}
	both := []tikv.Pair{{Key: a, Value: b("new")}, {Key: z, Value: b("new")}}
	rawScan := func(opts ...tikv.ScanOption) func(e *faultTest) error {
		return func(e *faultTest) error {
			pairs, err := tikv.Collect(e.client.Raw().Scan(e.ctx, all, opts...))
			if err == nil && len(pairs) != len(faultKeys) {
				e.t.Errorf("%d pairs", len(pairs))
			}
			return e.same(pairValues(pairs), "old", err)
		}
	}
	rawGet := func(e *faultTest) error {
		v, err := e.client.Raw().Get(e.ctx, a)
		return e.same([][]byte{v}, "old", err)
	}
	rawBatchGet := func(e *faultTest) error {
		got, err := e.client.Raw().BatchGet(e.ctx, faultKeys)
		return e.same(got, "old", err)
	}
	works := []faultWork{
		rawWork("RawGet", "Get", false, rawGet, unchanged),
		rawWork("RawBatchGet", "BatchGet", false, rawBatchGet, unchanged),
		rawWork("RawScan", "Scan", false, rawScan(), unchanged),
		rawWork("RawScan", "Scan backwards", false, rawScan(tikv.WithReverse(), tikv.WithPageSize(1)), unchanged),
		rawWork("RawChecksum", "Checksum", false, func(e *faultTest) error {
			sum, err := e.client.Raw().Checksum(e.ctx, all)
			if err == nil && sum.Pairs != uint64(len(faultKeys)) {
				e.t.Errorf("%d pairs", sum.Pairs)
			}
			return err
		}, unchanged),
		rawWork("RawGetKeyTTL", "TTL", false, func(e *faultTest) error {
			_, _, err := e.client.Raw().TTL(e.ctx, a)
			return err
		}, unchanged),
	}
	for _, atomic := range []bool{false, true} {
		of := map[bool]string{true: "atomic "}[atomic]
		view := func(e *faultTest) *tikv.Raw {
			if atomic {
				return &e.client.AtomicRaw().Raw
			}
			return e.client.Raw()
		}
		works = append(works,
			rawWork("RawPut", of+"Put", atomic, func(e *faultTest) error { return view(e).Put(e.ctx, a, b("new")) }, isNew(a)),
			rawWork("RawDelete", of+"Delete", atomic, func(e *faultTest) error { return view(e).Delete(e.ctx, a) }, isGone(a)),
			rawWork("RawBatchPut", of+"BatchPut", atomic, func(e *faultTest) error { return view(e).BatchPut(e.ctx, both) }, isNew(a, z)),
			rawWork("RawBatchDelete", of+"BatchDelete", atomic, func(e *faultTest) error { return view(e).BatchDelete(e.ctx, [][]byte{a, z}) }, isGone(a, z)),
			rawWork("RawDeleteRange", of+"DeleteRange", atomic, func(e *faultTest) error { return view(e).DeleteRange(e.ctx, all) }, (*faultTest).rangeIs),
		)
	}
	works = append(works, rawWork("RawCompareAndSwap", "CompareAndSwap", true, func(e *faultTest) (err error) {
		e.prev, e.swapped, err = e.client.AtomicRaw().CompareAndSwap(e.ctx, a, b("old"), b("new"))
		return err
	}, func(e *faultTest, err error) {
		e.rawIs(err, "new", a)
		twice := e.kind.fault.Duplicate && string(e.prev) == "new"
		if err == nil && !twice && (!e.swapped || string(e.prev) != "old") {
			e.t.Errorf("swapped %v, before %q", e.swapped, e.prev)
		}
	}))
	return append(works, append(txnWorks(), pdWorks(rawGet, rawBatchGet)...)...)
}()

func txnWorks() []faultWork {
	read := func(rpc, name string, latest bool, do func(e *faultTest, s *tikv.Snapshot) ([][]byte, error)) faultWork {
		return faultWork{rpc: rpc, name: name, check: unchanged, do: func(e *faultTest) error {
			snap, err := e.client.Latest(), error(nil)
			if !latest {
				snap, err = e.client.Snapshot(e.ctx)
			}
			if err != nil {
				return err
			}
			got, err := do(e, snap)
			return e.same(got, "old", err)
		}}
	}
	batchGet := func(e *faultTest, s *tikv.Snapshot) ([][]byte, error) { return s.BatchGet(e.ctx, faultKeys) }
	scan := func(opts ...tikv.ScanOption) func(e *faultTest, s *tikv.Snapshot) ([][]byte, error) {
		return func(e *faultTest, s *tikv.Snapshot) ([][]byte, error) {
			pairs, err := tikv.Collect(s.Scan(e.ctx, tikv.Range{}, opts...))
			if err == nil && len(pairs) != len(faultKeys) {
				e.t.Errorf("%d pairs", len(pairs))
			}
			return pairValues(pairs), err
		}
	}
	get := func(e *faultTest, s *tikv.Snapshot) ([][]byte, error) {
		v, err := s.Get(e.ctx, a)
		return [][]byte{v}, err
	}
	begun := func(e *faultTest) {
		e.tx = begin(e.t, e.client, tikv.WithCommitMode(e.work.mode))
		e.must(putAll(e.tx, "new", faultKeys...))
	}
	commit := func(e *faultTest) error { return e.tx.Commit(e.ctx) }
	write := func(rpc, name string, skip int, behind bool) faultWork {
		return faultWork{rpc: rpc, name: name, skip: skip, behind: behind, mode: tikv.CommitTwoPhase, begin: begun, do: commit, check: (*faultTest).committed}
	}
	async := func(rpc, name string, skip int, behind bool) faultWork {
		w := write(rpc, name+", asynchronously", skip, behind)
		w.mode = tikv.CommitAsync
		return w
	}
	works := []faultWork{
		read("KvGet", "Get", false, get),
		read("KvGet", "Get of the latest", true, get),
		read("KvBatchGet", "BatchGet", false, batchGet),
		read("KvBatchGet", "BatchGet of the latest", true, batchGet),
		read("KvScan", "Scan", false, scan()),
		read("KvScan", "Scan backwards", false, scan(tikv.WithReverse(), tikv.WithPageSize(1))),
		write("KvPrewrite", "of the first region", 0, false),
		write("KvPrewrite", "of the second region", 1, false),
		write("KvCommit", "of the primary", 0, false),
		write("KvCommit", "of the secondaries", 1, true),
		async("KvPrewrite", "of the first region", 0, false),
		async("KvPrewrite", "of the second region", 1, false),
		async("KvCommit", "of the first region", 0, true),
		async("KvCommit", "of the second region", 1, true),
	}
	onePhase := write("KvPrewrite", "in one phase", 0, false)
	onePhase.mode, onePhase.together = tikv.CommitAuto, true
	asyncInOne := async("KvPrewrite", "of the only region", 0, false)
	asyncInOne.together = true
	works = append(works, onePhase, asyncInOne)
	// A client dies when it has committed, and before it has written a commit record.
	for _, rpc := range []string{"KvCheckSecondaryLocks", "KvCheckTxnStatus", "KvResolveLock"} {
		works = append(works, faultWork{rpc: rpc, name: "read over locks of an asynchronous commit", check: unchanged, begin: func(e *faultTest) {
			e.leaveAsync()
		}, do: func(e *faultTest) error {
			snap, err := e.client.Snapshot(e.ctx)
			if err != nil {
				return err
			}
			got, err := snap.GetVersions(e.ctx, faultKeys)
			var values [][]byte
			for _, v := range got {
				values = append(values, v.Value)
			}
			return e.same(values, "new", err)
		}})
	}
	// The keys that come last conflict: the first are rolled back.
	for _, write := range []func(rpc, name string, skip int, behind bool) faultWork{write, async} {
		rollback := write("KvBatchRollback", "after a conflict", 0, true)
		rollback.begin = func(e *faultTest) {
			begun(e)
			commitAs(e, e.other, "old", faultKeys[2:]...)
		}
		rollback.do = func(e *faultTest) error {
			if err := e.tx.Commit(e.ctx); !errors.Is(err, tikv.ErrWriteConflict) {
				e.t.Errorf("no conflict: %v", err)
			}
			return nil
		}
		rollback.check = func(e *faultTest, _ error) { e.committed(tikv.ErrWriteConflict) }
		// The second region takes its time.
		beat := write("KvTxnHeartBeat", "during a long prewrite", 0, true)
		beat.begin = func(e *faultTest) {
			begun(e)
			e.cluster.Inject(playground.Fault{Method: "KvPrewrite", Key: z, Delay: 1800 * time.Millisecond, Times: 1})
		}
		works = append(works, rollback, beat)
	}
	for _, rpc := range []string{"KvCheckTxnStatus", "KvResolveLock"} {
		for _, dead := range []bool{true, false} {
			what, value := "of a committed transaction", "new"
			if dead {
				what, value = "of a dead transaction", "old"
			}
			left := func(e *faultTest) { e.leaveLocks(dead) }
			works = append(works,
				faultWork{rpc: rpc, name: "read over locks " + what, begin: left, check: unchanged, do: func(e *faultTest) error {
					snap, err := e.client.Snapshot(e.ctx)
					if err != nil {
						return err
					}
					got, err := snap.GetVersions(e.ctx, faultKeys) // which waits until they are gone
					var values [][]byte
					for _, v := range got {
						values = append(values, v.Value)
					}
					return e.same(values, value, err)
				}},
				faultWork{rpc: rpc, name: "write over locks " + what, begin: func(e *faultTest) {
					left(e)
					e.tx = begin(e.t, e.client)
					e.must(putAll(e.tx, value, faultKeys...))
				}, do: commit, check: (*faultTest).committed},
			)
		}
	}
	return works
}

func commitAs(e *faultTest, c *tikv.Client, value string, keys ...[]byte) {
	e.must(c.RunTxn(e.t.Context(), func(_ context.Context, tx *tikv.Txn) error { return putAll(tx, value, keys...) }))
	<-time.After(time.Second) // the secondaries
}

// leaveLocks lets a client die in the middle of a commit, before the decision or after.
func (e *faultTest) leaveLocks(dead bool) {
	mortal, err := tikv.Open(e.ctx, e.cluster.PD(), append(e.cluster.ClientOptions(), tikv.WithCloseTimeout(0))...)
	if err != nil {
		e.t.Fatal(err)
	}
	tx := begin(e.t, mortal)
	e.must(putAll(tx, "new", faultKeys...))
	fault := playground.Fault{Method: "KvCommit", StartTS: uint64(tx.StartTS()), DropRequest: true}
	if !dead {
		fault.Skip = 1
	}
	injected := e.cluster.Inject(fault)
	done := start(e.ctx, func(ctx context.Context) error { return tx.Commit(ctx) })
	synctest.Wait()
	_ = mortal.Close() // which tells what it abandons
	if err := <-done; (err == nil) == dead {
		e.t.Fatalf("commit: %v", err)
	}
	injected.Remove()
	if len(e.cluster.Locks(nil, nil)) == 0 {
		e.t.Fatal("no locks are left behind")
	}
	if dead {
		<-time.After(5 * time.Second) // they expire
	}
}

// leaveAsync lets a client die that has committed asynchronously and left all locks.
func (e *faultTest) leaveAsync() {
	mortal, err := tikv.Open(e.ctx, e.cluster.PD(), append(e.cluster.ClientOptions(), tikv.WithCloseTimeout(0))...)
	if err != nil {
		e.t.Fatal(err)
	}
	tx := begin(e.t, mortal, tikv.WithCommitMode(tikv.CommitAsync))
	e.must(putAll(tx, "new", faultKeys...))
	injected := e.cluster.Inject(playground.Fault{Method: "KvCommit", StartTS: uint64(tx.StartTS()), DropRequest: true})
	e.must(tx.Commit(e.ctx))
	synctest.Wait()
	_ = mortal.Close() // which tells what it abandons
	injected.Remove()
	if n := len(e.cluster.Locks(nil, nil)); n != len(faultKeys) {
		e.t.Fatalf("%d locks are left behind", n)
	}
	<-time.After(5 * time.Second) // they expire
}

func pdWorks(rawGet, rawBatchGet func(*faultTest) error) []faultWork {
	cold := func(rpc, name string, raw bool, do func(*faultTest) error) faultWork {
		return faultWork{rpc: rpc, name: name, pd: true, raw: raw, cold: true, do: do, check: unchanged}
	}
	works := []faultWork{
		cold("GetRegion", "Raw.Get", true, rawGet),
		cold("GetStore", "Raw.Get", true, rawGet),
		cold("BatchScanRegions", "Raw.BatchGet", true, rawBatchGet),
		cold("GetPrevRegion", "Raw.Scan backwards", true, func(e *faultTest) error {
			pairs, err := tikv.Collect(e.client.Raw().Scan(e.ctx, tikv.Range{End: []byte("m")}, tikv.WithReverse()))
			return e.same(pairValues(pairs), "old", err)
		}),
		cold("GetMembers", "Open", true, func(e *faultTest) error {
			c, err := tikv.Open(e.ctx, e.cluster.PD(), e.cluster.ClientOptions()...)
			if err == nil {
				err = c.Close()
			}
			return err
		}),
		cold("GetClusterInfo", "Open", true, func(e *faultTest) error {
			c, err := tikv.Open(e.ctx, e.cluster.PD(), e.cluster.ClientOptions()...)
			if err == nil {
				err = c.Close()
			}
			return err
		}),
		cold("GetGCState", "Snapshot.Get", false, func(e *faultTest) error {
			snap, err := e.client.Snapshot(e.ctx)
			if err != nil {
				return err
			}
			v, err := snap.Get(e.ctx, a)
			return e.same([][]byte{v}, "old", err)
		}),
		cold("Tso", "Begin and Commit", false, func(e *faultTest) (err error) {
			if e.tx, err = e.client.Begin(e.ctx); err != nil {
				return err
			}
			e.must(putAll(e.tx, "new", faultKeys...))
			return e.tx.Commit(e.ctx)
		}),
		cold("Tso", "Commit", false, func(e *faultTest) error { return e.tx.Commit(e.ctx) }),
	}
	for i := range works {
		switch works[i].name {
		case "Commit":
			works[i].begin = func(e *faultTest) {
				e.tx = begin(e.t, e.client)
				e.must(putAll(e.tx, "new", faultKeys...))
			}
			fallthrough
		case "Begin and Commit":
			works[i].check = (*faultTest).committed
		}
	}
	return works
}

// A fault that does not go away ends a call when its time is over, with the right error
// and after few attempts: those of what is owed in the background count too.
func TestFaultsThatStay(t *testing.T) {
	for _, kind := range faultKinds {
		if kind.before != nil || kind.fault.Delay > 0 || kind.fault.Duplicate {
			continue
		}
		for _, deadline := range []time.Duration{0, 5 * time.Second} {
			t.Run(kind.name+"/"+deadline.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { faultStays(t, kind, deadline) })
			})
		}
	}
}

// leftAlone reports whether no store was asked.
func leftAlone(err error) bool {
	var away *tikv.UnavailableError
	return errors.As(err, &away) && !slices.ContainsFunc(away.Attempts, func(a tikv.Attempt) bool { return a.Reason != tikv.ReasonStoreDown })
}

func faultStays(t *testing.T, kind faultKind, deadline time.Duration) {
	cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
	c := cluster.Open()
	must(t, c.Raw().Put(t.Context(), b("k"), b("old")))
	var faults []*playground.Injection
	for store := range uint64(3) {
		f := kind.fault
		f.Node = playground.Store(store + 1)
		faults = append(faults, cluster.Inject(f))
	}
	trace := cluster.Trace()
	for _, call := range []struct {
		name   string
		writes bool
		do     func(context.Context) error
	}{
		{"asynchronous txn", true, func(ctx context.Context) error { // its prewrite decides
			tx := begin(t, c, tikv.WithCommitMode(tikv.CommitAsync))
			must(t, putAll(tx, "new", faultKeys...))
			return tx.Commit(ctx)
		}},
		{"txn", false, func(ctx context.Context) error { // its prewrite fails, which decides nothing
			tx := begin(t, c)
			must(t, putAll(tx, "new", faultKeys...))
			return tx.Commit(ctx)
		}},
		{"put", true, func(ctx context.Context) error { return c.Raw().Put(ctx, b("k"), b("v")) }},
		{"put if absent", true, func(ctx context.Context) error {
			_, _, err := c.AtomicRaw().PutIfAbsent(ctx, b("k"), b("v"))
			return err
		}},
		{"batch", true, func(ctx context.Context) error {
			return c.Raw().BatchPut(ctx, []tikv.Pair{{Key: b("k"), Value: b("v")}})
		}},
		{"get", false, func(ctx context.Context) error { _, err := c.Raw().Get(ctx, b("k")); return err }},
		{"get many", false, func(ctx context.Context) error {
			_, err := c.Raw().BatchGet(ctx, [][]byte{b("k"), b("l"), b("z")})
			return err
		}},
		{"read many", false, func(ctx context.Context) error { _, err := c.Latest().BatchGet(ctx, faultKeys); return err }},
		{"scan", false, func(ctx context.Context) error {
			_, err := tikv.Collect(c.Latest().Scan(ctx, tikv.Range{}))
			return err
		}},
	} {
		ctx, limit := t.Context(), 61*time.Second // two attempts at a read, whose ends are kept within tenths
		if deadline > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, deadline)
			defer cancel()
			limit = deadline
		}
		before, began := len(trace.Calls()), time.Now()
		err := call.do(ctx)
		took, calls := time.Since(began), len(trace.Calls())-before
		want := tikv.ErrUnavailable
		switch {
		case kind.fatal != nil:
			want = kind.fatal
		case kind.mayRun && call.writes:
			want = tikv.ErrUndetermined
		}
		// Stores whose connections break as soon as they are used are left alone for a while,
		// which may be as long as there is time: then nothing was sent.
		if want == tikv.ErrUndetermined && kind.fault.Disconnect && leftAlone(err) {
			want = tikv.ErrUnavailable
		}
		if !errors.Is(err, want) || tikv.NotSent(err) == (want == tikv.ErrUndetermined) {
			t.Errorf("%s: %v", call.name, err)
		}
		if took > limit || calls > 700 {
			t.Errorf("%s: %d requests in %v", call.name, calls, took)
		}
	}
	for _, f := range faults {
		f.Remove()
	}
	<-time.After(time.Minute) // what is owed is done by then
}
