package pd

import (
	"context"
	"errors"
	"strings"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
)

// Store returns a store, also one that was removed (its state says so). The error for
// an id that no store has matches ErrStoreNotFound.
func (c *Client) Store(ctx context.Context, id uint64) (*metapb.Store, error) {
	resp, err := ask(ctx, c, "GetStore", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetStoreResponse, error) {
		return pd.GetStore(ctx, &pdpb.GetStoreRequest{Header: c.header(), StoreId: id})
	})
	if err != nil {
		return nil, storeNotFound(err)
	}
	if resp.GetStore() == nil {
		return nil, &Error{Op: "GetStore", Addr: c.Leader(), Kind: NotFound, Err: ErrStoreNotFound}
	}
	return resp.GetStore(), nil
}

// storeNotFound recognises the answer for an unknown store, for which PD has no code
// (PD server/grpc_service.go, GetStore).
func storeNotFound(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Code == pdpb.ErrorType_UNKNOWN &&
		strings.Contains(e.Message, "invalid store ID") && strings.Contains(e.Message, "not found") {
		e.Kind, e.Err = NotFound, ErrStoreNotFound
	}
	return err
}

// Stores returns the stores that were not removed.
func (c *Client) Stores(ctx context.Context) ([]*metapb.Store, error) { return c.stores(ctx, true) }

// AllStores returns the stores, those that were removed too, which their states say.
func (c *Client) AllStores(ctx context.Context) ([]*metapb.Store, error) { return c.stores(ctx, false) }

func (c *Client) stores(ctx context.Context, living bool) ([]*metapb.Store, error) {
	resp, err := ask(ctx, c, "GetAllStores", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetAllStoresResponse, error) {
		return pd.GetAllStores(ctx, &pdpb.GetAllStoresRequest{Header: c.header(), ExcludeTombstoneStores: living})
	})
	return resp.GetStores(), err
}
