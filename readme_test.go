package tikv_test

import (
	"context"
	"fmt"
	"log"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// The body between the markers is README.md's: internal/lint compares them.
func Example() {
	// README {
	ctx := context.Background()
	cluster, err := playground.Start(ctx) // PD and three stores in this process
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), tikv.WithDialer(cluster.DialContext)) // or tikv.Open(ctx, []string{"127.0.0.1:2379"})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	// Read, change, write: all or nothing, and again if someone else was quicker.
	err = client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
		visits, err := tikv.Optional(tx.Get(ctx, []byte("visits")))
		if err != nil {
			return err
		}
		return tx.Put([]byte("visits"), append(visits, '|'))
	})
	if err != nil {
		log.Fatal(err)
	}
	visits, err := client.Latest().Get(ctx, []byte("visits"))
	fmt.Printf("%s %v\n", visits, err)
	// README }

	// Output: | <nil>
}
