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

	"github.com/pingcap/kvproto/pkg/keyspacepb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/etcd"
	"github.com/tikv-go/tikv/playground/internal/meta"
)

// gcStates are the safe points and barriers of each scope: keyspaces that manage their
// GC by themselves, and the null keyspace for all others (PD:
// pkg/gc/gc_state_manager.go). Global barriers bind every scope.
type gcStates struct {
	meta *meta.Store
	kv   *etcd.KV // shows the txn safe points, and has the bounds of old servers

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

func (g *gcStates) load(m *meta.Store, kv *etcd.KV) error {
	g.meta, g.kv = m, kv
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
		if err := g.show(uint32(id), scope.Txn); err != nil {
			return err
		}
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
		err = g.show(id, s.Txn)
	}
	return err
}

// show lets etcd have a scope's txn safe point.
func (g *gcStates) show(id uint32, ts uint64) error {
	key, text := txnSafePointKey(id), strconv.FormatUint(ts, 10)
	shown, _, err := g.kv.Range([]byte(key), nil, 0)
	if err != nil || ts == 0 || len(shown) > 0 && string(shown[0].Value) == text {
		return err
	}
	return g.kv.Put(key, []byte(text))
}

// refused is an error in PD's words (PD: pkg/errs/errno.go).
func refused(code, format string, args ...any) error {
	return fmt.Errorf("[PD:"+code+"]"+format, args...)
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

// advance is what became of an advance of a txn safe point: blocker says what held it
// back, service under what name the old form of the call tells of that.
type advance struct {
	before, after    uint64
	blocker, service string
}

// advanceTxn moves a scope's txn safe point up to target, or as far as the barriers and
// the oldest transactions of old TiDB servers let it. Expired barriers that it meets are
// deleted (PD: advanceTxnSafePointImpl).
func (g *gcStates) advanceTxn(id uint32, target uint64, now time.Time) (advance, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.scope(id)
	if target < s.Txn {
		return advance{}, refused("gc:ErrDecreasingTxnSafePoint",
			"trying to update txn safe point to a smaller value, current value: %d, given: %d", s.Txn, target)
	}
	a := advance{before: s.Txn, after: target}
	a.hold("GCBarrier", s.Barriers, now)
	server, ts, err := g.minStart(id)
	if err != nil {
		return advance{}, err
	}
	if server != "" && ts != 0 && ts < a.after {
		a.after, a.service = ts, "tidb_min_start_ts_"+server
		a.blocker = fmt.Sprintf("TiDBMinStartTS { Key: %+q, MinStartTS: %d }", server, max(ts, a.before))
	}
	global := maps.Clone(g.global)
	if a.hold("GlobalGCBarrier", global, now) {
		if err := g.saveGlobal(global); err != nil {
			return advance{}, err
		}
	}
	a.after = max(a.before, a.after)
	s.Txn = a.after
	return a, g.save(id, s)
}

// hold lets barriers hold an advance back, and reports whether it deleted expired ones.
func (a *advance) hold(kind string, all map[string]barrier, now time.Time) (dropped bool) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch b := all[name]; {
		case b.expired(now):
			delete(all, name)
			dropped = true
		case b.TS < a.after:
			a.after, a.service = b.TS, name
			a.blocker = b.describe(kind, name)
		}
	}
	return dropped
}

// describe is a barrier in PD's words (PD: pkg/storage/endpoint/gc_states.go, String).
func (b barrier) describe(kind, name string) string {
	expires := "<nil>"
	if !b.Expires.IsZero() {
		expires = b.Expires.String()
	}
	return fmt.Sprintf("%s { BarrierID: %+q, BarrierTS: %d, ExpirationTime: %+q }", kind, name, b.TS, expires)
}

// minStart is the oldest transaction that TiDB servers wrote to etcd, and which server's
// it is (PD: pkg/storage/endpoint/gc_states.go, CompatibleLoadTiDBMinStartTS).
func (g *gcStates) minStart(id uint32) (server string, ts uint64, err error) {
	prefix := minStartPrefix(id)
	pairs, _, err := g.kv.Range([]byte(prefix), keys.PrefixEnd([]byte(prefix)), 0)
	if err != nil {
		return "", 0, err
	}
	for _, p := range pairs {
		n, err := strconv.ParseUint(string(p.Value), 10, 64)
		if err != nil {
			return "", 0, refused("strconv:ErrStrconvParseUint", "parse uint error: %v", err)
		}
		if server == "" || n < ts {
			server, ts = string(p.Key[len(prefix):]), n
		}
	}
	return server, ts, nil
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
		return 0, 0, refused("gc:ErrDecreasingGCSafePoint",
			"trying to update GC safe point to a smaller value, current value: %d, given: %d", s.GC, target)
	case target > s.Txn:
		return 0, 0, refused("gc:ErrGCSafePointExceedsTxnSafePoint",
			"trying to update GC safe point to a too large value that exceeds the txn safe point, current value: %d, given: %d, current txn safe point: %d",
			s.GC, target, s.Txn)
	}
	before = s.GC
	s.GC = target
	return before, target, g.save(id, s)
}

// reservedBarrier is the name under which old servers kept the txn safe point, and
// backupBarrier the one under which backups bind all keyspaces.
const (
	reservedBarrier = "gc_worker"
	backupBarrier   = "native_br"
)

func checkTTL(ttlSeconds int64) error {
	if ttlSeconds <= 0 {
		return refused("common:ErrInvalidArgument", "invalid argument for ttl: 0s")
	}
	return nil
}

func checkName(name string, reserved bool) error {
	switch {
	case reserved && name == reservedBarrier:
		return refused("gc:ErrReservedGCBarrierID", "trying to set a GC barrier with a barrier ID that is reserved: %s", name)
	case name == "":
		return refused("common:ErrInvalidArgument", "invalid argument for barrierID: ")
	}
	return nil
}

// behind is a barrier below the txn safe point that it is to hold back.
type behind struct{ error }

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
	if err := checkName(name, true); err != nil {
		return barrier{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.scope(id)
	if ts < s.Txn {
		return barrier{}, behind{refused("gc:ErrGCBarrierTSBehindTxnSafePoint",
			"trying to set a GC barrier on ts %d which is already behind the txn safe point %d", ts, s.Txn)}
	}
	b := barrier{ts, expiry(ttlSeconds, now)}
	s.Barriers[name] = b
	return b, g.save(id, s)
}

// deleteBarrier removes a barrier and returns it; an unknown one is no error.
func (g *gcStates) deleteBarrier(id uint32, name string) (b barrier, found bool, err error) {
	if err := checkName(name, true); err != nil {
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

// highest is the highest txn safe point of the enabled keyspaces and of the null one, and
// whose it is (PD: getMaxTxnSafePointAmongAllKeyspaces). Callers hold the lock.
func (g *gcStates) highest(all []*keyspacepb.KeyspaceMeta) (ts uint64, of string) {
	for _, k := range all {
		if s := g.scopes[k.GetId()]; s != nil && s.Txn > ts && k.State == keyspacepb.KeyspaceState_ENABLED {
			ts, of = s.Txn, fmt.Sprintf("{ name: %q, id: %d }", k.Name, k.GetId())
		}
	}
	if s := g.scopes[NullKeyspace]; s.Txn > ts {
		ts, of = s.Txn, "<null_keyspace>"
	}
	return ts, of
}

// setGlobal adds or replaces a barrier for all scopes, at or above the highest of their
// txn safe points.
func (g *gcStates) setGlobal(all []*keyspacepb.KeyspaceMeta, name string, ts uint64, ttlSeconds int64, now time.Time) (barrier, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if highest, of := g.highest(all); ts < highest {
		return barrier{}, behind{refused("gc:ErrGlobalGCBarrierTSBehindTxnSafePoint",
			"trying to set a global GC barrier on ts %d which is already behind the txn safe point %d of keyspace %s", ts, highest, of)}
	}
	b := barrier{ts, expiry(ttlSeconds, now)}
	with := maps.Clone(g.global)
	with[name] = b
	return b, g.saveGlobal(with)
}

// deleteGlobal removes a global barrier, as deleteBarrier does one of a scope.
func (g *gcStates) deleteGlobal(name string) (b barrier, found bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b, found = g.global[name]; !found {
		return b, false, nil
	}
	all := maps.Clone(g.global)
	delete(all, name)
	return b, true, g.saveGlobal(all)
}

// updateService is the old form of all that, of the null keyspace, where GC itself and
// its barriers are services with a safe point each. It returns the lowest of them, whose
// it is, and refuses less than the calls of today (PD: CompatibleUpdateServiceGCSafePoint).
func (g *gcStates) updateService(all []*keyspacepb.KeyspaceMeta, service string, ts uint64, ttlSeconds int64, now time.Time) (lowest uint64, of string, err error) {
	switch {
	case service == reservedBarrier && ttlSeconds != math.MaxInt64:
		return 0, "", errors.New("TTL of gc_worker's service safe point must be infinity")
	case service == reservedBarrier:
		a, err := g.advanceTxn(NullKeyspace, ts, now)
		if a.after != ts {
			return a.after, a.service, err
		}
		return ts, reservedBarrier, err
	case service == backupBarrier && ttlSeconds > 0:
		_, err = g.setGlobal(all, service, ts, ttlSeconds, now)
	case service == backupBarrier:
		_, _, err = g.deleteGlobal(service)
	case ttlSeconds > 0:
		_, err = g.setBarrier(NullKeyspace, service, ts, ttlSeconds, now)
	default:
		_, _, err = g.deleteBarrier(NullKeyspace, service)
	}
	if late := (behind{}); err != nil && !errors.As(err, &late) {
		return 0, "", err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if service == backupBarrier {
		lowest, _ = g.highest(all)
		return lowest, reservedBarrier, nil
	}
	return g.scopes[NullKeyspace].Txn, reservedBarrier, nil
}
