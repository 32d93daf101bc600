package tikvtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func useClient(t *testing.T) {
	c := NewCluster(t, playground.WithSplitKeys(playground.KeyRaw, []byte("m")))
	client := c.Open()
	for _, k := range []string{"a", "z"} {
		if err := client.Raw().Put(t.Context(), []byte(k), []byte("1")); err != nil {
			t.Fatal(err)
		}
		if v, err := client.Raw().Get(t.Context(), []byte(k)); err != nil || string(v) != "1" {
			t.Fatal(v, err)
		}
	}
}

func TestCluster(t *testing.T) {
	useClient(t)
}

func TestClusterInFakeTime(t *testing.T) {
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) { synctest.Test(t, useClient) })
	}
}

func TestClustersInParallel(t *testing.T) {
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			useClient(t)
		})
	}
}

// recorder is a test that records its failures and runs its cleanups when told to.
type recorder struct {
	testing.TB
	cleanups []func()
	failures []string
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}
func (r *recorder) finish() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

// A goroutine that outlives its cluster fails the test, also in fake time.
func TestLeakIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		NewCluster(r)
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		tasks.Go("left behind", func(ctx context.Context) { <-ctx.Done() })
		r.finish()
		if len(r.failures) != 1 || !strings.Contains(r.failures[0], "goroutines are left") || !strings.Contains(r.failures[0], "TestLeakIsFound") {
			t.Fatal(r.failures)
		}
	})
}

// A client of a cluster that speaks TLS has what it needs, and keeps what it has over a
// rotation.
func TestTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := NewCluster(t, playground.WithTLS())
		first := cluster.Open()
		for _, rotate := range []func() error{func() error { return nil }, cluster.RotateTLS} {
			if err := rotate(); err != nil {
				t.Fatal(err)
			}
			for _, c := range []*tikv.Client{first, cluster.Open()} {
				if err := c.Raw().Put(t.Context(), []byte("k"), []byte("v")); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
