package cdc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/cdcpb"
)

// Sizes of TiKV components/cdc/src/channel.rs.
const (
	maxEventBytes  = 32 << 10 // of rows in one event of a scan
	maxEvents      = 64       // taken from the queues at a time
	maxMessage     = 6 << 20  // bytes of events in one message
	scanQueueLimit = 128      // events of scans that wait
)

// conn is a stream: two queues of what is to be sent, one of what happens and one, of
// limited length, of what scans find. They are emptied by turns (channel.rs, Drain).
type conn struct {
	quota *quota

	mu       sync.Mutex
	live     []item
	scans    []item
	scanTurn bool
	ended    bool // no more is put in
	closed   bool // and what was in it is dropped
	room     chan struct{}

	ready   chan struct{}
	done    chan struct{} // closed when closed is set
	flushed atomic.Int64  // when something was sent last, in nanoseconds
	idle    chan struct{} // closed when the stream is ended for being idle

	// Of the endpoint's loop alone.
	features features
	subs     map[subKey]*subscription
}

// subKey names a subscription within its stream.
type subKey struct{ request, region uint64 }

// item is something to be sent, or a barrier, which is closed when all before it was
// taken out to be sent.
type item struct {
	event    *cdcpb.Event
	resolved *cdcpb.ResolvedTs
	barrier  chan struct{}
	size     int          // reserved of the quota
	dropped  *atomic.Bool // of a scan: its subscription has ended, nothing of it is sent
}

func newConn(q *quota) *conn {
	c := &conn{
		quota: q, scanTurn: true, room: make(chan struct{}), ready: make(chan struct{}, 1),
		done: make(chan struct{}), idle: make(chan struct{}), subs: make(map[subKey]*subscription),
	}
	c.flushed.Store(time.Now().UnixNano())
	return c
}

func (c *conn) wake() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// put queues what happened; errCongested if the quota has no room for it. Without force
// only, which errors and barriers are put with.
func (c *conn) put(i item, force bool) error {
	if !force {
		i.size = i.bytes()
		if err := c.quota.take(i.size); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		c.discard(i)
		return nil
	}
	c.live = append(c.live, i)
	c.wake()
	return nil
}

// bytes is how much an item counts (channel.rs, CdcEvent::size).
func (i item) bytes() int {
	switch {
	case i.event != nil:
		return i.event.Size()
	case i.resolved != nil:
		return len(i.resolved.Regions)*5 + 10
	}
	return 0
}

// errEnded is the end of a stream.
var errEnded = errors.New("cdc: stream ended")

// putScan queues what a scan found, waiting for room. What is left when it fails is not
// queued.
func (c *conn) putScan(ctx context.Context, items []item) error {
	total := 0
	for i := range items {
		items[i].size = items[i].bytes()
		total += items[i].size
	}
	if err := c.quota.take(total); err != nil {
		return err
	}
	for i, it := range items {
		if err := c.putOne(ctx, it); err != nil {
			for _, left := range items[i:] {
				c.quota.free(left.size)
			}
			return err
		}
	}
	return nil
}

func (c *conn) putOne(ctx context.Context, i item) error {
	for {
		c.mu.Lock()
		if c.ended {
			c.mu.Unlock()
			return errEnded
		}
		if len(c.scans) < scanQueueLimit {
			c.scans = append(c.scans, i)
			c.wake()
			c.mu.Unlock()
			return nil
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-c.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// wait waits until everything before a barrier was taken out.
func (c *conn) wait(ctx context.Context, barrier <-chan struct{}) error {
	select {
	case <-barrier:
		return nil
	case <-c.done:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take takes out what is to be sent next, at most maxEvents; last when nothing will come.
func (c *conn) take() (items []item, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	room := false
	for len(items) < maxEvents && len(c.live)+len(c.scans) > 0 {
		from := &c.live
		if len(c.scans) > 0 && (c.scanTurn || len(c.live) == 0) {
			from, room = &c.scans, true
		}
		c.scanTurn = from != &c.scans
		i := (*from)[0]
		if *from = (*from)[1:]; len(*from) == 0 {
			*from = nil
		}
		if i.dropped != nil && i.dropped.Load() {
			c.discard(i)
			continue
		}
		items = append(items, i)
	}
	if room {
		close(c.room)
		c.room = make(chan struct{})
	}
	return items, c.ended
}

// discard gives back what an item reserved.
func (c *conn) discard(i item) { c.quota.free(i.size) }

// end lets nothing more in.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.wake()
}

// close drops what waits.
func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.ended, c.closed = true, true
	for _, i := range append(c.live, c.scans...) {
		c.discard(i)
	}
	c.live, c.scans = nil, nil
	close(c.done)
	c.wake()
}

// messages packs items: events together up to a size, but not across a barrier, and each
// resolved timestamp alone (channel.rs, EventBatcher).
func messages(items []item) []*cdcpb.ChangeDataEvent {
	var (
		all  []*cdcpb.ChangeDataEvent
		size = maxMessage
	)
	for _, i := range items {
		switch {
		case i.event != nil:
			n := i.event.Size()
			if len(all) == 0 || size+n >= maxMessage {
				all = append(all, new(cdcpb.ChangeDataEvent))
				size = 0
			}
			size += n
			m := all[len(all)-1]
			m.Events = append(m.Events, i.event)
		case i.resolved != nil:
			all = append(all, &cdcpb.ChangeDataEvent{ResolvedTs: i.resolved})
			size = maxMessage
		default:
			size = maxMessage
		}
	}
	return all
}

// send sends what is put in until the stream ends.
func (c *conn) send(ctx context.Context, send func(*cdcpb.ChangeDataEvent) error) error {
	for {
		items, last := c.take()
		for _, i := range items {
			c.discard(i) // about to be sent, it counts no more
			if i.barrier != nil {
				close(i.barrier)
			}
		}
		for _, m := range messages(items) {
			if err := send(m); err != nil {
				return err
			}
		}
		if len(items) > 0 {
			c.flushed.Store(time.Now().UnixNano())
			continue
		}
		if last {
			return nil
		}
		select {
		case <-c.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
