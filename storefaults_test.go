package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// storeCalls are calls of each kind: a read, a write that is sent again, one that is not,
// and a commit, which the one request decides that it takes here.
var storeCalls = []struct {
	name, method string
	do           func(ctx context.Context, c *tikv.Client) error
}{
	{"get", "RawGet", func(ctx context.Context, c *tikv.Client) error {
		_, err := tikv.Optional(c.Raw().Get(ctx, b("k")))
		return err
	}},
	{"put", "RawPut", func(ctx context.Context, c *tikv.Client) error { return c.Raw().Put(ctx, b("k"), b("v")) }},
	{"swap", "RawCompareAndSwap", func(ctx context.Context, c *tikv.Client) error {
		_, _, err := c.AtomicRaw().CompareAndSwap(ctx, b("k"), nil, b("v"))
		return err
	}},
	{"commit", "KvPrewrite", func(ctx context.Context, c *tikv.Client) error {
		return c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put(b("t"), b("v")) })
	}},
}

// outcomeOf is what a call came to, in a word.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, tikv.ErrUndetermined) && !tikv.NotSent(err):
		return "undetermined"
	case errors.Is(err, tikv.ErrUnavailable) && tikv.NotSent(err):
		return "unavailable"
	}
	return err.Error()
}

// TestStoreFaults is what a user sees of a store that fails, and how soon: what becomes of
// storeCalls, in their order, each on a cluster of its own, and after how long. The fault is
// there before the call comes, or comes while the store has the request. The errors name
// the store and what was met there. When the fault ends, the next call succeeds soon.
func TestStoreFaults(t *testing.T) {
	one := playground.Store(1)
	request := func(f playground.Fault) storeFault {
		f.Node = one
		return func(c *tikvtest.Cluster) (func() error, error) {
			injected := c.Inject(f)
			return func() error { injected.Remove(); return nil }, nil
		}
	}
	stopped := storeFault(func(c *tikvtest.Cluster) (func() error, error) {
		return func() error { return c.Start(one) }, c.Stop(one)
	})
	paused := storeFault(func(c *tikvtest.Cluster) (func() error, error) {
		return func() error { return c.Start(one) }, c.Pause(one)
	})
	cutOff := storeFault(func(c *tikvtest.Cluster) (func() error, error) {
		return func() error { c.Heal(); return nil }, errors.Join(c.Cut(playground.Client(), one), c.Cut(one, playground.Client()))
	})
	for _, c := range []struct {
		name   string
		fault  storeFault
		during bool
		stores int
		want   string
		says   string // by an error of an outcome that is known
		lost   string // and of one that is not
	}{
		// The only store.
		{"refused", stopped, false, 1, "unavailable 20s, unavailable 20s, unavailable 20s, unavailable 20s", "connection refused", "connection lost"},
		{"refused", stopped, true, 1, "unavailable 20s, undetermined 20s, undetermined 0s, undetermined 20s", "connection refused", "connection lost"},
		{"reset", request(playground.Fault{Disconnect: true}), false, 1, "unavailable 20s, undetermined 20s, undetermined 0s, undetermined 20s", "connection lost", "connection lost"},
		{"blackholed", cutOff, false, 1, "unavailable 20s, undetermined 20s, undetermined 13s, undetermined 20s", "dialling ", "keepalive"},
		{"blackholed", cutOff, true, 1, "unavailable 20s, undetermined 20s, undetermined 13s, undetermined 20s", "dialling ", "keepalive"},
		{"paused", paused, false, 1, "unavailable 20s, undetermined 20s, undetermined 13s, undetermined 20s", "", "keepalive"},
		{"paused", paused, true, 1, "unavailable 20s, undetermined 20s, undetermined 13s, undetermined 20s", "", "keepalive"},
		{"slow", request(playground.Fault{Delay: 3 * time.Second}), false, 1, "ok 3s, ok 3s, ok 3s, ok 3s", "", ""},
		{"too slow", request(playground.Fault{Delay: time.Hour}), false, 1, "unavailable 30s-31s, undetermined 20s-21s, undetermined 20s-21s, undetermined 20s-21s", "no answer within the time of one attempt", "no answer within"},
		// The leader of three, of which others take over, or hear it still.
		{"refused", stopped, false, 3, "ok 0s, ok 0s, ok 0s, ok 0s", "", "connection lost"},
		{"refused", stopped, true, 3, "ok 0s, ok 0s, undetermined 0s, ok 0s", "connection lost", "connection lost"},
		{"blackholed", cutOff, false, 3, "ok 13s, ok 13s, undetermined 13s, ok 13s", "connection lost", "keepalive"},
		{"blackholed", cutOff, true, 3, "ok 13s, ok 13s, undetermined 13s, ok 13s", "connection lost", "keepalive"},
		{"paused", paused, false, 3, "ok 13s, ok 13s, undetermined 13s, ok 13s", "connection lost", "keepalive"},
		{"paused", paused, true, 3, "ok 13s, ok 13s, undetermined 13s, ok 13s", "connection lost", "keepalive"},
	} {
		t.Run(fmt.Sprintf("%s, %s, %d", c.name, map[bool]string{false: "before", true: "during"}[c.during], c.stores), func(t *testing.T) {
			wants := strings.Split(c.want, ", ")
			for i, call := range storeCalls {
				synctest.Test(t, func(t *testing.T) {
					cluster := tikvtest.NewCluster(t, playground.WithStores(c.stores))
					client := cluster.Open()
					for _, warm := range storeCalls {
						must(t, warm.do(t.Context(), client))
					}
					method := ""
					if c.during {
						method = call.method
					}
					end, took, err := c.fault.befall(t, cluster, method, func(ctx context.Context) error { return call.do(ctx, client) })
					if i >= len(wants) || !isOutcome(t, wants[i], err, took) {
						t.Errorf("%s: %s %v: %v", call.name, outcomeOf(err), took, err)
					}
					says := c.says
					if errors.Is(err, tikv.ErrUndetermined) { // what was lost counts, and not what came later
						says = c.lost
					}
					if err != nil && (!strings.Contains(err.Error(), client.Stores()[0].Addr) || !strings.Contains(err.Error(), says)) {
						t.Errorf("%s: %v lacks %q", call.name, err, says)
					}
					must(t, end())
					began := time.Now()
					if err := call.do(t.Context(), client); err != nil || time.Since(began) > 14*time.Second { // a probe, and a dial
						t.Errorf("%s, afterwards: %v after %v", call.name, err, time.Since(began))
					}
					<-time.After(time.Minute) // what is owed is done
				})
			}
		})
	}
}

// storeFault makes something befall store 1, and tells how to end it.
type storeFault func(c *tikvtest.Cluster) (end func() error, err error)

// befall lets a call meet the fault: before it comes, or while the store has its request
// for the method.
func (f storeFault) befall(t *testing.T, cluster *tikvtest.Cluster, method string, call func(context.Context) error) (end func() error, took time.Duration, err error) {
	t.Helper()
	befall := func() {
		end, err = f(cluster)
		must(t, err)
		synctest.Wait() // the client has seen what there is to see
	}
	if method == "" {
		befall()
		began := time.Now()
		err = call(t.Context())
		return end, time.Since(began), err
	}
	held := cluster.Inject(playground.Fault{Method: method, Hold: true, Times: 1})
	done := start(t.Context(), call)
	synctest.Wait()
	if held.Waiting() != 1 {
		t.Fatal("nothing is held")
	}
	began := time.Now()
	befall()
	held.Release()
	err = <-done
	return end, time.Since(began), err
}

// isOutcome compares with "ok 3s" or "unavailable 20s-21s".
func isOutcome(t *testing.T, want string, err error, took time.Duration) bool {
	t.Helper()
	word, times, _ := strings.Cut(want, " ")
	low, high, ranged := strings.Cut(times, "-")
	if !ranged {
		high = low
	}
	least, bad := time.ParseDuration(low)
	most, worse := time.ParseDuration(high)
	must(t, bad, worse)
	return word == outcomeOf(err) && least <= took && took <= most
}

// TestDeadStoreIsLeftAlone: many callers want a store that is gone. It is dialled at most once
// in 2.4 s, by its connection and for probes together, and not at all when nobody has wanted
// it for a minute. When it is back it is found at the latest by the next probe that dials.
func TestDeadStoreIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		var dials atomic.Int64
		client := cluster.Open(tikv.WithDialer(func(ctx context.Context, to string) (net.Conn, error) {
			if to != cluster.PD()[0] {
				dials.Add(1)
			}
			return cluster.DialContext(ctx, to)
		}))
		put := func(ctx context.Context) error { return client.Raw().Put(ctx, b("k"), b("v")) }
		dialled := func(d time.Duration) int64 {
			before := dials.Load()
			<-time.After(d)
			return dials.Load() - before
		}
		must(t, put(t.Context()))
		must(t, cluster.Stop(playground.Store(1)))
		synctest.Wait()
		callers := task.New(t.Context())
		for range 4 {
			callers.Go("caller", func(ctx context.Context) {
				for ctx.Err() == nil {
					each, cancel := context.WithTimeout(ctx, 2*time.Second)
					if err := put(each); !errors.Is(err, tikv.ErrUnavailable) && ctx.Err() == nil {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		early, often := dialled(20*time.Second), dialled(2*time.Minute)
		callers.Close(nil)
		still, late := dialled(75*time.Second), dialled(time.Hour)
		t.Logf("dialled %d times in 20 s, %d in the 2 minutes that followed, %d in a minute for nobody, %d in an hour then", early, often, still, late)
		if early > 16 || often > 50 || still > 30 || late != 0 {
			t.Error("too often")
		}
		must(t, cluster.Start(playground.Store(1)))
		began := time.Now()
		if err := put(t.Context()); err != nil || time.Since(began) > 14*time.Second {
			t.Error(err, time.Since(began))
		}
	})
}
