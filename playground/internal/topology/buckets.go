package topology

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"github.com/pingcap/kvproto/pkg/metapb"
)

// buckets are a region's: what PD was told last; and what the stores have, with the version
// of the region then, for the stores drop theirs when the region is split or merged (TiKV raftstore/src/
// store/peer.rs, reset_region_buckets), and PD keeps them (PD: pkg/core/region.go,
// Inherit).
type buckets struct {
	told   *metapb.Buckets // nil: none, any more
	own    *metapb.Buckets // nil: none
	last   uint64          // version of those told
	region uint64
}

// SetBuckets cuts a region into buckets at keys, region keys inside of it in order; none
// takes its buckets away. Versions grow: a term's begin at a place of their own (TiKV
// raftstore/src/store/util.rs, gen_bucket_version).
func (t *Topology) SetBuckets(id uint64, keys [][]byte) error {
	t.change.Lock()
	defer t.change.Unlock()
	r := t.ByID(id)
	if r == nil {
		return fmt.Errorf("playground: no region %d", id)
	}
	for i, key := range keys {
		if !r.Range().Contains(key) || bytes.Equal(key, r.Meta.StartKey) || i > 0 && bytes.Compare(keys[i-1], key) >= 0 {
			return fmt.Errorf("playground: region %d cannot have a bucket that begins at %x", id, key)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(keys) == 0 {
		if b, ok := t.buckets[id]; ok {
			t.buckets[id] = buckets{last: b.last}
		}
		return nil
	}
	next := r.Term << 32
	if last := t.buckets[id].last; last == math.MaxUint64 {
		return fmt.Errorf("playground: region %d has buckets of the last version", id)
	} else if last >= next {
		next = last + 1
	}
	told := &metapb.Buckets{RegionId: id, Version: next, Keys: [][]byte{r.Meta.StartKey}}
	for _, key := range keys {
		told.Keys = append(told.Keys, slices.Clone(key))
	}
	told.Keys = append(told.Keys, r.Meta.EndKey)
	t.buckets[id] = buckets{told, told, next, r.Meta.RegionEpoch.GetVersion()}
	return nil
}

// TellBuckets lets PD take over buckets that somebody else than the region's stores tells of,
// if they are newer than those it has (PD: pkg/core/region.go, CompareAndSetReportBuckets).
func (t *Topology) TellBuckets(told *metapb.Buckets) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buckets[told.RegionId]
	if t.byID[told.RegionId] == nil || b.told != nil && told.Version <= b.told.Version {
		return false
	}
	b.told, b.last = told, max(b.last, told.Version)
	t.buckets[told.RegionId] = b
	return true
}

// Buckets are those that PD has of a region, nil for none.
func (t *Topology) Buckets(id uint64) *metapb.Buckets {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.buckets[id].told
}

// StoreBuckets are those that a region's stores have, nil for none.
func (t *Topology) StoreBuckets(r *Region) *metapb.Buckets {
	t.mu.RLock()
	defer t.mu.RUnlock()
	b := t.buckets[r.ID()]
	if b.region != r.Meta.RegionEpoch.GetVersion() {
		return nil
	}
	return b.own
}
