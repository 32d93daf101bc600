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
