package tikv_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// TestStoresTellOfTheirHealth: what a store says of itself beside its answers reaches the
// client's view of it.
func TestStoresTellOfTheirHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t, playground.WithStores(1))
		c := cluster.Open()
		for _, score := range []float64{1, 90, 40} {
			if err := cluster.SetStore(1, playground.StoreState{SlowScore: score}); err != nil {
				t.Fatal(err)
			}
			for range 3 { // at most one a second on a stream
				put(t, c.Raw(), "k", "v")
				<-time.After(time.Second)
			}
			if got := c.SlowScore(1); got != score {
				t.Errorf("score %v, the store says %v", got, score)
			}
		}
	})
}
