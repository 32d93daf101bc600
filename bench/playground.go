package main

import (
	"context"
	"encoding/json"
	"io"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/bench/internal/harness"
	"github.com/tikv-go/tikv/bench/internal/nullstore"
	"github.com/tikv-go/tikv/playground"
)

// servePlayground is the part that is the embedded cluster: one store that holds every key.
func servePlayground(ctx context.Context, in io.Reader, out io.Writer) error {
	var c nullstore.Config
	orders := json.NewDecoder(in)
	if err := orders.Decode(&c); err != nil {
		return err
	}
	mode := playground.KeyRaw
	if c.Encoded {
		mode = playground.KeyTxn
	}
	d := harness.MakeData(c.Keys, c.KeySize, c.ValueSize, 1)
	var borders [][]byte
	for i := 1; i < c.Regions; i++ {
		borders = append(borders, d.Keys[i*c.Keys/c.Regions])
	}
	cluster, err := playground.Start(ctx, playground.WithTCP("127.0.0.1", 0), playground.WithSplitKeys(mode, borders...))
	if err != nil {
		return err
	}
	defer cluster.Close()
	if err := load(ctx, cluster.PD(), d, c.Encoded); err != nil {
		return err
	}
	return serving(orders, out, address{PD: cluster.PD()})
}

// load writes every key of d to a cluster, as raw or as transactional ones.
func load(ctx context.Context, pd []string, d harness.Data, txn bool) (err error) {
	c, err := tikv.Open(ctx, pd)
	if err != nil {
		return err
	}
	defer func() {
		if closed := c.Close(); err == nil {
			err = closed
		}
	}()
	const part = 1000
	for at := 0; at < len(d.Keys) && err == nil; at += part {
		keys := d.Keys[at:min(at+part, len(d.Keys))]
		if txn {
			err = c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
				for _, k := range keys {
					if err := tx.Put(k, d.Value); err != nil {
						return err
					}
				}
				return nil
			})
			continue
		}
		pairs := make([]tikv.Pair, len(keys))
		for i, k := range keys {
			pairs[i] = tikv.Pair{Key: k, Value: d.Value}
		}
		err = c.Raw().BatchPut(ctx, pairs)
	}
	return err
}
