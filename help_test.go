package tikv_test

import (
	"context"
	"testing"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// startCluster starts a cluster in memory that ends with the test.
func startCluster(tb testing.TB, opts ...playground.Option) *playground.Cluster {
	tb.Helper()
	c, err := playground.Start(context.Background(), opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// openClient opens a client that fits the cluster and ends with the test.
func openClient(tb testing.TB, c *playground.Cluster, opts ...tikv.Option) *tikv.Client {
	tb.Helper()
	opts = append([]tikv.Option{tikv.WithDialer(c.DialContext), tikv.WithAPIVersion(tikv.APIVersion(c.APIVersion()))}, opts...)
	client, err := tikv.Open(context.Background(), c.PD(), opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := client.Close(); err != nil {
			tb.Error(err)
		}
	})
	return client
}
