package region

import (
	"bytes"
	"slices"
	"sort"

	"github.com/tikv-go/tikv/internal/keys"
)

// buckets cut a region in parts of about the same size, as PD or a store has told. They may
// be older or newer than the region: bounds outside of it count for nothing.
type buckets struct {
	version uint64
	bounds  [][]byte // region keys, in order, the region's own among them
}

func newBuckets(version uint64, bounds [][]byte) *buckets {
	if len(bounds) < 2 {
		return nil
	}
	b := &buckets{version: version, bounds: make([][]byte, len(bounds))}
	for i, key := range bounds {
		b.bounds[i] = slices.Clone(key)
	}
	return b
}

func (b *buckets) size() int {
	if b == nil {
		return 0
	}
	n := 32
	for _, key := range b.bounds {
		n += 24 + len(key)
	}
	return n
}

// BucketVersion is the version of the region's buckets, 0 if none are known.
func (r *Region) BucketVersion() uint64 {
	if b := r.buckets.Load(); b != nil {
		return b.version
	}
	return 0
}

// Bucket returns the part of the region that holds the region key, which the region must;
// all of it, if no buckets are known.
func (r *Region) Bucket(key []byte) keys.Range {
	part := r.Range
	b := r.buckets.Load()
	if b == nil {
		return part
	}
	i := sort.Search(len(b.bounds), func(i int) bool {
		return bytes.Compare(b.bounds[i], key) > 0 || i == len(b.bounds)-1 && len(b.bounds[i]) == 0
	})
	if i > 0 && bytes.Compare(b.bounds[i-1], part.Start) > 0 {
		part.Start = b.bounds[i-1]
	}
	if i < len(b.bounds) && keys.CompareEnds(b.bounds[i], part.End) < 0 {
		part.End = b.bounds[i]
	}
	return part
}

// UpdateBuckets takes over the buckets of r that a store has told of
// (BucketVersionNotMatch), unless newer ones are known.
func (c *Cache) UpdateBuckets(r *Region, version uint64, bounds [][]byte) {
	next := newBuckets(version, bounds)
	c.mu.Lock()
	defer c.mu.Unlock()
	if next == nil || r.BucketVersion() >= version && r.buckets.Load() != nil {
		return
	}
	r.buckets.Store(next)
	if c.index.Load().find(r.Range.Start) == r {
		c.resize(r)
	}
}

// resize accounts for what r takes now; c.mu is held.
func (c *Cache) resize(r *Region) {
	was := r.bytes
	r.bytes = r.size()
	c.bytes += int64(r.bytes - was)
}
