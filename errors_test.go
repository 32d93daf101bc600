package tikv_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// However a context ends a call, wherever it waits, the error tells of the end and of
// its cause, and is of the class that it should be; and no error of a call unwraps to a
// type that is not for its callers.
func TestErrorsOfEndedCalls(t *testing.T) {
	over := errors.New("the caller has had enough")
	ends := map[string]struct {
		context func(context.Context) (context.Context, context.CancelFunc)
		is      []error
	}{
		"deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 3*time.Second)
		}, []error{context.DeadlineExceeded}},
		"deadline with a cause": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, 3*time.Second, over)
		}, []error{context.DeadlineExceeded, over}},
		"cancelled with a cause": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			timer := time.AfterFunc(3*time.Second, func() { cancel(over) })
			return ctx, func() { timer.Stop(); cancel(nil) }
		}, []error{context.Canceled, over}},
		"no end": {func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }, nil},
	}
	faults := map[string]playground.Fault{
		"request lost": {DropRequest: true},
		"answer lost":  {DropAnswer: true},
		"disconnected": {Disconnect: true},
		"busy":         {RegionError: playground.ServerIsBusy},
		"PD silent":    {Node: playground.Member(0), DropRequest: true},
		"PD gone":      {Node: playground.Member(0), Disconnect: true},
		"undetermined": {RegionError: playground.UndeterminedResult},
	}
	failed := 0
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithStores(1))
				client := cluster.Open()
				must(t, client.Raw().Put(t.Context(), b("k"), b("v")))
				injected := cluster.Inject(fault)
				for call, do := range endedCalls(cluster, client) {
					for how, end := range ends {
						ctx, cancel := end.context(t.Context())
						err := do(ctx)
						early := ctx.Err() == nil // there was an answer, of a kind
						cancel()
						if err == nil {
							continue
						}
						failed++
						unknown := errors.Is(err, tikv.ErrUndetermined)
						for _, is := range end.is {
							if !early && !errors.Is(err, is) {
								t.Errorf("%s, %s: is not %q: %v", call, how, is, err)
							}
						}
						if early = early || how == "cancelled with a cause"; !unknown && !early && !errors.Is(err, tikv.ErrUnavailable) {
							t.Errorf("%s, %s: neither undetermined nor unavailable: %v", call, how, err)
						}
						if tikv.NotSent(err) == unknown {
							t.Errorf("%s, %s: NotSent %v, unknown %v: %v", call, how, !unknown, unknown, err)
						}
						ownTypes(t, err)
					}
				}
				injected.Remove()
				<-time.After(time.Minute) // what is owed is done by then
			})
		})
	}
	if failed < 100 {
		t.Fatalf("%d calls failed", failed)
	}
}

func endedCalls(cluster *tikvtest.Cluster, client *tikv.Client) map[string]func(context.Context) error {
	r := client.Raw()
	return map[string]func(context.Context) error{
		"put":    func(ctx context.Context) error { return r.Put(ctx, b("k"), b("v")) },
		"get":    func(ctx context.Context) error { _, err := r.Get(ctx, b("k")); return err },
		"batch":  func(ctx context.Context) error { return r.BatchPut(ctx, []tikv.Pair{{Key: b("k"), Value: b("v")}}) },
		"delete": func(ctx context.Context) error { return r.DeleteRange(ctx, tikv.Range{Start: b("x"), End: b("y")}) },
		"cas": func(ctx context.Context) error {
			_, _, err := client.AtomicRaw().PutIfAbsent(ctx, b("c"), b("v"))
			return err
		},
		"timestamp": func(ctx context.Context) error { _, err := client.Timestamp(ctx); return err },
		"read the past": func(ctx context.Context) error {
			_, err := tikv.Optional(client.SnapshotAt(5).Get(ctx, b("k")))
			return err
		},
		"scan": func(ctx context.Context) error {
			snap, err := client.Snapshot(ctx)
			if err == nil {
				_, err = tikv.Collect(snap.Scan(ctx, tikv.Range{}))
			}
			return err
		},
		"run": func(ctx context.Context) error {
			return client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put(b("t"), b("1")) })
		},
		"open": func(ctx context.Context) error {
			c, err := tikv.Open(ctx, cluster.PD(), cluster.ClientOptions()...)
			if err == nil {
				err = c.Close()
			}
			return err
		},
	}
}

// ownTypes checks that an error's tree has types of this package and the standard
// library's alone.
func ownTypes(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	rt := reflect.TypeOf(err)
	if rt.Kind() == reflect.Pointer {
		rt = rt.Elem()
	}
	if root, _, _ := strings.Cut(rt.PkgPath(), "/"); strings.Contains(root, ".") && rt.PkgPath() != "github.com/tikv-go/tikv" {
		t.Errorf("%T in an error: %v", err, err)
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		ownTypes(t, u.Unwrap())
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			ownTypes(t, e)
		}
	}
}
