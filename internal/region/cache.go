package region

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

// PD is where the cache loads from. A Found without Meta means that PD knows none.
type PD interface {
	Region(ctx context.Context, key []byte) (Found, error)
	// PrevRegion finds the region that holds the keys just before key.
	PrevRegion(ctx context.Context, key []byte) (Found, error)
	ScanRegions(ctx context.Context, r keys.Range, limit int) ([]Found, error)
	// Store returns nil for a store that PD does not know.
	Store(ctx context.Context, id uint64) (*metapb.Store, error)
	// Stores returns those that were not removed.
	Stores(ctx context.Context) ([]*metapb.Store, error)
}

// Config is what a cache may be made with.
type Config struct {
	// Probe asks the store at an address whether it serves; nil: that the next request
	// shows.
	Probe func(ctx context.Context, addr string) error
	// MaxInFlight bounds the requests to a store that are under way; 0: 16384.
	MaxInFlight int32
	// Changed is told what the cache learns, on the goroutine that learns it, without locks
	// held; nil: nobody.
	Changed func(Change)
}

const maxInFlight = 1 << 14

// Change is what a cache has learned.
type Change struct {
	Kind          ChangeKind
	Region, Store uint64
}

// ChangeKind is a kind of change.
type ChangeKind uint8

// The kinds.
const (
	LeaderMoved   ChangeKind = iota // of the region, to the store
	EpochChanged                    // a region came in the place of others: split, merge, other peers
	RegionEvicted                   // an entry went: it was wrong, not used, or one too many
	StoreUp                         // after StoreDown: the store answers again
	StoreDown                       // the store does not answer
	StoreGone                       // PD does not know the store any more
)

func (c *Cache) tell(what Change) {
	if c.cfg.Changed != nil {
		c.cfg.Changed(what)
	}
}

// Failures of a load that may succeed later.
var (
	ErrNoRegion = errors.New("region: PD knows no region for the key")
	ErrNoPeer   = errors.New("region: no peer of the region can lead")
	ErrStale    = errors.New("region: PD is behind the stores")
)

// Cache is safe for concurrent use. All its keys are region keys.
type Cache struct {
	cfg   Config
	pd    PD
	tasks *task.Group
	start time.Time // of the cache's clock

	index atomic.Pointer[index]
	mu    sync.Mutex    // held by writers of index, never across a wait
	swept time.Duration // when expired entries were last removed

	loads, endLoads flights[*Region]
	stores          storeCache
	gate            gate // of probes
}

// New returns an empty cache. Its loads are tasks of the group.
func New(pd PD, tasks *task.Group) *Cache { return NewWith(pd, tasks, Config{}) }

// NewWith is New with a configuration.
func NewWith(pd PD, tasks *task.Group, cfg Config) *Cache {
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = maxInFlight
	}
	c := &Cache{cfg: cfg, pd: pd, tasks: tasks, start: time.Now()}
	c.index.Store(&index{})
	return c
}

// now is the time on the cache's clock.
func (c *Cache) now() time.Duration { return time.Since(c.start) }

// Lookup returns the cached region that holds key, or nil.
func (c *Cache) Lookup(key []byte) *Region { return c.touch(c.index.Load().find(key)) }

// LookupEnd returns the cached region that holds the keys just before key, or nil. The
// empty key is the end of all keys.
func (c *Cache) LookupEnd(key []byte) *Region { return c.touch(c.index.Load().findEnd(key)) }

// touch returns r if it is fit for use, and notes that it is used.
func (c *Cache) touch(r *Region) *Region {
	if r == nil {
		return nil
	}
	now := time.Since(c.start)
	if r.expired(now) {
		return nil
	}
	// Written at most every idleMore: the entry is shared by all processors.
	if !r.suspect && time.Duration(r.usedUntil.Load())-now < idleAge-idleMore {
		r.usedUntil.Store(int64(now + idleAge))
	}
	return r
}

func (r *Region) expired(now time.Duration) bool { return time.Duration(r.usedUntil.Load()) < now }

// Locate returns the region that holds key, from PD if it is not cached. With ErrStale
// it returns what PD says although the cache knows better, and has no answer: a store
// can tell.
func (c *Cache) Locate(ctx context.Context, key []byte) (*Region, error) {
	if r := c.Lookup(key); r != nil {
		return r, nil
	}
	return c.loads.do(ctx, c.tasks, "region load", string(key), c.load)
}

// LocateEnd is Locate for the region that holds the keys just before key; the empty
// key is the end of all keys.
func (c *Cache) LocateEnd(ctx context.Context, key []byte) (*Region, error) {
	if r := c.LookupEnd(key); r != nil {
		return r, nil
	}
	return c.endLoads.do(ctx, c.tasks, "region load", string(key), c.loadEnd)
}

func (c *Cache) load(ctx context.Context, at string) (*Region, error) {
	key := []byte(at)
	if r := c.Lookup(key); r != nil { // another load brought it
		return r, nil
	}
	found, err := c.pd.Region(ctx, key)
	if err != nil {
		return nil, err
	}
	r, err := c.admit(found)
	if err == ErrStale {
		if newer := c.Lookup(key); newer != nil {
			return newer, nil
		}
	}
	return r, err
}

func (c *Cache) loadEnd(ctx context.Context, at string) (*Region, error) {
	key := []byte(at)
	if r := c.LookupEnd(key); r != nil {
		return r, nil
	}
	found, err := c.findEnd(ctx, key)
	if err != nil {
		return nil, err
	}
	r, err := c.admit(found)
	if err == ErrStale {
		if newer := c.LookupEnd(key); newer != nil {
			return newer, nil
		}
	}
	if r != nil && !r.ContainsEnd(key) { // PD changed between the two questions
		return nil, ErrNoRegion
	}
	return r, err
}

// findEnd asks PD. It has no question for the last region: a key of 0xff leads to its
// neighbourhood, and the ends of regions from there.
func (c *Cache) findEnd(ctx context.Context, key []byte) (Found, error) {
	if len(key) > 0 {
		return c.pd.PrevRegion(ctx, key)
	}
	found, err := c.pd.Region(ctx, bytes.Repeat([]byte{0xff}, 64))
	for err == nil && found.Meta != nil && len(found.Meta.GetEndKey()) > 0 {
		found, err = c.pd.Region(ctx, found.Meta.GetEndKey())
	}
	return found, err
}

// Scan loads up to limit regions of r from PD in one round trip, in order. What the
// cache knows better stays as it is, and is not in the result.
func (c *Cache) Scan(ctx context.Context, r keys.Range, limit int) ([]*Region, error) {
	found, err := c.pd.ScanRegions(ctx, r, limit)
	if err != nil {
		return nil, err
	}
	var out []*Region
	for _, f := range found {
		if e, err := c.admit(f); err == nil {
			out = append(out, e)
		}
	}
	return out, nil
}

// admit makes an entry of what PD said and puts it into the index. With ErrStale the
// entry is not in it.
func (c *Cache) admit(f Found) (*Region, error) {
	if f.Meta == nil {
		return nil, ErrNoRegion
	}
	r := f.Region()
	if r == nil {
		return nil, ErrNoPeer
	}
	if !c.insert(r) {
		return r, ErrStale
	}
	return r, nil
}

// insert puts r in the place of all it overlaps, unless one of them is newer: another
// region of a higher version (splits and merges raise it above all that took part), or
// the same one of a higher epoch (PD pkg/core/region.go has the same rule).
func (c *Cache) insert(r *Region) bool {
	now := time.Since(c.start)
	r.usedUntil.Store(int64(now + idleAge + rand.N(idleMore)))
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.index.Load()
	if now-c.swept >= idleMore { // what is not used goes when something new comes
		x, c.swept = x.live(now), now
	}
	out := x.overlapping(r.Range)
	if slices.ContainsFunc(out, func(o *Region) bool { return o.newerThan(r) }) {
		c.index.Store(x)
		return false
	}
	c.index.Store(x.replace(out, r))
	return true
}

func (r *Region) newerThan(o *Region) bool {
	a, b := r.Epoch, o.Epoch
	if a.GetVersion() != b.GetVersion() {
		return a.GetVersion() > b.GetVersion()
	}
	return r.ID == o.ID && a.GetConfVer() > b.GetConfVer()
}

// Invalidate removes r if it is still what the cache holds.
func (c *Cache) Invalidate(r *Region) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.index.Load(); x.find(r.Range.Start) == r {
		c.index.Store(x.replace([]*Region{r}, nil))
	}
}

// UpdateLeader notes that the peer leads r, and returns the entry that says so; nil if
// r has no such peer: it is not cached any more then.
func (c *Cache) UpdateLeader(r *Region, peer uint64) *Region {
	if cur := c.index.Load().find(r.Range.Start); cur != nil && cur.ID == r.ID && cur.Epoch.Version == r.Epoch.Version {
		r = cur
	}
	i := r.PeerIndex(peer)
	if i < 0 {
		c.Invalidate(r)
		return nil
	}
	r.leader.Store(int32(i))
	return r
}

// ReplaceEpoch takes over the regions that a store told in an EpochNotMatch about r. It
// reports true, and changes nothing, if the store itself is behind: it has yet to
// apply what the cache has seen. The store is taken for the leader of those regions
// that have a peer on it.
func (c *Cache) ReplaceEpoch(r *Region, current []*metapb.Region, store uint64) (behind bool) {
	same := false
	for _, m := range current {
		e := m.GetRegionEpoch()
		if m.GetId() != r.ID {
			continue
		}
		if e.GetVersion() < r.Epoch.GetVersion() || e.GetConfVer() < r.Epoch.GetConfVer() {
			return true
		}
		same = same || (e.GetVersion() == r.Epoch.GetVersion() && e.GetConfVer() == r.Epoch.GetConfVer())
	}
	if !same {
		c.Invalidate(r)
	}
	for _, m := range current {
		f := Found{Meta: m}
		if i := slices.IndexFunc(m.GetPeers(), func(p *metapb.Peer) bool { return p.GetStoreId() == store }); i >= 0 {
			f.Leader = m.GetPeers()[i]
		}
		_, _ = c.admit(f) // stale ones and those without a leader are of no use
	}
	return false
}

// Len counts the cached regions.
func (c *Cache) Len() int {
	n := 0
	for _, chunk := range c.index.Load().chunks {
		n += len(chunk)
	}
	return n
}
