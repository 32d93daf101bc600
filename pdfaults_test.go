package tikv_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// TestPDFaults is what a user sees of a PD that is away as a whole, and how soon: calls
// that need nothing of it do not notice; others end with their time, and the error names
// PD. When it is back calls go on.
func TestPDFaults(t *testing.T) {
	all := func(do func(c *playground.Cluster, n playground.Node) error) func(c *tikvtest.Cluster) error {
		return func(c *tikvtest.Cluster) error {
			var errs []error
			for i := range c.PD() {
				errs = append(errs, do(c.Cluster, playground.Member(i)))
			}
			return errors.Join(errs...)
		}
	}
	for name, c := range map[string]struct {
		away, back func(c *tikvtest.Cluster) error
	}{
		"gone":   {all((*playground.Cluster).Stop), all((*playground.Cluster).Start)},
		"paused": {all((*playground.Cluster).Pause), all((*playground.Cluster).Start)},
		"out of reach": {all(func(c *playground.Cluster, n playground.Node) error {
			return errors.Join(c.Cut(playground.Client(), n), c.Cut(n, playground.Client()))
		}), func(c *tikvtest.Cluster) error { c.Heal(); return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithMembers(3), playground.WithSplitKeys(playground.KeyRaw, b("m")))
				client := cluster.Open()
				must(t, client.Raw().Put(t.Context(), b("a"), b("v")))
				tx := begin(t, client)
				must(t, tx.Put(b("k"), b("v")), tx.Commit(t.Context()))
				must(t, c.away(cluster))
				synctest.Wait()
				for _, call := range []struct {
					name string
					do   func(ctx context.Context) error
					took time.Duration // without a deadline; 0: it does not fail
				}{
					{"a region that is known", func(ctx context.Context) error { _, err := client.Raw().Get(ctx, b("a")); return err }, 0},
					{"the latest of one", func(ctx context.Context) error {
						_, err := tikv.Optional(client.Latest().Get(ctx, b("k")))
						return err
					}, 0},
					{"a region that is not", func(ctx context.Context) error { return client.Raw().Put(ctx, b("z"), b("v")) }, 20 * time.Second},
					{"a timestamp", func(ctx context.Context) error { _, err := client.Begin(ctx); return err }, 15 * time.Second},
					{"Open", func(ctx context.Context) error {
						_, err := tikv.Open(ctx, cluster.PD(), cluster.ClientOptions()...)
						return err
					}, 20 * time.Second},
				} {
					for _, deadline := range []time.Duration{0, 5 * time.Second} {
						ctx, want := t.Context(), call.took
						if deadline > 0 {
							var cancel context.CancelFunc
							ctx, cancel = context.WithTimeout(ctx, deadline)
							defer cancel()
							want = min(want, deadline)
						}
						began := time.Now()
						err := call.do(ctx)
						took := time.Since(began)
						if took != want || (err == nil) != (call.took == 0) {
							t.Errorf("%s: %v after %v", call.name, err, took)
						}
						if err == nil {
							continue
						}
						var away *tikv.UnavailableError
						if !errors.As(err, &away) || !tikv.NotSent(err) || errors.Is(err, context.DeadlineExceeded) != (deadline > 0) {
							t.Fatalf("%s: %v", call.name, err)
						}
						if n := len(away.Attempts); n == 0 || away.Attempts[n-1].Reason != tikv.ReasonPD || !slices.ContainsFunc(cluster.PD(), func(addr string) bool { return strings.Contains(err.Error(), addr) }) {
							t.Errorf("%s: %v", call.name, err)
						}
					}
				}
				must(t, c.back(cluster))
				for i := range 3 {
					began := time.Now()
					tx := begin(t, client)
					must(t, tx.Put(b("k"), b("w")), tx.Commit(t.Context()), client.Raw().Put(t.Context(), b("z"), b("v")))
					if d := time.Since(began); i == 0 && d > 3*time.Second || i > 0 && d != 0 {
						t.Errorf("took %v", d)
					}
				}
			})
		})
	}
}
