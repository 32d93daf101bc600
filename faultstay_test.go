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

// A fault that does not go away ends a call when its time is over, with the right error
// and after few attempts: those of what is owed in the background count too.
func TestFaultsThatStay(t *testing.T) {
	for _, kind := range faultKinds {
		if kind.before != nil || kind.kills || kind.place == onKeys || kind.fault.Delay > 0 || kind.fault.Duplicate {
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
		// Stores that do not answer, or whose connections break as soon as they are used, are left alone
		// for a while, which may be as long as there is time: then nothing was sent.
		if want == tikv.ErrUndetermined && leftAlone(err) {
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
