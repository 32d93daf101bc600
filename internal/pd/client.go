// Package pd is a client of PD, the placement driver: timestamps, regions, stores,
// keyspaces and safe points. It finds the members, follows their leader, and bounds
// every wait by the caller's context or a documented default.
package pd

import (
	"context"
	"log/slog"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/transport"
)

// The defaults of a Config.
const (
	DefaultAttemptTimeout   = 3 * time.Second  // one member's time to answer
	DefaultTimestampTimeout = 15 * time.Second // Timestamp, where ctx has no deadline
	DefaultTimeout          = 20 * time.Second // the other calls, where ctx has no deadline
)

// Config is what a Client is made with.
type Config struct {
	Pool   *transport.Pool // required; stays the caller's
	Logger *slog.Logger    // nil: silent

	AttemptTimeout   time.Duration // 0: DefaultAttemptTimeout
	TimestampTimeout time.Duration // 0: DefaultTimestampTimeout
	Timeout          time.Duration // 0: DefaultTimeout
}

// Client is a client of one cluster's PD. It is safe for concurrent use.
type Client struct{ cfg Config }

// Region is what PD knows of a region.
type Region struct {
	Meta          *metapb.Region
	Leader        *metapb.Peer // nil where PD knows none
	Down, Pending []*metapb.Peer
}

// Open asks the members at addrs (host:port, with or without a scheme) for the cluster
// and its leader. All that answer must name the same cluster.
func Open(ctx context.Context, addrs []string, cfg Config) (*Client, error) {
	return nil, &Error{Op: "GetMembers", Kind: Closed, Err: ErrClosed}
}

// ClusterID is the cluster's id.
func (c *Client) ClusterID() uint64 { return 0 }

// Timestamp returns a timestamp above every one that was returned before the call
// began. Concurrent calls share a round trip.
func (c *Client) Timestamp(ctx context.Context) (uint64, error) { return 0, nil }

// RecentTimestamp returns a timestamp that PD gave out at most maxAge ago, the last one
// received if it is.
func (c *Client) RecentTimestamp(ctx context.Context, maxAge time.Duration) (uint64, error) {
	return 0, nil
}

// Region returns the region that holds a region key, nil if PD knows none.
func (c *Client) Region(ctx context.Context, key []byte) (*Region, error) { return nil, nil }

// PrevRegion returns the region that holds the keys just before a region key, nil if PD
// knows none.
func (c *Client) PrevRegion(ctx context.Context, key []byte) (*Region, error) { return nil, nil }

// RegionByID returns a region, nil if PD knows none with that id.
func (c *Client) RegionByID(ctx context.Context, id uint64) (*Region, error) { return nil, nil }

// ScanRegions returns the regions that overlap a range of region keys, in order, at most
// limit of them where limit is above 0.
func (c *Client) ScanRegions(ctx context.Context, r keys.Range, limit int) ([]*Region, error) {
	return nil, nil
}

// Store returns a store, also one that was removed (its state says so). The error for
// an id that no store has matches ErrStoreNotFound.
func (c *Client) Store(ctx context.Context, id uint64) (*metapb.Store, error) { return nil, nil }

// Stores returns the stores that were not removed.
func (c *Client) Stores(ctx context.Context) ([]*metapb.Store, error) { return nil, nil }

// Keyspace returns a keyspace by name, "" being DEFAULT, whatever its state. The error
// for a name that none has matches ErrKeyspaceNotFound.
func (c *Client) Keyspace(ctx context.Context, name string) (*keyspacepb.KeyspaceMeta, error) {
	return nil, nil
}

// GCState returns the safe points that hold for a keyspace, or for the data outside of
// any where keyspaceID is codec.NullKeyspaceID.
func (c *Client) GCState(ctx context.Context, keyspaceID uint32) (txnSafePoint, gcSafePoint uint64, err error) {
	return 0, 0, nil
}

// Close ends all calls and goroutines of the client, and returns when they have ended.
func (c *Client) Close() {}
