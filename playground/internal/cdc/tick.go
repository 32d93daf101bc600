package cdc

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// Streams that send nothing are looked for every so often, and ended after so long if the
// quota is used up (TiKV components/cdc/src/watchdog.rs, Config).
const (
	idleCheck = time.Minute
	idleLimit = 5 * time.Minute
)

// tick has timestamps resolved at every interval (TiKV components/cdc/src/endpoint.rs,
// register_min_ts_event).
func (e *endpoint) tick(ctx context.Context) {
	timer := time.NewTimer(e.Limits.Interval)
	defer timer.Stop()
	looked := time.Now()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if ts, ok := e.Timestamp(ctx); ok {
			e.do(func() { e.resolve(ts) })
		}
		if now := time.Now(); now.Sub(looked) >= idleCheck {
			looked = now
			e.do(func() { e.endIdle(now) })
		}
		timer.Reset(e.Limits.Interval)
	}
}

// progress is a subscription's resolved timestamp.
type progress struct {
	*subscription
	ts uint64
}

// resolve finds what is resolved of each subscription. It is told behind what is queued
// by then: all that was applied when the locks were looked at.
func (e *endpoint) resolve(now uint64) {
	var all []progress
	for _, id := range slices.Sorted(maps.Keys(e.regions)) {
		r := e.regions[id]
		for _, s := range r.subs {
			if s.state.Load() == normal {
				all = append(all, progress{s, e.resolved(s, r, now)})
			}
		}
	}
	e.do(func() { e.advance(all) })
}

func (e *endpoint) resolved(s *subscription, r *region, now uint64) uint64 {
	in := keys.Range{Start: r.meta.StartKey, End: r.meta.EndKey}.Intersect(s.in)
	ts := e.Txn.Resolved(in, now)
	if e.APIVersion == kvrpcpb.APIVersion_V2 {
		ts = min(ts, e.Raw.Landed())
	}
	return ts
}

// advance tells subscriptions what is resolved (delegate.rs, on_min_ts; endpoint.rs,
// emit_resolved_ts). What a subscription reached it does not lose: a lower value only
// means that an older transaction came to write since, which commits later.
func (e *endpoint) advance(all []progress) {
	type group struct {
		conn    *conn
		request uint64
	}
	groups := make(map[group][]progress)
	var order []group
	for _, p := range all {
		if p.conn.subs[subKey{p.request, p.region}] != p.subscription {
			continue // ended meanwhile
		}
		p.subscription.resolved = max(p.subscription.resolved, p.ts)
		if p.muted {
			continue
		}
		p.ts = p.subscription.resolved
		g := group{conn: p.conn}
		switch {
		case p.conn.features.multiplexed:
			g.request = p.request
		case !p.conn.features.batch:
			event := p.event(&cdcpb.Event_ResolvedTs{ResolvedTs: p.ts})
			_ = p.conn.put(item{event: event}, false) // lost if there is no room
			continue
		}
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], p)
	}
	for _, g := range order {
		if g.conn.features.batch {
			g.conn.sendResolved(g.request, groups[g])
		}
	}
}

// sendResolved sends what is resolved in groups, the slowest regions first: a group's
// timestamp is its least. The first has eight, so that few wait for one that lags. A
// message that there is no room for is lost; the next tick repeats it.
func (c *conn) sendResolved(request uint64, all []progress) {
	slices.SortFunc(all, func(a, b progress) int {
		return cmp.Or(cmp.Compare(a.ts, b.ts), cmp.Compare(a.region, b.region))
	})
	for size := 8; len(all) > 0; size *= 4 {
		n := min(size, len(all))
		m := &cdcpb.ResolvedTs{Ts: all[0].ts, RequestId: request}
		for _, p := range all[:n] {
			m.Regions = append(m.Regions, p.region)
		}
		slices.Sort(m.Regions)
		m.Regions = slices.Compact(m.Regions)
		_ = c.put(item{resolved: m}, false)
		all = all[n:]
	}
}

// endIdle ends the streams that have sent nothing for long while the store's quota is
// used up (watchdog.rs, check_and_maybe_abort).
func (e *endpoint) endIdle(now time.Time) {
	if !e.quota.full() {
		return
	}
	for c := range e.conns {
		if now.Sub(time.Unix(0, c.flushed.Load())) > idleLimit {
			e.left(c)
			close(c.idle)
		}
	}
}
