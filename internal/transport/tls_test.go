package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// certificate makes a self-signed certificate for a host, and the pool that trusts it.
func certificate(t *testing.T, host string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestTLS: both sides show a certificate. The name that is checked is that of the
// address, not of what the address map makes of it.
func TestTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, serverPool := certificate(t, "store1")
		client, clientPool := certificate(t, "client")
		n := newNetwork()
		n.serve(t, "10.0.0.1:20160", &store{batch: echo(nil)}, grpc.Creds(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{server}, ClientCAs: clientPool, ClientAuth: tls.RequireAndVerifyClientCert,
		})))
		for name, c := range map[string]struct {
			tls *tls.Config
			ok  bool
		}{
			"trusted":          {&tls.Config{RootCAs: serverPool, Certificates: []tls.Certificate{client}}, true},
			"unknown server":   {&tls.Config{RootCAs: clientPool, Certificates: []tls.Certificate{client}}, false},
			"other host":       {&tls.Config{RootCAs: serverPool, ServerName: "store2", Certificates: []tls.Certificate{client}}, false},
			"unknown client":   {&tls.Config{RootCAs: serverPool, Certificates: []tls.Certificate{server}}, false},
			"no encryption":    {nil, false},
			"no client at all": {&tls.Config{RootCAs: serverPool}, false},
		} {
			p := New(Config{Dial: n.dial, Credentials: credentials.NewTLS(c.tls), AddressMap: func(string) string { return "10.0.0.1:20160" }})
			began := time.Now()
			r := <-start(t.Context(), p, rawGet("k"))
			if c.ok {
				wantValue(t, r, "k")
			} else if r.err == nil {
				t.Errorf("%s: accepted", name)
			} else if e := r.err.(*Error); e.Kind != Dial || e.Sent {
				t.Errorf("%s: %v, sent %v", name, e, e.Sent)
			}
			if d := time.Since(began); d > DefaultDialTimeout {
				t.Errorf("%s: took %v", name, d)
			}
			p.Close()
		}
	})
}
