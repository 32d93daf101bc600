package region

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/keys"
)

// The upkeep goes round through the entries once in a minute, a part of them at a time. An
// entry without use goes after ten rounds, some after one more, so that what was loaded
// together does not go together (facts section 7). One in use that is in doubt, and one for
// ten rounds that has a peer or store which is down, is loaded again in the background;
// until then it serves.
const (
	upkeepTick  = 5 * time.Second
	upkeepRound = time.Minute
	idleRounds  = 10
)

// keep starts the upkeep, which ends when there are no entries; c.mu is held.
func (c *Cache) keep() {
	if !c.kept {
		c.kept = c.tasks.Go("region upkeep", c.upkeep)
	}
}

func (c *Cache) upkeep(ctx context.Context) {
	const ticks = int(upkeepRound / upkeepTick)
	var at []byte // where the round has come to; nil: it is over
	begin := 0
	for tick := 0; backoff.Sleep(ctx, upkeepTick) == nil; tick++ {
		c.mu.Lock()
		n := c.index.Load().n
		c.kept = n > 0
		c.mu.Unlock()
		if n == 0 {
			return
		}
		if at == nil {
			if tick < begin { // the round was over before its time
				continue
			}
			begin = tick + ticks
		}
		at = c.round(ctx, at, n/ticks+1)
	}
}

// round looks at some regions from a key on, and returns the key to go on from.
func (c *Cache) round(ctx context.Context, from []byte, n int) (next []byte) {
	var old []*Region
	var again []keys.Range
	gone := c.awayStores()
	c.index.Load().walk(from, func(r *Region) bool {
		if string(r.Range.Start) < string(from) {
			return true
		}
		if n--; n < 0 {
			next = r.Range.Start
			return false
		}
		drop, refresh := r.older(gone)
		if drop {
			old = append(old, r)
		}
		if refresh && len(again) < loadBatch {
			again = append(again, keys.Range{Start: r.Range.Start, End: keys.Next(r.Range.Start)})
		}
		return true
	})
	c.drop(old)
	if len(again) > 0 {
		_, _ = c.scan(ctx, again, len(again)) // else the next round
	}
	return next
}

// older makes r a round older, and tells what is to be done with it.
func (r *Region) older(gone map[uint64]bool) (drop, refresh bool) {
	m := r.marks.And(^uint32(used))
	if m&(used|invalid) != used {
		r.idle++
		return r.idle > idleRounds || r.idle == idleRounds && rand.N(2) == 0, false
	}
	r.idle = 0
	if r.down != 0 || r.on(gone) {
		r.age++
	}
	return false, m&doubted != 0 || r.age >= idleRounds
}

// on reports whether one of the stores has a peer.
func (r *Region) on(stores map[uint64]bool) bool {
	for i := range r.peers {
		if stores[r.peers[i].StoreId] {
			return true
		}
	}
	return false
}

// awayStores returns the stores that do not answer.
func (c *Cache) awayStores() map[uint64]bool {
	var gone map[uint64]bool
	if m := c.stores.byID.Load(); m != nil {
		for id, s := range *m {
			if s.Away() {
				if gone == nil {
					gone = make(map[uint64]bool)
				}
				gone[id] = true
			}
		}
	}
	return gone
}

// drop takes entries out, if they still are in.
func (c *Cache) drop(old []*Region) {
	if len(old) == 0 {
		return
	}
	c.mu.Lock()
	e := c.index.Load().edit()
	for i, r := range old {
		if e.find(r.Range.Start) != r {
			old[i] = nil
			continue
		}
		c.take(e, r)
	}
	c.index.Store(e.done())
	c.mu.Unlock()
	for _, r := range old {
		if r != nil && !r.told() {
			c.evicted.Add(1)
			c.tell(Change{Kind: RegionEvicted, Region: r.ID})
		}
	}
}

// evictLooks bounds the work of an insertion that exceeds the budget.
const evictLooks = 64

// evict makes room where the entries are over their budget: a hand goes round, and takes
// what was not used since it came by last; of several in use, it takes the first. c.mu is
// held.
func (c *Cache) evict(e *edit, keep *Region) (gone []*Region) {
	for c.bytes > c.cfg.Bytes && e.n > 1 {
		var look []*Region
		e.walk(c.hand, func(r *Region) bool {
			if string(r.Range.Start) >= string(c.hand) && r != keep {
				look = append(look, r)
			}
			return len(look) < evictLooks
		})
		if c.hand = nil; len(look) == evictLooks {
			c.hand = keys.Next(look[len(look)-1].Range.Start)
		}
		before := len(gone)
		for i := range look {
			if c.bytes > c.cfg.Bytes && look[i].marks.And(^uint32(used))&used == 0 {
				gone = append(gone, look[i])
				c.take(e, look[i])
			}
		}
		if len(gone) == before && len(look) > 0 {
			gone = append(gone, look[0])
			c.take(e, look[0])
		}
	}
	return gone
}

// take takes an entry out; c.mu is held.
func (c *Cache) take(e *edit, r *Region) {
	e.drop(r)
	c.bytes -= int64(r.bytes)
}
