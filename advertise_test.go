package tikv_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// TestUnreachableAddress: a store advertises an address that nobody can reach from here,
// as in a container. The error names it, what the address map made of it, and what
// dialling that gave; refused or swallowed, within the caller's time.
func TestUnreachableAddress(t *testing.T) {
	const advertised, mapped = "tikv-0.tikv.svc:20160", "192.0.2.7:20160"
	for name, c := range map[string]struct {
		dial func(ctx context.Context) error
		want string
	}{
		"refused":   {func(context.Context) error { return errors.New("no route to host") }, "no route to host"},
		"swallowed": {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, "context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithStores(1))
				if err := cluster.SetStore(1, playground.StoreState{Advertise: advertised}); err != nil {
					t.Fatal(err)
				}
				client := cluster.Open(
					tikv.WithAddressMap(func(a string) string {
						if a == advertised {
							return mapped
						}
						return a
					}),
					tikv.WithDialer(func(ctx context.Context, addr string) (net.Conn, error) {
						if addr == mapped {
							return nil, c.dial(ctx)
						}
						return cluster.DialContext(ctx, addr)
					}))
				ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
				defer cancel()
				began := time.Now()
				_, err := client.Raw().Get(ctx, []byte("k"))
				if !errors.Is(err, tikv.ErrUnavailable) || !tikv.NotSent(err) {
					t.Fatal(err)
				}
				for _, want := range []string{"dialling " + mapped + ", to which " + advertised + " is mapped", c.want} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%v lacks %q", err, want)
					}
				}
				if d := time.Since(began); d > 12*time.Second {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}
