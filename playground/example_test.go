package playground_test

import (
	"context"
	"fmt"
	"log"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

func ExampleStart() {
	ctx := context.Background()
	cluster, err := playground.Start(ctx, playground.WithStores(3))
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), tikv.WithDialer(cluster.DialContext))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	if err := client.Raw().Put(ctx, []byte("k"), []byte("v")); err != nil {
		log.Fatal(err)
	}
	if _, err := cluster.Split(playground.KeyRaw, []byte("m")); err != nil {
		log.Fatal(err)
	}
	value, err := client.Raw().Get(ctx, []byte("k"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, in one of %d regions\n", value, len(cluster.Regions(playground.KeyRaw)))
	// Output: v, in one of 2 regions
}
