package tikv_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

func TestOpenReportsEveryMistake(t *testing.T) {
	client, err := tikv.Open(t.Context(), []string{" "}, nil, tikv.WithTLS(nil), tikv.WithDialer(nil), tikv.WithAddressMap(nil),
		tikv.WithLogger(nil), tikv.WithRPCTimeout(0), tikv.WithCloseTimeout(-1), tikv.WithPriority(9), tikv.WithRetryFor(0),
		tikv.WithAPIVersion(9), tikv.WithKeyspace(""))
	if client != nil || !errors.Is(err, tikv.ErrInvalid) || !tikv.NotSent(err) {
		t.Fatal(err)
	}
	all := err.(interface{ Unwrap() []error }).Unwrap()
	for _, one := range all {
		var arg *tikv.ArgumentError
		if !errors.As(one, &arg) || arg.Op != "Open" {
			t.Error(one)
		}
	}
	if len(all) != 13 {
		t.Errorf("%d mistakes: %v", len(all), err)
	}
	if _, err := tikv.Open(t.Context(), nil); !errors.Is(err, tikv.ErrInvalid) {
		t.Error(err)
	}
	if _, err := tikv.Open(t.Context(), []string{"a:1"}, tikv.WithKeyspace("x"), tikv.WithAPIVersion(tikv.APIV1)); !errors.Is(err, tikv.ErrInvalid) {
		t.Error(err)
	}
	for _, addr := range []string{"pd", "a b:1", ":::", "pd:99999", "pd:0", ":2379"} {
		if _, err := tikv.Open(t.Context(), []string{"pd:1", addr}); !errors.Is(err, tikv.ErrInvalid) || !strings.Contains(err.Error(), strconv.Quote(addr)) {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

// A failed Open says why, within its time, and leaves nothing (the leak checks see to
// that).
func TestOpenFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		refuse := func(context.Context, string) (net.Conn, error) { return nil, errors.New("no way") }
		_, err := tikv.Open(ctx, []string{"pd:1"}, tikv.WithDialer(refuse))
		if !errors.Is(err, tikv.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !tikv.NotSent(err) {
			t.Fatal(err)
		}
		start := time.Now()
		ctx, stop := context.WithCancelCause(t.Context())
		over, hang := errors.New("over"), func(ctx context.Context, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		done := make(chan error)
		go func() {
			_, err := tikv.Open(ctx, []string{"pd:1"}, tikv.WithDialer(hang))
			done <- err
		}()
		synctest.Wait()
		stop(over)
		if err := <-done; !errors.Is(err, over) || !errors.Is(err, context.Canceled) || errors.Is(err, tikv.ErrUnavailable) || time.Since(start) != 0 {
			t.Fatal(err, time.Since(start))
		}
	})
	cluster := tikvtest.NewCluster(t, playground.WithAPIVersion(playground.APIV2))
	_, err := tikv.Open(t.Context(), cluster.PD(), tikv.WithDialer(cluster.DialContext), tikv.WithKeyspace("nowhere"))
	var arg *tikv.ArgumentError
	if !errors.As(err, &arg) || arg.Op != "Open" || arg.Arg != "WithKeyspace" {
		t.Fatal(err)
	}
}

func TestKeyspaces(t *testing.T) {
	cluster := tikvtest.NewCluster(t, playground.WithAPIVersion(playground.APIV2), playground.WithKeyspaces("one", "two"))
	views := make(map[string]*tikv.Raw)
	for _, name := range []string{"", "one", "two"} {
		var opts []tikv.Option
		if name != "" {
			opts = append(opts, tikv.WithKeyspace(name))
		}
		views[name] = cluster.Open(opts...).Raw()
	}
	for name, r := range views {
		put(t, r, "k", name, name+"only", "x")
	}
	for name, r := range views {
		pairs, err := tikv.Collect(r.Scan(t.Context(), tikv.Range{}, tikv.WithReverse()))
		if err != nil || len(pairs) != 2 {
			t.Fatalf("%q: %s %v", name, text(pairs), err)
		}
		expect(t, r, "k", name)
	}
	if err := views["one"].DeleteRange(t.Context(), tikv.Range{}, tikv.WithUnbounded()); err != nil {
		t.Fatal(err)
	}
	absent(t, views["one"], "k")
	expect(t, views["two"], "k", "two")
	expect(t, views[""], "k", "")
}

func TestOpenURL(t *testing.T) {
	cluster := tikvtest.NewCluster(t, playground.WithAPIVersion(playground.APIV2), playground.WithKeyspaces("mine"))
	url := "tikv://" + strings.Join(cluster.PD(), ",")
	open := func(url string, opts ...tikv.Option) (*tikv.Raw, error) {
		c, err := tikv.OpenURL(t.Context(), url, append(opts, tikv.WithDialer(cluster.DialContext))...)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = c.Close() })
		if c.ClusterID() != cluster.ID() {
			t.Errorf("cluster %d", c.ClusterID())
		}
		return c.Raw(), nil
	}
	mine, err := open(url + "/mine")
	if err != nil {
		t.Fatal(err)
	}
	put(t, mine, "k", "mine")
	def, err := open(url + "/?api=v2")
	if err != nil {
		t.Fatal(err)
	}
	absent(t, def, "k")
	won, err := open(url, tikv.WithKeyspace("mine"))
	if err != nil {
		t.Fatal(err)
	}
	expect(t, won, "k", "mine")
	none := filepath.Join(t.TempDir(), "none")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"?x=1", "/mine?api=v1", "?ca=" + none, "?ca=" + empty, "?cert=" + none + "&key=" + none, "/nowhere"} {
		var arg *tikv.ArgumentError
		if _, err := open(url + bad); !errors.Is(err, tikv.ErrInvalid) || !errors.As(err, &arg) || arg.Op != "OpenURL" {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TLS, the address map and the dialer are used for every connection.
func TestConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		var mapped, dialled atomic.Int32
		c := cluster.Open(
			tikv.WithAddressMap(func(a string) string { mapped.Add(1); return "map." + a }),
			tikv.WithDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				dialled.Add(1)
				addr, ok := strings.CutPrefix(addr, "map.")
				if !ok {
					t.Errorf("%s is dialled without the map", addr)
				}
				return cluster.DialContext(ctx, addr)
			}))
		put(t, c.Raw(), "k", "v")
		if mapped.Load() < 2 || dialled.Load() < 2 {
			t.Fatal(mapped.Load(), dialled.Load())
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := tikv.Open(ctx, cluster.PD(), append(cluster.ClientOptions(), tikv.WithTLS(&tls.Config{ServerName: "x"}))...); !errors.Is(err, tikv.ErrUnavailable) {
			t.Fatal("a server without TLS was spoken to:", err)
		}
	})
}

// Close ends what is in flight wherever it waits, refuses what comes, and may be
// called again.
func TestClose(t *testing.T) {
	hold := func(c *tikvtest.Cluster, f playground.Fault) { f.Hold = true; c.Inject(f) }
	for name, park := range map[string]func(c *tikvtest.Cluster){
		"answer": func(c *tikvtest.Cluster) {
			for _, method := range []string{"RawGet", "RawPut", "RawScan"} {
				hold(c, playground.Fault{Method: method})
			}
		},
		"region": func(c *tikvtest.Cluster) { hold(c, playground.Fault{Node: playground.Member(0)}) },
		"delay": func(c *tikvtest.Cluster) {
			for id := range uint64(3) {
				if err := c.Stop(playground.Store(id + 1)); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t)
				client := cluster.Open()
				park(cluster)
				r, ctx := client.Raw(), t.Context()
				calls := map[string]func() error{
					"get":  func() error { _, err := r.Get(ctx, b("k")); return err },
					"put":  func() error { return r.Put(ctx, b("k"), b("v")) },
					"scan": func() error { _, err := tikv.Collect(r.Scan(ctx, tikv.Range{})); return err },
				}
				ends := make(map[string]chan error)
				for call, do := range calls {
					end := make(chan error, 1)
					ends[call] = end
					go func() { end <- do() }()
				}
				synctest.Wait()
				start := time.Now()
				if err := client.Close(); err != nil {
					t.Fatal(err)
				}
				for call, end := range ends {
					err := <-end
					sent := name == "answer" && call == "put"
					if !errors.Is(err, tikv.ErrClosed) || errors.Is(err, tikv.ErrUndetermined) != sent || tikv.NotSent(err) == sent {
						t.Errorf("%s: %v", call, err)
					}
				}
				for call, do := range calls {
					if err := do(); !errors.Is(err, tikv.ErrClosed) || !tikv.NotSent(err) || errors.Is(err, tikv.ErrUndetermined) {
						t.Errorf("%s after Close: %v", call, err)
					}
				}
				if err := client.Close(); err != nil || time.Since(start) != 0 {
					t.Error(err, time.Since(start))
				}
			})
		})
	}
}

func TestCollectAndOptional(t *testing.T) {
	bad := errors.New("bad")
	all, err := tikv.Collect(func(yield func(int, error) bool) {
		_ = yield(1, nil) && yield(2, nil) && yield(0, bad)
	})
	if err != bad || len(all) != 2 {
		t.Fatal(all, err)
	}
	if v, err := tikv.Optional(nil, tikv.ErrNotFound); v != nil || err != nil {
		t.Fatal(v, err)
	}
	if v, err := tikv.Optional(b("x"), nil); string(v) != "x" || err != nil {
		t.Fatal(v, err)
	}
	if _, err := tikv.Optional(nil, bad); err != bad {
		t.Fatal(err)
	}
}

func TestKeys(t *testing.T) {
	prefix := b("a\xff")
	p := tikv.Prefix(prefix)
	prefix[0] = 'x'
	if string(p.Start) != "a\xff" || string(p.End) != "b" || !p.Contains(b("a\xffz")) || p.Contains(b("b")) || !(tikv.Range{}).Contains(nil) {
		t.Fatal(p)
	}
	if string(tikv.NextKey(b("a"))) != "a\x00" || string(tikv.PrefixEnd(b("a"))) != "b" || tikv.PrefixEnd(b("\xff")) != nil {
		t.Fatal("neighbours")
	}
}

// Close gives what a committed transaction owes its time, and counts what it abandons.
func TestCloseWaitsForWhatIsOwed(t *testing.T) {
	for _, c := range []struct {
		release, took time.Duration // release 0: never
		abandoned     bool
	}{
		{0, 7 * time.Second, true},
		{2 * time.Second, 2 * time.Second, false},
	} {
		t.Run(c.took.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
				client, err := tikv.Open(t.Context(), cluster.PD(), append(cluster.ClientOptions(), tikv.WithCloseTimeout(7*time.Second))...)
				if err != nil {
					t.Fatal(err)
				}
				held := cluster.Inject(playground.Fault{Method: "KvCommit", Skip: 1, Hold: true}) // after the primary's
				err = client.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error {
					return errors.Join(tx.Put(b("a"), b("1")), tx.Put(b("z"), b("1")))
				}, inTwoPhases)
				if err != nil {
					t.Fatal(err)
				}
				if c.release > 0 {
					timer := time.AfterFunc(c.release, held.Remove)
					defer timer.Stop()
				}
				start := time.Now()
				err = client.Close()
				if (err != nil) != c.abandoned || time.Since(start) != c.took || held.Hits() == 0 {
					t.Fatalf("%v after %v, %d held", err, time.Since(start), held.Hits())
				}
				if c.abandoned && !strings.Contains(err.Error(), "abandoned 1 of ") {
					t.Fatal(err)
				}
				if again := client.Close(); again != err {
					t.Fatal(again)
				}
				held.Remove()
			})
		})
	}
}

// A commit that Close ends leaves no locks: its rollback is waited for, though it
// becomes owed only when Close runs.
func TestCloseRollsBack(t *testing.T) {
	for name, fault := range map[string]playground.Fault{
		"request lost":   {Method: "KvPrewrite", Skip: 1, DropRequest: true},
		"answer lost":    {Method: "KvPrewrite", Skip: 1, DropAnswer: true},
		"all answers":    {Method: "KvPrewrite", DropAnswer: true},
		"busy":           {Method: "KvPrewrite", Skip: 1, RegionError: playground.ServerIsBusy},
		"timestamp lost": {Method: "Tso", DropRequest: true},
		"commit refused": {Method: "KvCommit", RegionError: playground.ServerIsBusy},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, b("m")))
				client := cluster.Open()
				tx := begin(t, client)
				must(t, errors.Join(tx.Put(b("a"), b("1")), tx.Put(b("z"), b("1"))))
				injected := cluster.Inject(fault)
				done := start(t.Context(), func(ctx context.Context) error { return tx.Commit(ctx) })
				synctest.Wait()
				began := time.Now()
				closed := []chan error{make(chan error, 1), make(chan error, 1), make(chan error, 1)}
				for _, end := range closed {
					go func() { end <- client.Close() }()
				}
				for _, end := range closed {
					if err := <-end; err != nil || time.Since(began) != 0 {
						t.Errorf("%v after %v", err, time.Since(began))
					}
				}
				err := <-done
				if !errors.Is(err, tikv.ErrClosed) || !tikv.NotSent(err) || errors.Is(err, context.Canceled) || injected.Hits() == 0 {
					t.Error(err, injected.Hits())
				}
				if locks := cluster.Locks(nil, nil); len(locks) > 0 {
					t.Errorf("%d locks are left", len(locks))
				}
			})
		})
	}
}

// A deciding request in flight ends as unknown, at once, and says both.
func TestCloseDuringTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		client := cluster.Open()
		cluster.Inject(playground.Fault{Method: "KvCommit", DropAnswer: true})
		tx := begin(t, client)
		must(t, tx.Put(b("a"), b("1")))
		done := start(t.Context(), func(ctx context.Context) error { return tx.Commit(ctx) })
		synctest.Wait()
		began := time.Now()
		if err := client.Close(); err != nil || time.Since(began) != 0 {
			t.Fatal(err, time.Since(began))
		}
		err := <-done
		if !errors.Is(err, tikv.ErrClosed) || !errors.Is(err, tikv.ErrUndetermined) || tikv.NotSent(err) || errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

// Close does not wait for a caller's function that calls it.
func TestCloseFromInside(t *testing.T) {
	for _, where := range []string{"fn", "commit check"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := tikvtest.NewCluster(t).Open()
				began, closed := time.Now(), 0
				inside := func(at string) error {
					if at != where {
						return nil
					}
					closed++
					return client.Close()
				}
				err := client.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error {
					return errors.Join(tx.Put(b("a"), b("1")), inside("fn"))
				}, tikv.WithCommitCheck(func(tikv.Timestamp) error { return inside("commit check") }))
				if !errors.Is(err, tikv.ErrClosed) || closed != 1 || time.Since(began) != 0 {
					t.Fatal(err, closed, time.Since(began))
				}
			})
		})
	}
}
