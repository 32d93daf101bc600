package tikv_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// Options that let more of PD's members than the leader answer.
func TestPDFollowers(t *testing.T) {
	for method, c := range map[string]struct {
		opt tikv.Option
		do  func(*testing.T, *tikv.Client) error
	}{
		"Tso": {tikv.WithTSOFollowerProxy(), func(t *testing.T, c *tikv.Client) error {
			a, err := c.Timestamp(t.Context())
			b, berr := c.Timestamp(t.Context())
			if b <= a {
				t.Errorf("%v after %v", b, a)
			}
			return errors.Join(err, berr)
		}},
		"GetRegion": {tikv.WithPDFollowerReads(), func(t *testing.T, c *tikv.Client) error {
			if _, err := c.Raw().Get(t.Context(), []byte("k")); !errors.Is(err, tikv.ErrNotFound) {
				return err
			}
			return nil
		}},
	} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithMembers(3))
				if err := cluster.TransferPD(0); err != nil {
					t.Fatal(err)
				}
				followers := func(opts ...tikv.Option) (n int) {
					for range 10 {
						client := cluster.Open(opts...)
						trace := cluster.Trace()
						if err := c.do(t, client); err != nil {
							t.Fatal(err)
						}
						for _, call := range trace.Calls() {
							if call.Method == method && call.Node != playground.Member(0) {
								n++
							}
						}
					}
					return n
				}
				if n := followers(); n != 0 {
					t.Errorf("%d calls at followers", n)
				}
				if n := followers(c.opt); n == 0 {
					t.Error("no call at a follower")
				}
			})
		})
	}
}

// Every attempt at PD is in the error, with the member's address.
func TestPDAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithMembers(3))
		client := cluster.Open()
		for i := range 3 {
			if err := cluster.Stop(playground.Member(i)); err != nil {
				t.Fatal(err)
			}
		}
		for name, do := range map[string]func(context.Context) error{
			"Timestamp": func(ctx context.Context) error { _, err := client.Timestamp(ctx); return err },
			"Snapshot":  func(ctx context.Context) error { _, err := client.Snapshot(ctx); return err },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := do(ctx)
			cancel()
			var e *tikv.UnavailableError
			if !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) || len(e.Attempts) < 2 || e.Total < len(e.Attempts) {
				t.Fatalf("%s: %#v", name, err)
			}
			for _, a := range e.Attempts {
				if a.Addr == "" || a.Reason != tikv.ReasonPD || a.Err == nil {
					t.Errorf("%s: %#v", name, a)
				}
			}
		}
	})
}
