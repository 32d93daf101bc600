package transport

import (
	"context"
	"strconv"
	"time"
)

// How the connections of an address follow its load. TiKV serves each from one thread of
// its own, and so does grpc here.
const (
	// LaneCalls is how many calls on every connection make for one more.
	LaneCalls = 1024
	// MaxLanes is the most connections for the calls to one address.
	MaxLanes = 4
	// IdleLimit is how long a connection without calls stays.
	IdleLimit = 5 * time.Minute
	// VainLimit is how long one is sought that nobody wants: grpc dials an address that
	// cannot be reached again and again, as long as its connection is not closed.
	VainLimit = 30 * time.Second
)

// lane returns the endpoint, e or a further one for the same address, that has the least
// to do. It opens another where all have much.
func (p *Pool) lane(e *endpoint) *endpoint {
	least := e
	for n, at := 1, e; least.calls.Load() >= LaneCalls && n < MaxLanes; n++ {
		next := at.next.Load()
		if next == nil || next.gone.Load() {
			var err error
			if next, err = p.endpoint(Target{Addr: e.to.Addr, Forward: e.to.Forward, lane: n}); err != nil {
				return least
			}
			at.next.Store(next)
		}
		if next.calls.Load() < least.calls.Load() {
			least = next
		}
		at = next
	}
	return least
}

// lanes are the endpoints of addr, but for those of what it passes on.
func (p *Pool) lanes(addr string) (all []*endpoint) {
	endpoints := *p.endpoints.Load()
	for n := range MaxLanes {
		if e := endpoints[Target{Addr: addr, lane: n}.key()]; e != nil {
			all = append(all, e)
		}
	}
	return all
}

// laneKey is what the key of a further lane has in the end.
func laneKey(n int) string { return " #" + strconv.Itoa(n+1) }

// count makes known how many calls there are; e.mu is held.
func (e *endpoint) count() { e.calls.Store(int64(e.queue.n + e.pending)) }

// rest begins a pause without calls, which may become the end; e.mu is held.
func (e *endpoint) rest() {
	switch {
	case e.over != nil || e.to.member:
	case e.idle == nil:
		e.rested, e.idle = time.Now(), time.AfterFunc(VainLimit, e.retire)
	default:
		e.rested = time.Now()
		e.idle.Reset(VainLimit)
	}
}

// retire closes an endpoint that has been idle. The next call makes a new one.
func (e *endpoint) retire() {
	limit := IdleLimit
	if e.condition.vain() {
		limit = VainLimit
	}
	e.mu.Lock()
	busy := e.over != nil || e.ticking
	if idle := min(time.Since(e.rested), e.conn.unused()); !busy && idle < limit { // or single calls, or streams
		busy = true
		e.idle.Reset(min(limit-idle, VainLimit))
	}
	e.mu.Unlock()
	if !busy && e.pool.remove(e) {
		e.pool.tasks.Go("transport drain", func(ctx context.Context) { e.drain(ctx) })
	}
}
