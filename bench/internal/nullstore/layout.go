package nullstore

import (
	"bytes"
	"context"
	"sort"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/bench/internal/harness"
	"github.com/tikv-go/tikv/internal/keys"
)

// layout is the regions and stores, and PD's calls about them.
type layout struct {
	pdpb.UnimplementedPDServer
	regions []*metapb.Region // in the order of keys
	stores  []*metapb.Store
}

const firstRegion = 1000

func newLayout(c Config, stores []string) (l layout) {
	for i, addr := range stores {
		l.stores = append(l.stores, &metapb.Store{Id: uint64(i + 1), Address: addr, State: metapb.StoreState_Up, Version: "8.5.0"})
	}
	border := func(i int) []byte {
		if i == 0 || i == c.Regions {
			return nil
		}
		key := harness.Key(i*c.Keys/c.Regions, c.KeySize)
		if c.Encoded {
			key = keys.Encode(key)
		}
		return key
	}
	for i := range c.Regions {
		l.regions = append(l.regions, &metapb.Region{
			Id: firstRegion + uint64(i), StartKey: border(i), EndKey: border(i + 1),
			RegionEpoch: &metapb.RegionEpoch{ConfVer: 1, Version: uint64(c.Regions)},
			Peers:       []*metapb.Peer{{Id: firstRegion + uint64(c.Regions+i), StoreId: uint64(1 + i%len(stores))}},
		})
	}
	return l
}

// at is the index of the region that holds a key.
func (l *layout) at(key []byte) int {
	return sort.Search(len(l.regions)-1, func(i int) bool { return bytes.Compare(key, l.regions[i].EndKey) < 0 })
}

// before is the index of the region before the one that holds a key, or of that itself
// where there is none.
func (l *layout) before(key []byte) int { return max(l.at(key)-1, 0) }

func (l *layout) byID(id uint64) (index int, ok bool) {
	return int(id - firstRegion), id >= firstRegion && id < firstRegion+uint64(len(l.regions))
}

func (l *layout) answer(i int) *pdpb.GetRegionResponse {
	return &pdpb.GetRegionResponse{Header: header(), Region: l.regions[i], Leader: l.regions[i].Peers[0]}
}

func (l *layout) GetRegion(_ context.Context, q *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return l.answer(l.at(q.RegionKey)), nil
}

func (l *layout) GetPrevRegion(_ context.Context, q *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return l.answer(l.before(q.RegionKey)), nil
}

func (l *layout) GetRegionByID(_ context.Context, q *pdpb.GetRegionByIDRequest) (*pdpb.GetRegionResponse, error) {
	if i, ok := l.byID(q.RegionId); ok {
		return l.answer(i), nil
	}
	return &pdpb.GetRegionResponse{Header: header()}, nil
}

// scan is the regions from index that overlap a range which ends before end.
func (l *layout) scan(from int, end []byte, limit int) (out []*pdpb.Region) {
	for _, r := range l.regions[from:] {
		if len(end) > 0 && bytes.Compare(r.StartKey, end) >= 0 || limit > 0 && len(out) == limit {
			break
		}
		out = append(out, &pdpb.Region{Region: r, Leader: r.Peers[0]})
	}
	return out
}

func (l *layout) ScanRegions(_ context.Context, q *pdpb.ScanRegionsRequest) (*pdpb.ScanRegionsResponse, error) {
	resp := &pdpb.ScanRegionsResponse{Header: header(), Regions: l.scan(l.at(q.StartKey), q.EndKey, int(q.Limit))}
	for _, r := range resp.Regions {
		resp.RegionMetas, resp.Leaders = append(resp.RegionMetas, r.Region), append(resp.Leaders, r.Leader)
	}
	return resp, nil
}

func (l *layout) BatchScanRegions(_ context.Context, q *pdpb.BatchScanRegionsRequest) (*pdpb.BatchScanRegionsResponse, error) {
	resp := &pdpb.BatchScanRegionsResponse{Header: header()}
	from := 0 // no region twice: ranges are in order
	for _, r := range q.Ranges {
		left := int(q.Limit) - len(resp.Regions)
		if q.Limit > 0 && left <= 0 {
			break
		}
		found := l.scan(max(from, l.at(r.StartKey)), r.EndKey, max(left, 0))
		resp.Regions = append(resp.Regions, found...)
		if n := len(found); n > 0 {
			i, _ := l.byID(found[n-1].Region.Id)
			from = i + 1
		}
	}
	return resp, nil
}

func (l *layout) QueryRegion(stream pdpb.PD_QueryRegionServer) error {
	for {
		q, err := stream.Recv()
		if err != nil {
			return nil // the client has ended the stream
		}
		resp := &pdpb.QueryRegionResponse{Header: header(), RegionsById: map[uint64]*pdpb.RegionResponse{}}
		add := func(i int) uint64 {
			r := l.regions[i]
			resp.RegionsById[r.Id] = &pdpb.RegionResponse{Region: r, Leader: r.Peers[0]}
			return r.Id
		}
		for _, k := range q.Keys {
			resp.KeyIdMap = append(resp.KeyIdMap, add(l.at(k)))
		}
		for _, k := range q.PrevKeys {
			resp.PrevKeyIdMap = append(resp.PrevKeyIdMap, add(l.before(k)))
		}
		for _, id := range q.Ids {
			if i, ok := l.byID(id); ok {
				add(i)
			}
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (l *layout) GetStore(_ context.Context, q *pdpb.GetStoreRequest) (*pdpb.GetStoreResponse, error) {
	resp := &pdpb.GetStoreResponse{Header: header()}
	if q.StoreId >= 1 && q.StoreId <= uint64(len(l.stores)) {
		resp.Store = l.stores[q.StoreId-1]
	}
	return resp, nil
}

func (l *layout) GetAllStores(context.Context, *pdpb.GetAllStoresRequest) (*pdpb.GetAllStoresResponse, error) {
	return &pdpb.GetAllStoresResponse{Header: header(), Stores: l.stores}, nil
}
