package router

import (
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/transport"
)

// Route is what a view says about which replicas answer its calls. It is not changed once
// it is in use; nil is the leader, without more ado.
type Route struct {
	Policy Policy
	// BySize, if not nil, is asked for the policy of each request, with its number of keys.
	BySize func(keys int) Policy
	// Stale: reads are served at their timestamp by any replica that has all of it.
	Stale bool
	// Labels and Stores are whom the policy prefers: all of the labels, and one of the stores.
	Labels map[string]string
	Stores []uint64
	// BusyThreshold: a store whose queue takes longer is not asked while another has less.
	BusyThreshold time.Duration
	// ReadTimeout is the time of an attempt as long as there are replicas that were not asked.
	ReadTimeout time.Duration
	// HedgeAfter: a second replica is asked as well if the first has not answered by then.
	HedgeAfter time.Duration
	// FailFast: a call ends when the leader that it needs is out of reach.
	FailFast bool
}

// wishOf is what a request wants, of a call that may have learned better.
func wishOf(call *Call, req transport.Request) wish {
	r := call.Route
	if r == nil {
		return wish{}
	}
	keys, timed := served(req)
	if keys < 0 || call.plainly {
		return wish{}
	}
	w := wish{
		policy: r.Policy, read: true, stale: r.Stale && timed, patient: call.patient || r.ReadTimeout == 0,
		threshold: r.BusyThreshold > 0 && !call.crowded,
	}
	if r.BySize != nil {
		w.policy = r.BySize(keys)
	}
	if w.policy >= lastPolicy {
		w.policy = ReadLeader
	}
	return w
}

// learn makes the rest of the call know what a request had to give up of its wishes.
func (c *Call) learn(was, w wish) {
	c.plainly = c.plainly || was.read && !w.read
	c.patient = c.patient || w.patient && !was.patient
	c.crowded = c.crowded || was.threshold && !w.threshold
}

// AtLeader makes the rest of the call ask leaders alone.
func (c *Call) AtLeader() { c.plainly = true }

// served tells how many keys a request reads at most, -1 if replicas do not serve it, and
// whether it is at a timestamp: a raw read has none, and a stale one would be served
// whatever the replica has (TiKV src/server/raftkv/mod.rs, async_snapshot).
func served(req transport.Request) (keys int, timed bool) {
	switch q := req.(type) {
	case *kvrpcpb.GetRequest:
		return 1, true
	case *kvrpcpb.BatchGetRequest:
		return len(q.Keys), true
	case *kvrpcpb.ScanRequest:
		return int(q.Limit), true
	case *coprocessor.Request:
		return 0, q.StartTs != 0
	case *kvrpcpb.RawGetRequest, *kvrpcpb.RawGetKeyTTLRequest:
		return 1, false
	case *kvrpcpb.RawBatchGetRequest:
		return len(q.Keys), false
	case *kvrpcpb.RawScanRequest:
		return int(q.Limit), false
	case *kvrpcpb.RawBatchScanRequest:
		return int(q.EachLimit) * len(q.Ranges), false
	case *kvrpcpb.RawChecksumRequest:
		return 0, false
	}
	return -1, false
}

// prefers reports whether the route has preferences, and the store meets them.
func (r *Route) prefers(store *region.Store) bool {
	if len(r.Labels) == 0 && len(r.Stores) == 0 {
		return false
	}
	if len(r.Stores) > 0 && !slices.Contains(r.Stores, store.ID) {
		return false
	}
	for key, value := range r.Labels {
		if store.Label(key) != value {
			return false
		}
	}
	return true
}
