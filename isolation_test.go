package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// lines is a log that a client writes.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// all does something with each of three stores.
func all(do func(playground.Node) error) error {
	return errors.Join(do(playground.Store(1)), do(playground.Store(2)), do(playground.Store(3)))
}

// tenant is one of several clients of a process, with hooks, interceptors and a logger of
// its own.
type tenant struct {
	name        string
	client      *tikv.Client
	log         lines
	told        events
	calls       recorder
	intercepted atomic.Int64
	dials       atomic.Int32
	slowest     atomic.Int64
}

func newTenant(name string, cluster *tikvtest.Cluster, opts ...tikv.Option) *tenant {
	c := &tenant{name: name}
	c.client = cluster.Open(append(opts,
		tikv.WithLogger(c.log.logger()), tikv.WithHooks(&c.told), tikv.WithHooks(&c.calls), tikv.WithInterceptors(c.intercept), tikv.WithRequestSource(name),
		tikv.WithDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c.dials.Add(1)
			return cluster.DialContext(ctx, addr)
		}))...)
	return c
}

func (c *tenant) intercept(_ context.Context, _ tikv.CallInfo, call *tikv.CallContext) error {
	if call.RequestSource != c.name || call.Tag != nil {
		return fmt.Errorf("another's call: %+v", call)
	}
	call.Tag = []byte(c.name)
	c.intercepted.Add(1)
	return nil
}

// work uses the client once; who is the worker.
func (c *tenant) work(ctx context.Context, who int) error {
	began := time.Now()
	value, key := []byte(c.name), fmt.Append(nil, "key", who)
	if err := c.client.Raw().Put(ctx, []byte("k"), value); err != nil {
		return err
	}
	if got, err := c.client.Raw().Get(ctx, []byte("k")); err != nil || string(got) != c.name {
		return fmt.Errorf("%q, %w", got, err)
	}
	err := c.client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
		if got, err := tikv.Optional(tx.Get(ctx, key)); err != nil || got != nil && string(got) != c.name {
			return fmt.Errorf("%q, %w", got, err)
		}
		return tx.Put(key, value)
	})
	if took := int64(time.Since(began)); took > c.slowest.Load() {
		c.slowest.Store(took)
	}
	return err
}

// own fails where the client's hooks have seen calls of others.
func (c *tenant) own(t *testing.T) {
	t.Helper()
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	if n := c.intercepted.Load(); n == 0 || int(n) != len(c.calls.calls) || len(c.calls.pd) == 0 {
		t.Errorf("%s: %d calls intercepted, %d told of, %d to PD", c.name, n, len(c.calls.calls), len(c.calls.pd))
	}
	for _, call := range c.calls.calls {
		if call.Call.RequestSource != c.name || string(call.Call.Tag) != c.name {
			t.Fatalf("%s: %+v", c.name, call)
		}
	}
}

// waited counts the waits for a reason.
func (c *tenant) waited(why tikv.Reason) (n int) {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	for _, r := range c.calls.retry {
		if r.Reason == why {
			n++
		}
	}
	return n
}

// TestTwoClients: clients of one process with nothing in common but the process, and one
// that has the cluster in common with another: TLS and compression, keyspaces, loggers,
// hooks, interceptors, limits. What befalls a cluster, or a client's limits, is not noticed
// by the others.
func TestTwoClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dirs := [2]string{t.TempDir(), t.TempDir()}
		files := func(i int) tikv.Option {
			return tikv.WithTLSFiles(filepath.Join(dirs[i], "ca.pem"), filepath.Join(dirs[i], "cert.pem"), filepath.Join(dirs[i], "key.pem"))
		}
		clusterOf := func(i int) *tikvtest.Cluster {
			return tikvtest.NewCluster(t, playground.WithTLSFiles(dirs[i]), playground.WithAPIVersion(playground.APIV2), playground.WithKeyspaces("mine", "yours"))
		}
		calm, stormy := clusterOf(1), clusterOf(0)
		mine := newTenant("mine", stormy, files(0), tikv.WithCompression(), tikv.WithKeyspace("mine"), tikv.WithPlainKeys(), tikv.WithMaxInFlight(2))
		yours := newTenant("yours", stormy, files(0), tikv.WithKeyspace("yours"))
		other := newTenant("other", calm, tikv.WithTLS(calm.ClientTLS()), tikv.WithKeyspace("mine"))
		all3 := []*tenant{mine, yours, other}
		stormy.Inject(playground.Fault{Method: "RawPut", Delay: 5 * time.Millisecond})
		stop := make(chan struct{})
		for _, c := range all3 {
			for who := range 6 {
				go func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(400 * time.Millisecond):
						}
						if err := c.work(t.Context(), who); err != nil {
							t.Errorf("%s: %v", c.name, err)
						}
					}
				}()
			}
		}
		<-time.After(2 * time.Second)
		before, dials := other.told.take(), other.dials.Load()
		for _, disturb := range []func() error{
			stormy.RotateTLS, stormy.RenewTLS,
			func() error { return all(stormy.Stop) }, func() error { return all(stormy.Start) },
		} {
			must(t, disturb())
			<-time.After(10 * time.Second)
		}
		close(stop)
		<-time.After(30 * time.Second)
		for _, c := range all3 {
			c.own(t)
		}
		if got := other.told.take(); got != "" || !strings.Contains(before, "region loaded") || other.dials.Load() != dials {
			t.Errorf("the other client was told %q, %d connections more", got, other.dials.Load()-dials)
		}
		if other.slowest.Load() != 0 || len(other.calls.retry) > 0 || other.log.String() != "" {
			t.Errorf("the other client's slowest call: %v, %d waits, log:\n%s", time.Duration(other.slowest.Load()), len(other.calls.retry), &other.log)
		}
		for _, c := range all3[:2] {
			if c.slowest.Load() == 0 || !strings.Contains(c.told.take(), "store down") || c.log.String() == "" {
				t.Errorf("%s has not noticed what befell its cluster", c.name)
			}
		}
		if mine.waited(tikv.ReasonQueueFull) == 0 || yours.waited(tikv.ReasonQueueFull) > 0 {
			t.Errorf("%d and %d waits for a full store", mine.waited(tikv.ReasonQueueFull), yours.waited(tikv.ReasonQueueFull))
		}
		// One client's end is its own.
		must(t, mine.client.Close())
		must(t, yours.work(t.Context(), 0), other.work(t.Context(), 0))
		if got := mine.told.take(); !strings.HasSuffix(got, "close") || strings.Contains(yours.told.take()+other.told.take(), "close") {
			t.Error(got)
		}
	})
}

// TestTwoBubbles: two clients under load, each in a bubble of its own, at the same time
// and once more: nothing that a bubble made outlives it or is seen in another.
func TestTwoBubbles(t *testing.T) {
	for round := range 2 {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			for i := range 2 {
				t.Run(fmt.Sprint("bubble ", i), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { inBubble(t, fmt.Sprint("client ", round, i)) })
				})
			}
		})
	}
}

func inBubble(t *testing.T, name string) {
	dir := t.TempDir()
	cluster := tikvtest.NewCluster(t, playground.WithTLSFiles(dir), playground.WithAPIVersion(playground.APIV2), playground.WithKeyspaces("mine"),
		playground.WithSplitKeys(playground.KeyTxn, []byte("key5")))
	c := newTenant(name, cluster, tikv.WithTLS(cluster.ClientTLS()), tikv.WithKeyspace("mine"), tikv.WithMaxInFlight(8))
	cluster.Inject(playground.Fault{Delay: time.Millisecond, Chance: 0.2})
	done := make(chan error, 20)
	for w := range 20 {
		go func() {
			var errs []error
			for n := range 8 {
				errs = append(errs, c.work(t.Context(), (w+n)%10))
				_, err := c.client.Latest(tikv.WithHedging(time.Millisecond), tikv.WithReplicaRead(tikv.ReadAny)).Get(t.Context(), []byte("absent"))
				errs = append(errs, ignoreNotFound(err))
			}
			done <- errors.Join(errs...)
		}()
	}
	for range 20 {
		must(t, <-done)
	}
	must(t, c.client.Close())
	c.own(t)
	if len(c.told.conns) > 0 || !slices.Contains(c.told.lines, "close") {
		t.Error(c.told.conns, c.told.lines)
	}
}
