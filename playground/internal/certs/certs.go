// Package certs certifies the parties of a cluster: an authority, its servers, and the
// one identity that all clients share. The rules are TiKV's (components/security/src/
// lib.rs): both sides show a certificate of the same authority, and new ones count from
// the next handshake on, while connections that are there stay.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
)

// Config is what an Authority stands on.
type Config struct {
	// Saved is what Save had last; nil: nothing yet.
	Saved []byte
	// Save keeps what the authority is, private keys included.
	Save func([]byte) error
	// Dir is where a client's files are kept; empty: nowhere.
	Dir string
}

// Authority is a certificate authority, which may be replaced by another.
type Authority struct {
	cfg    Config
	change sync.Mutex // one at a time
	now    atomic.Pointer[generation]
}

// generation is an authority's certificate and those that it gave out.
type generation struct {
	ca, client *pair
	roots      *x509.CertPool
	servers    sync.Map // subject to *tls.Config
}

type subject struct{ name, host string }

// Open returns the authority that was saved, or a new one, and writes its client's
// files.
func Open(cfg Config) (*Authority, error) {
	a := &Authority{cfg: cfg}
	if cfg.Saved == nil {
		return a, a.Rotate()
	}
	g, err := restore(cfg.Saved)
	if err != nil {
		return nil, fmt.Errorf("playground: the directory's certificates are damaged: %w", err)
	}
	return a, a.become(g, nil)
}

// Rotate replaces the authority itself, and with it every certificate.
func (a *Authority) Rotate() error {
	a.change.Lock()
	defer a.change.Unlock()
	ca, err := issueCA()
	if err != nil {
		return err
	}
	return a.renew(ca)
}

// Renew replaces all certificates but the authority's own. Those that it replaces are
// still good.
func (a *Authority) Renew() error {
	a.change.Lock()
	defer a.change.Unlock()
	return a.renew(a.now.Load().ca)
}

func (a *Authority) renew(ca *pair) error {
	client, err := issueClient(ca)
	if err != nil {
		return err
	}
	return a.become(newGeneration(ca, client), a.cfg.Save)
}

func newGeneration(ca, client *pair) *generation {
	g := &generation{ca: ca, client: client, roots: x509.NewCertPool()}
	g.roots.AddCert(ca.cert)
	return g
}

// become puts a generation in the place of the present one. What is likely to fail is
// done first; servers take it up before clients can find its files.
func (a *Authority) become(g *generation, save func([]byte) error) error {
	var files *staged
	if a.cfg.Dir != "" {
		var err error
		if files, err = stage(a.cfg.Dir, g); err != nil {
			return err
		}
	}
	if save != nil {
		data, err := g.marshal()
		if err == nil {
			err = save(data)
		}
		if err != nil {
			if files != nil {
				files.drop()
			}
			return err
		}
	}
	a.now.Store(g)
	if files == nil {
		return nil
	}
	return files.place()
}

// Client returns what a client needs for handshakes from now until the next Rotate. It
// is the caller's.
func (a *Authority) Client() *tls.Config {
	g := a.now.Load()
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: g.roots.Clone(), Certificates: []tls.Certificate{g.client.tls()},
	}
}

// Server returns what the server called name needs at a host: each handshake goes by
// the present certificates. Nothing is resumed, so that none goes by older ones.
func (a *Authority) Server(name, host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return a.now.Load().server(subject{name, host})
		},
	}
}

func (g *generation) server(of subject) (*tls.Config, error) {
	if cfg, ok := g.servers.Load(of); ok {
		return cfg.(*tls.Config), nil
	}
	p, err := issueServer(g.ca, of.name, of.host)
	if err != nil {
		return nil, err
	}
	cfg, _ := g.servers.LoadOrStore(of, &tls.Config{
		MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{p.tls()}, ClientCAs: g.roots, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	return cfg.(*tls.Config), nil
}

// saved is a generation as it is kept, in PEM.
type saved struct {
	CACert, CAKey, ClientCert, ClientKey []byte
}

func (g *generation) marshal() ([]byte, error) {
	s := saved{CACert: g.ca.certPEM(), ClientCert: g.client.certPEM()}
	var err error
	if s.CAKey, err = g.ca.keyPEM(); err != nil {
		return nil, err
	}
	if s.ClientKey, err = g.client.keyPEM(); err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

func restore(data []byte) (*generation, error) {
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	ca, err := parsePair(s.CACert, s.CAKey)
	if err != nil {
		return nil, err
	}
	client, err := parsePair(s.ClientCert, s.ClientKey)
	if err != nil {
		return nil, err
	}
	return newGeneration(ca, client), nil
}
