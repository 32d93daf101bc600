package tikvtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/playground"
)

// Counters are incremented while regions split, leaders move and stores stop: the sum is
// that of the increments that were acknowledged, or one more for each whose outcome is
// not known.
func TestCountersSurviveTheWeather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCluster(t, playground.WithSplitKeys(playground.KeyTxn, []byte("c3")))
		client := c.Open()
		c.Inject(playground.Fault{Method: "KvPrewrite", Delay: 30 * time.Millisecond}) // else no time passes
		const workers, counters, rounds = 6, 8, 60
		key := func(i int) []byte { return fmt.Appendf(nil, "c%d", i) }
		acknowledged := make([]int, workers)
		unknown := make([]int, workers)
		weather := task.New(t.Context())
		weather.Go("weather", func(ctx context.Context) {
			r := rand.New(rand.NewPCG(1, 2))
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Duration(20+r.IntN(200)) * time.Millisecond):
				}
				regions := c.Regions(playground.KeyTxn)
				pick := regions[r.IntN(len(regions))]
				store := r.Uint64N(3) + 1
				switch r.IntN(4) {
				case 0:
					if _, err := c.Split(playground.KeyTxn, fmt.Appendf(nil, "c%d", r.IntN(80))); err != nil {
						t.Error(err)
					}
				case 1:
					_ = c.TransferLeader(pick.ID, store) // may be there, or stopped
				case 2:
					if err := c.Stop(playground.Store(store)); err != nil {
						t.Error(err)
					}
					<-time.After(time.Duration(1+r.IntN(500)) * time.Millisecond)
					if err := c.Start(playground.Store(store)); err != nil {
						t.Error(err)
					}
				case 3:
					c.Inject(playground.Fault{Method: "KvCommit", Times: 1, DropAnswer: true})
				}
			}
		})
		err := task.Each(t.Context(), 0, workers, func(ctx context.Context, w int) error {
			r := rand.New(rand.NewPCG(uint64(w), 3))
			for range rounds {
				k := key(r.IntN(counters))
				err := client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
					v, err := tx.Get(ctx, k)
					if err != nil && !errors.Is(err, tikv.ErrNotFound) {
						return err
					}
					n, _ := strconv.Atoi(string(v))
					return tx.Put(k, strconv.AppendInt(nil, int64(n+1), 10))
				})
				switch {
				case err == nil:
					acknowledged[w]++
				case errors.Is(err, tikv.ErrUndetermined):
					unknown[w]++
				default:
					t.Log(err)
				}
			}
			return nil
		})
		weather.Close(nil)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute) // copies that are late have come
		synctest.Wait()
		sum, low, high := 0, 0, 0
		snap, err := client.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range counters {
			v, err := snap.Get(t.Context(), key(i))
			if err != nil && !errors.Is(err, tikv.ErrNotFound) {
				t.Fatal(err)
			}
			n, _ := strconv.Atoi(string(v))
			sum += n
		}
		for w := range workers {
			low += acknowledged[w]
			high += acknowledged[w] + unknown[w]
		}
		n := c.Counts()
		t.Logf("sum %d in [%d, %d]; %d commits, %d conflicts, %d splits, %d moves, %d starts, %d dropped", sum, low, high, n.Commits, n.Conflicts, n.Splits, n.LeaderMoves, n.Starts, n.Dropped)
		if sum < low || sum > high || low == 0 {
			t.Fatal("increments were lost or doubled")
		}
		if n.Commits != sum {
			t.Fatalf("%d commits were counted, %d happened", n.Commits, sum)
		}
	})
}
