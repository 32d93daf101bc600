package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shake makes a connection and sends a byte over it: a server's refusal of a client's
// certificate shows at the first read.
func shake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = tls.Server(c, server).Write([]byte{1})
	}()
	defer func() { <-served }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn := tls.Client(c, client)
	_, err = conn.Read(make([]byte, 1))
	return err
}

func open(t *testing.T, cfg Config) *Authority {
	t.Helper()
	if cfg.Save == nil {
		cfg.Save = func([]byte) error { return nil }
	}
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// at is a client's configuration for a host.
func at(cfg *tls.Config, host string) *tls.Config {
	cfg.ServerName = host
	return cfg
}

func TestHandshakes(t *testing.T) {
	a, other := open(t, Config{}), open(t, Config{})
	stranger := other.Client()
	stranger.RootCAs = a.Client().RootCAs
	bare := a.Client()
	bare.Certificates = nil
	for name, c := range map[string]struct {
		client *tls.Config
		fails  string
	}{
		"own host":                {at(a.Client(), "198.18.1.1"), ""},
		"loopback":                {at(a.Client(), "127.0.0.1"), ""},
		"localhost":               {at(a.Client(), "localhost"), ""},
		"another host":            {at(a.Client(), "198.18.1.2"), "198.18.1.2"},
		"another authority":       {at(other.Client(), "198.18.1.1"), "unknown authority"},
		"a stranger":              {at(stranger, "198.18.1.1"), "certificate"},
		"no certificate":          {at(bare, "198.18.1.1"), "certificate required"},
		"what the server has too": {at(&tls.Config{RootCAs: a.Client().RootCAs, Certificates: server(t, a)}, "localhost"), ""},
	} {
		err := shake(t, a.Server("tikv", "198.18.1.1"), c.client)
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := shake(t, a.Server("pd", "pd.example"), at(a.Client(), "pd.example")); err != nil {
		t.Error(err)
	}
}

func server(t *testing.T, a *Authority) []tls.Certificate {
	cfg, err := a.Server("tikv", "198.18.1.1").GetConfigForClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Certificates
}

func TestRotation(t *testing.T) {
	a := open(t, Config{})
	s := a.Server("tikv", "127.0.0.1")
	old, first := a.Client(), server(t, a)[0].Leaf
	if err := a.Renew(); err != nil {
		t.Fatal(err)
	}
	if now := server(t, a)[0].Leaf; now.Equal(first) {
		t.Error("the server's certificate is the old one")
	}
	if got := a.Client(); got.Certificates[0].Leaf.Equal(old.Certificates[0].Leaf) || !got.RootCAs.Equal(old.RootCAs) {
		t.Error("the client's certificate or the authority")
	}
	for name, client := range map[string]*tls.Config{"old": old, "new": a.Client()} {
		if err := shake(t, s, at(client, "127.0.0.1")); err != nil {
			t.Errorf("%s after Renew: %v", name, err)
		}
	}
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := shake(t, s, at(a.Client(), "127.0.0.1")); err != nil {
		t.Error(err)
	}
	var unknown x509.UnknownAuthorityError
	if err := shake(t, s, at(old, "127.0.0.1")); !errors.As(err, &unknown) {
		t.Errorf("the old client trusts the new server: %v", err)
	}
	halfway := a.Client()
	halfway.Certificates = old.Certificates
	if err := shake(t, s, at(halfway, "127.0.0.1")); err == nil {
		t.Error("the new server trusts the old client")
	}
}

// A client's files are there from the start and change with the certificates; an
// authority that is opened again is the same.
func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	var kept []byte
	save := func(b []byte) error { kept = b; return nil }
	a := open(t, Config{Dir: dir, Save: save})
	load := func() *tls.Config {
		t.Helper()
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			t.Fatal("no certificate")
		}
		return at(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}, "localhost")
	}
	first := load()
	for range 2 {
		if err := shake(t, a.Server("tikv", ""), load()); err != nil {
			t.Fatal(err)
		}
		if err := a.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if err := shake(t, a.Server("tikv", ""), first); err == nil {
		t.Fatal("the first files are still good")
	}
	last := load()
	again := open(t, Config{Dir: dir, Saved: kept, Save: func([]byte) error { return errors.New("nothing is new") }})
	for name, client := range map[string]*tls.Config{"kept": last, "written again": load()} {
		if err := shake(t, again.Server("tikv", ""), client); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "key.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Error(entries, err)
	}
}

// What fails leaves the certificates and the files as they were.
func TestFailures(t *testing.T) {
	dir := t.TempDir()
	var fail error
	a := open(t, Config{Dir: dir, Save: func([]byte) error { return fail }})
	before, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	client := a.Client()
	fail = errors.New("disk full")
	if err := a.Rotate(); !errors.Is(err, fail) {
		t.Fatal(err)
	}
	if err := shake(t, a.Server("tikv", ""), at(client, "localhost")); err != nil {
		t.Error(err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil || string(after) != string(before) {
		t.Error("the file changed", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Error(entries, err)
	}
	for _, bad := range []string{"", "{}", "no JSON", `{"CACert":"QQ=="}`} {
		if _, err := Open(Config{Saved: []byte(bad)}); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: file, Save: func([]byte) error { return nil }}); err == nil {
		t.Error("a file is taken for a directory")
	}
}
