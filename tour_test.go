package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// The code of the package's page (doc.go) stands here, and runs: internal/lint compares
// the two.

// tour runs a stop of the tour with a client of a cluster that holds nothing.
func tour(stop func(ctx context.Context, client *tikv.Client) error, opts ...tikv.Option) {
	ctx := context.Background()
	cluster, with := exampleCluster(playground.APIV1)
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), append(with, opts...)...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	if err := stop(ctx, client); err != nil {
		fmt.Println(err)
	}
}

// stock commits pairs of keys and values.
func stock(ctx context.Context, client *tikv.Client, pairs ...string) error {
	return client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := tx.Put([]byte(pairs[i]), []byte(pairs[i+1])); err != nil {
				return err
			}
		}
		return nil
	})
}

// The members of PD are not there: this one is compiled, and does not run.
func Example_open() {
	_ = func(ctx context.Context) error {
		client, err := tikv.Open(ctx, []string{"pd1:2379", "pd2:2379", "pd3:2379"})
		if err != nil {
			return err
		}
		defer client.Close()
		return nil
	}
}

func Example_raw() {
	tour(func(ctx context.Context, client *tikv.Client) error {
		raw := client.Raw()
		if err := raw.Put(ctx, []byte("session/1"), []byte("ann")); err != nil {
			return err
		}
		for kv, err := range raw.Scan(ctx, tikv.Prefix([]byte("session/"))) {
			if err != nil {
				return err
			}
			fmt.Printf("%s: %s\n", kv.Key, kv.Value)
		}
		return nil
	})
	// Output: session/1: ann
}

func Example_snapshot() {
	tour(func(ctx context.Context, client *tikv.Client) error {
		if err := stock(ctx, client, "b", "2"); err != nil {
			return err
		}
		snap, err := client.Snapshot(ctx)
		if err != nil {
			return err
		}
		values, err := snap.BatchGet(ctx, [][]byte{[]byte("a"), []byte("b")}) // in this order
		if err != nil {
			return err
		}
		fmt.Println(values[0] == nil, string(values[1]))
		return nil
	})
	// Output: true 2
}

func Example_transaction() {
	tour(func(ctx context.Context, client *tikv.Client) error {
		if err := stock(ctx, client, "account/1", "100"); err != nil {
			return err
		}
		err := client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
			from, err := tx.Get(ctx, []byte("account/1"))
			if err != nil {
				return err
			}
			if err := tx.Delete([]byte("account/1")); err != nil {
				return err
			}
			return tx.Insert([]byte("account/2"), from)
		})
		if err != nil {
			return err
		}
		pairs, err := tikv.Collect(client.Latest().Scan(ctx, tikv.Range{}))
		fmt.Printf("%s\n", pairs)
		return err
	})
	// Output: [{account/2 100}]
}

func Example_locks() {
	tour(func(ctx context.Context, client *tikv.Client) error {
		if err := stock(ctx, client, "stock", "3"); err != nil {
			return err
		}
		err := client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
			stock, err := tx.GetForUpdate(ctx, []byte("stock"), tikv.WithLockWait(time.Second))
			if err != nil {
				return err
			}
			return tx.Put([]byte("stock"), append(stock, '-'))
		}, tikv.WithPessimistic())
		if err != nil {
			return err
		}
		stock, err := client.Latest().Get(ctx, []byte("stock"))
		fmt.Printf("%s\n", stock)
		return err
	})
	// Output: 3-
}

func Example_errors() {
	pay := func(_ context.Context, tx *tikv.Txn) error { return tx.Put([]byte("paid"), []byte("100")) }
	unknown := func(ctx context.Context, client *tikv.Client) error {
		err := client.RunTxn(ctx, pay)
		if errors.Is(err, tikv.ErrUndetermined) {
			at, err := client.ResolveOutcome(ctx, err)
			if err != nil {
				return err // still not known: ask again
			}
			fmt.Println("paid:", at != 0)
		}
		return err
	}
	tour(unknown) // it is known: nothing to say
	// Output:
}

func Example_views() {
	tour(func(ctx context.Context, client *tikv.Client) error {
		nightly := client.Raw(tikv.WithPriority(tikv.PriorityLow), tikv.WithRequestSource("nightly"))
		near, err := client.Snapshot(ctx, tikv.WithReplicaRead(tikv.ReadNearest), tikv.WithMaxStaleness(5*time.Second))
		if err != nil {
			return err
		}
		_, rawErr := nightly.Get(ctx, []byte("a"))
		_, err = near.Get(ctx, []byte("a"))
		fmt.Println(errors.Is(rawErr, tikv.ErrNotFound), errors.Is(err, tikv.ErrNotFound))
		return nil
	})
	// Output: true true
}

type retries struct{ n atomic.Int64 }

func (r *retries) OnRetry(_ context.Context, info tikv.RetryInfo) { r.n.Add(1) }

func Example_hooks() {
	seen := new(retries)
	tour(func(ctx context.Context, client *tikv.Client) error {
		return client.Raw().Put(ctx, []byte("k"), []byte("v"))
	}, tikv.WithHooks(seen))
	fmt.Println(seen.n.Load())
	// Output: 0
}

func Example_anyRequest() {
	tour(func(ctx context.Context, client *tikv.Client) error {
		if err := stock(ctx, client, "a", "1"); err != nil {
			return err
		}
		key := []byte("a")
		resp, err := tikv.Call(ctx, client.RPC(), tikv.ToKey(tikv.KeyTxn, key),
			tikvpb.TikvClient.MvccGetByKey, &kvrpcpb.MvccGetByKeyRequest{Key: key})
		if err != nil {
			return err
		}
		fmt.Println(len(resp.Info.Writes))
		return nil
	})
	// Output: 1
}

func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		client := cluster.Open()
		cluster.Inject(playground.Fault{Method: "RawPut", DropAnswer: true, Times: 1})
		if err := client.Raw().Put(t.Context(), []byte("k"), []byte("v")); err != nil {
			t.Error(err) // 20 s later, which take no time, it is sent again
		}
	})
}
