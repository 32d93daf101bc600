package topology

import (
	"bytes"
	"fmt"

	"github.com/tikv-go/tikv/internal/keys"
)

// View is the regions as PD knows them: those that it was not made to forget.
type View struct{ t *Topology }

// PD returns what PD knows.
func (t *Topology) PD() View { return View{t} }

// Hide lets PD forget a region, or know it again.
func (t *Topology) Hide(id uint64, hidden bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[id] == nil {
		return fmt.Errorf("playground: no region %d", id)
	}
	if hidden {
		t.hidden[id] = true
	} else {
		delete(t.hidden, id)
	}
	return nil
}

func (v View) known(r *Region) *Region {
	if r == nil {
		return nil
	}
	v.t.mu.RLock()
	defer v.t.mu.RUnlock()
	if v.t.hidden[r.ID()] {
		return nil
	}
	return r
}

// ByID returns a region, or nil.
func (v View) ByID(id uint64) *Region { return v.known(v.t.ByID(id)) }

// ByKey returns the region that holds key, or nil.
func (v View) ByKey(key []byte) *Region { return v.known(v.t.ByKey(key)) }

// Before returns the region that ends where the one that holds key begins, or nil: also
// when PD does not know the latter (PD: pkg/core/region_tree.go, searchPrev).
func (v View) Before(key []byte) *Region {
	if v.ByKey(key) == nil {
		return nil
	}
	return v.known(v.t.Before(key))
}

// Scan returns the regions that have keys in r, in order, at most limit (below 1: all).
func (v View) Scan(r keys.Range, limit int) []*Region {
	v.t.mu.RLock()
	none := len(v.t.hidden) == 0
	v.t.mu.RUnlock()
	if none {
		return v.t.Scan(r, limit)
	}
	var all []*Region
	for _, o := range v.t.Scan(r, 0) {
		if (limit < 1 || len(all) < limit) && v.known(o) != nil {
			all = append(all, o)
		}
	}
	return all
}

// Hole finds keys of a range that no region of a scan of it has, and returns the end of
// the region before them. The scan ended at a limit if full, and what comes after is no
// hole (PD: pkg/core/region.go, scanRegion).
func Hole(r keys.Range, scanned []*Region, full bool) ([]byte, bool) {
	at := r.Start
	for i, o := range scanned {
		if bytes.Compare(o.Meta.StartKey, at) > 0 && (i > 0 || len(at) > 0) {
			return at, true
		}
		at = o.Meta.EndKey
		if len(at) == 0 {
			return nil, false
		}
	}
	if !full && len(r.End) > 0 && len(at) > 0 && bytes.Compare(at, r.End) < 0 {
		return at, true
	}
	return nil, false
}
