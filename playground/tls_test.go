package playground

import (
	"crypto/tls"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// asks makes a connection to PD of its own, and tells how a call over it went.
func (c *testCluster) asks(creds credentials.TransportCredentials) error {
	c.t.Helper()
	cc, err := c.dial(c.PD()[0], grpc.WithTransportCredentials(creds))
	if err != nil {
		c.t.Fatal(err)
	}
	defer cc.Close()
	_, err = pdpb.NewPDClient(cc).GetMembers(c.t.Context(), &pdpb.GetMembersRequest{})
	return err
}

// Only a client that shows a certificate of the cluster's authority is served, by PD and
// by stores, those that are added later too; in the year 2000 as well.
func TestTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithTLS())
		c.rawPut("k", "v")
		m, err := c.pdc().GetMembers(t.Context(), &pdpb.GetMembersRequest{})
		if err != nil || !strings.HasPrefix(m.Leader.ClientUrls[0], "https://") {
			t.Fatal(m, err)
		}
		id, err := c.AddStore(nil)
		if err != nil {
			t.Fatal(err)
		}
		region := c.Regions(KeyRaw)[0].ID
		if err := c.AddPeer(region, id, Voter); err != nil {
			t.Fatal(err)
		}
		if err := c.TransferLeader(region, id); err != nil {
			t.Fatal(err)
		}
		if v, ok := c.rawGet("k"); !ok || v != "v" {
			t.Fatal(v)
		}
		bare := c.ClientTLS()
		bare.Certificates = nil
		for name, creds := range map[string]credentials.TransportCredentials{
			"plain text": insecure.NewCredentials(), "no certificate": credentials.NewTLS(bare),
			"no authority": credentials.NewTLS(&tls.Config{Certificates: c.ClientTLS().Certificates}),
		} {
			if err := c.asks(creds); status.Code(err) != codes.Unavailable {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A rotation leaves connections alone, and decides about new ones, also those to a node
// that was stopped meanwhile.
func TestRotateTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithTLS(), WithStores(1))
		c.rawPut("k", "v")
		old := c.ClientTLS()
		if err := c.RenewTLS(); err != nil {
			t.Fatal(err)
		}
		if err := c.asks(credentials.NewTLS(old)); err != nil {
			t.Fatal("the old certificate after a renewal:", err)
		}
		if err := c.RotateTLS(); err != nil {
			t.Fatal(err)
		}
		if v, _ := c.rawGet("k"); v != "v" {
			t.Fatal(v)
		}
		if err := c.asks(credentials.NewTLS(old)); status.Code(err) != codes.Unavailable {
			t.Fatal("the old certificate after a rotation:", err)
		}
		if err := c.asks(credentials.NewTLS(c.ClientTLS())); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(Store(1)); err != nil {
			t.Fatal(err)
		}
		if err := c.Cluster.Start(Store(1)); err != nil {
			t.Fatal(err)
		}
		cc, err := c.dial(c.store(1).Server().Addr()) // with the certificates of now
		if err != nil {
			t.Fatal(err)
		}
		c.conns[c.store(1).Server().Addr()].Close()
		c.conns[c.store(1).Server().Addr()] = cc
		if v, _ := c.rawGet("k"); v != "v" {
			t.Fatal(v)
		}
	})
}

func TestTLSControl(t *testing.T) {
	c := start(t, WithTLS(), WithStores(1))
	h := c.ControlHandler()
	old := c.ClientTLS()
	for _, verb := range []string{"renew-tls", "rotate-tls"} {
		if code, a := control(t, h, "POST", "/v1/"+verb, ""); code != 200 {
			t.Fatal(code, a)
		}
	}
	if c.ClientTLS().RootCAs.Equal(old.RootCAs) {
		t.Fatal("the authority is the old one")
	}
	for _, verb := range []string{"renew-tls", "rotate-tls"} {
		if !strings.Contains(string(c.Journal()), `"do":"`+verb+`"`) {
			t.Errorf("%s is not in\n%s", verb, c.Journal())
		}
	}
	old = c.ClientTLS()
	if err := c.Replay([]byte(`{"at":0,"do":"rotate-tls"}`)); err != nil {
		t.Fatal(err)
	}
	if c.ClientTLS().RootCAs.Equal(old.RootCAs) {
		t.Fatal("nothing was replayed")
	}
	plain := start(t, WithStores(1))
	if plain.ClientTLS() != nil {
		t.Error("certificates without TLS")
	}
	code, a := control(t, plain.ControlHandler(), "POST", "/v1/rotate-tls", "")
	if code != 400 || a["error"] != "the cluster was started without TLS" || len(plain.Journal()) != 0 {
		t.Error(code, a)
	}
	if _, err := Start(t.Context(), WithTLSFiles("")); err == nil {
		t.Error("no path was taken for one")
	}
	if _, err := Start(t.Context(), WithTLSFiles("/dev/null/x")); err == nil {
		t.Error("a path that cannot be")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, c.RotateTLS(), "closed")
}

// Over TCP with a directory: what a client has is good after a restart, until a
// rotation, which outlives the restart too. The files are those of now.
func TestTLSDirectory(t *testing.T) {
	dir, files := t.TempDir(), filepath.Join(t.TempDir(), "tls")
	var had *tls.Config
	for round := range 3 {
		c := start(t, WithTCP("127.0.0.1", 0), WithDir(dir, false), WithTLSFiles(files), WithStores(1))
		cert, err := tls.LoadX509KeyPair(filepath.Join(files, "cert.pem"), filepath.Join(files, "key.pem"))
		if err != nil || !cert.Leaf.Equal(c.ClientTLS().Certificates[0].Leaf) {
			t.Fatal(cert.Leaf, err)
		}
		if had != nil {
			if err := c.asks(credentials.NewTLS(had)); err != nil {
				t.Fatal(round, err)
			}
		}
		if round == 1 {
			if err := c.RotateTLS(); err != nil {
				t.Fatal(err)
			}
		}
		had = c.ClientTLS()
		c.Advance(24 * time.Hour)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// It is a start that says whether TLS is spoken.
	c := start(t, WithTCP("127.0.0.1", 0), WithDir(dir, false))
	if err := c.asks(insecure.NewCredentials()); err != nil {
		t.Fatal(err)
	}
}
