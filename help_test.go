package tikv_test

import (
	"testing"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// startCluster starts a cluster in memory that ends with the test.
func startCluster(tb testing.TB, opts ...playground.Option) *tikvtest.Cluster {
	tb.Helper()
	return tikvtest.NewCluster(tb, opts...)
}

// openClient opens a client that fits the cluster and ends with the test.
func openClient(tb testing.TB, c *tikvtest.Cluster, opts ...tikv.Option) *tikv.Client {
	tb.Helper()
	return c.Open(opts...)
}
