package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// exampleCluster starts a cluster in this process for an example to work on. A program
// of yours has its own.
func exampleCluster(v playground.APIVersion) (c *playground.Cluster, opts []tikv.Option) {
	c, err := playground.Start(context.Background(), playground.WithAPIVersion(v))
	if err != nil {
		panic(err)
	}
	return c, []tikv.Option{tikv.WithDialer(c.DialContext), tikv.WithAPIVersion(tikv.APIVersion(v))}
}

func ExampleOpen() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV1)
	defer cluster.Close()

	// With a cluster of your own: tikv.Open(ctx, []string{"127.0.0.1:2379"})
	client, err := tikv.Open(ctx, cluster.PD(), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	fmt.Println(client.ClusterID() == cluster.ID())
	// Output: true
}

func ExampleOpenURL() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV2)
	defer cluster.Close()

	client, err := tikv.OpenURL(ctx, "tikv://"+cluster.PD()[0]+"/?api=v2", opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	_, err = tikv.OpenURL(ctx, "tikv://127.0.0.1/?disableGC=true")
	fmt.Println(errors.Is(err, tikv.ErrInvalid), err)
	// Output: true tikv: OpenURL: url has an unknown parameter "disableGC"
}

func ExampleClient_Raw() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV1TTL)
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	raw := client.Raw()
	if err := raw.Put(ctx, []byte("session"), []byte("alice"), tikv.WithTTL(time.Hour)); err != nil {
		fmt.Println(err)
		return
	}
	v, err := raw.Get(ctx, []byte("session"))
	fmt.Printf("%s %v\n", v, err)
	_, err = raw.Get(ctx, []byte("nobody"))
	fmt.Println(errors.Is(err, tikv.ErrNotFound))
	// Output:
	// alice <nil>
	// true
}

func ExampleRaw_Scan() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV1)
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	raw := client.Raw()
	err = raw.BatchPut(ctx, []tikv.Pair{
		{Key: []byte("user/1"), Value: []byte("alice")},
		{Key: []byte("user/2"), Value: []byte("bob")},
		{Key: []byte("user/3"), Value: []byte("carol")},
		{Key: []byte("vault"), Value: []byte("gold")},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for kv, err := range raw.Scan(ctx, tikv.Prefix([]byte("user/")), tikv.WithReverse(), tikv.WithLimit(2)) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s = %s\n", kv.Key, kv.Value)
	}
	// Output:
	// user/3 = carol
	// user/2 = bob
}

func ExampleAtomicRaw_CompareAndSwap() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV1)
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	raw := client.AtomicRaw()
	_, mine, err := raw.PutIfAbsent(ctx, []byte("lock"), []byte("me"))
	fmt.Println(mine, err)
	prev, swapped, err := raw.CompareAndSwap(ctx, []byte("lock"), []byte("you"), []byte("them"))
	fmt.Printf("%s %v %v\n", prev, swapped, err)
	// Output:
	// true <nil>
	// me false <nil>
}

func ExampleOptional() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV1)
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	v, err := tikv.Optional(client.Raw().Get(ctx, []byte("absent")))
	fmt.Println(v == nil, err)
	// Output: true <nil>
}

func ExampleClient_Begin() {
	tour(func(ctx context.Context, client *tikv.Client) error {
		tx, err := client.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx) // does nothing after Commit
		if err := tx.Insert([]byte("user/7"), []byte("ann")); err != nil {
			return err
		}
		if err := tx.Commit(ctx); err != nil {
			return err
		}
		at, ok := tx.CommitTS()
		fmt.Println(ok, at > tx.StartTS())
		return nil
	})
	// Output: true true
}

// A statement that reads a row and then locks it runs again where someone else has
// committed meanwhile, and does not lose its place in the queue for the row.
func ExampleTxn_FairLock() {
	tour(func(ctx context.Context, client *tikv.Client) error {
		if err := stock(ctx, client, "row", "1"); err != nil {
			return err
		}
		tx, err := client.Begin(ctx, tikv.WithPessimistic())
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if err := stock(ctx, client, "row", "2"); err != nil { // by someone else
			return err
		}
		fair, err := tx.FairLock()
		if err != nil {
			return err
		}
		defer fair.Cancel(ctx) // does nothing after Done
		for at := tx.StartTS(); ; {
			// The statement, on what was committed by at, would come here.
			rows, err := tx.BatchGetForUpdate(ctx, [][]byte{[]byte("row")})
			if err != nil {
				return err
			}
			if rows[0].ConflictTS <= at {
				fmt.Printf("locked at %s\n", rows[0].Value)
				break
			}
			fmt.Printf("locked, and by now it is %s: again\n", rows[0].Value)
			at = rows[0].ConflictTS
			if err := fair.Retry(ctx); err != nil {
				return err
			}
		}
		if err := fair.Done(ctx); err != nil {
			return err
		}
		return tx.Commit(ctx)
	})
	// Output:
	// locked, and by now it is 2: again
	// locked at 2
}

func ExampleBatchError() {
	tour(func(ctx context.Context, client *tikv.Client) error {
		full := errors.New("the disk quota is used up")
		raw := client.Raw(tikv.WithInterceptors(func(_ context.Context, info tikv.CallInfo, _ *tikv.CallContext) error {
			if info.Write {
				return full
			}
			return nil
		}))
		err := raw.BatchPut(ctx, []tikv.Pair{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("b"), Value: []byte("2")}})
		var batch *tikv.BatchError
		if errors.As(err, &batch) {
			fmt.Println(batch.Outcomes, errors.Is(err, full), tikv.NotSent(err))
		}
		return nil
	})
	// Output: [failed failed] true true
}

// A transaction of any size: what is written goes to the cluster meanwhile, and shows when
// it commits.
func ExampleWithPipelined() {
	tour(func(ctx context.Context, client *tikv.Client) error {
		tx, err := client.Begin(ctx, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(1000, 1<<20))
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx) // does nothing after Commit
		for i := range 2500 {
			if err := tx.Put(fmt.Appendf(nil, "row%04d", i), []byte("new")); err != nil {
				return err // of a flush: a conflict, say
			}
		}
		first, err := tx.Get(ctx, []byte("row0000")) // its own, from the cluster
		if err != nil {
			return err
		}
		if err := tx.Commit(ctx); err != nil {
			return err
		}
		fmt.Printf("%s, %d keys flushed\n", first, tx.Progress().Keys)
		return nil
	})
	// Output: new, 2500 keys flushed
}
