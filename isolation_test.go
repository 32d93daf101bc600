package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
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

// TestTwoClients: two clients of one process with nothing in common but the process: TLS
// and compression, keyspaces, loggers. What befalls one is not noticed by the other.
func TestTwoClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		plain := tikvtest.NewCluster(t)
		secret := tikvtest.NewCluster(t, playground.WithTLSFiles(dir), playground.WithAPIVersion(playground.APIV2), playground.WithKeyspaces("mine"))
		var dials atomic.Int32
		var logs [2]lines
		clients := [2]*tikv.Client{
			secret.Open(tikv.WithTLSFiles(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")),
				tikv.WithCompression(), tikv.WithKeyspace("mine"), tikv.WithPlainKeys(), tikv.WithLogger(logs[0].logger())),
			plain.Open(tikv.WithLogger(logs[1].logger()), tikv.WithDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				dials.Add(1)
				return plain.DialContext(ctx, addr)
			})),
		}
		stop := make(chan struct{})
		var slowest [2]atomic.Int64
		for i, c := range clients {
			value := fmt.Sprint("of client ", i)
			for range 10 {
				go func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(200 * time.Millisecond):
						}
						began := time.Now()
						if err := c.Raw().Put(t.Context(), []byte("k"), []byte(value)); err != nil {
							t.Error(err)
						}
						if got, err := c.Raw().Get(t.Context(), []byte("k")); err != nil || string(got) != value {
							t.Errorf("%q, %v", got, err)
						}
						if took := int64(time.Since(began)); took > slowest[i].Load() {
							slowest[i].Store(took)
						}
					}
				}()
			}
		}
		<-time.After(time.Second)
		before := dials.Load()
		for _, disturb := range []func() error{
			secret.RotateTLS, secret.RenewTLS,
			func() error { return all(secret.Stop) }, func() error { return all(secret.Start) },
		} {
			if err := disturb(); err != nil {
				t.Fatal(err)
			}
			<-time.After(10 * time.Second)
		}
		close(stop)
		<-time.After(time.Minute)
		if dials.Load() != before {
			t.Error("the other client has connected again")
		}
		if slowest[0].Load() == 0 || slowest[1].Load() != 0 {
			t.Errorf("the slowest calls: %v and %v", time.Duration(slowest[0].Load()), time.Duration(slowest[1].Load()))
		}
		if logs[0].String() == "" || logs[1].String() != "" {
			t.Errorf("logs:\n%s\nand\n%s", &logs[0], &logs[1])
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
					synctest.Test(t, func(t *testing.T) {
						cluster := tikvtest.NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, []byte("key5")))
						c := cluster.Open()
						done := make(chan error)
						for w := range 20 {
							go func() {
								for n := range 8 {
									key := fmt.Sprint("key", (w+n)%10)
									err := c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error {
										if _, err := tikv.Optional(tx.Get(ctx, []byte(key))); err != nil {
											return err
										}
										return tx.Put([]byte(key), []byte(key))
									})
									if err == nil {
										_, err = c.Raw().Get(t.Context(), []byte("absent"))
										_, err = tikv.Optional(nil, err)
									}
									if err != nil {
										done <- err
										return
									}
								}
								done <- nil
							}()
						}
						for range 20 {
							if err := <-done; err != nil {
								t.Error(err)
							}
						}
					})
				})
			}
		})
	}
}
