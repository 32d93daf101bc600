package topology

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/playground/internal/meta"
)

// Split cuts a region at each of keys (region keys) that lies inside it and is not its
// start. As TiKV does by default, the last part keeps the id (raftstore's
// right-derive-when-split) and every part's version grows by the number of new regions
// (raftstore/src/store/fsm/apply.rs, exec_batch_split). It returns the parts in order.
func (t *Topology) Split(id uint64, keys [][]byte) ([]*Region, error) {
	return t.SplitIf(id, keys, func(*Region) error { return nil })
}

// SplitIf is Split, if allowed returns nil for the region as it is then; else it
// returns what that did.
func (t *Topology) SplitIf(id uint64, keys [][]byte, allowed func(*Region) error) ([]*Region, error) {
	t.change.Lock()
	defer t.change.Unlock()
	r := t.ByID(id)
	if r == nil {
		return nil, fmt.Errorf("playground: no region %d", id)
	}
	r.guard.Lock()
	defer r.guard.Unlock()
	if err := cmp.Or(allowed(r), r.still()); err != nil {
		return nil, err
	}
	for i, key := range keys {
		if !r.Range().Contains(key) || bytes.Equal(key, r.Meta.StartKey) {
			return nil, fmt.Errorf("playground: %x is no key to split region %d at", key, id)
		}
		if i > 0 && bytes.Compare(keys[i-1], key) >= 0 {
			return nil, fmt.Errorf("playground: split keys are not in order")
		}
	}
	if len(keys) == 0 {
		return []*Region{r}, nil
	}
	parts, err := t.parts(r, keys)
	if err != nil {
		return nil, err
	}
	var c meta.Change
	for _, p := range parts {
		c.Region(p.Meta)
	}
	if err := t.meta.Apply(&c); err != nil {
		return nil, err
	}
	t.tell(Split, r, parts...)
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.index(r.Meta.StartKey)
	t.sorted = slices.Replace(t.sorted, i, i+1, parts...)
	for _, p := range parts {
		t.byID[p.ID()] = p
	}
	t.splits.Add(int64(len(keys)))
	return parts, nil
}

// parts are what a region becomes when it is cut at keys. Callers hold change.
func (t *Topology) parts(r *Region, keys [][]byte) ([]*Region, error) {
	perRegion := uint64(len(r.Meta.Peers) + 1)
	next, err := t.allocID(uint64(len(keys)) * perRegion)
	if err != nil {
		return nil, err
	}
	epoch := metapb.RegionEpoch{
		ConfVer: r.Meta.RegionEpoch.ConfVer,
		Version: r.Meta.RegionEpoch.Version + uint64(len(keys)),
	}
	parts := make([]*Region, 0, len(keys)+1)
	start := r.Meta.StartKey
	for _, key := range keys {
		e := epoch
		m := &metapb.Region{Id: next, StartKey: start, EndKey: slices.Clone(key), RegionEpoch: &e}
		next++
		part := &Region{Meta: m, Term: firstTerm, guard: new(guard)}
		for _, p := range r.Meta.Peers {
			m.Peers = append(m.Peers, &metapb.Peer{Id: next, StoreId: p.StoreId, Role: p.Role, IsWitness: p.IsWitness})
			next++
		}
		if r.Leader != nil { // the new region's leader is where the old one's is
			part.Leader = part.Peer(r.LeaderStore())
		}
		parts = append(parts, part)
		start = m.EndKey
	}
	last := &metapb.Region{Id: r.ID(), StartKey: start, EndKey: r.Meta.EndKey, RegionEpoch: &epoch, Peers: r.Meta.Peers}
	return append(parts, &Region{Meta: last, Leader: r.Leader, Term: r.Term, guard: r.guard}), nil
}

// TransferLeader makes the peer on a live store the region's leader.
func (t *Topology) TransferLeader(id, store uint64) error {
	t.change.Lock()
	defer t.change.Unlock()
	r := t.ByID(id)
	if r == nil {
		return fmt.Errorf("playground: no region %d", id)
	}
	p := r.Peer(store)
	switch {
	case p == nil:
		return fmt.Errorf("playground: region %d has no peer on store %d", id, store)
	case !t.isLive(store):
		return fmt.Errorf("playground: store %d does not run", store)
	case r.Leader == nil:
		return fmt.Errorf("playground: region %d has no majority of live peers", id)
	case r.closed() != nil:
		return r.closed()
	case !t.electable(p, r.Meta.Peers):
		return fmt.Errorf("playground: the peer of region %d on store %d cannot lead", id, store)
	}
	t.lead(r, p)
	return nil
}

// lead replaces r by the same region with another leader, under a new term.
func (t *Topology) lead(r *Region, p *metapb.Peer) {
	if r.LeaderStore() == p.GetStoreId() {
		return
	}
	// Commands that run finish under the old leader.
	r.guard.Lock()
	defer r.guard.Unlock()
	now := *r
	now.Leader = p
	if p != nil {
		now.Term++
		t.moves.Add(1)
	}
	t.tell(Led, r, &now)
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.index(r.Meta.StartKey)
	t.sorted[i] = &now
	t.byID[r.ID()] = &now
	t.announce()
}

// SetLive tells that a store lives or does not, as of now. Regions that it leads get
// another leader, those left without a majority none, those that regain one get one.
func (t *Topology) SetLive(store uint64, live bool, now time.Time) error {
	t.change.Lock()
	defer t.change.Unlock()
	t.mu.Lock()
	was, ok := t.live[store]
	t.live[store] = live
	switch {
	case !ok:
		delete(t.live, store)
	case live:
		delete(t.down, store)
	case was:
		t.down[store] = now
	}
	t.announce()
	t.mu.Unlock()
	if !ok {
		return fmt.Errorf("playground: no store %d", store)
	}
	if was != live {
		t.reelect()
	}
	return nil
}

// reelect gives each region a leader that can lead, and leaves those that can. Callers
// hold change.
func (t *Topology) reelect() {
	t.mu.RLock()
	regions := slices.Clone(t.sorted)
	t.mu.RUnlock()
	for i, r := range regions {
		if r.Leader == nil || !t.electable(r.Leader, r.Meta.Peers) {
			t.lead(r, t.elect(r.Meta, i))
		}
	}
}

// Cut loses what one store sends to another, until Heal.
func (t *Topology) Cut(from, to uint64) {
	t.change.Lock()
	defer t.change.Unlock()
	t.mu.Lock()
	t.cut[[2]uint64{from, to}] = true
	t.announce()
	t.mu.Unlock()
	t.reelect()
}

// Heal ends Cut.
func (t *Topology) Heal() {
	t.change.Lock()
	defer t.change.Unlock()
	t.mu.Lock()
	clear(t.cut)
	t.announce()
	t.mu.Unlock()
	t.reelect()
}

// Live reports whether a store lives.
func (t *Topology) Live(store uint64) bool { return t.isLive(store) }

// Down returns since when a store does not live, and whether that is so.
func (t *Topology) Down(store uint64) (since time.Time, down bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	since, down = t.down[store]
	return since, down
}
