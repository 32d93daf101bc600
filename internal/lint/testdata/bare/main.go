// Command bare links what every client of TiKV must: gRPC and the two services.
package main

import (
	"context"
	"fmt"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	conn, err := grpc.NewClient("127.0.0.1:2379", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Println(pdpb.NewPDClient(conn).GetMembers(context.Background(), &pdpb.GetMembersRequest{}))
	fmt.Println(tikvpb.NewTikvClient(conn).BatchCommands(context.Background()))
}
