package playground

import (
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tikv-go/tikv/playground/internal/certs"
	"github.com/tikv-go/tikv/playground/internal/meta"
)

// WithTLS lets PD and the stores speak TLS, with certificates of an authority that the
// cluster makes for itself, and only with clients that show one of it (ClientTLS). A
// directory (WithDir) keeps the authority, so that the certificates of its clients
// outlive a restart; whether TLS is spoken is said at each Start.
func WithTLS() Option { return option(func(c *config) { c.tls = true }) }

// WithTLSFiles is WithTLS for clients that read files: it keeps ca.pem, cert.pem and
// key.pem in a directory, which is made if it is not there. RotateTLS and RenewTLS
// replace each of them at once, cert.pem last.
func WithTLSFiles(dir string) Option {
	return option(func(c *config) {
		if c.tls, c.tlsFiles = true, dir; dir == "" {
			c.refuse("WithTLSFiles: no path")
		}
	})
}

// certify makes the cluster's authority, or takes the one that its directory has.
func (c *Cluster) certify(m *meta.Store, cfg *config) (err error) {
	if !cfg.tls {
		return nil
	}
	saved, _ := m.Value("tls")
	c.certs, err = certs.Open(certs.Config{
		Saved: saved, Dir: cfg.tlsFiles,
		Save: func(data []byte) error { return m.SetValue("tls", data) },
	})
	return err
}

// credentials are what a server needs that will be at addr.
func (c *Cluster) credentials(name, addr string) []grpc.ServerOption {
	if c.certs == nil {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(c.certs.Server(name, host)))}
}

// ClientTLS returns what a client of a cluster made WithTLS needs, nil for any other
// cluster. It is good until RotateTLS, and the caller's to change.
func (c *Cluster) ClientTLS() *tls.Config {
	if c.certs == nil {
		return nil
	}
	return c.certs.Client()
}

// RotateTLS replaces the cluster's authority and all certificates, also in the files of
// WithTLSFiles. Connections stay as they are; from the next handshake on the servers
// show the new certificates and take no others.
func (c *Cluster) RotateTLS() error { return c.newCerts("rotate-tls", (*certs.Authority).Rotate) }

// RenewTLS replaces all certificates but the authority's own, also in the files of
// WithTLSFiles. Those that clients have already are good as before.
func (c *Cluster) RenewTLS() error { return c.newCerts("renew-tls", (*certs.Authority).Renew) }

var errNoTLS = errors.New("playground: the cluster was started without TLS")

func (c *Cluster) newCerts(do string, f func(*certs.Authority) error) (err error) {
	defer c.note(do, struct{}{}, &err)()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return errClosed
	case c.certs == nil:
		return errNoTLS
	}
	if err := f(c.certs); err != nil {
		return err
	}
	c.logger.Info("certificates replaced")
	return nil
}
