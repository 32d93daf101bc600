//go:build !race

package pd

import (
	"sync"
	"testing"
)

// TestTimestampAllocates: nothing for a lone caller; a crowd shares what its batch takes.
func TestTimestampAllocates(t *testing.T) {
	withEcho(t, func(c *Client) {
		ctx := t.Context()
		for callers, limit := range map[int]float64{1: 0.01, 64: 0.5} {
			const each = 200
			least := 1e9
			for range 5 {
				least = min(least, testing.AllocsPerRun(1, func() {
					ask := func() {
						for range each {
							if _, err := c.Timestamp(ctx); err != nil {
								t.Error(err)
							}
						}
					}
					if callers == 1 {
						ask()
						return
					}
					var wg sync.WaitGroup
					for range callers {
						wg.Go(ask)
					}
					wg.Wait()
				})/float64(each*callers))
			}
			if least > limit {
				t.Errorf("%v allocations a timestamp for %d callers", least, callers)
			}
		}
	})
}
