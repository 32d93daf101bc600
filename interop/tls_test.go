package interop

import (
	"path/filepath"
	"testing"

	"github.com/tikv/client-go/v2/config"
	"github.com/tikv/client-go/v2/rawkv"
)

// The official client over TLS, with the files that the playground keeps, before and after
// a rotation: connections stay, new ones are made with the new files.
func TestOfficialTLS(t *testing.T) {
	dir := t.TempDir()
	c := start(t, "--tls", dir)
	file := func(name string) string { return filepath.Join(dir, name) }
	open := func() *rawkv.Client {
		t.Helper()
		client, err := rawkv.NewClientWithOpts(t.Context(), c.PD,
			rawkv.WithSecurity(config.NewSecurity(file("ca.pem"), file("cert.pem"), file("key.pem"), nil)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		return client
	}
	clients := []*rawkv.Client{open()}
	for _, verb := range []string{"", "renew-tls", "rotate-tls", "rotate-tls"} {
		if verb != "" {
			c.control(t, verb, nil)
			clients = append(clients, open())
		}
		for i, client := range clients {
			if err := client.Put(t.Context(), []byte("k"), []byte{byte(i)}); err != nil {
				t.Fatalf("client %d after %q: %v", i, verb, err)
			}
			if v, err := client.Get(t.Context(), []byte("k")); err != nil || len(v) != 1 || v[0] != byte(i) {
				t.Fatalf("client %d after %q: %v %v", i, verb, v, err)
			}
		}
	}
}
