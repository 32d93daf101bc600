package topology

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/pingcap/kvproto/pkg/metapb"
)

// storeRecord is what is saved of a store: the first ones have a record only once they
// differ from what they were made as.
type storeRecord struct {
	Labels  map[string]string `json:"labels,omitempty"`
	Removed bool              `json:"removed,omitempty"`
	Leaving bool              `json:"leaving,omitempty"`
}

const storePrefix = "store/"

// loadStores takes the saved stores over the first ones.
func (t *Topology) loadStores() error {
	for name, data := range t.meta.Values(storePrefix) {
		id, err := strconv.ParseUint(name, 10, 64)
		var record storeRecord
		if err == nil {
			err = json.Unmarshal(data, &record)
		}
		if err != nil {
			return fmt.Errorf("playground: the directory's store %q is damaged: %w", name, err)
		}
		t.records[id] = record
		if !slices.Contains(t.stores, id) {
			t.stores = append(t.stores, id)
		}
		t.live[id] = !record.Removed
	}
	slices.Sort(t.stores)
	return nil
}

func (t *Topology) saveStore(id uint64, record storeRecord) error {
	data, err := json.Marshal(record)
	if err == nil {
		err = t.meta.SetValue(storePrefix+strconv.FormatUint(id, 10), data)
	}
	return err
}

// Stores returns the stores' ids in order, removed ones too.
func (t *Topology) Stores() []uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.stores)
}

func (t *Topology) known(store uint64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Contains(t.stores, store) && !t.records[store].Removed
}

// Removed reports whether a store was removed.
func (t *Topology) Removed(store uint64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.records[store].Removed
}

// Labels returns a store's labels by key.
func (t *Topology) Labels(store uint64) []*metapb.StoreLabel {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var all []*metapb.StoreLabel
	for k, v := range t.records[store].Labels {
		all = append(all, &metapb.StoreLabel{Key: k, Value: v})
	}
	slices.SortFunc(all, func(a, b *metapb.StoreLabel) int { return cmp.Compare(a.Key, b.Key) })
	return all
}

// AddStore makes a store of a new id, which does not live yet, without regions.
func (t *Topology) AddStore(id uint64, labels map[string]string) error {
	t.change.Lock()
	defer t.change.Unlock()
	record := storeRecord{Labels: maps.Clone(labels)}
	if err := t.saveStore(id, record); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stores = append(t.stores, id)
	t.records[id], t.live[id] = record, false
	return nil
}

// AddLabels merges labels into a store's, as PD does with those that a store reports
// (server/cluster/cluster.go, PutMetaStore).
func (t *Topology) AddLabels(id uint64, labels map[string]string) error {
	t.change.Lock()
	defer t.change.Unlock()
	if !t.known(id) {
		return fmt.Errorf("playground: no store %d", id)
	}
	record := t.records[id]
	merged := maps.Clone(record.Labels)
	if merged == nil {
		merged = make(map[string]string)
	}
	maps.Copy(merged, labels)
	record.Labels = merged
	return t.setRecord(id, record)
}

// SetLabels gives a store other labels.
func (t *Topology) SetLabels(id uint64, labels []*metapb.StoreLabel) error {
	t.change.Lock()
	defer t.change.Unlock()
	if !t.known(id) {
		return fmt.Errorf("playground: no store %d", id)
	}
	record := t.records[id]
	record.Labels = make(map[string]string)
	for _, l := range labels {
		record.Labels[l.Key] = l.Value
	}
	return t.setRecord(id, record)
}

func (t *Topology) setRecord(id uint64, record storeRecord) error {
	if err := t.saveStore(id, record); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records[id] = record
	return nil
}

// spare refuses to do without a store if fewer would be left than regions have replicas
// (PD: server/cluster/cluster.go, checkTikvReplicaBeforeOfflineStore).
func (t *Topology) spare(id uint64) error {
	left := 0
	for _, s := range t.Stores() {
		if s != id && t.known(s) && !t.Leaving(s) {
			left++
		}
	}
	if left < maxPeers {
		return fmt.Errorf("playground: can not remove store %d since the number of up stores would be %d while need %d", id, left, maxPeers)
	}
	return nil
}

// SetLeaving lets PD say of a store that it is being removed, or no longer, and give it
// no more peers; those that it has stay.
func (t *Topology) SetLeaving(id uint64, leaving bool) error {
	t.change.Lock()
	defer t.change.Unlock()
	if !t.known(id) {
		return fmt.Errorf("playground: no store %d", id)
	}
	if leaving {
		if err := t.spare(id); err != nil {
			return err
		}
	}
	record := t.records[id]
	record.Leaving = leaving
	return t.setRecord(id, record)
}

// Leaving reports whether PD says that a store is being removed.
func (t *Topology) Leaving(store uint64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.records[store].Leaving
}

// RemoveStore moves a store's peers to others and makes it a tombstone. As PD, it
// refuses when fewer stores would be left than regions have replicas (server/cluster/
// cluster.go, checkTikvReplicaBeforeOfflineStore).
func (t *Topology) RemoveStore(id uint64) error {
	t.change.Lock()
	defer t.change.Unlock()
	if !t.known(id) {
		return fmt.Errorf("playground: no store %d", id)
	}
	if err := t.spare(id); err != nil {
		return err
	}
	t.mu.RLock()
	regions := slices.Clone(t.sorted)
	t.mu.RUnlock()
	for _, r := range regions {
		if err := r.still(); err != nil && r.Peer(id) != nil {
			return err
		}
	}
	for _, r := range regions {
		if r.Peer(id) != nil {
			if err := t.moveAway(r, id); err != nil {
				return err
			}
		}
	}
	record := t.records[id]
	record.Removed = true
	if err := t.saveStore(id, record); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records[id], t.live[id] = record, false
	return nil
}

// moveAway gives a region a peer elsewhere for the one on a store.
func (t *Topology) moveAway(r *Region, from uint64) error {
	if r.Leader == nil {
		return fmt.Errorf("playground: region %d has no majority of live peers", r.ID())
	}
	to, err := t.roomFor(r)
	if err != nil {
		return err
	}
	id, err := t.allocID(1)
	if err != nil {
		return err
	}
	peers := slices.Clone(r.Meta.Peers)
	steps := uint64(moveTogether)
	for i, p := range peers {
		if p.StoreId == from {
			peers[i] = &metapb.Peer{Id: id, StoreId: to, Role: p.Role, IsWitness: p.IsWitness}
			if p.Role == metapb.PeerRole_Learner {
				steps = addLearner + removePeer
			}
		}
	}
	now, err := t.withPeers(r, peers, steps)
	if err != nil {
		return err
	}
	return t.replace(r, now)
}

// roomFor chooses the live store with the fewest peers that has none of the region's.
func (t *Topology) roomFor(r *Region) (uint64, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	peers := make(map[uint64]int)
	for _, o := range t.sorted {
		for _, p := range o.Meta.Peers {
			peers[p.StoreId]++
		}
	}
	var best uint64
	for _, s := range t.stores {
		if t.live[s] && !t.records[s].Removed && !t.records[s].Leaving && r.Peer(s) == nil && (best == 0 || peers[s] < peers[best]) {
			best = s
		}
	}
	if best == 0 {
		return 0, errors.New("playground: no live store has room for another peer of region " + strconv.FormatUint(r.ID(), 10))
	}
	return best, nil
}
