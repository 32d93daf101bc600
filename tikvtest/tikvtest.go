// Package tikvtest runs a playground cluster for one test.
//
//	cluster := tikvtest.NewCluster(t, playground.WithStores(3))
//	client := cluster.Open()
//
// Inside testing/synctest's Test the cluster, its network and its clients live in the
// test's bubble, and so in its fake time.
package tikvtest

import (
	"testing"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// Cluster is a playground whose life is a test's. Topology, faults, time (fake inside
// synctest.Test) and inspection are the playground's.
type Cluster struct {
	*playground.Cluster
	tb testing.TB
}

// NewCluster starts an in-memory cluster that tb's cleanup stops; the test fails if
// goroutines of it or of its clients are left.
func NewCluster(tb testing.TB, opts ...playground.Option) *Cluster {
	tb.Helper()
	leak := beginLeakCheck(tb.Context())
	c, err := playground.Start(tb.Context(), opts...)
	if err != nil {
		leak.end()
		tb.Fatalf("tikvtest: %v", err)
	}
	tb.Cleanup(func() {
		tb.Helper()
		if err := c.Close(); err != nil {
			tb.Errorf("tikvtest: closing the cluster: %v", err)
		}
		if left := leak.end(); left != "" {
			tb.Errorf("tikvtest: goroutines are left after the cluster was closed:\n%s", left)
		}
	})
	return &Cluster{Cluster: c, tb: tb}
}

// Open returns a client of the cluster that tb's cleanup closes before the cluster.
func (c *Cluster) Open(opts ...tikv.Option) *tikv.Client {
	c.tb.Helper()
	client, err := tikv.Open(c.tb.Context(), c.PD(), append(c.ClientOptions(), opts...)...)
	if err != nil {
		c.tb.Fatalf("tikvtest: %v", err)
	}
	c.tb.Cleanup(func() {
		c.tb.Helper()
		if err := client.Close(); err != nil {
			c.tb.Errorf("tikvtest: closing a client: %v", err)
		}
	})
	return client
}

// ClientOptions is what a client needs to reach the cluster, for code that calls
// tikv.Open(ctx, c.PD(), …) itself. Of a cluster made WithTLS it has the certificates
// of now.
func (c *Cluster) ClientOptions() []tikv.Option {
	opts := []tikv.Option{tikv.WithDialer(c.DialContext), tikv.WithAPIVersion(tikv.APIVersion(c.APIVersion()))}
	if cfg := c.ClientTLS(); cfg != nil {
		opts = append(opts, tikv.WithTLS(cfg))
	}
	return opts
}
