// Package tso gives out timestamps as PD does: a physical part that follows the clock
// and never goes back, a logical one that counts within a millisecond, and a saved
// bound, ahead of every timestamp given out, that a restart begins after.
package tso

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Rules of PD: pkg/tso/tso.go.
const (
	logicalBits = 18
	maxLogical  = 1 << logicalBits
	// window is how far ahead of use the bound is saved (the leader lease setting).
	window = 5 * time.Second
	// guard is how near to the bound it is saved anew.
	guard = time.Millisecond
	// latest is where a jump may end at most, in milliseconds: in the year 2527, so that
	// what follows is far from 2^63, above which no timestamp is for clients.
	latest = 1 << 44
)

// Allocator gives out timestamps.
type Allocator struct {
	now  func() time.Time
	save func(bound uint64) error

	mu       sync.Mutex
	physical int64 // ms
	logical  int64 // the last one given out in physical
	bound    int64 // ms; saved

	stalled chan struct{} // closed when the stall ends; nil: none
}

// New returns an allocator whose timestamps are above all that were given out under
// saved, the last bound that was saved (0: none).
func New(now func() time.Time, saved uint64, save func(bound uint64) error) *Allocator {
	a := &Allocator{now: now, save: save, bound: int64(saved)}
	if saved > 0 {
		a.physical = int64(saved) + guard.Milliseconds()
	}
	return a
}

// The errors of Next: for no timestamps, and for more than a millisecond holds, which PD
// tries in vain (pkg/tso/tso.go, getTS).
var (
	ErrCount    = errors.New("tso count should be positive")
	ErrOverflow = errors.New("generate tso maximum number of retries exceeded")
)

// Next returns the last of count consecutive timestamps of one millisecond: theirs are
// the logical parts logical-count+1 to logical.
func (a *Allocator) Next(count uint32) (physical, logical int64, err error) {
	n := int64(count)
	if n == 0 {
		return 0, 0, ErrCount
	}
	if n >= maxLogical {
		return 0, 0, ErrOverflow
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	at, used := a.physical, a.logical
	if now := a.now().UnixMilli(); now > at {
		at, used = now, 0
	} else if used > maxLogical/2 { // keep room, as PD's tick does
		at, used = at+1, 0
	}
	if used+n >= maxLogical {
		at, used = at+1, 0
	}
	if a.bound-at <= guard.Milliseconds() {
		bound := at + window.Milliseconds()
		if err := a.save(uint64(bound)); err != nil {
			return 0, 0, err
		}
		a.bound = bound
	}
	a.physical, a.logical = at, used+n
	return a.physical, a.logical, nil
}

// Sync begins anew, as a new leader of PD does: behind the saved bound, or at the clock if
// that is ahead of it (PD: pkg/tso/tso.go, syncTimestamp).
func (a *Allocator) Sync() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if next := max(a.bound+guard.Milliseconds(), a.now().UnixMilli()); a.bound > 0 && next > a.physical {
		a.physical, a.logical = next, 0
	}
}

// Limit is at or above every timestamp that was given out, or can be now.
func (a *Allocator) Limit() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Compose(max(a.physical, a.now().UnixMilli()), maxLogical-1)
}

// Jump moves the timestamps ahead: they go on from d after the clock, or after the last
// one if that is later. The clock catches up by and by (PD's reset-ts, pkg/tso, has the
// same effect). They do not go back, nor beyond the latest.
func (a *Allocator) Jump(d time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d < 0 {
		return errors.New("timestamps do not go back")
	}
	to := max(a.physical, a.now().UnixMilli()) + d.Milliseconds()
	if to > latest {
		return fmt.Errorf("there are no timestamps at %v", time.UnixMilli(to).UTC())
	}
	if d > 0 {
		a.physical, a.logical = to, 0
	}
	return nil
}

// Stall begins or ends a time in which Wait waits.
func (a *Allocator) Stall(stalled bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case stalled && a.stalled == nil:
		a.stalled = make(chan struct{})
	case !stalled && a.stalled != nil:
		close(a.stalled)
		a.stalled = nil
	}
}

// Stalled reports whether Wait would wait.
func (a *Allocator) Stalled() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stalled != nil
}

// Wait returns when there is no stall, or with the cause of the end of one of the
// contexts.
func (a *Allocator) Wait(ctx, other context.Context) error {
	for {
		a.mu.Lock()
		stalled := a.stalled
		a.mu.Unlock()
		if stalled == nil {
			return nil
		}
		select {
		case <-stalled:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-other.Done():
			return context.Cause(other)
		}
	}
}

// Compose makes a timestamp of its parts.
func Compose(physical, logical int64) uint64 { return uint64(physical)<<logicalBits | uint64(logical) }
