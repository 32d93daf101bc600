package etcd

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
)

// Orders and targets of a sorted range (etcd: api/etcdserverpb/rpc.proto, RangeRequest).
const (
	unsorted, ascending, descending            = 0, 1, 2
	byKey, byVersion, byCreate, byMod, byValue = 0, 1, 2, 3, 4
)

// ErrSort is an order or a target that there is not (etcd: api/v3rpc/key.go,
// checkRangeRequest).
var ErrSort = errors.New("etcdserver: invalid sort option")

// pick returns those of a range's pairs that a request wants, in its order, and whether
// its limit left some out (etcd: server/etcdserver/apply.go, Range). Without an order a
// target that is not the key sorts all the same, the smallest first, but then only what
// the limit has let through.
func (r *RangeRequest) pick(all []KeyValue) (kept []KeyValue, more bool) {
	if r.CountOnly {
		return nil, false
	}
	filtered := r.MinMod != 0 || r.MaxMod != 0 || r.MinCreate != 0 || r.MaxCreate != 0
	if r.Order == unsorted && !filtered && r.Limit > 0 && int64(len(all))-1 > r.Limit {
		all = all[:r.Limit+1]
	}
	all = slices.DeleteFunc(all, func(kv KeyValue) bool {
		return outside(kv.Mod, r.MinMod, r.MaxMod) || outside(kv.Created, r.MinCreate, r.MaxCreate)
	})
	switch {
	case r.Order == descending:
		slices.SortStableFunc(all, func(a, b KeyValue) int { return compare(r.Target, b, a) })
	case r.Target != byKey:
		slices.SortStableFunc(all, func(a, b KeyValue) int { return compare(r.Target, a, b) })
	}
	if more = r.Limit > 0 && int64(len(all)) > r.Limit; more {
		all = all[:r.Limit]
	}
	return all, more
}

func outside(revision, least, most int64) bool {
	return least != 0 && revision < least || most != 0 && revision > most
}

func compare(target uint64, a, b KeyValue) int {
	switch target {
	case byVersion:
		return cmp.Compare(a.Version, b.Version)
	case byCreate:
		return cmp.Compare(a.Created, b.Created)
	case byMod:
		return cmp.Compare(a.Mod, b.Mod)
	case byValue:
		return bytes.Compare(a.Value, b.Value)
	}
	return bytes.Compare(a.Key, b.Key)
}
