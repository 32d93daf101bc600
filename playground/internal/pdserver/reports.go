package pdserver

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// reports is what processes that are not the cluster's tell PD of stores: of the cluster's
// own, which need no messages to be known, or of others, which PD knows from then on though
// nothing is behind them, and no region is ever placed there.
type reports struct {
	put sync.Mutex // of changes of what was put; before mu
	mu  sync.Mutex
	of  map[uint64]*report // by store
}

// report is of one store.
type report struct {
	// meta is what was put last, nil for none; since is when a store of others was put
	// first, and ours the address that the cluster's own store reported itself before.
	meta  *metapb.Store
	since time.Time
	ours  string

	stats  *pdpb.StoreStats
	heard  time.Time // the last heartbeat
	awoken time.Time // when it was last told to wake its regions

	resolved   uint64
	resolvedAt time.Time
}

// Rules of time: how often PD looks whether a store's state ends (PD: server/cluster/
// cluster.go, nodeStateCheckJobInterval), when a new store is ready in any case (server/
// config, max-store-preparing-time), and how often stores report their resolved timestamp
// (TiKV raftstore's pd-report-min-resolved-ts-interval).
const (
	stateCheck    = 10 * time.Second
	preparing     = 48 * time.Hour
	resolvedEvery = time.Second
)

// newCluster is how many regions make a cluster an old one, where new stores are first
// filled (PD: pkg/core/region.go, InitClusterRegionThreshold).
const newCluster = 100

// storePath is where PD keeps stores (PD: pkg/utils/keypath/absolute_key_path.go).
const storePath = "raft/s/"

func (pd *PD) storeKey(id uint64) string { return pd.path(fmt.Sprintf("%s%020d", storePath, id)) }

// load takes the saved stores that are not the cluster's own.
func (pd *PD) loadReports() error {
	pd.reports.of = make(map[uint64]*report)
	path := []byte(pd.path(storePath))
	found, _, err := pd.kv.Range(path, keys.PrefixEnd(path), 0)
	if err != nil {
		return err
	}
	own := pd.Topology.Stores()
	for _, kv := range found {
		id, err := strconv.ParseUint(strings.TrimPrefix(string(kv.Key), string(path)), 10, 64)
		m := new(metapb.Store)
		if err == nil {
			err = m.Unmarshal(kv.Value)
		}
		if err != nil {
			return fmt.Errorf("playground: the directory's store %q is damaged: %w", kv.Key, err)
		}
		if !slices.Contains(own, id) {
			pd.reports.of[id] = &report{meta: m, since: pd.Now()}
		}
	}
	return nil
}

// report is that of a store, made if there is none. Callers hold mu.
func (s *reports) report(id uint64) *report {
	r := s.of[id]
	if r == nil {
		r = new(report)
		s.of[id] = r
	}
	return r
}

// StoreStarted tells that a store of the cluster started: it puts itself then, over what
// others have put.
func (pd *PD) StoreStarted(id uint64) {
	pd.reports.mu.Lock()
	defer pd.reports.mu.Unlock()
	if r := pd.reports.of[id]; r != nil {
		r.meta = nil
	}
}

// stores are the ids of all stores, in order.
func (pd *PD) stores() []uint64 {
	all := pd.Topology.Stores()
	pd.reports.mu.Lock()
	defer pd.reports.mu.Unlock()
	for id, r := range pd.reports.of {
		if r.meta != nil && !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return all
}

// store is a store as PD knows it, nil for an unknown one.
func (pd *PD) store(id uint64) *metapb.Store {
	own, regions, now := pd.Store(id), pd.Topology.Len(), pd.Now()
	pd.reports.mu.Lock()
	defer pd.reports.mu.Unlock()
	r := pd.reports.of[id]
	if r == nil {
		return own
	}
	m := own
	switch {
	case own == nil && r.meta == nil:
		return nil
	case own == nil:
		r.check(regions, now)
		copied := *r.meta
		m = &copied
	case r.meta != nil && r.ours == own.Address:
		overlay(m, r.meta)
	}
	if !r.heard.IsZero() {
		m.LastHeartbeat = r.heard.UnixNano()
	}
	return m
}

// check ends the state of a store without regions when it is time (PD: server/cluster/
// cluster.go, checkStore): a new store serves, at once in a new cluster, and one that is
// being removed is gone.
func (r *report) check(regions int, now time.Time) {
	up := r.heard.Sub(time.Unix(r.meta.StartTimestamp, 0))
	switch {
	case now.Sub(r.since) < stateCheck:
	case r.meta.NodeState == metapb.NodeState_Preparing && (regions < newCluster || up >= preparing):
		r.meta.State, r.meta.NodeState = metapb.StoreState_Up, metapb.NodeState_Serving
	case r.meta.NodeState == metapb.NodeState_Removing:
		r.meta.State, r.meta.NodeState = metapb.StoreState_Tombstone, metapb.NodeState_Removed
	}
}

// overlay updates a store that PD knows with what is put of it, but for its labels and its
// state (PD: server/cluster/cluster.go, putStoreImpl).
func overlay(m, put *metapb.Store) {
	m.Address, m.StatusAddress, m.PeerAddress = put.Address, put.StatusAddress, put.PeerAddress
	m.GitHash, m.Version = put.GitHash, put.Version
	m.StartTimestamp, m.DeployPath = put.StartTimestamp, put.DeployPath
}

// statsOf is what a store reported last, empty if it never did (PD: pkg/core/
// store_stats.go, newStoreStats).
func (pd *PD) statsOf(id uint64) *pdpb.StoreStats {
	pd.reports.mu.Lock()
	defer pd.reports.mu.Unlock()
	if r := pd.reports.of[id]; r != nil && r.stats != nil {
		return r.stats
	}
	return new(pdpb.StoreStats)
}

// reportedTS is a store's resolved timestamp: what was reported of it last. A store of the
// cluster that lives reports its own every second.
func (pd *PD) reportedTS(id uint64) uint64 {
	pd.reports.mu.Lock()
	r := pd.reports.of[id]
	var ts uint64
	last := r != nil && !r.resolvedAt.IsZero() &&
		(!pd.Topology.Live(id) || pd.Now().Sub(r.resolvedAt) < resolvedEvery)
	if last {
		ts = r.resolved
	}
	pd.reports.mu.Unlock()
	if last {
		return ts
	}
	return pd.ResolvedTS(id)
}

// putStore takes a store over (PD: server/cluster/cluster.go, PutMetaStore and
// putStoreImpl).
func (pd *PD) putStore(s *metapb.Store) error {
	if s.GetId() == 0 {
		return fmt.Errorf("invalid put store %v", s)
	}
	pd.reports.put.Lock()
	defer pd.reports.put.Unlock()
	if err := cmp.Or(pd.checkVersion(s), pd.checkAddresses(s)); err != nil {
		return err
	}
	if own := pd.Store(s.Id); own != nil {
		if err := pd.Topology.SetLabels(s.Id, mergeLabels(own.Labels, s.Labels)); err != nil {
			return err
		}
		pd.reports.mu.Lock()
		defer pd.reports.mu.Unlock()
		r := pd.reports.report(s.Id)
		r.meta, r.ours = s, own.Address
		return nil
	}
	return pd.putOther(s)
}

// putOther takes over a store that is not the cluster's: a new one as it is put.
func (pd *PD) putOther(s *metapb.Store) error {
	kept := s
	if known := pd.store(s.Id); known != nil {
		overlay(known, s)
		known.Labels = mergeLabels(known.Labels, s.Labels)
		kept = known
	}
	return pd.keepOther(kept)
}

// keepOther keeps such a store. Callers hold put.
func (pd *PD) keepOther(s *metapb.Store) error {
	data, err := s.Marshal()
	if err == nil {
		err = pd.kv.Put(pd.storeKey(s.Id), data)
	}
	if err != nil {
		return err
	}
	pd.reports.mu.Lock()
	defer pd.reports.mu.Unlock()
	r := pd.reports.report(s.Id)
	if r.meta == nil {
		r.since = pd.Now()
	}
	r.meta = s
	return nil
}

// RemoveOther makes a store a tombstone that is not the cluster's; there is nothing on it
// to be moved.
func (pd *PD) RemoveOther(id uint64) error {
	pd.reports.put.Lock()
	defer pd.reports.put.Unlock()
	s := pd.store(id)
	if s == nil || removed(s) {
		return fmt.Errorf("playground: no store %d", id)
	}
	s.State, s.NodeState = metapb.StoreState_Tombstone, metapb.NodeState_Removed
	return pd.keepOther(s)
}

// checkVersion refuses a store that is older than the cluster (PD: server/cluster/
// cluster.go, checkStoreVersion; pkg/versioninfo, IsCompatible).
func (pd *PD) checkVersion(s *metapb.Store) error {
	v, err := parseVersion(s.GetVersion())
	if err != nil {
		return fmt.Errorf("invalid put store %v, error: [PD:semver:ErrSemverNewVersion]new version error: %w", s, err)
	}
	if of := pd.clusterVersion(); of.compare(v) >= 0 && (of.major != v.major || of.minor != v.minor) {
		return fmt.Errorf("version should compatible with version  %s, got %s", of, v)
	}
	return nil
}

// clusterVersion is the smallest version of a store that is not removed (PD: server/
// cluster/cluster.go, OnStoreVersionChange).
func (pd *PD) clusterVersion() semver {
	var least *semver
	for _, id := range pd.stores() {
		s := pd.store(id)
		if s == nil || removed(s) {
			continue
		}
		if v, err := parseVersion(s.Version); err == nil && (least == nil || v.compare(*least) < 0) {
			least = &v
		}
	}
	if least == nil {
		v, _ := parseVersion(version)
		least = &v
	}
	return *least
}

// checkAddresses refuses addresses that another store has (PD: server/cluster/cluster.go,
// putStoreImpl).
func (pd *PD) checkAddresses(s *metapb.Store) error {
	for _, id := range pd.stores() {
		o := pd.store(id)
		switch {
		case o == nil || id == s.Id || removed(o) || o.PhysicallyDestroyed:
		case s.Address == o.Address || o.PeerAddress != "" && s.Address == o.PeerAddress:
			return fmt.Errorf("duplicated store address: %v, already registered by %v", s, o)
		case s.PeerAddress != "" && (s.PeerAddress == o.Address || s.PeerAddress == o.PeerAddress):
			return fmt.Errorf("duplicated store peer address: %v, already registered by %v", s, o)
		}
	}
	return nil
}

// mergeLabels takes labels over; keys are compared regardless of case, and an empty value
// takes a label away (PD: pkg/core/store.go, MergeLabels).
func mergeLabels(origin, labels []*metapb.StoreLabel) []*metapb.StoreLabel {
	merged := make([]*metapb.StoreLabel, 0, len(origin)+len(labels))
	for _, l := range slices.Concat(origin, labels) {
		at := slices.IndexFunc(merged, func(m *metapb.StoreLabel) bool { return strings.EqualFold(m.Key, l.Key) })
		if at < 0 {
			merged = append(merged, &metapb.StoreLabel{Key: l.Key, Value: l.Value})
			continue
		}
		merged[at].Value = l.Value
	}
	return slices.DeleteFunc(merged, func(l *metapb.StoreLabel) bool { return l.Value == "" })
}
