package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// authority gives out certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// issue makes a certificate, the authority's own at first.
func (a *authority) issue(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// pair makes a certificate for a host, or for a client.
func (a *authority) pair(template *x509.Certificate) (certPEM, keyPEM []byte) {
	a.t.Helper()
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	cert, key := a.issue(template)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// tlsServer is a store that shows certificates of an authority that may change, and
// wants them of clients, if mutual.
type tlsServer struct {
	now    atomic.Pointer[tls.Config]
	mutual bool
}

func (s *tlsServer) trust(a *authority) {
	cert, err := tls.X509KeyPair(a.pair(&x509.Certificate{DNSNames: []string{"store1"}, Subject: pkix.Name{CommonName: "tikv"},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "cluster", Path: "/store"}}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}))
	if err != nil {
		a.t.Fatal(err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}
	if s.mutual {
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, a.roots()
	}
	s.now.Store(cfg)
}

func (s *tlsServer) option() grpc.ServerOption {
	return grpc.Creds(credentials.NewTLS(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.now.Load(), nil }}))
}

// tlsDir is a client's files.
type tlsDir struct {
	TLSFiles
	t *testing.T
}

func newTLSDir(t *testing.T, mutual bool) *tlsDir {
	dir := t.TempDir()
	d := &tlsDir{TLSFiles{CA: filepath.Join(dir, "ca")}, t}
	if mutual {
		d.Cert, d.Key = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	}
	return d
}

func (d *tlsDir) write(path string, data []byte) {
	d.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// trust replaces the files, with a look at them possible in between.
func (d *tlsDir) trust(a *authority, between func()) {
	d.write(d.CA, a.pem())
	if d.Cert == "" {
		return
	}
	cert, key := a.pair(&x509.Certificate{Subject: pkix.Name{CommonName: "client"}})
	d.write(d.Key, key)
	between()
	d.write(d.Cert, cert)
}

// tlsBubble runs f with a server and a pool that goes by files, both of one authority.
func tlsBubble(t *testing.T, mutual bool, f func(t *testing.T, n *network, p *Pool, s *tlsServer, d *tlsDir, log *journal)) {
	synctest.Test(t, func(t *testing.T) {
		a, s, d, log := newAuthority(t), &tlsServer{mutual: mutual}, newTLSDir(t, mutual), &journal{}
		s.trust(a)
		d.trust(a, func() {})
		creds, err := LoadTLS(d.TLSFiles)
		if err != nil {
			t.Fatal(err)
		}
		n := newNetwork()
		n.serve(t, addr, &store{batch: echo(nil)}, s.option())
		p := New(Config{Dial: n.dial, Credentials: creds, Logger: slog.New(slog.NewTextHandler(log, nil))})
		t.Cleanup(p.Close)
		f(t, n, p, s, d, log)
	})
}

// journal keeps what was logged.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), text)
}

func tryCall(t *testing.T, p *Pool) error {
	return p.Call(t.Context(), Target{Addr: addr, Timeout: 30 * time.Second}, rawGet("k"), &kvrpcpb.RawGetResponse{})
}

func mustCall(t *testing.T, p *Pool) {
	t.Helper()
	if err := tryCall(t, p); err != nil {
		t.Fatal(err)
	}
}

// TestRotation: under calls of all kinds the authority and all certificates change; no
// call notices, and in the end all goes over a connection of the new ones.
func TestRotation(t *testing.T) {
	for name, mutual := range map[string]bool{"mutual": true, "server alone": false} {
		t.Run(name, func(t *testing.T) {
			tlsBubble(t, mutual, func(t *testing.T, n *network, p *Pool, s *tlsServer, d *tlsDir, log *journal) {
				var failed atomic.Pointer[error]
				var calls atomic.Int64
				stop := make(chan struct{})
				for _, req := range []Message{rawGet("k"), &kvrpcpb.StoreSafeTSRequest{}} {
					go func() {
						for {
							select {
							case <-stop:
								return
							case <-time.After(100 * time.Millisecond):
							}
							if _, err := ask(t.Context(), p, addr, req); err != nil {
								failed.Store(&err)
							}
							calls.Add(1)
						}
					}()
				}
				advance(t, time.Second)
				for round := range 3 {
					a := newAuthority(t)
					s.trust(a)
					d.trust(a, func() { advance(t, RefreshEvery) }) // they do not fit each other for a while
					advance(t, 2*RefreshEvery)
					if got, want := n.dialled(addr), round+2; got != want && !mutual || got < want {
						t.Errorf("%d connections after %d rotations", got, round+1)
					}
				}
				close(stop)
				advance(t, DrainLimit+2*drainGrace)
				if err := failed.Load(); err != nil || calls.Load() < 1000 {
					t.Errorf("%d calls, the last failure: %v", calls.Load(), *err)
				}
				if mutual && log.count("level=WARN") == 0 || !mutual && log.count("level=WARN") != 0 {
					t.Error(log.text.String())
				}
				if n := n.open(addr); n != 1 {
					t.Errorf("%d connections are left", n)
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				if len(p.draining) != 0 {
					t.Error("an endpoint is left")
				}
			})
		})
	}
}

// TestOldAuthorityIsRefused: after the files name another authority, a server of the old
// one is no longer spoken to; the connection that is there stays until there is another.
func TestOldAuthorityIsRefused(t *testing.T) {
	tlsBubble(t, true, func(t *testing.T, n *network, p *Pool, s *tlsServer, d *tlsDir, log *journal) {
		mustCall(t, p)
		a := newAuthority(t)
		d.trust(a, func() {})
		advance(t, 3*RefreshEvery)
		mustCall(t, p)
		if log.count("the old one stays") == 0 || !strings.Contains(log.text.String(), "unknown authority") {
			t.Error(log.text.String())
		}
		n.cut(addr)
		synctest.Wait()
		err := tryCall(t, p)
		wantError(t, err, Dial, false, nil)
		if !strings.Contains(err.Error(), "unknown authority") {
			t.Error(err)
		}
		s.trust(a)
		advance(t, RefreshEvery)
		mustCall(t, p)
	})
}

// TestBrokenFiles: files that cannot be used change nothing, and are complained of once.
func TestBrokenFiles(t *testing.T) {
	tlsBubble(t, true, func(t *testing.T, n *network, p *Pool, s *tlsServer, d *tlsDir, log *journal) {
		mustCall(t, p)
		good, err := os.ReadFile(d.Cert)
		if err != nil {
			t.Fatal(err)
		}
		for i, breakIt := range []func(){
			func() { d.write(d.Cert, []byte("nonsense")) },
			func() { d.write(d.Cert, nil) },
			func() { os.Remove(d.Cert) },
		} {
			breakIt()
			advance(t, 10*RefreshEvery)
			n.cut(addr)
			synctest.Wait()
			mustCall(t, p)
			if said := log.count("cannot be used"); said > i+1 || said == 0 {
				t.Errorf("said %d times", said)
			}
		}
		d.write(d.Cert, good)
		said := log.count("cannot be used")
		advance(t, 2*RefreshEvery)
		mustCall(t, p)
		if log.count("cannot be used") != said {
			t.Error("said again")
		}
	})
}

// TestRotationIsBounded: a call that does not end has its connection for DrainLimit and
// loses it then; a pool that is closed meanwhile leaves nothing.
func TestRotationIsBounded(t *testing.T) {
	for name, closed := range map[string]bool{"drained": false, "closed": true} {
		t.Run(name, func(t *testing.T) {
			tlsBubble(t, false, func(t *testing.T, n *network, p *Pool, s *tlsServer, d *tlsDir, _ *journal) {
				n.unlisten(addr)
				n.serve(t, addr, &store{batch: mute}, s.option())
				lost := start(t.Context(), p, rawGet("k"))
				synctest.Wait()
				a := newAuthority(t)
				s.trust(a)
				began := time.Now()
				d.trust(a, func() {})
				if closed {
					advance(t, 2*RefreshEvery)
					p.Close()
					wantError(t, (<-lost).err, Closed, true, ErrClosed)
					return
				}
				wantError(t, (<-lost).err, ConnLost, true, ErrDropped)
				if took := time.Since(began); took < DrainLimit || took > DrainLimit+RefreshEvery+drainGrace {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestLoadTLS(t *testing.T) {
	a, d := newAuthority(t), newTLSDir(t, true)
	d.trust(a, func() {})
	none, empty := filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "empty")
	d.write(empty, nil)
	for want, files := range map[string]TLSFiles{
		"":      d.TLSFiles,
		"ca":    {CA: none, Cert: d.Cert, Key: d.Key},
		"ca:":   {CA: empty, Cert: d.Cert, Key: d.Key},
		"cert":  {CA: d.CA, Cert: none, Key: d.Key},
		"key":   {CA: d.CA, Cert: d.Cert, Key: none},
		"cert:": {CA: d.CA, Cert: d.Cert, Key: empty},
	} {
		_, err := LoadTLS(files)
		var bad *FileError
		if errors.As(err, &bad) != (want != "") || bad != nil && bad.Which != strings.TrimSuffix(want, ":") {
			t.Errorf("%+v: %v", files, err)
		}
	}
	if _, err := LoadTLS(TLSFiles{}); err != nil {
		t.Error(err)
	}
}

// TestAllowNames: a server may have any of the names, of whichever kind.
func TestAllowNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, s, n := newAuthority(t), &tlsServer{}, newNetwork()
		s.trust(a)
		n.serve(t, addr, &store{batch: echo(nil)}, s.option())
		own := errors.New("not mine")
		for name, c := range map[string]struct {
			names []string
			own   error
			want  string
		}{
			"none given":  {nil, nil, ""},
			"common name": {[]string{"other", "TIKV"}, nil, ""},
			"host":        {[]string{"store1"}, nil, ""},
			"URI":         {[]string{"spiffe://cluster/store"}, nil, ""},
			"IP":          {[]string{"10.0.0.1"}, nil, ""},
			"part":        {[]string{"tik", "store", "spiffe://cluster/"}, nil, "none of which is allowed"},
			"one's own":   {[]string{"tikv"}, own, "not mine"},
		} {
			cfg := &tls.Config{RootCAs: a.roots()}
			if c.own != nil {
				cfg.VerifyConnection = func(tls.ConnectionState) error { return c.own }
			}
			AllowNames(cfg, c.names)
			p := New(Config{Dial: n.dial, Credentials: credentials.NewTLS(cfg)})
			err := tryCall(t, p)
			p.Close()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
