package tikv

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/tikv-go/tikv/internal/router"
)

// ReplicaOption is an option of everything that reads, raw views included. What only a
// region's leader can do goes to the leader whatever it says. Raw keys have no versions, so
// stale reads (WithStaleRead, WithMaxStaleness) are options of snapshots alone.
type ReplicaOption interface {
	RouteOption
	RawOption
}

// replicaConfig is which replicas answer reads.
type replicaConfig struct {
	policy        ReplicaPolicy
	bySize        func(keys int) ReplicaPolicy
	labels        map[string]string
	stores        []uint64
	busyThreshold time.Duration
	readTimeout   time.Duration
	hedgeAfter    time.Duration
}

type replicaOption struct {
	name string
	set  func(*replicaConfig) string
}

func (o replicaOption) applySnapshot(c *readConfig)   { c.add(o.name, o.set(&c.route.replica)) }
func (o replicaOption) applySnapshotAt(c *readConfig) { c.add(o.name, o.set(&c.route.replica)) }
func (o replicaOption) applyLatest(c *readConfig)     { c.add(o.name, o.set(&c.route.replica)) }
func (o replicaOption) applyBegin(c *txnConfig)       { c.add(o.name, o.set(&c.route.replica)) }
func (o replicaOption) applyRun(c *txnConfig)         { c.add(o.name, o.set(&c.route.replica)) }
func (o replicaOption) applyRaw(c *rawConfig)         { c.add(o.name, o.set(&c.replica)) }

// The options of one kind of snapshot.
type (
	snapshotOption struct {
		name string
		set  func(*readConfig) string
	}
	snapshotAtOption struct {
		name string
		set  func(*readConfig) string
	}
)

func (o snapshotOption) applySnapshot(c *readConfig)     { c.add(o.name, o.set(c)) }
func (o snapshotAtOption) applySnapshotAt(c *readConfig) { c.add(o.name, o.set(c)) }

// WithReplicaRead chooses the replicas that reads prefer. The default is ReadLeader. Any
// replica answers with what was committed before the read began, like the leader: it asks
// the leader how far that is, and waits until it has it.
func WithReplicaRead(p ReplicaPolicy) ReplicaOption {
	return replicaOption{"WithReplicaRead", func(c *replicaConfig) string {
		c.policy = p
		if p > ReadLearner {
			return "is not known: " + strconv.Itoa(int(p))
		}
		return ""
	}}
}

// WithReplicaReadBySize asks f for the policy of each request, with its number of keys: for
// a scan, the most that a page may have. f must be quick, and safe for concurrent use.
func WithReplicaReadBySize(f func(keys int) ReplicaPolicy) ReplicaOption {
	return replicaOption{"WithReplicaReadBySize", func(c *replicaConfig) string {
		c.bySize = f
		if f == nil {
			return "needs a function"
		}
		return ""
	}}
}

// WithReplicaLabels makes reads prefer, among the replicas that the policy allows, those on
// stores with all of the labels. With ReadNearest they take the place of WithZone.
func WithReplicaLabels(labels map[string]string) ReplicaOption {
	return replicaOption{"WithReplicaLabels", func(c *replicaConfig) string {
		c.labels = maps.Clone(labels)
		if len(labels) == 0 {
			return "needs a label"
		}
		return ""
	}}
}

// WithReplicaStores makes reads prefer, among the replicas that the policy allows, those on
// the stores.
func WithReplicaStores(ids ...uint64) ReplicaOption {
	return replicaOption{"WithReplicaStores", func(c *replicaConfig) string {
		c.stores = slices.Clone(ids)
		if len(ids) == 0 || slices.Contains(ids, 0) {
			return "needs the ids of stores"
		}
		return ""
	}}
}

// WithBusyThreshold makes reads avoid stores that say that a read waits longer than d there,
// whole milliseconds, before its turn comes, as long as another replica has less to do. Of
// ReadLeader's reads those go to another replica whose leader is too busy.
func WithBusyThreshold(d time.Duration) ReplicaOption {
	return replicaOption{"WithBusyThreshold", func(c *replicaConfig) string {
		c.busyThreshold = d
		return milliseconds(d)
	}}
}

// WithReadTimeout gives each attempt at a read the time d, whole milliseconds, until every
// replica was asked once: then the attempts have their usual time again, WithRPCTimeout's.
// Of ReadLeader's reads those go to another replica whose leader was late.
func WithReadTimeout(d time.Duration) ReplicaOption {
	return replicaOption{"WithReadTimeout", func(c *replicaConfig) string {
		c.readTimeout = d
		return milliseconds(d)
	}}
}

// WithHedging makes reads ask a second replica as well when the first has not answered
// after the given time. The first answer counts, and the other attempt is given up.
func WithHedging(after time.Duration) ReplicaOption {
	return replicaOption{"WithHedging", func(c *replicaConfig) string {
		c.hedgeAfter = after
		return positive(after)
	}}
}

// WithMaxStaleness lets any replica answer that has all that was committed up to the
// snapshot's moment, which is at most d ago: the oldest that this allows, from memory where
// the client has seen a timestamp that recently. Where no replica is that far the leader
// answers.
func WithMaxStaleness(d time.Duration) SnapshotOption {
	return snapshotOption{"WithMaxStaleness", func(c *readConfig) string {
		c.stale, c.staleness = true, d
		return milliseconds(d)
	}}
}

// WithStaleRead lets any replica answer that has all that was committed up to the
// snapshot's timestamp; where none has, the leader.
func WithStaleRead() SnapshotAtOption {
	return snapshotAtOption{"WithStaleRead", func(c *readConfig) string { c.stale = true; return "" }}
}

// WithZone says where this client is, by the label "zone" of the stores beside it:
// ReadNearest prefers them.
func WithZone(zone string) Option {
	return openOption{"WithZone", func(c *config) string {
		c.zone = zone
		if zone == "" {
			return "needs a name"
		}
		return ""
	}}
}

// WithFailFast makes calls end with ErrUnavailable, instead of trying until their time is
// over, when the store that they need is out of reach and no other can stand in for it.
func WithFailFast() ViewOption {
	return viewOption{"WithFailFast", func(c *viewConfig) string { c.failFast = true; return "" }}
}

// milliseconds tells what is wrong with a time that TiKV takes in 32 bits of milliseconds.
func milliseconds(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "must be at least a millisecond"
	case d%time.Millisecond != 0:
		return "must be whole milliseconds"
	case d > math.MaxUint32*time.Millisecond:
		return "is too long"
	}
	return ""
}

// ReplicaPolicy is which replica a read prefers. The others stand in when it cannot answer.
type ReplicaPolicy uint8

// The policies.
const (
	ReadLeader       ReplicaPolicy = iota // the leader alone
	ReadPreferLeader                      // the leader unless its store is slow, busy or away
	ReadFollower                          // any replica but the leader
	ReadAny                               // any replica
	ReadNearest                           // the replicas of WithZone or WithReplicaLabels first
	ReadLearner                           // learners first
)

// String is the policy in a word.
func (p ReplicaPolicy) String() string {
	if p > ReadLearner {
		return "ReplicaPolicy(" + strconv.Itoa(int(p)) + ")"
	}
	return router.Policy(p).String()
}

// zoneLabel is the label of stores that tells where they are (client-go kv.go, DCLabelKey).
const zoneLabel = "zone"

// route is the engine's form of what a view says about replicas; nil if it says nothing.
func (c *Client) route(v viewConfig, r replicaConfig, stale bool) *router.Route {
	if r.policy == ReadLeader && r.bySize == nil && !stale && r.busyThreshold == 0 && r.readTimeout == 0 && r.hedgeAfter == 0 && !v.failFast {
		return nil
	}
	route := &router.Route{
		Policy: router.Policy(r.policy), Stale: stale, Labels: r.labels, Stores: r.stores, BusyThreshold: r.busyThreshold,
		ReadTimeout: r.readTimeout, HedgeAfter: r.hedgeAfter, FailFast: v.failFast,
	}
	if r.bySize != nil {
		route.BySize = func(keys int) router.Policy { return router.Policy(r.bySize(keys)) }
	}
	if len(route.Labels) == 0 && len(route.Stores) == 0 && c.cfg.zone != "" && (r.policy == ReadNearest || r.bySize != nil) {
		route.Labels = map[string]string{zoneLabel: c.cfg.zone}
	}
	return route
}
