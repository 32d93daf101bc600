package pd

import (
	"context"
	"errors"
	"fmt"
	"math"

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
		return nil, keyspaceNotFound(err)
	}
	meta := resp.GetKeyspace()
	if id, ok := meta.GetKeyspace().(*keyspacepb.KeyspaceMeta_Id); !ok || id.Id > codec.MaxKeyspaceID {
		return nil, &Error{Op: op, Addr: c.Leader(), Kind: Rejected,
			Message: fmt.Sprintf("keyspace %q has no id that API V2 can use", name)}
	}
	return meta, nil
}

// KeyspaceByID returns a keyspace, whatever its state. The error for an id that none has
// matches ErrKeyspaceNotFound.
func (c *Client) KeyspaceByID(ctx context.Context, id uint32) (*keyspacepb.KeyspaceMeta, error) {
	resp, err := askConn(ctx, c, "LoadKeyspaceByID", func(ctx context.Context, conn *grpc.ClientConn) (*keyspacepb.LoadKeyspaceResponse, error) {
		return keyspacepb.NewKeyspaceClient(conn).LoadKeyspaceByID(ctx, &keyspacepb.LoadKeyspaceByIDRequest{
			Header: c.header(), Keyspace: &keyspacepb.LoadKeyspaceByIDRequest_Id{Id: id},
		})
	})
	return resp.GetKeyspace(), keyspaceNotFound(err)
}

// Keyspaces returns keyspaces in the order of their ids, from start on, at most limit of
// them where limit is above 0.
func (c *Client) Keyspaces(ctx context.Context, start uint32, limit int) ([]*keyspacepb.KeyspaceMeta, error) {
	resp, err := askConn(ctx, c, "GetAllKeyspaces", func(ctx context.Context, conn *grpc.ClientConn) (*keyspacepb.GetAllKeyspacesResponse, error) {
		return keyspacepb.NewKeyspaceClient(conn).GetAllKeyspaces(ctx, &keyspacepb.GetAllKeyspacesRequest{
			Header: c.header(), Limit: uint32(min(max(limit, 0), math.MaxUint32)),
			StartKeyspace: &keyspacepb.GetAllKeyspacesRequest_StartId{StartId: start},
		})
	})
	return resp.GetKeyspaces(), err
}

// SetKeyspaceState changes a keyspace's state, where PD allows the step, and returns what
// it is then.
func (c *Client) SetKeyspaceState(ctx context.Context, id uint32, state keyspacepb.KeyspaceState) (*keyspacepb.KeyspaceMeta, error) {
	resp, err := askConn(ctx, c, "UpdateKeyspaceState", func(ctx context.Context, conn *grpc.ClientConn) (*keyspacepb.UpdateKeyspaceStateResponse, error) {
		return keyspacepb.NewKeyspaceClient(conn).UpdateKeyspaceState(ctx, &keyspacepb.UpdateKeyspaceStateRequest{
			Header: c.header(), State: state, Keyspace: &keyspacepb.UpdateKeyspaceStateRequest_Id{Id: id},
		})
	})
	return resp.GetKeyspace(), keyspaceNotFound(err)
}

// keyspaceNotFound recognises the answer for an unknown keyspace.
func keyspaceNotFound(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Code == pdpb.ErrorType_ENTRY_NOT_FOUND {
		e.Kind, e.Err = NotFound, ErrKeyspaceNotFound
	}
	return err
}
