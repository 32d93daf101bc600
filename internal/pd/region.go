package pd

import (
	"bytes"
	"context"
	"math"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// Region is what PD knows of a region.
type Region struct {
	Meta          *metapb.Region
	Leader        *metapb.Peer // nil where PD knows none
	Down, Pending []*metapb.Peer
}

// Region returns the region that holds a region key, nil if PD knows none.
func (c *Client) Region(ctx context.Context, key []byte) (*Region, error) {
	return oneRegion(ask(ctx, c, "GetRegion", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetRegionResponse, error) {
		return pd.GetRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), RegionKey: key})
	}))
}

// PrevRegion returns the region that holds the keys just before a region key, nil if PD
// knows none. An empty key is above all others, as the end of a range is.
func (c *Client) PrevRegion(ctx context.Context, key []byte) (*Region, error) {
	ctx, cancel := c.bound(ctx, c.cfg.Timeout)
	defer cancel()
	if len(key) == 0 {
		return c.lastRegion(ctx)
	}
	for {
		// GetPrevRegion asks for the region before the one that holds the key, which is
		// another question unless the key is where that one starts.
		r, err := c.Region(ctx, key)
		if err != nil || r == nil || !bytes.Equal(r.Meta.GetStartKey(), key) {
			return r, err
		}
		r, err = oneRegion(ask(ctx, c, "GetPrevRegion", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetRegionResponse, error) {
			return pd.GetPrevRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), RegionKey: key})
		}))
		if err != nil || r == nil || keys.CompareEnds(r.Meta.GetEndKey(), key) >= 0 {
			return r, err
		}
		// The two were merged between the questions.
	}
}

// lastRegion returns the region without an end. PD has no question for it: ask for a
// high key and go on from there.
func (c *Client) lastRegion(ctx context.Context) (*Region, error) {
	key := bytes.Repeat([]byte{0xff}, 32)
	for {
		r, err := c.Region(ctx, key)
		if err != nil || r == nil || len(r.Meta.GetEndKey()) == 0 {
			return r, err
		}
		key = r.Meta.GetEndKey()
	}
}

// RegionByID returns a region, nil if PD knows none with that id.
func (c *Client) RegionByID(ctx context.Context, id uint64) (*Region, error) {
	return oneRegion(ask(ctx, c, "GetRegionByID", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetRegionResponse, error) {
		return pd.GetRegionByID(ctx, &pdpb.GetRegionByIDRequest{Header: c.header(), RegionId: id})
	}))
}

// ScanRegions returns the regions that overlap a range of region keys, in order, at most
// limit of them where limit is above 0. PD may know none for a part of the range.
func (c *Client) ScanRegions(ctx context.Context, r keys.Range, limit int) ([]*Region, error) {
	if r.Empty() {
		return nil, nil
	}
	resp, err := ask(ctx, c, "BatchScanRegions", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.BatchScanRegionsResponse, error) {
		return pd.BatchScanRegions(ctx, &pdpb.BatchScanRegionsRequest{
			Header: c.header(),
			Ranges: []*pdpb.KeyRange{{StartKey: r.Start, EndKey: r.End}},
			Limit:  int32(min(max(limit, 0), math.MaxInt32)),
		})
	})
	if err != nil {
		return nil, err
	}
	var regions []*Region
	for _, p := range resp.GetRegions() {
		if region := newRegion(p); region != nil {
			regions = append(regions, region)
		}
	}
	return regions, nil
}

func oneRegion(resp *pdpb.GetRegionResponse, err error) (*Region, error) {
	if err != nil {
		return nil, err
	}
	return newRegion(resp), nil
}

// newRegion takes over PD's description of a region, which several messages have in
// common. PD says that it knows none with a message without an id.
func newRegion(p interface {
	GetRegion() *metapb.Region
	GetLeader() *metapb.Peer
	GetDownPeers() []*pdpb.PeerStats
	GetPendingPeers() []*metapb.Peer
}) *Region {
	if p.GetRegion().GetId() == 0 {
		return nil
	}
	r := &Region{Meta: p.GetRegion(), Pending: p.GetPendingPeers()}
	if p.GetLeader().GetId() != 0 {
		r.Leader = p.GetLeader()
	}
	for _, d := range p.GetDownPeers() {
		if d.GetPeer() != nil {
			r.Down = append(r.Down, d.GetPeer())
		}
	}
	return r
}
