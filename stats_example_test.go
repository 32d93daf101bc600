package tikv_test

import (
	"context"
	"fmt"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// slowLog is a hook that tells of transactions that took long, here of all.
type slowLog struct{}

func (slowLog) StartTxn(ctx context.Context, info tikv.TxnInfo) context.Context {
	return context.WithValue(ctx, slowLog{}, info.Attempt)
}

func (slowLog) EndTxn(ctx context.Context, info tikv.TxnInfo, res tikv.TxnResult) {
	fmt.Printf("attempt %d %v, %v, %d keys in %d region: prewrite %d, commit %d\n", info.Attempt, res.Outcome, res.Protocol,
		res.Keys, res.Regions, res.Stats.ByMethod["KvPrewrite"].RPCs, res.Stats.ByMethod["KvCommit"].RPCs)
}

func ExampleTxnHook() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV1)
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), append(opts, tikv.WithHooks(slowLog{}))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	err = client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
		fmt.Println("in attempt", ctx.Value(slowLog{}))
		return tx.Put([]byte("k"), []byte("v"))
	}, tikv.WithCommitMode(tikv.CommitTwoPhase))
	fmt.Println(err)
	// Output:
	// in attempt 1
	// attempt 1 committed, two-phase, 1 keys in 1 region: prewrite 1, commit 1
	// <nil>
}

func ExampleRecorder() {
	ctx := context.Background()
	cluster, opts := exampleCluster(playground.APIV1)
	defer cluster.Close()
	client, err := tikv.Open(ctx, cluster.PD(), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	if err := client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
		for _, k := range []string{"a", "b", "c"} {
			if err := tx.Put([]byte(k), []byte("12345")); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		fmt.Println(err)
		return
	}

	var cost tikv.Recorder
	snap := client.Latest(tikv.WithRecorder(&cost))
	if _, err := snap.BatchGet(ctx, [][]byte{[]byte("a"), []byte("b"), []byte("z")}); err != nil {
		fmt.Println(err)
		return
	}
	s := cost.Reset()
	fmt.Println(s.RPCs, "request for", s.Keys, "keys;", s.Server.ProcessedKeys, "read of", s.Server.ProcessedBytes, "bytes, retries:", s.Retries)
	fmt.Println(cost.Stats())
	// Output:
	// 1 request for 3 keys; 2 read of 28 bytes, retries: 0
	// 0 RPCs
}
