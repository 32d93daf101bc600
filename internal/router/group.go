package router

import (
	"bytes"
	"context"
	"slices"
	"sort"
	"time"

	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/region"
)

// Group is the keys of one region, by their indexes in what was grouped.
type Group struct {
	Region *region.Region
	Index  []int
}

// keyRoom is the room for an encoded key that is only looked up.
const keyRoom = 192

// lookup returns the cached region that holds the wire key, or nil. It allocates nothing
// unless the key is long.
func (r *Router) lookup(cd codec.Codec, wireKey []byte) *region.Region {
	var room [keyRoom]byte
	return r.cfg.Regions.Lookup(cd.AppendRegionKey(room[:0], wireKey))
}

// holds reports whether reg holds the wire key.
func holds(reg *region.Region, cd codec.Codec, wireKey []byte) bool {
	var room [keyRoom]byte
	return reg.Contains(cd.AppendRegionKey(room[:0], wireKey))
}

// Only returns the cached region that holds all the wire keys, or nil. It asks nobody.
func (r *Router) Only(call *Call, wireKeys [][]byte) *region.Region {
	if len(wireKeys) == 0 {
		return nil
	}
	reg := r.lookup(call.Codec, wireKeys[0])
	if reg == nil {
		return nil
	}
	if len(reg.Range.Start) == 0 && len(reg.Range.End) == 0 {
		return reg
	}
	for _, key := range wireKeys[1:] {
		if !holds(reg, call.Codec, key) {
			return nil
		}
	}
	return reg
}

// Group sorts wire keys by region. The first group is that of the first key, and
// indexes within a group ascend.
func (r *Router) Group(ctx context.Context, call *Call, wireKeys [][]byte) ([]Group, error) {
	found := make([]*region.Region, len(wireKeys))
	var missing []int
	var last *region.Region
	for i, wire := range wireKeys {
		if last == nil || !holds(last, call.Codec, wire) {
			last = r.lookup(call.Codec, wire)
		}
		if found[i] = last; last == nil {
			missing = append(missing, i)
		}
	}
	if err := r.locateAll(ctx, call, wireKeys, missing, found); err != nil {
		return nil, err
	}
	return groupsOf(found), nil
}

// fewGroups is the number of groups up to which going through all is quicker than a map.
const fewGroups = 64

// groupsOf gathers the indexes of equal regions.
func groupsOf(found []*region.Region) []Group {
	if len(found) == 0 {
		return nil
	}
	groups, sizes := make([]Group, 0, 8), make([]int, 0, 8)
	var at map[*region.Region]int
	of := make([]int, len(found)) // the group of each
	for i, reg := range found {
		n := -1
		switch {
		case i > 0 && reg == found[i-1]:
			n = of[i-1]
		case at != nil:
			if known, ok := at[reg]; ok {
				n = known
			}
		default:
			n = slices.IndexFunc(groups, func(g Group) bool { return g.Region == reg })
		}
		if n < 0 {
			n = len(groups)
			groups, sizes = append(groups, Group{Region: reg}), append(sizes, 0)
			if at != nil {
				at[reg] = n
			} else if len(groups) > fewGroups {
				at = make(map[*region.Region]int, 2*fewGroups)
				for j := range groups {
					at[groups[j].Region] = j
				}
			}
		}
		of[i] = n
		sizes[n]++
	}
	all := make([]int, len(found)) // the groups' indexes, one group behind the other
	for n, size := range sizes {
		groups[n].Index, all = all[:0:size], all[size:]
	}
	for i, n := range of {
		groups[n].Index = append(groups[n].Index, i)
	}
	return groups
}

// scanLimit is the most regions that are loaded in one round trip.
const scanLimit = 128

// locateAll fills found at the indexes missing. Several regions are loaded at once,
// as long as at least half of what comes is wanted.
func (r *Router) locateAll(ctx context.Context, call *Call, wireKeys [][]byte, missing []int, found []*region.Region) error {
	sort.Slice(missing, func(i, j int) bool { return bytes.Compare(wireKeys[missing[i]], wireKeys[missing[j]]) < 0 }) // links less than slices
	limit := min(len(missing), scanLimit)
	for len(missing) > 0 {
		key := call.Codec.RegionKey(wireKeys[missing[0]])
		var batch []*region.Region
		if limit > 1 {
			last := call.Codec.RegionKey(wireKeys[missing[len(missing)-1]])
			batch = r.scan(ctx, call, keys.Range{Start: key, End: keys.Next(last)}, limit)
		}
		used := 0
		for _, reg := range batch {
			n := take(call, wireKeys, missing, found, reg)
			if missing = missing[n:]; n > 0 {
				used++
			}
		}
		if used == 0 {
			reg, err := r.load(ctx, call, key, r.cfg.Regions.Locate)
			if err != nil {
				return err
			}
			found[missing[0]] = reg
			missing = missing[1:]
			missing = missing[take(call, wireKeys, missing, found, reg):]
		}
		limit = min(2*used, len(missing), scanLimit)
	}
	return nil
}

// scan loads regions. Where that fails it is noted: the caller tries one by one, and waits.
func (r *Router) scan(ctx context.Context, call *Call, at keys.Range, limit int) []*region.Region {
	bounded, cancel := r.bounded(ctx, call)
	defer cancel()
	began := time.Now()
	batch, err := r.cfg.Regions.Scan(bounded, at, limit)
	took := time.Since(began)
	call.Count(LookupTime, PD, int64(took))
	if err != nil {
		call.Note(Attempt{Reason: PD, Elapsed: took, Err: err})
	}
	return batch
}

// take gives reg to the first of the missing keys that it holds, and counts them.
func take(call *Call, wireKeys [][]byte, missing []int, found []*region.Region, reg *region.Region) int {
	for n, i := range missing {
		if !holds(reg, call.Codec, wireKeys[i]) {
			return n
		}
		found[i] = reg
	}
	return len(missing)
}
