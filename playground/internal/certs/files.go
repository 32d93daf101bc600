package certs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// The files of a client. Of a new set the certificate is the last to appear: TiKV looks
// at its file's time to see that there is one (components/security/src/lib.rs,
// is_modified), and who does the same finds the others in place.
const (
	caFile   = "ca.pem"
	keyFile  = "key.pem"
	certFile = "cert.pem"
)

// staged are files that are written, and not in place yet.
type staged struct{ from, to []string }

// stage writes a client's files beside those in place.
func stage(dir string, g *generation) (*staged, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("playground: %w", err)
	}
	key, err := g.client.keyPEM()
	if err != nil {
		return nil, err
	}
	s := new(staged)
	for _, f := range []struct {
		name string
		data []byte
	}{{caFile, g.ca.certPEM()}, {keyFile, key}, {certFile, g.client.certPEM()}} {
		if err := s.write(filepath.Join(dir, f.name), f.data); err != nil {
			s.drop()
			return nil, fmt.Errorf("playground: %w", err)
		}
	}
	return s, nil
}

// write makes a file that only its owner reads, as os.CreateTemp does.
func (s *staged) write(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	s.from, s.to = append(s.from, f.Name()), append(s.to, path)
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// place puts the files in the place of the old ones, each at once.
func (s *staged) place() error {
	for i, from := range s.from {
		if err := os.Rename(from, s.to[i]); err != nil {
			s.drop()
			return fmt.Errorf("playground: %w", err)
		}
	}
	return nil
}

func (s *staged) drop() {
	for _, name := range s.from {
		_ = os.Remove(name) // it may be in place already
	}
}
