package pd

import (
	"bytes"
	"context"
	"math"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// Region is what PD knows of a region. What it points to may be shared.
type Region struct {
	Meta          *metapb.Region
	Leader        *metapb.Peer // nil where PD knows none
	Down, Pending []*metapb.Peer
	Buckets       *metapb.Buckets // nil unless asked for, and where PD has none
}

// LookupOption is a set of wishes for a lookup of regions.
type LookupOption uint8

// The wishes.
const (
	NeedBuckets LookupOption = 1 << iota // which only leader and routers have
	Fresh                                // from the leader, after what others may have known was wrong
)

func allOf(options []LookupOption) (all LookupOption) {
	for _, o := range options {
		all |= o
	}
	return all
}

const (
	opRegion     = "GetRegion"
	opPrevRegion = "GetPrevRegion"
	opRegionByID = "GetRegionByID"
	opScan       = "BatchScanRegions"
)

// Region returns the region that holds a region key, nil if PD knows none.
func (c *Client) Region(ctx context.Context, key []byte, options ...LookupOption) (*Region, error) {
	return c.lookup(ctx, &query{op: opRegion, key: key, options: allOf(options)})
}

// PrevRegion returns the region that holds the keys just before a region key, nil if PD
// knows none. An empty key is above all others, as the end of a range is.
func (c *Client) PrevRegion(ctx context.Context, key []byte, options ...LookupOption) (*Region, error) {
	ctx, cancel := c.bound(ctx, c.cfg.Timeout)
	defer cancel()
	if len(key) == 0 {
		return c.lastRegion(ctx, options)
	}
	for {
		// GetPrevRegion asks for the region before the one that holds the key, which is
		// another question unless the key is where that one starts.
		r, err := c.Region(ctx, key, options...)
		if err != nil || r == nil || !bytes.Equal(r.Meta.GetStartKey(), key) {
			return r, err
		}
		r, err = c.lookup(ctx, &query{op: opPrevRegion, key: key, options: allOf(options)})
		if err != nil || r == nil || keys.CompareEnds(r.Meta.GetEndKey(), key) >= 0 {
			return r, err
		}
		// The two were merged between the questions.
	}
}

// lastRegion returns the region without an end. PD has no question for it: ask for a
// high key and go on from there.
func (c *Client) lastRegion(ctx context.Context, options []LookupOption) (*Region, error) {
	key := bytes.Repeat([]byte{0xff}, 32)
	for {
		r, err := c.Region(ctx, key, options...)
		if err != nil || r == nil || len(r.Meta.GetEndKey()) == 0 {
			return r, err
		}
		key = r.Meta.GetEndKey()
	}
}

// RegionByID returns a region, nil if PD knows none with that id.
func (c *Client) RegionByID(ctx context.Context, id uint64, options ...LookupOption) (*Region, error) {
	return c.lookup(ctx, &query{op: opRegionByID, id: id, options: allOf(options)})
}

// ScanRegions returns the regions that overlap a range of region keys, in order, at most
// limit of them where limit is above 0. PD may know none for a part of the range.
func (c *Client) ScanRegions(ctx context.Context, r keys.Range, limit int, options ...LookupOption) ([]*Region, error) {
	scan, err := c.BatchScanRegions(ctx, []keys.Range{r}, limit, options...)
	return scan.Regions, err
}

// Scan is what PD knows of some ranges.
type Scan struct {
	Regions []*Region    // in order, each once
	Gaps    []keys.Range // parts of the ranges for which PD knows none, up to the last region where a limit ended the scan
}

// BatchScanRegions returns the regions that overlap ranges of region keys, which must be
// in order and apart, at most limit of them in all where limit is above 0.
func (c *Client) BatchScanRegions(ctx context.Context, ranges []keys.Range, limit int, options ...LookupOption) (Scan, error) {
	all := allOf(options)
	req := &pdpb.BatchScanRegionsRequest{
		Limit: int32(min(max(limit, 0), math.MaxInt32)), NeedBuckets: all&NeedBuckets != 0,
	}
	for i, r := range ranges {
		if i > 0 && (len(ranges[i-1].End) == 0 || bytes.Compare(r.Start, ranges[i-1].End) < 0) {
			return Scan{}, &Error{Op: opScan, Kind: Rejected, Message: "ranges out of order"}
		}
		if !r.Empty() {
			req.Ranges = append(req.Ranges, &pdpb.KeyRange{StartKey: r.Start, EndKey: r.End})
		}
	}
	if len(req.Ranges) == 0 {
		return Scan{}, nil
	}
	resp, err := readRegions(ctx, c, opScan, all, func(ctx context.Context, pd regionReader) (*pdpb.BatchScanRegionsResponse, error) {
		req.Header = c.header()
		return pd.BatchScanRegions(ctx, req)
	}, func(resp *pdpb.BatchScanRegionsResponse) bool { return len(resp.GetRegions()) > 0 })
	if err != nil {
		return Scan{}, err
	}
	var scan Scan
	for _, p := range resp.GetRegions() {
		if region := newRegion(p); region != nil {
			scan.Regions = append(scan.Regions, region)
		}
	}
	scan.Gaps = gaps(ranges, scan.Regions, limit > 0 && len(scan.Regions) >= limit)
	return scan, nil
}

// gaps returns the parts of ranges that no region covers, up to the end of the last one
// where cut says that there may be more.
func gaps(ranges []keys.Range, regions []*Region, cut bool) (missing []keys.Range) {
	for _, r := range ranges {
		if r.Empty() {
			continue
		}
		at := r.Start
		for _, region := range regions {
			m := region.Meta
			if len(m.GetEndKey()) > 0 && bytes.Compare(m.GetEndKey(), at) <= 0 {
				continue // before what is left of r
			}
			if len(r.End) > 0 && bytes.Compare(m.GetStartKey(), r.End) >= 0 {
				break
			}
			if bytes.Compare(m.GetStartKey(), at) > 0 {
				missing = append(missing, keys.Range{Start: at, End: m.GetStartKey()})
			}
			at = m.GetEndKey()
			if len(at) == 0 {
				return missing
			}
		}
		if (len(r.End) == 0 || bytes.Compare(at, r.End) < 0) && !cut {
			missing = append(missing, keys.Range{Start: at, End: r.End})
		}
	}
	return missing
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
	GetBuckets() *metapb.Buckets
}) *Region {
	if p.GetRegion().GetId() == 0 {
		return nil
	}
	r := &Region{Meta: p.GetRegion(), Pending: p.GetPendingPeers(), Buckets: p.GetBuckets()}
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
