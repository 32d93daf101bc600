package pd

import (
	"context"
	"errors"
	"fmt"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv/internal/codec"
)

// DefaultKeyspace is the keyspace that every cluster of API V2 has.
const DefaultKeyspace = "DEFAULT"

// Keyspace returns a keyspace by name, "" being DefaultKeyspace, whatever its state. The
// error for a name that none has matches ErrKeyspaceNotFound; PD says so also of one
// whose first regions are not split off yet.
func (c *Client) Keyspace(ctx context.Context, name string) (*keyspacepb.KeyspaceMeta, error) {
	const op = "LoadKeyspace"
	if name == "" {
		name = DefaultKeyspace
	}
	resp, err := askConn(ctx, c, op, func(ctx context.Context, conn *grpc.ClientConn) (*keyspacepb.LoadKeyspaceResponse, error) {
		return keyspacepb.NewKeyspaceClient(conn).LoadKeyspace(ctx, &keyspacepb.LoadKeyspaceRequest{Header: c.header(), Name: name})
	})
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.Code == pdpb.ErrorType_ENTRY_NOT_FOUND {
			e.Kind, e.Err = NotFound, ErrKeyspaceNotFound
		}
		return nil, err
	}
	meta := resp.GetKeyspace()
	if id, ok := meta.GetKeyspace().(*keyspacepb.KeyspaceMeta_Id); !ok || id.Id > codec.MaxKeyspaceID {
		return nil, &Error{Op: op, Addr: c.Leader(), Kind: Rejected,
			Message: fmt.Sprintf("keyspace %q has no id that API V2 can use", name)}
	}
	return meta, nil
}

// GCState returns the safe points that hold for a keyspace, or for the data outside of
// any where keyspaceID is codec.NullKeyspaceID.
func (c *Client) GCState(ctx context.Context, keyspaceID uint32) (txnSafePoint, gcSafePoint uint64, err error) {
	const op = "GetGCState"
	resp, err := ask(ctx, c, op, func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetGCStateResponse, error) {
		return pd.GetGCState(ctx, &pdpb.GetGCStateRequest{
			Header:            c.header(),
			KeyspaceScope:     &pdpb.KeyspaceScope{Keyspace: &pdpb.KeyspaceScope_KeyspaceId{KeyspaceId: keyspaceID}},
			ExcludeGcBarriers: true,
		})
	})
	if err != nil {
		return 0, 0, err
	}
	if resp.GetGcState() == nil {
		return 0, 0, &Error{Op: op, Addr: c.Leader(), Kind: Rejected, Message: "answer without a state"}
	}
	return resp.GetGcState().GetTxnSafePoint(), resp.GetGcState().GetGcSafePoint(), nil
}
