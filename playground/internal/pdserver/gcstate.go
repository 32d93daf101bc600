package pdserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tikv-go/tikv/playground/internal/meta"
)

// gcStates are the safe points and barriers of each scope: keyspaces that manage their
// GC by themselves, and the null keyspace for all others (PD:
// pkg/gc/gc_state_manager.go). Global barriers bind every scope.
type gcStates struct {
	meta *meta.Store

	mu     sync.Mutex
	scopes map[uint32]*gcScope
	global map[string]barrier
}

type gcScope struct {
	Txn, GC  uint64
	Barriers map[string]barrier
}

type barrier struct {
	TS      uint64
	Expires time.Time // zero: never
}

func (b barrier) expired(now time.Time) bool { return !b.Expires.IsZero() && now.After(b.Expires) }

// seconds is a barrier's remaining time as clients are told: whole seconds, the greatest
// number for one that stays.
func (b barrier) seconds(now time.Time) int64 {
	if b.Expires.IsZero() {
		return math.MaxInt64
	}
	return max(0, int64(b.Expires.Sub(now)/time.Second))
}

const globalGC = "gc-global"

func (g *gcStates) load(m *meta.Store) error {
	g.meta = m
	g.scopes = map[uint32]*gcScope{NullKeyspace: {Barriers: make(map[string]barrier)}}
	g.global = make(map[string]barrier)
	for name, data := range m.Values("gc/") {
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return fmt.Errorf("playground: the directory's GC state %q is damaged: %w", name, err)
		}
		scope := &gcScope{Barriers: make(map[string]barrier)}
		if err := json.Unmarshal(data, scope); err != nil {
			return fmt.Errorf("playground: the directory's GC state %q is damaged: %w", name, err)
		}
		g.scopes[uint32(id)] = scope
	}
	if data, ok := m.Value(globalGC); ok {
		if err := json.Unmarshal(data, &g.global); err != nil {
			return fmt.Errorf("playground: the directory's global GC barriers are damaged: %w", err)
		}
	}
	return nil
}

// scope returns a copy of a scope's state. Callers hold the lock.
func (g *gcStates) scope(id uint32) gcScope {
	if s := g.scopes[id]; s != nil {
		return gcScope{s.Txn, s.GC, maps.Clone(s.Barriers)}
	}
	return gcScope{Barriers: make(map[string]barrier)}
}

// save makes a scope's new state the present one. Callers hold the lock.
func (g *gcStates) save(id uint32, s gcScope) error {
	data, err := json.Marshal(s)
	if err == nil {
		err = g.meta.SetValue("gc/"+strconv.FormatUint(uint64(id), 10), data)
	}
	if err == nil {
		g.scopes[id] = &s
	}
	return err
}

func (g *gcStates) saveGlobal(b map[string]barrier) error {
	data, err := json.Marshal(b)
	if err == nil {
		err = g.meta.SetValue(globalGC, data)
	}
	if err == nil {
		g.global = b
	}
	return err
}

// state returns a scope's state and the global barriers.
func (g *gcStates) state(id uint32) (gcScope, map[string]barrier) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.scope(id), maps.Clone(g.global)
}

// advanceTxn moves a scope's txn safe point up to target, or as far as the barriers let
// it; blocker says which one held it back. Expired barriers that it meets are deleted.
func (g *gcStates) advanceTxn(id uint32, target uint64, now time.Time) (before, after uint64, blocker string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.scope(id)
	if target < s.Txn {
		return 0, 0, "", fmt.Errorf("decreasing txn safe point is not allowed, current value: %d, attempted new value: %d", s.Txn, target)
	}
	before, after = s.Txn, target
	hold := func(kind string, all map[string]barrier) (dropped bool) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			b := all[name]
			if b.expired(now) {
				delete(all, name)
				dropped = true
			} else if b.TS < after {
				after = b.TS
				blocker = fmt.Sprintf("%s { BarrierID: %+q, BarrierTS: %d }", kind, name, b.TS)
			}
		}
		return dropped
	}
	hold("GCBarrier", s.Barriers)
	global := maps.Clone(g.global)
	if hold("GlobalGCBarrier", global) {
		if err := g.saveGlobal(global); err != nil {
			return 0, 0, "", err
		}
	}
	after = max(before, after)
	s.Txn = after
	return before, after, blocker, g.save(id, s)
}

// advanceGC moves a scope's GC safe point, which stays at or below its txn safe point.
// The lenient form, of an old call, ignores a target that is too low.
func (g *gcStates) advanceGC(id uint32, target uint64, lenient bool) (before, after uint64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.scope(id)
	switch {
	case target < s.GC && lenient:
		return s.GC, s.GC, nil
	case target < s.GC:
		return 0, 0, fmt.Errorf("decreasing GC safe point is not allowed, current value: %d, attempted new value: %d", s.GC, target)
	case target > s.Txn:
		return 0, 0, fmt.Errorf("gc safe point exceeds txn safe point, current GC safe point: %d, attempted new GC safe point: %d, txn safe point: %d", s.GC, target, s.Txn)
	}
	before = s.GC
	s.GC = target
	return before, target, g.save(id, s)
}

// reservedBarrier is the name under which old servers kept the txn safe point.
const reservedBarrier = "gc_worker"

func checkBarrier(name string, ttlSeconds int64) error {
	switch {
	case ttlSeconds <= 0:
		return fmt.Errorf("invalid argument: ttl: %d", ttlSeconds)
	case name == reservedBarrier:
		return fmt.Errorf("trying to set a GC barrier with a barrierID that is reserved: %s", name)
	case name == "":
		return errors.New("invalid argument: barrierID: empty")
	}
	return nil
}

// expiry is when a barrier ends, a whole second (PD: pkg/storage/endpoint/gc_states.go,
// NewGCBarrier).
func expiry(ttlSeconds int64, now time.Time) time.Time {
	if ttlSeconds > int64(math.MaxInt64/time.Second) {
		return time.Time{}
	}
	return now.Add(time.Duration(ttlSeconds)*time.Second + time.Second - 1).Truncate(time.Second)
}

// setBarrier adds or replaces a barrier at or above the txn safe point.
func (g *gcStates) setBarrier(id uint32, name string, ts uint64, ttlSeconds int64, now time.Time) (barrier, error) {
	if err := checkBarrier(name, ttlSeconds); err != nil {
		return barrier{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.scope(id)
	if ts < s.Txn {
		return barrier{}, fmt.Errorf("trying to set a GC barrier on ts %d which is already behind the txn safe point %d", ts, s.Txn)
	}
	b := barrier{ts, expiry(ttlSeconds, now)}
	s.Barriers[name] = b
	return b, g.save(id, s)
}

// deleteBarrier removes a barrier and returns it; an unknown one is no error.
func (g *gcStates) deleteBarrier(id uint32, name string) (b barrier, found bool, err error) {
	if err := checkBarrier(name, 1); err != nil {
		return barrier{}, false, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.scope(id)
	if b, found = s.Barriers[name]; !found {
		return b, false, nil
	}
	delete(s.Barriers, name)
	return b, true, g.save(id, s)
}

// setGlobal adds or replaces a barrier for all scopes, at or above the highest of their
// txn safe points.
func (g *gcStates) setGlobal(name string, ts uint64, ttlSeconds int64, now time.Time) (barrier, error) {
	if err := checkBarrier(name, ttlSeconds); err != nil {
		return barrier{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.scopes {
		if ts < s.Txn {
			return barrier{}, fmt.Errorf("trying to set a global GC barrier on ts %d which is already behind the txn safe point %d", ts, s.Txn)
		}
	}
	b := barrier{ts, expiry(ttlSeconds, now)}
	all := maps.Clone(g.global)
	all[name] = b
	return b, g.saveGlobal(all)
}

// deleteGlobal removes a global barrier, as deleteBarrier does one of a scope.
func (g *gcStates) deleteGlobal(name string) (b barrier, found bool, err error) {
	if err := checkBarrier(name, 1); err != nil {
		return barrier{}, false, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if b, found = g.global[name]; !found {
		return b, false, nil
	}
	all := maps.Clone(g.global)
	delete(all, name)
	return b, true, g.saveGlobal(all)
}
