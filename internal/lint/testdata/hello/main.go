// Command hello opens a client, gets a key and commits a transaction.
package main

import (
	"context"
	"fmt"

	"github.com/tikv-go/tikv"
)

func main() {
	if err := hello(context.Background()); err != nil {
		fmt.Println(err)
	}
}

func hello(ctx context.Context) error {
	client, err := tikv.Open(ctx, []string{"127.0.0.1:2379"})
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := tikv.Optional(client.Raw().Get(ctx, []byte("k"))); err != nil {
		return err
	}
	return client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put([]byte("k"), []byte("v")) })
}
