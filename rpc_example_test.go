package tikv_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// exampleRPC starts a cluster with two regions that count pairs for the coprocessor, and
// opens a client of it.
func exampleRPC(ctx context.Context) (*playground.Cluster, *tikv.Client) {
	cluster, err := playground.Start(ctx, playground.WithAPIVersion(playground.APIV2), playground.WithSplitKeys(playground.KeyTxn, []byte("m")),
		playground.WithCoprocessor(103, func(_ context.Context, plan []byte, pairs [][2][]byte) ([]byte, error) {
			return fmt.Appendf(nil, "%s of %d pairs", plan, len(pairs)), nil
		}))
	if err != nil {
		panic(err)
	}
	client, err := tikv.Open(ctx, cluster.PD(), tikv.WithDialer(cluster.DialContext), tikv.WithAPIVersion(tikv.APIV2))
	if err != nil {
		panic(err)
	}
	for _, key := range []string{"a", "b", "x"} {
		if err := client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put([]byte(key), []byte("1")) }); err != nil {
			panic(err)
		}
	}
	return cluster, client
}

func ExampleCall() {
	ctx := context.Background()
	cluster, client := exampleRPC(ctx)
	defer cluster.Close()
	defer client.Close()

	key := []byte("a")
	resp, err := tikv.Call(ctx, client.RPC(), tikv.ToKey(tikv.KeyTxn, key), tikvpb.TikvClient.MvccGetByKey, &kvrpcpb.MvccGetByKeyRequest{Key: key})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(resp.Info.Writes), "version")
	// Output: 1 version
}

func ExampleCallRange() {
	ctx := context.Background()
	cluster, client := exampleRPC(ctx)
	defer cluster.Close()
	defer client.Close()

	snap, err := client.Snapshot(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	rpc := client.RPC(tikv.WithReadAt(snap))
	plan := &coprocessor.Request{Tp: 103, Data: []byte("count")}
	for part, err := range tikv.CallRange(ctx, rpc, tikv.KeyTxn, tikv.Range{}, tikvpb.TikvClient.Coprocessor, plan) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("[%s, %s): %s\n", part.Range.Start, part.Range.End, part.Reply.Data)
	}
	// Output:
	// [, m): count of 2 pairs
	// [m, ): count of 1 pairs
}

func ExampleCallStream() {
	ctx := context.Background()
	cluster, client := exampleRPC(ctx)
	defer cluster.Close()
	defer client.Close()

	snap, err := client.Snapshot(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	req := &coprocessor.Request{Tp: 103, Data: []byte("page"), Ranges: []*coprocessor.KeyRange{{Start: []byte("a"), End: []byte("c")}}}
	to := tikv.ToKey(tikv.KeyTxn, []byte("a"))
	for page, err := range tikv.CallStream(ctx, client.RPC(tikv.WithReadAt(snap)), to, tikvpb.TikvClient.CoprocessorStream, req) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s\n", page.Data)
	}
	// Output: page of 2 pairs
}

func ExampleWithInterceptors() {
	ctx := context.Background()
	cluster, client := exampleRPC(ctx)
	defer cluster.Close()
	defer client.Close()

	errReadOnly := errors.New("this view is for reading")
	raw := client.Raw(tikv.WithInterceptors(func(_ context.Context, info tikv.CallInfo, call *tikv.CallContext) error {
		if info.Write {
			return errReadOnly
		}
		call.Priority = tikv.PriorityLow
		return nil
	}))
	_, err := tikv.Optional(raw.Get(ctx, []byte("k")))
	fmt.Println(err)
	err = raw.Put(ctx, []byte("k"), []byte("v"))
	fmt.Println(errors.Is(err, errReadOnly), tikv.NotSent(err))
	// Output:
	// <nil>
	// true true
}
