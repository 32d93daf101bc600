package router

import (
	"context"
	"errors"

	"github.com/pingcap/kvproto/pkg/metapb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/pd"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
)

// NewRegions returns a region cache that loads from PD. Its loads are tasks of the
// client.
func NewRegions(client *pd.Client, tasks *task.Group, cfg region.Config) *region.Cache {
	var wishes pd.LookupOption
	if cfg.Buckets {
		wishes = pd.NeedBuckets
	}
	cfg.Waiting = client.Waiting
	return region.NewWith(pdSource{client, wishes}, tasks, cfg)
}

// Probe returns the function that asks a store whether it serves. One that does not know
// the question answers, at least.
func Probe(pool *transport.Pool) func(ctx context.Context, addr string) error {
	return func(ctx context.Context, addr string) error {
		err := pool.Health(ctx, addr)
		var te *transport.Error
		if errors.As(err, &te) && te.Kind == transport.Refused && status.Code(te.Err) == codes.Unimplemented {
			return nil
		}
		return err
	}
}

type pdSource struct {
	client *pd.Client
	wishes pd.LookupOption
}

func (s pdSource) Region(ctx context.Context, key []byte, fresh bool) (region.Found, error) {
	wishes := s.wishes
	if fresh {
		wishes |= pd.Fresh
	}
	return found(s.client.Region(ctx, key, wishes))
}

func (s pdSource) PrevRegion(ctx context.Context, key []byte) (region.Found, error) {
	return found(s.client.PrevRegion(ctx, key, s.wishes))
}

func (s pdSource) RegionByID(ctx context.Context, id uint64) (region.Found, error) {
	return found(s.client.RegionByID(ctx, id, s.wishes))
}

func found(r *pd.Region, err error) (region.Found, error) {
	if r == nil || err != nil {
		return region.Found{}, err
	}
	return region.Found{Meta: r.Meta, Leader: r.Leader, Down: r.Down, Pending: r.Pending, Buckets: r.Buckets}, nil
}

func (s pdSource) ScanRegions(ctx context.Context, ranges []keys.Range, limit int) ([]region.Found, error) {
	scan, err := s.client.BatchScanRegions(ctx, ranges, limit, s.wishes)
	all := make([]region.Found, len(scan.Regions))
	for i, r := range scan.Regions {
		all[i], _ = found(r, nil)
	}
	return all, err
}

func (s pdSource) Store(ctx context.Context, id uint64) (*metapb.Store, error) {
	store, err := s.client.Store(ctx, id)
	if errors.Is(err, pd.ErrStoreNotFound) {
		return nil, nil
	}
	return store, err
}

func (s pdSource) Stores(ctx context.Context) ([]*metapb.Store, error) { return s.client.Stores(ctx) }
