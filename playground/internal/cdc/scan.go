package cdc

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/pingcap/kvproto/pkg/cdcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/mvcc"
	"github.com/tikv-go/tikv/playground/internal/storage"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// How much a scan reads at a time (TiKV components/cdc/src/endpoint.rs, Endpoint::new).
const (
	scanBatchBytes = 1 << 20
	scanBatchRows  = 1024
)

// errCanceled is a scan whose subscription has ended.
var errCanceled = errors.New("cdc: scan canceled")

// scan tells a subscription what there is (TiKV components/cdc/src/initializer.rs,
// Initializer).
func (e *endpoint) scan(ctx context.Context, s *subscription, number uint64) error {
	select {
	case e.scans <- struct{}{}:
		defer func() { <-e.scans }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.state.Load() == stopped {
		return errCanceled
	}
	begun := make(chan bool, 1)
	// What was queued for the stream before is sent before.
	barrier := make(chan struct{})
	snap, in, err := e.capture(s, number, func(r *topology.Region) { begun <- e.begin(s, number, r, barrier) })
	if err != nil {
		return err
	}
	defer snap.Close()
	select {
	case ok := <-begun:
		if !ok {
			return errCanceled
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.conn.wait(ctx, barrier); err != nil {
		return err
	}
	if err := s.sendAll(ctx, e.found(snap, in, s)); err != nil {
		return err
	}
	if !s.state.CompareAndSwap(scanning, normal) {
		return errCanceled
	}
	return nil
}

// capture begins to observe the subscription's region and takes a snapshot, so that what
// is applied is in the snapshot or will be queued, and queues what is to be done between
// the two (initializer.rs, initialize; components/raftstore/src/store/fsm/apply.rs,
// handle_change).
func (e *endpoint) capture(s *subscription, number uint64, begin func(*topology.Region)) (snap storage.Snapshot, in keys.Range, err error) {
	r, no := e.Enter(s.region, s.epoch)
	if no != nil {
		return nil, keys.Range{}, refused{no}
	}
	defer r.Leave()
	e.Engine.Sync(func(now storage.Snapshot) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.ended || e.subscribed[s.region] != number {
			now.Close()
			err = errCanceled
			return
		}
		snap = now
		e.observe(observation{s.region, number, r.Range()})
		e.push(work{do: func() { begin(r) }})
	})
	return snap, r.Range(), err
}

// begin lets a subscription take changes, and reports false if it has ended. The first of
// a region tells what the region is, which those that came meanwhile are checked against
// (endpoint.rs, Task::InitDownstream; delegate.rs, finish_scan_locks).
func (e *endpoint) begin(s *subscription, number uint64, now *topology.Region, barrier chan struct{}) bool {
	r := e.regions[s.region]
	if r == nil || r.number != number {
		return false
	}
	if r.builder == nil {
		r.builder = s
	}
	if !slices.Contains(r.subs, s) || s.state.Load() != waiting {
		return false
	}
	_ = s.conn.put(item{barrier: barrier}, true) // never refused
	s.state.Store(scanning)
	if r.meta == nil {
		r.meta = now.Meta
		for _, o := range slices.Clone(r.subs) {
			o.learn(r.meta)
			if err := o.checkEpoch(r); err != nil {
				e.drop(o, err)
			}
		}
	}
	return true
}

// found is what a subscription's scan finds in a region. Of raw keys all of the region's
// are told, whatever the subscription asks for.
func (e *endpoint) found(snap storage.Snapshot, in keys.Range, s *subscription) iter.Seq2[*cdcpb.Event_Row, error] {
	return func(yield func(*cdcpb.Event_Row, error) bool) {
		if s.raw {
			for row := range e.Raw.Delta(snap, in, s.after) {
				if !yield(row, nil) {
					return
				}
			}
			return
		}
		in = in.Intersect(s.in)
		if in.Empty() {
			return
		}
		for row, err := range mvcc.Delta(snap, in, s.after) {
			if !yield(&row.Event_Row, err) {
				return
			}
		}
	}
}

// sendAll queues what a scan finds, and at its end a row that says so, and waits until it
// was taken out to be sent (initializer.rs, async_incremental_scan).
func (s *subscription) sendAll(ctx context.Context, found iter.Seq2[*cdcpb.Event_Row, error]) error {
	var (
		rows  []*cdcpb.Event_Row
		bytes int
	)
	for row, err := range found {
		if err != nil {
			return err
		}
		rows = append(rows, row)
		bytes += len(row.Key) + len(row.Value) + len(row.OldValue)
		if bytes <= scanBatchBytes && len(rows) < scanBatchRows {
			continue
		}
		if err := s.sendScan(ctx, rows); err != nil {
			return err
		}
		if s.state.Load() == stopped {
			return errCanceled
		}
		rows, bytes = nil, 0
	}
	end := make(chan struct{})
	if err := s.sendScan(ctx, append(rows, &cdcpb.Event_Row{Type: cdcpb.Event_INITIALIZED}), item{barrier: end}); err != nil {
		return err
	}
	return s.conn.wait(ctx, end)
}

// sendScan packs rows into events and queues them, with what is to follow (delegate.rs,
// convert_to_grpc_events).
func (s *subscription) sendScan(ctx context.Context, rows []*cdcpb.Event_Row, more ...item) error {
	var (
		items []item
		part  []*cdcpb.Event_Row
		bytes int
	)
	flush := func() {
		if len(part) > 0 && !s.muted {
			items = append(items, item{event: s.event(part), dropped: &s.truncated})
		}
		part, bytes = nil, 0
	}
	for _, row := range rows {
		if s.filtered(row.TxnSource) {
			continue
		}
		n := len(row.Key) + len(row.Value) + len(row.OldValue)
		if row.Type == cdcpb.Event_INITIALIZED {
			n = 0
		}
		if bytes+n >= maxEventBytes {
			flush()
		}
		bytes += n
		part = append(part, row)
	}
	flush()
	return s.conn.putScan(ctx, append(items, more...))
}
