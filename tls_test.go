package tikv_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// TestTLSFiles: a cluster's authority and certificates are replaced under load, and
// nobody notices: PD, timestamps, stores, all on new connections in the end.
func TestTLSFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cluster := tikvtest.NewCluster(t, playground.WithTLSFiles(dir))
		files := tikv.WithTLSFiles(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		c := cluster.Open(files)
		stop := make(chan struct{})
		var failed atomic.Pointer[error]
		var calls [2]atomic.Int64
		load := func(i int, f func() error) {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				if err := f(); err != nil {
					failed.Store(&err)
				}
				calls[i].Add(1)
			}
		}
		go load(0, func() error { return c.Raw().Put(t.Context(), []byte("k"), []byte("v")) })
		go load(1, func() error { _, err := c.Timestamp(t.Context()); return err })
		for _, change := range []func() error{cluster.RotateTLS, cluster.RenewTLS, cluster.RotateTLS} {
			<-time.After(15 * time.Second)
			if err := change(); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Minute)
		// What there is now is all of today's files: no store or member has to be
		// reached anew with others.
		close(stop)
		synctest.Wait()
		if err := failed.Load(); err != nil {
			t.Error(*err)
		}
		if calls[0].Load() < 1000 || calls[1].Load() < 1000 {
			t.Error("only", calls[0].Load(), calls[1].Load(), "calls")
		}
		for _, s := range []uint64{1, 2, 3} {
			if err := errors.Join(cluster.Stop(playground.Store(s)), cluster.Start(playground.Store(s))); err != nil {
				t.Fatal(err)
			}
		}
		put(t, c.Raw(), "k", "w")
	})
}

// TestTLSNames: a list of names holds for certificates from files and given ones alike.
func TestTLSNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cluster := tikvtest.NewCluster(t, playground.WithTLSFiles(dir))
		file := func(name string) string { return filepath.Join(dir, name) }
		for name, own := range map[string]tikv.Option{
			"files": tikv.WithTLSFiles(file("ca.pem"), file("cert.pem"), file("key.pem")),
			"given": tikv.WithTLS(cluster.ClientTLS()),
		} {
			open := func(names tikv.Option) error {
				c, err := tikv.Open(t.Context(), cluster.PD(), append(cluster.ClientOptions(), names, own)...)
				if err == nil {
					err = c.Close()
				}
				return err
			}
			if err := open(tikv.WithTLSNames("nobody")); !errors.Is(err, tikv.ErrUnavailable) || !strings.Contains(err.Error(), "none of which is allowed") {
				t.Errorf("%s: %v", name, err)
			}
			host, _, _ := strings.Cut(cluster.PD()[0], ":")
			if err := open(tikv.WithTLSNames("nobody", strings.ToUpper(strings.TrimPrefix(host, "https://")))); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestTLSOptions(t *testing.T) {
	for want, opts := range map[string][]tikv.Option{
		"WithTLSFiles needs cert and key together": {tikv.WithTLSFiles("", "cert", "")},
		"WithTLSFiles cannot use ca":               {tikv.WithTLSFiles(filepath.Join(t.TempDir(), "none"), "", "")},
		"WithTLSNames needs names":                 {tikv.WithTLSNames()},
		"WithTLSNames needs WithTLS":               {tikv.WithTLSNames("a")},
	} {
		_, err := tikv.Open(t.Context(), []string{"pd:1"}, opts...)
		if !errors.Is(err, tikv.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
}

// TestCompression: requests and answers pass, and are small on the wire.
func TestCompression(t *testing.T) {
	value := strings.Repeat("compressible ", 10_000)
	sent := map[bool]int64{}
	for _, compressed := range []bool{false, true} {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		var bytes atomic.Int64
		opts := []tikv.Option{tikv.WithDialer(counting(cluster.DialContext, &bytes))}
		if compressed {
			opts = append(opts, tikv.WithCompression())
		}
		c := cluster.Open(opts...)
		put(t, c.Raw(), "k", value)
		expect(t, c.Raw(), "k", value)
		err := c.RunTxn(t.Context(), func(ctx context.Context, tx *tikv.Txn) error { return tx.Put([]byte("t"), []byte(value)) })
		if err != nil {
			t.Fatal(err)
		}
		sent[compressed] = bytes.Load()
	}
	if sent[true] > sent[false]/4 {
		t.Errorf("bytes: %v", sent)
	}
}

// counting returns dial, with the bytes that are written to its connections counted.
func counting(dial func(context.Context, string) (net.Conn, error), n *atomic.Int64) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := dial(ctx, addr)
		return countedConn{c, n}, err
	}
}

type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countedConn) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.Conn.Write(b)
}
