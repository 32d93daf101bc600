package cdc

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/mvcc"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// state is how far a subscription is (TiKV components/cdc/src/delegate.rs,
// DownstreamState).
type state = int32

const (
	waiting  state = iota // takes no changes
	scanning              // takes changes, no resolved timestamps
	normal
	stopped
)

// subscription is one of a stream to a region (delegate.rs, Downstream).
type subscription struct {
	conn            *conn
	request, region uint64
	epoch           *metapb.RegionEpoch
	after           uint64 // the timestamp that it begins after
	raw             bool
	filterLoop      bool
	// in is the keys that it wants, encoded, and wanted the same as users have them.
	in, wanted keys.Range
	// covers: it wants all of the region. Of those that came when the region was known
	// already nobody finds out; of the endpoint's loop alone.
	covers bool
	// muted: a fault loses everything that it is sent.
	muted bool

	state     atomic.Int32
	truncated atomic.Bool // what its scan has queued is not sent any more

	resolved uint64 // the last that it reached; of the endpoint's loop alone
}

func newSubscription(c *conn, q *cdcpb.ChangeDataRequest, muted bool) *subscription {
	s := &subscription{
		conn: c, request: q.RequestId, region: q.RegionId, epoch: q.RegionEpoch, after: q.CheckpointTs,
		raw: q.KvApi == cdcpb.ChangeDataRequest_RawKV, filterLoop: q.FilterLoop, muted: muted,
	}
	if s.epoch == nil {
		s.epoch = new(metapb.RegionEpoch)
	}
	start, err := decoded(q.StartKey)
	end, err2 := decoded(q.EndKey)
	if err == nil && err2 == nil { // else the whole region (service.rs, handle_register)
		s.in = keys.Range{Start: q.StartKey, End: q.EndKey}
		s.wanted = keys.Range{Start: start, End: end}
	}
	return s
}

func decoded(bound []byte) ([]byte, error) {
	if len(bound) == 0 {
		return nil, nil
	}
	raw, _, err := keys.Decode(bound)
	return raw, err
}

// sorted are a stream's subscriptions, in a fixed order.
func (c *conn) sorted() []*subscription {
	return slices.SortedFunc(maps.Values(c.subs), func(a, b *subscription) int {
		return cmp.Or(cmp.Compare(a.request, b.request), cmp.Compare(a.region, b.region))
	})
}

// checkEpoch refuses a version that is not the region's, if that is known yet
// (delegate.rs, check_epoch_on_ready).
func (s *subscription) checkEpoch(r *region) error {
	if r.meta == nil || r.meta.GetRegionEpoch().GetVersion() == s.epoch.GetVersion() {
		return nil
	}
	return refused{&errorpb.Error{
		Message:       fmt.Sprintf("epoch of region %d is not %v", r.id, s.epoch),
		EpochNotMatch: &errorpb.EpochNotMatch{CurrentRegions: []*metapb.Region{r.meta}},
	}}
}

// end stops the subscription, and tells of an error. Nothing is sent of it after that.
func (s *subscription) end(err error) {
	key := subKey{s.request, s.region}
	if s.conn.subs[key] == s {
		delete(s.conn.subs, key)
	}
	s.state.Store(stopped)
	if err != nil {
		s.fail(eventError(err, s.region))
	}
}

// fail sends an error, whatever waits to be sent.
func (s *subscription) fail(e *cdcpb.Error) {
	s.truncated.Store(true)
	if !s.muted {
		_ = s.conn.put(item{event: s.event(&cdcpb.Event_Error{Error: e})}, true) // never refused
	}
}

// event makes an event of the subscription, of what is in it.
func (s *subscription) event(content any) *cdcpb.Event {
	e := &cdcpb.Event{RegionId: s.region, RequestId: s.request}
	switch c := content.(type) {
	case *cdcpb.Event_Error:
		e.Event = c
	case *cdcpb.Event_ResolvedTs:
		e.Event = c
	case []*cdcpb.Event_Row:
		e.Event = &cdcpb.Event_Entries_{Entries: &cdcpb.Event_Entries{Entries: c}}
	}
	return e
}

// learn tells the subscription what the region is (ObservedRange, update_region_key_range).
func (s *subscription) learn(r *metapb.Region) {
	s.covers = bytes.Compare(s.in.Start, r.StartKey) <= 0 && keys.CompareEnds(r.EndKey, s.in.End) <= 0
}

// wants tells whether it is told of a key, as users have it. One that is empty is no key's
// (delegate.rs, contains_raw_key).
func (s *subscription) wants(key []byte) bool { return s.covers || s.wanted.Contains(key) }

// takesChanges tells whether it is sent what is applied.
func (s *subscription) takesChanges() bool {
	now := s.state.Load()
	return now == scanning || now == normal
}

// Who wrote a transaction, in TxnSource (TiKV components/cdc/src/txn_source.rs).
const (
	sourceFeed     = 0xff // written by a change feed
	sourceDDLShift = 8    // by a lossy change of a column's type
	sourceImport   = 1 << 16
)

// filtered tells that a row is not for the subscription: what imports and lossy changes of
// columns write never is, and what a change feed writes is not if the client says so.
func (s *subscription) filtered(source uint64) bool {
	return source&sourceImport != 0 || source>>sourceDDLShift != 0 || s.filterLoop && source&sourceFeed != 0
}

// batch sends what was applied to a region's subscriptions (delegate.rs, on_batch and
// sink_data).
func (e *endpoint) batch(o observation, b *storage.Batch, snap storage.Snapshot) {
	r := e.regions[o.region]
	if r == nil || r.number != o.number {
		return
	}
	r.index++
	if err := e.deliver(r, o.in, b, snap); err != nil {
		e.stop(r.id, r.number, err)
	}
}

func (e *endpoint) deliver(r *region, in keys.Range, b *storage.Batch, snap storage.Snapshot) error {
	raws := e.Raw.Rows(b)
	var txns []*mvcc.Row
	for _, row := range mvcc.Rows(b) {
		if in.Contains(row.Stored) {
			txns = append(txns, row)
		}
	}
	for _, s := range r.subs {
		if !s.takesChanges() {
			continue
		}
		event, err := s.changes(r, raws, txns, snap)
		if err == nil && event != nil && !s.muted {
			err = s.conn.put(item{event: event}, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// changes is the event of a batch for a subscription, nil if there is nothing for it.
// What a key's value was before is read for the first subscription that wants it.
func (s *subscription) changes(r *region, raws []*cdcpb.Event_Row, txns []*mvcc.Row, snap storage.Snapshot) (*cdcpb.Event, error) {
	var rows []*cdcpb.Event_Row
	if s.raw {
		for _, row := range raws {
			if s.wants(row.Key) {
				rows = append(rows, row)
			}
		}
	} else {
		for _, row := range txns {
			if !s.wants(row.Key) || s.filtered(row.TxnSource) {
				continue
			}
			if row.OldAt != 0 {
				var err error
				if row.OldValue, err = mvcc.OldValue(snap, row.Key, row.OldAt); err != nil {
					return nil, err
				}
				row.OldAt = 0
			}
			rows = append(rows, &row.Event_Row)
		}
	}
	if len(rows) == 0 {
		return nil, nil
	}
	event := s.event(rows)
	if s.raw {
		event.Index = r.index
	}
	return event, nil
}
