package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
)

// TLSFiles names the files, in PEM, that TLS goes by. Any may be left out, Cert and Key
// both or neither.
type TLSFiles struct {
	CA        string   // whom to trust; "": whom the system trusts
	Cert, Key string   // what to show; "": nothing
	Names     []string // see AllowNames
}

// FileCredentials are credentials from files that may change. Each handshake goes by
// what was read last; a pool that has them as its Config's looks at the files from time
// to time and moves its connections over.
type FileCredentials struct {
	files TLSFiles
	now   atomic.Pointer[tlsSet]
}

// tlsSet is what was in the files at one moment, and what was made of it.
type tlsSet struct {
	ca, cert, key []byte
	creds         credentials.TransportCredentials
}

// LoadTLS reads the files. Its error is a *FileError.
func LoadTLS(files TLSFiles) (*FileCredentials, error) {
	f := &FileCredentials{files: files}
	set, err := f.load()
	if err != nil {
		return nil, err
	}
	f.now.Store(set)
	return f, nil
}

// FileError is a file of TLSFiles that cannot be used.
type FileError struct {
	Which string // ca, cert or key
	Err   error
}

// Error says which file it is, and what is wrong.
func (e *FileError) Error() string { return e.Which + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

var errNoPEM = errors.New("has no certificate in PEM")

// load reads the files and makes credentials of them.
func (f *FileCredentials) load() (*tlsSet, error) {
	s := &tlsSet{}
	for _, file := range []struct {
		which, path string
		to          *[]byte
	}{{"ca", f.files.CA, &s.ca}, {"cert", f.files.Cert, &s.cert}, {"key", f.files.Key, &s.key}} {
		if file.path == "" {
			continue
		}
		data, err := os.ReadFile(file.path)
		if err != nil {
			return nil, &FileError{file.which, err}
		}
		*file.to = data
	}
	return s, s.build(f.files)
}

func (s *tlsSet) build(files TLSFiles) error {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if files.CA != "" {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(s.ca) {
			return &FileError{"ca", fmt.Errorf("%s %w", files.CA, errNoPEM)}
		}
	}
	if files.Cert != "" {
		pair, err := tls.X509KeyPair(s.cert, s.key)
		if err != nil {
			return &FileError{"cert", err}
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	AllowNames(cfg, files.Names)
	s.creds = credentials.NewTLS(cfg)
	return nil
}

// refresh reads the files again and reports whether they make other credentials than
// before. Files that make none leave the old in use.
func (f *FileCredentials) refresh() (changed bool, err error) {
	next, err := f.load()
	if err != nil {
		return false, err
	}
	old := f.now.Load()
	if bytes.Equal(old.ca, next.ca) && bytes.Equal(old.cert, next.cert) && bytes.Equal(old.key, next.key) {
		return false, nil
	}
	f.now.Store(next)
	return true, nil
}

// ClientHandshake implements credentials.TransportCredentials. A handshake is wholly of
// one moment: roots, certificate and key.
func (f *FileCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return f.now.Load().creds.ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements credentials.TransportCredentials; a client has none.
func (f *FileCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return f.now.Load().creds.ServerHandshake(conn)
}

// Info implements credentials.TransportCredentials.
func (f *FileCredentials) Info() credentials.ProtocolInfo { return f.now.Load().creds.Info() }

// Clone implements credentials.TransportCredentials. A clone goes by the same files.
func (f *FileCredentials) Clone() credentials.TransportCredentials { return f }

// OverrideServerName implements credentials.TransportCredentials.
func (f *FileCredentials) OverrideServerName(string) error {
	return errors.New("transport: the server's name is that of its address")
}

// AllowNames makes cfg refuse servers whose certificate has none of the names, if there
// are any: as its common name, or as a DNS name, IP address, e-mail address or URI
// (SPIFFE) among its alternative names, compared as a whole and without case. Chain and
// host are verified as before, and cfg's own VerifyConnection is asked first.
func AllowNames(cfg *tls.Config, names []string) {
	if len(names) == 0 {
		return
	}
	own, names := cfg.VerifyConnection, slices.Clone(names)
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		if own != nil {
			if err := own(state); err != nil {
				return err
			}
		}
		if len(state.PeerCertificates) == 0 {
			return errors.New("the server shows no certificate")
		}
		has := certificateNames(state.PeerCertificates[0])
		for _, name := range names {
			if slices.ContainsFunc(has, func(h string) bool { return strings.EqualFold(h, name) }) {
				return nil
			}
		}
		return fmt.Errorf("the server's certificate is for %q, none of which is allowed", has)
	}
}

// certificateNames are the names that a certificate is for.
func certificateNames(c *x509.Certificate) []string {
	names := slices.Concat(c.DNSNames, c.EmailAddresses)
	if c.Subject.CommonName != "" {
		names = append(names, c.Subject.CommonName)
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, uri := range c.URIs {
		names = append(names, uri.String())
	}
	return names
}
